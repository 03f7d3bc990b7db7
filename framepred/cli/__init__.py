"""The commands, one file each, thin: parse, call the library, show. A script could call all that they call."""

from framepred.cli import (
    calibrate,
    caption,
    eval,  # noqa: A004
    export,
    info,
    pull,
    push,
    record,
    rollout,
    surprise,
    tokenize,
    train,
)
from framepred.cli.group import cli

__all__ = [
    "calibrate", "caption", "cli", "eval", "export", "info", "main", "pull", "push", "record", "rollout", "surprise",
    "tokenize", "train",
]  # fmt: skip


def main() -> None:
    """Run the command line."""
    cli.main(prog_name="framepred", standalone_mode=True)
