"""What actions mean: columns and values are matched by their names, here alone."""

from collections.abc import Iterable

import torch
from torch import Tensor

from framepred.config.action_names import ActionNames, values_of
from framepred.errors import FramepredError


def kind_of(actions: Tensor) -> str:
    """Return "discrete" for int64 (T,), "continuous" for float (T, D)."""
    return "continuous" if actions.is_floating_point() else "discrete"


def order_actions(actions: Tensor, names: tuple[str, ...], wanted: tuple[str, ...], where: str) -> Tensor:
    """Return actions, int64 (T,) or float32 (T, D), as the `wanted` names say: columns in their order, ids as theirs.

    Raises FramepredError for a wanted column that is not there, one that is not wanted, and a value that is not known.
    """
    missing, unknown = (sorted({*a} - {*b}) for a, b in ((wanted, names), (names, wanted)))
    if missing or unknown:
        what = f"no action named {missing[0]!r}" if missing else f"an action {unknown[0]!r} that is not known"
        raise FramepredError(f"{where} has {what}: its columns are {', '.join(names)}; give {', '.join(wanted)}")
    if not actions.is_floating_point():
        return _ids_of(actions, names, values_of(wanted), where)
    return actions if actions.ndim == 1 or names == wanted else actions[:, [names.index(name) for name in wanted]]


def _ids_of(ids: Tensor, names: tuple[str, ...], known: tuple[str, ...], where: str) -> Tensor:
    """Return ids int64 (T,) of the values that `names` gives them as ids of the `known` values."""
    values = values_of(names)
    if values and not known and isinstance(names, ActionNames) and names.spelled:
        raise FramepredError(
            f"{where} names actions ({values[0]!r}), and the ids of {names[0]!r} have no names here: give numbers"
        )
    if not values or not known or values == known:
        return ids
    place = {value: i for i, value in enumerate(known)}
    for i in ids.unique().tolist():
        if values[i] not in place:
            raise FramepredError(
                f"{where} has the action {values[i]!r}, which is not known: give one of {', '.join(known)}"
            )
    return torch.tensor([place.get(value, -1) for value in values])[ids]


def join_names(
    found: Iterable[tuple[str, tuple[str, ...], str]], known: tuple[str, ...] = ()
) -> tuple[str | None, ActionNames]:
    """Return the one kind of the actions of several places and the names of all: (kind, names, where) of each.

    Columns stand in the order of the first, values after those of the `known` names; the kind is None where nothing is
    found. Raises FramepredError where the kinds or the columns differ, or some name their actions and some number them.
    """
    first: tuple[str, tuple[str, ...], str] | None = None
    recorded: dict[str, None] = {}
    spelled: set[str] = set()
    numbered = named = ""
    for kind, names, where in found:
        values = values_of(names)
        first = first or (kind, names, where)
        if (kind, sorted(names)) != (first[0], sorted(first[1])):
            raise FramepredError(
                f"{where} has {kind} actions {list(names)}, {first[2]} has {first[0]} {list(first[1])}: "
                "one store or run holds one kind"
            )
        if isinstance(names, ActionNames) and names.spelled:
            spelled.update(values)
        else:
            recorded |= dict.fromkeys(values)
        named, numbered = (where, numbered) if values else (named, where)
        if kind == "discrete" and named and numbered:
            raise FramepredError(
                f"{named} has names of its actions, {numbered} only numbers: give names or numbers in both"
            )
    if first is None:
        return None, ActionNames()
    return first[0], ActionNames(first[1], dict.fromkeys((*values_of(known), *recorded, *sorted(spelled))))
