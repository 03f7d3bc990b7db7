"""How a command explains itself: its options in groups, those of all commands last, and --quiet in each."""

from collections.abc import Mapping, Sequence
from typing import Any

import click

from framepred.cli.console import set_quiet

_OF_SOURCES = ("camera", "observation", "columns")
_COMMON = ("device", "overwrite", "as_json", "quiet", "help")


class Command(click.Command):
    """A command whose help shows its options in `sections`, a heading → names of parameters; the others come first."""

    def __init__(self, *args: Any, sections: Mapping[str, Sequence[str]] | None = None, **settings: Any) -> None:
        super().__init__(*args, **settings)
        self.sections = dict(sections or {})
        self.params.append(
            click.Option(
                ["-q", "--quiet"], is_flag=True, expose_value=False,
                callback=lambda ctx, _, value: set_quiet(ctx, value),
                help="Print results, warnings and errors alone.",
            )
        )  # fmt: skip

    def get_short_help_str(self, limit: int = 45) -> str:
        """Return the first sentence of the help, without the last of its parts where it is longer than `limit`."""
        sentence = " ".join((self.help or "").split("\n\n")[0].split()).split(". ")[0].rstrip(".")
        parts = [sentence, *(sentence.rpartition(mark)[0] for mark in "(;:,")]
        return next((part.strip() for part in parts if 0 < len(part) <= limit), sentence[:limit])

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options under their headings."""
        headings = {name: heading for heading, names in self.sections.items() for name in names}
        shared = {"Of a SOURCE with a prefix": _OF_SOURCES, "In every command": _COMMON}
        headings |= {name: heading for heading, names in shared.items() for name in names}
        groups: dict[str, list[tuple[str, str]]] = {h: [] for h in ("Options", *self.sections, *shared)}
        for parameter in self.get_params(ctx):
            record = parameter.get_help_record(ctx) if isinstance(parameter, click.Option) else None
            if record is not None:
                name = "help" if "--help" in parameter.opts else parameter.name or ""
                groups[headings.get(name, "Options")].append(record)
        for heading, records in groups.items():
            if records:
                with formatter.section(heading):
                    formatter.write_dl(records)
