"""Captions: text that a run's Llama generates after frames, by the weights that also predict frames."""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from framepred.decoding.sampling import Sampling
from framepred.errors import FramepredError
from framepred.llm.text import decode_text, require_text
from framepred.sources.find import find_episode
from framepred.world.device import choose_device
from framepred.world.footage import given_actions, rate_of_run
from framepred.world.rollout import check_actions
from framepred.world.run import Run, load_run


def caption(
    run: Run, tokens: Tensor, actions: Tensor | None, samples: int = 1, sampling: Sampling | None = None,
    most: int = 48,
) -> list[str]:  # fmt: skip
    """Return `samples` captions, of at most `most` tokens each, of frames given as tokens int64 (T, h, w).

    `actions` (≥ T - 1) or None for none. Raises FramepredError where the run knows no text, and where frames and
    text are more than its context.
    """
    past = frames_to_read(run, tokens, actions, most)
    made = run.engine(sampling or Sampling(temperature=0), samples, past.shape[1] + most).text(past, most).tolist()
    end = run.predictor.config.end_of_text
    return [decode_text(run, row[: row.index(end)] if end in row else row) for row in made]


def frames_to_read(run: Run, tokens: Tensor, actions: Tensor | None, most: int) -> Tensor:
    """Return the ids (1, L) of frames between their markers; `most` more ids of text must fit the model's context."""
    require_text(run)
    layout, model = run.layout, run.predictor
    start, stop = layout.vocabulary.markers
    frames = layout.pack(tokens, layout.action_ids(actions, len(tokens) - 1))
    ids = torch.cat([torch.tensor([start]), frames, torch.tensor([stop])]).to(model.embed.weight.device)[None]
    if ids.shape[1] + most > model.config.max_position_embeddings:
        raise FramepredError(
            f"{len(tokens)} frames and {most} tokens of text are {ids.shape[1] + most} ids, the model's context is "
            f"{model.config.max_position_embeddings}: give a smaller context"
        )
    return ids


def caption_video(
    video: str | Path, model: str, context: int | None = None, start: int = 0, actions: str | None = None,
    samples: int = 1, tokens: int = 48, temperature: float = 0.0, seed: int = 0, device: str = "auto",
) -> dict[str, Any]:  # fmt: skip
    """Caption a video file's `context` frames from `start`; None takes as many as the run's window.

    `actions` is a CSV file, "none", or None for the file beside the video.
    """
    sampling = Sampling(temperature, seed=seed)
    run = load_run(model, choose_device(device))
    require_text(run)
    count = run.window if context is None else context
    if count > run.window:
        raise FramepredError(f"context {count} is not allowed: the run sees {run.window} frames; give 1 to that")
    file = find_episode(video, actions)
    given = given_actions(file, actions, run)
    rate = rate_of_run(file, run, given is not None)
    clip = file.read(run.tokenizer.frame_size, rate, start + count, with_actions=False)
    frames = clip.frames[start:]
    if not len(frames) or (context is not None and len(frames) < context):
        raise FramepredError(
            f"{video} has {len(clip.frames)} frames, fewer than {count} from frame {start}; give a smaller --context"
        )
    taken = None
    if given is not None:
        taken = given[0][start : start + len(frames) - 1]
        check_actions(run, taken, len(frames) - 1, given[1])
    captions = caption(run, run.tokenizer.encode(frames, taken).cpu(), taken, samples, sampling, tokens)
    return {
        "model": str(run.path), "video": str(video), "start": start, "context": len(frames), "captions": captions,
        "seed": seed, "temperature": temperature,
    }  # fmt: skip
