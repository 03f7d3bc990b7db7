"""`framepred info`: what a path is, or what the zoo holds."""

from typing import Any

import click

from framepred.cli import options
from framepred.cli.console import print_json
from framepred.cli.group import cli


@cli.command()
@click.argument("path", required=False)
@options.JSON
def info(path: str | None, as_json: bool) -> None:
    """Say what a SOURCE, token store, tokenizer or run is; alone, list the zoo.

    \b
    Examples:
      framepred info          # what comes along: models, tokenizers, recipes
      framepred info videos/  # a folder, video, token store, tokenizer or run
    """
    if path is None:
        from framepred.io.zoo import describe_zoo

        zoo = describe_zoo()
        if as_json:
            print_json({"zoo": zoo})
            return
        for item in zoo:
            click.echo(f"{item['name']:<10} {item['kind']:<9} {item['summary']}")
        return
    from framepred.world.info import describe

    facts = describe(path)
    if as_json:
        print_json(facts)
        return
    for key, value in facts.items():
        click.echo(f"{key.replace('_', ' '):<20} {_shown(value)}")


def _shown(value: Any) -> str:
    """Return a fact as people write it."""
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, (list, tuple)) and len(value) == 2 and all(isinstance(v, int) for v in value):
        return f"{value[0]} x {value[1]}"
    return str(value)
