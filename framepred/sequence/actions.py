"""Actions ⇄ ids: which actions a run knows, and the tokens that say them."""

from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from framepred.errors import FramepredError


@dataclass(frozen=True)
class ActionSpace:
    """What actions a run knows: `count` discrete ids, or `edges` (D, bins - 1) of continuous dimensions."""

    kind: Literal["discrete", "continuous"]
    names: tuple[str, ...]
    count: int = 0
    edges: tuple[tuple[float, ...], ...] = ()

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
        columns = [
            torch.bucketize(values[:, d].contiguous(), torch.tensor(edge)) + start
            for d, (edge, (start, _)) in enumerate(zip(self.edges, self.ranges(), strict=True))
        ]
        return torch.stack(columns, 1)

    def to_json(self) -> dict[str, Any]:
        shape: dict[str, Any] = (
            {"count": self.count} if self.kind == "discrete" else {"edges": [list(e) for e in self.edges]}
        )
        return {"kind": self.kind, "names": list(self.names), **shape}

    @staticmethod
    def from_json(value: dict[str, Any]) -> "ActionSpace":
        edges = tuple(tuple(e) for e in value.get("edges", ()))
        return ActionSpace(value["kind"], tuple(value["names"]), value.get("count", 0), edges)


def fit_action_space(actions: list[Tensor], names: tuple[str, ...], bins: int) -> ActionSpace:
    """Return the action space of a data set: the ids that occur, or bins of equal mass per dimension."""
    if actions[0].ndim == 1 and not actions[0].is_floating_point():
        return ActionSpace("discrete", names, count=1 + max(int(a.max()) for a in actions if len(a)))
    values = torch.cat(actions)
    quantiles = torch.linspace(0, 1, bins + 1)[1:-1]
    # torch.quantile refuses more than 16 million values; a regular subsample keeps the quantiles.
    sample = values[:: max(1, len(values) // 1_000_000)]
    edges = tuple(tuple(sorted(set(torch.quantile(column, quantiles).tolist()))) for column in sample.T.contiguous())
    return ActionSpace("continuous", names, edges=edges)
