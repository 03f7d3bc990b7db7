"""How tables of scores are shown in a terminal: the words of their columns on stderr, once."""

from collections.abc import Iterable

from framepred.cli.console import say


def say_words(labels: Iterable[str]) -> None:
    """Say what these columns of a table mean, those that are explained, one line each."""
    from framepred.evaluation.terms import COLUMNS

    for label in dict.fromkeys(labels):
        if label in COLUMNS:
            say(f"  {label:<13} {COLUMNS[label]}")
