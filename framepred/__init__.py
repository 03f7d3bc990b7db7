"""framepred: tokenized future-frame prediction. video → tokens → sequence → model → tokens → video."""

import importlib
from typing import Any

__version__ = "0.1.0"

# Imported on first use: torch takes seconds, and `framepred --help` must not.
_HOMES = {
    "Clip": "video",
    "read_video": "video",
    "write_video": "video",
    "load_tokenizer": "checkpoint",
    "load_run": "checkpoint",
    "Run": "checkpoint",
    "rollout": "rollout",
    "FramepredError": "errors",
    "FramepredWarning": "errors",
}
__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'framepred' has no attribute {name!r}")
    module = importlib.import_module(f"framepred.{_HOMES[name]}")
    # `framepred.rollout` names both a function and its module; the function is what users call.
    value = globals()[name] = getattr(module, name)
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
