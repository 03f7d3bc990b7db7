"""What actions are called: their columns, and the values of discrete ones."""

from collections.abc import Iterable, Sequence
from typing import Any


class ActionNames(tuple[str, ...]):
    """The names of the columns of actions.

    `values[i]` is the name of id i of discrete actions, where ids have names. `spelled` says that a file gives the
    actions by those names: its ids mean nothing elsewhere.
    """

    values: tuple[str, ...]
    spelled: bool

    def __new__(cls, columns: Iterable[str] = (), values: Iterable[str] = (), spelled: bool = False) -> "ActionNames":
        made = super().__new__(cls, columns)
        made.values, made.spelled = tuple(values), spelled
        return made


def values_of(names: Sequence[str]) -> tuple[str, ...]:
    """Return the names of ids that come with the names of columns; none where ids have no names."""
    return names.values if isinstance(names, ActionNames) else ()


def names_to_json(names: Sequence[str]) -> dict[str, Any]:
    """Return names as the JSON values `names` and, where ids have names, `values`."""
    values = values_of(names)
    return {"names": list(names)} | ({"values": list(values)} if values else {})


def names_from_json(about: dict[str, Any]) -> ActionNames:
    """Return the names that `names_to_json` wrote; raise TypeError for what is no name."""
    columns, values = about["names"], about.get("values", ())
    if not all(isinstance(name, str) for name in (*columns, *values)):
        raise TypeError("the name of an action is not text")
    return ActionNames(columns, values)
