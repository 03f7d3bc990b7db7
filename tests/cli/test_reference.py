"""docs/commands.md says what the commands say."""

import runpy
from pathlib import Path

import click

from framepred.cli import cli

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")


def test_the_command_reference_is_up_to_date() -> None:
    assert runpy.run_path(str(ROOT / "scripts" / "make_reference"))["reference"]() == PAGE, "run scripts/make_reference"


def test_the_tables_of_words_are_up_to_date() -> None:
    page = (ROOT / "docs" / "evaluation.md").read_text(encoding="utf-8")
    assert runpy.run_path(str(ROOT / "scripts" / "make_reference"))["with_words"](page) == page
    assert "| tokenizer ceiling | the real frames, encoded and decoded" in page


def test_the_command_reference_has_every_command_and_option() -> None:
    sections = {text.split("\n")[0]: text for text in PAGE.split("\n## ")[1:]}
    assert sections.keys() == cli.commands.keys()
    for name, command in cli.commands.items():
        options = {flag for p in command.params if isinstance(p, click.Option) for flag in p.opts}
        assert [flag for flag in options if flag not in sections[name]] == []
