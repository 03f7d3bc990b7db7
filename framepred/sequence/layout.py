"""The flat sequence: frame tokens and action tokens ⇄ ids of one vocabulary.

`frame_0 action_0 frame_1 action_1 …`: a frame is its grid in the order of its scan, an action D tokens. Where frames
are coded given the one before, `context_0 frame_0 action_0 context_1 frame_1 …`: before each stand the context tokens
of the picture it is given.
Where words stand beside frames, `<frames>` and `</frames>` mark where those begin and end.
"""

from dataclasses import dataclass
from functools import cache
from typing import Any, get_args

import torch
from einops import rearrange
from torch import Tensor

from framepred.config.recipe import Scan
from framepred.sequence.actions import ActionSpace
from framepred.sequence.vocabulary import Vocabulary


@cache
def scan_order(scan: Scan, grid: tuple[int, int]) -> Tensor:
    """Return the raster place, int64 (N,), of the token in each slot of a frame.

    Interlaced (groups as in arXiv 1703.03664), a token's neighbours stand far before or behind it: given the frame
    before, tokens of one of the four grids say little of each other, so a guess of many of them holds.
    """
    places = torch.arange(grid[0] * grid[1]).view(grid)
    starts = ((0, 0), (1, 1), (0, 1), (1, 0))
    parts = [places] if scan == "raster" else [places[top::2, left::2] for top, left in starts]
    return torch.cat([part.flatten() for part in parts])


