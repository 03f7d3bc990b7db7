"""Help: every command shows examples that work, within 80 columns, and every option once."""

import inspect
import shlex
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from framepred.cli import cli, options
from framepred.cli.console import say, warn

COMMANDS = sorted(cli.commands)


def shown(name: str) -> str:
    result = CliRunner().invoke(cli, [name, "--help"], prog_name="framepred", terminal_width=80)
    assert result.exit_code == 0
    return result.stdout


def examples(name: str) -> list[str]:
    lines = inspect.cleandoc(cli.commands[name].help or "").partition("Examples:\n")[2].splitlines()
    return [line.strip() for line in lines if line.strip().startswith("framepred")]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_shows_examples_that_it_takes(name: str) -> None:
    lines = examples(name)
    assert lines
    for line in lines:
        program, command, *arguments = shlex.split(line, comments=True)
        assert (program, command) == ("framepred", name)
        # Raises for an option that is not known, a value that is not allowed, or an argument that is missing.
        cli.commands[name].make_context(name, arguments, parent=click.Context(cli, **cli.context_settings))


@pytest.mark.parametrize("name", COMMANDS)
def test_help_fits_80_columns_and_has_every_option_once(name: str) -> None:
    text = shown(name)
    assert max(map(len, text.splitlines())) <= 80
    described = [line.split()[0].rstrip(",") for line in text.splitlines() if line.startswith("  -")]
    wanted = [p.opts[0] for p in cli.commands[name].params if isinstance(p, click.Option)]
    assert sorted(described) == sorted([*wanted, "-h"])


def test_the_list_of_commands_ends_no_line_in_the_middle() -> None:
    text = CliRunner().invoke(cli, ["--help"], prog_name="framepred", terminal_width=80).stdout
    lines = [line for line in text.partition("Commands:")[2].splitlines() if line.strip()]
    assert len(lines) == len(COMMANDS)
    for line, name in zip(lines, COMMANDS, strict=True):
        said = line.split(maxsplit=1)[1]
        help = " ".join(inspect.cleandoc(cli.commands[name].help or "").split())
        assert help.startswith(said)
        assert help[len(said) :].lstrip()[0] in ".;:,("


def test_sections_name_parameters_that_there_are() -> None:
    for command in cli.commands.values():
        known = {p.name for p in command.params}
        assert {name for names in getattr(command, "sections", {}).values() for name in names} <= known


def test_quiet_leaves_warnings_and_errors() -> None:
    @click.command(cls=type(cli.commands["info"]))
    def talk() -> None:
        say("progress")
        warn("a warning")
        click.echo("the result")

    for flags, said in (([], "progress\na warning\n"), (["--quiet"], "a warning\n")):
        result = CliRunner().invoke(talk, flags)
        assert (result.stdout, result.stderr) == ("the result\n", said)


def test_a_run_that_goes_on_is_named() -> None:
    for flag in ("--resume", "--overwrite"):
        result = CliRunner().invoke(cli, ["train", "videos", flag])
        assert result.exit_code == 2
        assert "give -o RUN" in result.stderr


def test_an_output_that_was_not_named_takes_the_next_number(tmp_path: Path) -> None:
    path = tmp_path / "clip-rollout.mp4"
    assert options.numbered(path) == path
    for number in (2, 3):
        path.write_text("mine")
        path = options.numbered(tmp_path / "clip-rollout.mp4")
        assert path.name == f"clip-rollout-{number}.mp4"
