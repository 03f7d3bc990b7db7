"""What is going on in a world: a session imagines frames, observes real ones, forks and rewinds."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from framepred.decoding.engine import Engine
from framepred.errors import FramepredError
from framepred.sequence.layout import SequenceLayout
from framepred.tokenizer.contract import Tokenizer
from framepred.video.resize import fit_frames


def window_start(frame: int, window: int) -> int:
    """Return the first frame that the model sees when it predicts `frame`.

    The window slides by half of itself when it is full, so a long rollout re-reads its context once
    in several frames, not once in every frame. It is a function of the frame alone: the result is
    the same as if the model had been started on that window.
    """
    hop = window - window // 2
    return 0 if frame < window else -(-(frame + 1 - window) // hop) * hop


_ROWS = "ids", "tokens", "pictures", "coded", "actions"
"""What a moment has rows of."""


@dataclass(frozen=True)
class Moment:
    """Where a session stands. Tensors have S rows, or one where all samples share their past.

    `frame` is the number of the next frame. `ids` (R, L) are what the model sees: words, then the frames from number
    `start` with the actions between them. `tokens` (R, K + N) are the last frame's. `pictures` uint8 (R, P, 3, H, W)
    and `actions`, (R, A) or (R, A, D), are what the next frame is drawn from; `coded` are the same pictures as their
    tokens give them back, from which a real frame is coded. Pictures are None where none were decoded.
    """

    frame: int
    start: int
    ids: Tensor
    tokens: Tensor
    pictures: Tensor | None = None
    coded: Tensor | None = None
    actions: Tensor | None = None

    def take(self, rows: Tensor) -> "Moment":
        """Return the moment of these samples (R,), which may repeat."""
        values = {name: getattr(self, name) for name in _ROWS}
        return replace(self, **{k: v if v is None or len(v) == 1 else v[rows] for k, v in values.items()})


@dataclass(frozen=True)
class Observation:
    """A frame that came and what was expected: its own tokens int64 (R, N), logits (R, N, V), in raster order.

    R is 1 where all samples had the same past.
    """

    frame: int
    tokens: Tensor
    logits: Tensor

    @property
    def nll(self) -> Tensor:
        """-log p of each token that came, float64 (R, N) in nats."""
        return -self.logits.double().log_softmax(-1).gather(-1, self.tokens[..., None])[..., 0]

    @property
    def entropy(self) -> Tensor:
        """How uncertain each token was before it came, float64 (R, N) in nats."""
        log_p = self.logits.double().log_softmax(-1)
        return -(log_p.exp() * log_p).sum(-1)


class Session:
    """A world that is stepped: S futures, each of which goes on from its own past.

    What it yields is a function of the run, the context, the actions and the seed: the same whether frames are made in
    one call or one at a time, after forks and rewinds or not. Made by `Run.session`.
    """

    def __init__(
        self, tokenizer: Tokenizer, layout: SequenceLayout, window: int, engine: Engine, samples: int,
        moment: Moment, words: int = 0,
    ) -> None:  # fmt: skip
        self.samples, self._tokenizer, self._layout, self._window = samples, tokenizer, layout, window
        self._engine, self._at, self._words = engine, moment, words

    @property
    def frame(self) -> int:
        """The number of the next frame, counted from the first of the context."""
        return self._at.frame

    @property
    def seen(self) -> int:
        """How many of the last frames the next one is predicted from."""
        return self.frame - window_start(self.frame, self._window)

    @property
    def tokens(self) -> Tensor:
        """The last frame's tokens int64 (S, h, w) or (S, K + N)."""
        return self._layout.rows(self._at.tokens.expand(self.samples, -1))

    @property
    def passes(self) -> int:
        """What the model has run so far."""
        return self._engine.passes

    @torch.inference_mode()
    def step(self, action: Any = None) -> Tensor:
        """Imagine the next frame after an action: uint8 (S, 3, H, W).

        An action is an id or (D,) for all samples, int64 (S,) or float32 (S, D) for each, or None where none is given.
        """
        pictures, coded, taken, action_ids = self._given(action)
        context = self._tokenizer.encode_context(pictures, taken)
        offsets = self._layout.offsets(self._at.ids.device)
        guess = self._at.ids[:, -self._layout.frame_tokens :] - offsets
        past = self._past(action_ids, context)
        own = self._engine.frame(past, self.frame, guess.expand(self.samples, -1))
        ids = torch.cat(_together(past, own + offsets), 1)
        self._go_on(ids, torch.cat(_together(context, self._layout.unscanned(own)), 1))
        shown = self._decoded(pictures, taken)
        self._keep(pictures, coded, taken, shown, shown)
        return shown

    @torch.inference_mode()
    def observe(self, frame: Tensor, action: Any = None) -> Observation:
        """Take in the frame that really came after an action, uint8 (3, H, W) or (S, 3, H, W), and go on from it."""
        pictures, coded, taken, action_ids = self._given(action)
        frames = fit_frames(frame if frame.ndim == 4 else frame[None], self._tokenizer.frame_size)
        coded, taken, frames = _together(coded, taken, frames.to(self._at.ids.device))
        context = self._tokenizer.encode_context(coded, taken)
        own = self._tokenizer.encode_next(coded, taken, frames).flatten(1)
        seen = self.observe_tokens(torch.cat([context, own], 1), action_ids)
        if self._tokenizer.past:
            self._keep(pictures, coded, taken, frames, self._decoded(coded, taken))
        return seen

    def observe_tokens(self, tokens: Tensor, action_ids: Tensor) -> Observation:
        """Take in a frame by its tokens (1 or S, K + N), and vocabulary ids (1 or S, slots) of the action before it.

        No picture is decoded: where the tokenizer needs those, nothing can be imagined afterwards.
        """
        return self._read(tokens[:, None], action_ids[:, None])[0]

    def observe_clip(self, tokens: Tensor, action_ids: Tensor) -> Iterator[Observation]:
        """Take in T frames by their tokens (T, K + N) and action ids (T, slots), as `observe_tokens` one by one would.

        Frames that share a window are read in one pass.
        """
        while len(tokens):
            start = window_start(self.frame, self._window)
            same = [window_start(self.frame + i, self._window) == start for i in range(min(len(tokens), self._window))]
            yield from self._read(tokens[None, : sum(same)], action_ids[None, : sum(same)])
            tokens, action_ids = tokens[sum(same) :], action_ids[sum(same) :]

    @torch.inference_mode()
    def _read(self, tokens: Tensor, action_ids: Tensor) -> list[Observation]:
        """Take in T frames that share a window: tokens (1 or S, T, K + N), action ids (1 or S, T, slots)."""
        layout, frame, device, count = self._layout, self.frame, self._at.ids.device, tokens.shape[1]
        tokens, action_ids = _together(tokens.long().to(device), action_ids.to(device))
        rows = layout.row_ids(tokens.flatten(0, 1)).unflatten(0, tokens.shape[:2])
        past = self._past(action_ids[:, 0], tokens[:, 0, : layout.context_tokens])
        # The first action and context tokens end the past.
        new = torch.cat([rows, action_ids.roll(-1, 1)], 2).flatten(1)[:, layout.context_tokens :]
        new = new[:, : len(new[0]) - layout.action_slots]
        logits = self._engine.score(past, new, layout.vocabulary.visual)
        self._go_on(torch.cat(_together(past, new), 1), tokens[:, -1], count)
        observed = []
        for i in range(count):
            own = layout.own_logits(logits[:, i * layout.stride :][:, : layout.frame_tokens])
            own = layout.unscanned(own)
            came = tokens[:, i, layout.context_tokens :].to(own.device).expand(len(own), -1)
            observed.append(Observation(frame + i, came, own))
        return observed

    def fork(self, rows: int | Sequence[int] = 1) -> "Session":
        """Return a session of its own that goes on from here: so many futures of each sample, or of these samples.

        Futures are numbered anew, which decides their noise: those of `fork()` are this session's own.
        """
        count = rows if isinstance(rows, int) else len(rows)
        if count < 1:
            raise FramepredError(f"{rows} forks are not allowed: give 1 or more")
        every = torch.arange(rows * self.samples) % self.samples if isinstance(rows, int) else torch.as_tensor(rows)
        if not 0 <= int(every.min()) <= int(every.max()) < self.samples:
            raise FramepredError(f"sample {every.tolist()} is not one of {self.samples}: give 0 to {self.samples - 1}")
        engine, moment = self._engine.fork(every), self._at.take(every.to(self._at.ids.device))
        return Session(self._tokenizer, self._layout, self._window, engine, len(every), moment, self._words)

    def mark(self) -> Moment:
        """Return where the session stands, to `rewind` to."""
        return self._at

    def rewind(self, moment: Moment) -> None:
        """Go back, or on, to a moment of this session or of one that was forked from it or is its origin."""
        if len(moment.ids) not in (1, self.samples):
            raise FramepredError(f"a moment of {len(moment.ids)} samples is none of a session of {self.samples}")
        self._at = moment

    def restart(self, rows: Sequence[int], moments: Sequence[Moment]) -> None:
        """Let these samples go on from other pasts, while the others go on from their own.

        Each is a moment of a session of one sample after `seen` frames, as the samples share the window's length.
        FramepredError for one of another length.
        """
        at, start = self._at, window_start(self.frame, self._window)
        ids = self._slid(at.ids, start - at.start)
        for moment in moments:
            if moment.ids.shape[1] != ids.shape[1]:
                had = moment.frame - moment.start
                raise FramepredError(f"a past of {had} frames cannot stand in a session that sees {self.seen}")
        every = torch.arange(self.samples) + len(rows)
        every[torch.as_tensor(rows, dtype=torch.int64)] = torch.arange(len(rows))
        own = replace(at, ids=ids, start=start)

        def mixed(name: str) -> Any:
            mine, theirs = getattr(own, name), [getattr(moment, name) for moment in moments]
            if mine is None:
                return None
            return torch.cat([*theirs, mine.expand(self.samples, *mine.shape[1:])])[every.to(mine.device)]

        self._at = replace(own, **{name: mixed(name) for name in _ROWS})

    def _slid(self, ids: Tensor, frames: int) -> Tensor:
        """Ids without the first so many of their frames; words stay."""
        kept = ids[:, self._words + frames * self._layout.stride :]
        return torch.cat([ids[:, : self._words], kept], 1)

    def _given(self, action: Any) -> tuple[Tensor, Tensor, Tensor | None, Tensor]:
        """Return what the next frame is given: pictures, as coded too, actions, vocabulary ids (1 or S, slots)."""
        at, layout = self._at, self._layout
        device = at.ids.device
        if at.pictures is None or at.coded is None:
            raise FramepredError("this session was given tokens without pictures: it can observe tokens alone")
        rows = self._action_rows(action)
        action_ids = layout.action_ids(rows, 1 if rows is None else len(rows), "action").to(device)
        taken = at.actions
        if taken is not None:
            absent = torch.nan if taken.is_floating_point() else -1
            new = torch.full_like(taken[:1, -1], absent) if rows is None else rows.to(taken)
            taken, new = _together(taken, new[:, None])
            taken = torch.cat([taken, new], 1)[:, 1:]
            return *_together(at.pictures, at.coded, taken), action_ids
        return at.pictures, at.coded, None, action_ids

    def _action_rows(self, action: Any) -> Tensor | None:
        """An action for all samples or one for each → int64 (1 or S,) or float32 (1 or S, D)."""
        if action is None:
            return None
        space = self._layout.actions
        if space is None:
            raise FramepredError(f"action {action} is not allowed: the model was trained without actions")
        rows = torch.as_tensor(action)
        if rows.ndim == (0 if space.kind == "discrete" else 1):
            rows = rows[None]
        if rows.ndim == 0 or len(rows) not in (1, self.samples):
            raise FramepredError(f"an action of shape {tuple(rows.shape)} is not one, nor one for each of the samples")
        return rows if space.kind == "discrete" else rows.float()

    def _past(self, action_ids: Tensor, context: Tensor) -> Tensor:
        """Return the ids (1 or S, L) that the next frame follows: the window has moved as far as it does for it."""
        ids = self._slid(self._at.ids, window_start(self.frame, self._window) - self._at.start)
        return torch.cat(_together(ids, action_ids, self._layout.context_ids(context)), 1)

    def _go_on(self, ids: Tensor, tokens: Tensor, count: int = 1) -> None:
        """Move on by so many frames: the model has seen these ids, of which the last frame's tokens are (R, K + N)."""
        # No pictures yet: `_keep` adds them. Where none are needed, that is none of them already.
        none = None if self._at.pictures is None or self._at.pictures.shape[1] else self._at.pictures
        self._at = Moment(self.frame + count, window_start(self.frame, self._window), ids, tokens, none, none)

    def _decoded(self, pictures: Tensor, taken: Tensor | None) -> Tensor:
        """Return the frame that was just read or drawn, given these pictures and actions: uint8 (R, 3, H, W)."""
        own = self._layout.steps(self._at.tokens).unflatten(1, self._layout.grid)
        return self._tokenizer.decode_next(*_together(pictures, taken, own))

    def _keep(self, pictures: Tensor, coded: Tensor, taken: Tensor | None, frame: Tensor, shown: Tensor) -> None:
        """Keep a frame (R, 3, H, W), and as its tokens give it back, for the next."""
        if self._tokenizer.past:
            pictures, coded = _followed(pictures, frame), _followed(coded, shown)
        self._at = replace(self._at, pictures=pictures, coded=coded, actions=taken)


def _together(*values: Any) -> Any:
    """Repeat tensors of one row so that all have as many; None stays None."""
    rows = max(len(value) for value in values if value is not None)
    return tuple(value if value is None else value.expand(rows, *value.shape[1:]) for value in values)


def _followed(pictures: Tensor, frame: Tensor) -> Tensor:
    """Pictures (1 or R, P, 3, H, W) and the frame (1 or R, 3, H, W) after them → the last P."""
    return torch.cat(_together(pictures, frame[:, None].to(pictures.device)), 1)[:, 1:]
