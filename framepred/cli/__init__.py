"""The commands, thin: parse, call the library, show. Nothing here that a script could not call."""

from framepred.cli import evaluate, predict, record, share, train
from framepred.cli.group import cli

__all__ = ["cli", "evaluate", "main", "predict", "record", "share", "train"]


def main() -> None:
    """Run the command line."""
    cli.main(prog_name="framepred", standalone_mode=True)