@dataclass(frozen=True)
class SequenceLayout:
    """Where everything stands in a window: context tokens, a frame's `grid` (h, w) of tokens, an action's slots.

    The tokens of T frames come as (T, h, w), or as rows (T, K + N) where there are context tokens: for each frame those
    of the picture it is given, then its own, in raster order; in ids they stand in the order of the `scan`. Context
    tokens are known before their frame is predicted. They say what the frame before looks like, so that a model need
    not add up all that was said since (arXiv 2406.19320). With `cells`, each place of the grid has ids of its own: a
    token then says where it stands, and no slot can be taken for another.
    """

    vocabulary: Vocabulary
    grid: tuple[int, int]
    actions: ActionSpace | None = None
    context_grid: tuple[int, int] = (0, 0)
    scan: Scan = "raster"
    cells: bool = False

    @property
    def codes(self) -> int:
        """V, the codes that a frame's token may have."""
        return self.vocabulary.visual_size // (self.frame_tokens if self.cells else 1)

    @property
    def frame_tokens(self) -> int:
        """N, the tokens of a frame."""
        return self.grid[0] * self.grid[1]

    @property
    def context_tokens(self) -> int:
        """K, the tokens of what a frame is given: 0 where each frame stands for itself."""
        return self.context_grid[0] * self.context_grid[1]

    @property
    def row_tokens(self) -> int:
        """K + N, where an action's slots begin in a stride."""
        return self.context_tokens + self.frame_tokens

    @property
    def action_slots(self) -> int:
        return self.actions.slots if self.actions else 0

    @property
    def stride(self) -> int:
        """Tokens from one frame's first to the next frame's first, context and actions with them."""
        return self.row_tokens + self.action_slots

    def steps(self, tokens: Tensor) -> Tensor:
        """Tokens of frames (T, h, w) or (T, K + N) → each frame's own, in raster order (T, N)."""
        return tokens.flatten(1)[:, self.context_tokens :]

    def rows(self, tokens: Tensor) -> Tensor:
        """Flat tokens (…, K + N) of frames → as tokenizers give them: (…, h, w) where there are no context tokens."""
        return tokens if self.context_tokens else tokens.unflatten(-1, self.grid)

    def scanned(self, values: Tensor) -> Tensor:
        """Values (A, N, …) of a frame's tokens in raster order → in the order of the scan."""
        return values if self.scan == "raster" else values[:, scan_order(self.scan, self.grid).to(values.device)]

    def unscanned(self, values: Tensor) -> Tensor:
        """Values (A, N, …) of a frame's tokens in the order of the scan → in raster order."""
        if self.scan == "raster":
            return values
        return values[:, scan_order(self.scan, self.grid).argsort().to(values.device)]

    def legal(self, slot: int) -> tuple[int, int]:
        """Return the half-open range of ids that may stand at position `slot` of a stride."""
        if slot < self.row_tokens:
            if slot < self.context_tokens:
                return self.vocabulary.context
            first = int(self.offsets()[slot - self.context_tokens])
            return first, first + self.codes
        assert self.actions is not None
        start, stop = self.actions.ranges()[slot - self.row_tokens]
        return self.vocabulary.action[0] + start, self.vocabulary.action[0] + stop

    def offsets(self, device: torch.device | str = "cpu") -> Tensor:
        """Return what is added to the code in each slot of a frame to make its id, int64 (N,)."""
        places = scan_order(self.scan, self.grid).to(device)
        return self.vocabulary.visual[0] + places * (self.codes if self.cells else 0)

    def own_logits(self, logits: Tensor) -> Tensor:
        """Logits of all visual ids in a frame's slots (R, N, visual ids) → of the codes of each slot (R, N, V)."""
        if not self.cells:
            return logits
        slots, places = torch.arange(self.frame_tokens), scan_order(self.scan, self.grid)
        return logits.unflatten(-1, (self.frame_tokens, self.codes))[:, slots, places]

    def action_ids(self, actions: Tensor | None, length: int, where: str = "actions") -> Tensor:
        """Actions (T or T-1) or None → vocabulary ids int64 (length, slots), `<no_action>` where none is given."""
        ids = torch.full((length, self.action_slots), self.vocabulary.no_action)
        if actions is not None and self.actions is not None:
            known = self.actions.encode(actions[:length], where) + self.vocabulary.action[0]
            ids[: len(known)] = known
        return ids

    def pack(self, tokens: Tensor, action_ids: Tensor) -> Tensor:
        """Tokens of T frames and vocabulary action ids (T or T-1, slots) → ids int64 (L,)."""
        rows = self.row_ids(tokens.flatten(1))
        count = min(len(action_ids), len(rows))
        steps = torch.cat([rows[:count], action_ids[:count].long()], 1).flatten()
        return torch.cat([steps, rows[count:].flatten()])

    def row_ids(self, rows: Tensor) -> Tensor:
        """Flat tokens (T, K + N) of frames → ids int64 (T, K + N) in the order of the scan."""
        own = self.scanned(rows[:, self.context_tokens :].long())
        return torch.cat([self.context_ids(rows[:, : self.context_tokens]), own + self.offsets(own.device)], 1)

    def context_ids(self, contexts: Tensor) -> Tensor:
        """Tokens (T, K) of contexts → ids int64 of the same shape."""
        return contexts.long() + self.vocabulary.context[0]

    def unpack(self, ids: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Ids (L,), the inverse of `pack` → contexts (T, K), token grids (T, h, w), action ids (T or T-1, slots)."""
        whole, rest = divmod(len(ids), self.stride)
        if rest not in (0, self.row_tokens):
            raise ValueError(f"{len(ids)} ids are not whole frames of {self.stride}")
        steps = ids[: whole * self.stride].view(whole, self.stride)
        rows = torch.cat([steps[:, : self.row_tokens].reshape(-1), ids[whole * self.stride :]]).view(
            -1, self.row_tokens
        )
        contexts, own = rows.tensor_split((self.context_tokens,), 1)
        height, width = self.grid
        own = self.unscanned(own - self.offsets(own.device))
        tokens = rearrange(own, "t (h w) -> t h w", h=height, w=width)
        return contexts - self.vocabulary.context[0], tokens, steps[:, self.row_tokens :]

    def to_json(self) -> dict[str, Any]:
        contexts = {"context_grid": list(self.context_grid)} if self.context_tokens else {}
        scan = {"scan": self.scan} if self.scan != "raster" else {}
        cells = {"cells": True} if self.cells else {}
        order = [*(["context"] if self.context_tokens else []), "frame", "action"]
        return {
            "vocabulary": self.vocabulary.to_json(),
            "layout": {"order": order, "grid": list(self.grid), "action_slots": self.action_slots}
            | contexts
            | scan
            | cells,
            "actions": self.actions.to_json() if self.actions else None,
        }

    @staticmethod
    def from_json(value: dict[str, Any]) -> "SequenceLayout":
        actions = ActionSpace.from_json(value["actions"]) if value["actions"] else None
        grid, context = value["layout"]["grid"], value["layout"].get("context_grid", (0, 0))
        vocabulary = Vocabulary.from_json(value["vocabulary"])
        scan = value["layout"].get("scan", "raster")
        if scan not in get_args(Scan):
            raise ValueError(f"layout scan {scan!r} is not known; it is one of {', '.join(get_args(Scan))}")
        sizes = [(int(height), int(width)) for height, width in (grid, context)]
        layout = SequenceLayout(vocabulary, sizes[0], actions, sizes[1], scan, bool(value["layout"].get("cells")))
        if layout.to_json()["layout"]["order"] != value["layout"]["order"]:
            raise ValueError(f"layout order {value['layout']['order']} is not known: train the run again")
        return layout
