"""The commands, one file each: parse, call the library, show. A script can call everything that they call.

The top package: it may import all others, none imports it, and only it knows click and rich.
"""

from framepred.cli import (
    calibrate,
    caption,
    convert,
    eval,  # noqa: A004
    export,
    info,
    learn,
    plan,
    play,
    preview,
    pull,
    push,
    recipe,
    record,
    reinforce,
    rollout,
    surprise,
    tokenize,
    train,
)
from framepred.cli.group import cli
from framepred.cli.streams import prepare_streams

__all__ = [
    "calibrate", "caption", "cli", "convert", "eval", "export", "info", "learn", "main", "plan", "play", "preview",
    "pull", "push", "recipe", "record", "reinforce", "rollout", "surprise", "tokenize", "train",
]  # fmt: skip


def main() -> None:
    """Run the command line."""
    prepare_streams()
    cli.main(prog_name="framepred", standalone_mode=True)
