"""RUN/preview.png: held-out frames beside what the part that is trained makes of them."""

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from framepred.io.atomic import writing
from framepred.tokens.store import TokenEpisode, to_png
from framepred.training.embedding import with_plain_rows
from framepred.video.panels import draw_filmstrip
from framepred.world.rollout import predict
from framepred.world.run import Run

FRAMES = 8
"""Frames that are shown."""
_CONTEXT, _CLIPS = 4, 2
_SHARE = 0.03
"""Of the time of training, what drawing may have taken up to the next picture."""


class Preview:
    """Keeps a picture of what training has reached: at the first validation, and then as often as costs little time."""

    def __init__(self, file: Path, draw: Callable[[], Tensor | None]) -> None:
        self._file, self._draw = file, draw
        self._began, self._spent = time.monotonic(), 0.0

    def update(self, at_end: bool = False) -> None:
        """Draw anew, unless drawing has taken too much of the time; at the end in any case."""
        now = time.monotonic()
        if self._spent > _SHARE * (now - self._began) and not at_end:
            return
        picture = self._draw()
        if picture is not None:
            with writing(self._file) as temporary:
                temporary.write_bytes(to_png(picture))
        self._spent += time.monotonic() - now


@torch.inference_mode()
def draw_prediction(run: Run, episodes: Sequence[TokenEpisode]) -> Tensor | None:
    """Draw what comes after the first frames of up to two episodes, as their tokens show it and as a run predicts it.

    The run's predictor may be in training. Returns uint8 (3, H', W'), None where no episode is long enough.
    """
    device = run.predictor.embed.weight.device
    run = replace(run, predictor=with_plain_rows(run.predictor), tokenizer=run.tokenizer.to(device))  # type: ignore[attr-defined]
    # Where a tokenizer needs the first picture, only what begins with it can be shown.
    fitting = [e for e in episodes if len(e.tokens) > _CONTEXT and (run.tokenizer.past < 2 or e.first is not None)]
    longest = sorted(fitting, key=lambda e: -len(e.tokens))[:_CLIPS]
    horizon = min([FRAMES, *(len(e.tokens) - _CONTEXT for e in longest)])
    return torch.cat([_clip(run, e, horizon) for e in longest], 1) if longest else None


def _clip(run: Run, episode: TokenEpisode, horizon: int) -> Tensor:
    tokens, first = episode.tokens[: _CONTEXT + horizon].long(), episode.first
    shown = run.tokenizer.decode(tokens.to(run.predictor.embed.weight.device), episode.actions, first).cpu()
    made = predict(
        run, tokens[:_CONTEXT], episode.actions, horizon, sampling=run.sampling(None, 0, 1.0, 0), first=first
    )
    future = torch.cat([moment.frames for moment in made])
    return draw_filmstrip(shown[:_CONTEXT], {"truth in tokens": shown[_CONTEXT:], "prediction": future})


def draw_given_back(truth: Tensor, made: Tensor) -> Tensor:
    """Draw frames uint8 (T, 3, H, W) above the same as a tokenizer gives them back: uint8 (3, H', W')."""
    return draw_filmstrip(None, {"truth": truth.cpu(), "given back": made.cpu()})
