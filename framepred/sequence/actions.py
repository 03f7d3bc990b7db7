"""Actions ⇄ ids: which actions a run knows, and the tokens that say them."""

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import torch
from torch import Tensor

from framepred.config.action_names import names_from_json, names_to_json, values_of
from framepred.errors import FramepredError


@dataclass(frozen=True)
class ActionSpace:
    """What actions a run knows: `count` discrete ids, or `edges` (D, bins - 1) of continuous dimensions.

    `centres` (D, bins) are the means of what was in each bin; runs of framepred 0.1 do not have them.
    """

    kind: Literal["discrete", "continuous"]
    names: tuple[str, ...]
    count: int = 0
    edges: tuple[tuple[float, ...], ...] = ()
    centres: tuple[tuple[float, ...], ...] = ()

    @property
    def slots(self) -> int:
        """Tokens an action takes."""
        return 1 if self.kind == "discrete" else len(self.edges)

    @property
    def size(self) -> int:
        """Ids that all action tokens need together."""
        return self.count if self.kind == "discrete" else sum(len(e) + 1 for e in self.edges)

    def ranges(self) -> list[tuple[int, int]]:
        """Return the half-open range of action ids legal in each slot."""
        if self.kind == "discrete":
            return [(0, self.count)]
        stops = torch.tensor([len(e) + 1 for e in self.edges]).cumsum(0).tolist()
        return list(zip([0, *stops[:-1]], stops, strict=True))

    def bounds(self) -> tuple[Tensor, Tensor]:
        """Return the least and the greatest continuous actions, float32 (D,), that are told apart from others."""
        firsts, stops = zip(*self.ranges(), strict=True)
        return self.decode(torch.tensor([firsts]))[0], self.decode(torch.tensor([stops]) - 1)[0]

    def encode(self, actions: Tensor, where: str = "actions") -> Tensor:
        """Actions int64 (T,) or float32 (T, D) → action ids int64 (T, slots)."""
        if self.kind == "discrete":
            if actions.ndim != 1 or actions.is_floating_point():
                raise FramepredError(
                    f"{where}: these are continuous, the model takes one integer column: ids 0 to {self.count - 1}"
                )
            if len(actions) and not 0 <= int(actions.min()) <= int(actions.max()) < self.count:
                bad = int(actions.max()) if int(actions.max()) >= self.count else int(actions.min())
                raise FramepredError(
                    f"{where}: action id {bad} is not allowed; the model knows ids 0 to {self.count - 1}"
                )
            return actions[:, None].long()
        values = actions[:, None].float() if actions.ndim == 1 else actions.float()
        if values.shape[1] != len(self.edges):
            raise FramepredError(
                f"{where}: {values.shape[1]} columns, the model takes {len(self.edges)}: {', '.join(self.names)}"
            )
        if not bool(values.isfinite().all()):
            raise FramepredError(f"{where}: a value is not finite; every action must be a number")
        # Between neighbouring float32 values lie edges that only float64 can hold.
        columns = [
            torch.bucketize(values[:, d].double().contiguous(), torch.tensor(edge, dtype=torch.float64)) + start
            for d, (edge, (start, _)) in enumerate(zip(self.edges, self.ranges(), strict=True))
        ]
        return torch.stack(columns, 1)

    def decode(self, ids: Tensor) -> Tensor:
        """Action ids int64 (T, slots) → actions int64 (T,) or float32 (T, D), the centres of their bins."""
        if self.kind == "discrete":
            return ids[:, 0]
        centres = self.centres or tuple(map(_between, self.edges))
        columns = [
            torch.tensor(centre)[ids[:, d] - start]
            for d, (centre, (start, _)) in enumerate(zip(centres, self.ranges(), strict=True))
        ]
        return torch.stack(columns, 1)

    def to_json(self) -> dict[str, Any]:
        shape: dict[str, Any] = {"count": self.count}
        if self.kind == "continuous":
            shape = {"edges": [list(e) for e in self.edges]}
            shape |= {"centres": [list(c) for c in self.centres]} if self.centres else {}
        return {"kind": self.kind, **names_to_json(self.names), **shape}

    @staticmethod
    def from_json(value: dict[str, Any]) -> "ActionSpace":
        edges, centres = (tuple(tuple(row) for row in value.get(key, ())) for key in ("edges", "centres"))
        return ActionSpace(value["kind"], names_from_json(value), value.get("count", 0), edges, centres)


def _between(edges: tuple[float, ...]) -> tuple[float, ...]:
    """Return the middles of bins from their edges alone; the outer ones are as wide as the mean of the others."""
    if not edges:
        return (0.0,)
    half = (edges[-1] - edges[0]) / max(1, len(edges) - 1) / 2 or 0.5
    middles = [low / 2 + high / 2 for low, high in pairwise(edges)]
    return (edges[0] - half, *middles, edges[-1] + half)


def fit_action_space(actions: list[Tensor], names: tuple[str, ...], bins: int) -> ActionSpace:
    """Return the action space of a data set: the ids that occur or have names, or bins per dimension (`fit_bins`)."""
    if actions[0].ndim == 1 and not actions[0].is_floating_point():
        highest = max(int(a.max()) for a in actions if len(a))
        return ActionSpace("discrete", names, count=max(1 + highest, len(values_of(names))))
    # A column at a time: together they may be larger than memory.
    columns = (torch.cat([rows[:, d] for rows in actions]) for d in range(actions[0].shape[1]))
    edges, centres = zip(*(fit_bins(column, bins) for column in columns), strict=True)
    return ActionSpace("continuous", names, edges=edges, centres=centres)


def fit_bins(values: Tensor, bins: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the edges between the bins of finite values float32 (N,), and the mean of what is in each bin.

    A value that makes up 1 % or more has a bin of its own, so that a rare one is kept apart from one that is nearly
    always there. The others share up to `bins` bins of equal mass, or have one each where they are so few.
    """
    distinct, counts = values.float().unique(return_counts=True)
    distinct = distinct.double()
    common = counts * 100 >= len(values)
    others = counts.masked_fill(common, 0)
    if int((~common).sum()) <= bins:
        share = torch.arange(len(distinct))
    else:
        share = bins * (2 * others.cumsum(0) - others) // (2 * others.sum())
    cut = common[:-1] | common[1:] | (share[:-1] != share[1:])
    edges = (distinct[:-1] / 2 + distinct[1:] / 2)[cut]
    place = torch.cat([torch.zeros(1, dtype=torch.int64), cut.cumsum(0)])
    sums, sizes = (torch.zeros(len(edges) + 1, dtype=torch.float64) for _ in range(2))
    sums.index_add_(0, place, distinct * counts)
    sizes.index_add_(0, place, counts.double())
    return tuple(edges.tolist()), tuple((sums / sizes).float().tolist())
