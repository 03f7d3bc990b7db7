"""`framepred recipe`: all settings of a training, explained."""

from dataclasses import asdict

import click

from framepred.cli import options
from framepred.cli.console import print_json
from framepred.cli.group import cli


@cli.command()
@click.argument("name", required=False)
@options.JSON
def recipe(name: str | None, as_json: bool) -> None:
    """Print a recipe with every setting explained: a built-in one, a TOML file, or the defaults.

    What is printed is TOML that `framepred train --recipe FILE` takes.

    \b
    Examples:
      framepred recipe            # the defaults
      framepred recipe temporal   # to write to a file and change
    """
    from framepred.config.recipe import explained, load_recipe

    found = load_recipe(name)
    if as_json:
        print_json(asdict(found))
        return
    click.echo(explained(found), nl=False)
