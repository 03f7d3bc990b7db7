"""Recipes and protocols from TOML tables and `key=value` settings: frozen dataclasses, types checked."""

import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass, replace
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

from framepred.errors import FramepredError

_FOLDERS = {"recipe": "config/recipes", "protocol": "evaluation/protocols", "goal protocol": "planning/protocols"}


def _built_in(kind: str) -> dict[str, Traversable]:
    folder = resources.files("framepred") / _FOLDERS[kind]
    return {f.name.removesuffix(".toml"): f for f in folder.iterdir() if f.name.endswith(".toml")}


def built_in(kind: str) -> list[str]:
    """Return the names of what is built in: recipes ("recipe"), protocols ("protocol") or goal protocols."""
    return sorted(_built_in(kind))


def read_table(name_or_file: str | Path, kind: str) -> dict[str, Any]:
    """Read a "recipe", "protocol" or "goal protocol" by built-in name or TOML file."""
    path = Path(name_or_file)
    if found := _built_in(kind).get(str(name_or_file)):
        text = found.read_text(encoding="utf-8")
    elif path.suffix == ".toml" or path.exists():
        if not path.is_file():
            raise FramepredError(f"{kind} file {path} does not exist")
        text = path.read_text(encoding="utf-8", errors="replace")
    else:
        raise FramepredError(
            f"{kind} {str(name_or_file)!r} is neither a file nor a built-in; "
            f"the built-ins are {', '.join(built_in(kind))}"
        )
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise FramepredError(f"{kind} {name_or_file} is not valid TOML: {error}") from error


def overlay(target: Any, table: Mapping[str, Any], what: str, prefix: str = "") -> Any:
    """Return a frozen dataclass with the values of a (nested) table in place of its own; errors begin with `what`."""
    hints = get_type_hints(type(target))
    known = {f.name for f in fields(target)}
    changes: dict[str, Any] = {}
    for key, value in table.items():
        if key not in known:
            raise FramepredError(
                f"{what}: unknown key {prefix}{key}; the keys here are {', '.join(prefix + k for k in sorted(known))}"
            )
        current = getattr(target, key)
        if is_dataclass(current):
            if not isinstance(value, Mapping):
                raise FramepredError(f"{what}: {prefix}{key} is a table, not {value!r}")
            changes[key] = overlay(current, value, what, f"{prefix}{key}.")
        else:
            changes[key] = _convert(value, hints[key], f"{what}: {prefix}{key}")
    return replace(target, **changes)


def _convert(value: Any, hint: Any, key: str) -> Any:
    origin = get_origin(hint)
    if origin is Literal:
        if value not in get_args(hint):
            raise FramepredError(f"{key} = {value!r} is not allowed; choose one of {', '.join(get_args(hint))}")
        return value
    if origin is tuple:
        args = get_args(hint)
        variadic = len(args) == 2 and args[1] is Ellipsis
        if isinstance(value, int) and not variadic:
            value = [value] * len(args)
        if not isinstance(value, (list, tuple)) or not (variadic or len(value) == len(args)):
            raise FramepredError(
                f"{key} = {value!r} is not a list of {'numbers' if variadic else f'{len(args)} numbers'}"
            )
        return tuple(_convert(v, args[0], key) for v in value)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (isinstance(value, bool) and hint is not bool):
        raise FramepredError(f"{key} = {value!r} is not a {hint.__name__}")
    return value


def read_settings(settings: Iterable[str]) -> dict[str, Any]:
    """Return `key=value` settings, values written as in TOML and keys with dots, as one nested table."""
    table: dict[str, Any] = {}
    for setting in settings:
        key, equals, text = setting.partition("=")
        if not equals:
            raise FramepredError(f"--set {setting!r} is not key=value, for example predictor.layers=4")
        try:
            value = tomllib.loads(f"value = {text}")["value"]
        except tomllib.TOMLDecodeError:
            value = text
        *parents, last = key.strip().split(".")
        inner = table
        for part in parents:
            inner = inner.setdefault(part, {})
            if not isinstance(inner, dict):
                raise FramepredError(f"--set {setting!r}: {part} is set to a value already, it has no keys")
        inner[last] = value
    return table
