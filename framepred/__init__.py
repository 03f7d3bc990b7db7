"""framepred: tokenized future-frame prediction. video → tokens → sequence → model → tokens → video."""

import importlib
from typing import Any

__version__ = "0.1.0"

# Imported on first use: torch takes seconds, and `framepred --help` must not.
_HOMES = {
    "Clip": "video.read",
    "read_video": "video.read",
    "write_video": "video.write",
    "load_tokenizer": "tokenizer.checkpoint",
    "load_run": "world.run",
    "Run": "world.run",
    "rollout": "world.rollout",
    "make_env": "world.env",
    "FramepredError": "errors",
    "FramepredWarning": "errors",
}
__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'framepred' has no attribute {name!r}")
    value = globals()[name] = getattr(importlib.import_module(f"framepred.{_HOMES[name]}"), name)
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])
