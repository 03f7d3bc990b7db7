"""What several commands take: options, each declared once, and the checks of outputs."""

import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from framepred.cli.threads import use_free_cores
from framepred.config.frame_size import FITS
from framepred.errors import FramepredError

_VIDEO_ENDINGS = (".mp4", ".mkv", ".gif", ".webp", ".npz")

VIDEO = click.argument("video", type=click.Path(path_type=Path))
MODEL = click.option(
    "--model", default="doom-64", show_default=True, help="Run folder, name in the zoo, or hf://OWNER/NAME."
)


def _device(_: click.Context, __: click.Parameter, value: str) -> str:
    """A command that chooses a device computes."""
    use_free_cores()
    return value


DEVICE = click.option("--device", default="auto", show_default=True, callback=_device, help="cpu, cuda, ... or auto.")
ACTIONS = click.option(
    "--actions", metavar="FILE|none", help="Actions CSV.  [default: NAME.actions.csv beside the video, if there]"
)
JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON object on stdout and nothing else.")
CODEC = click.option(
    "--codec", default="lossless", show_default=True, type=click.Choice(["lossless", "h264", "av1"]),
    help="How videos are encoded.",
)  # fmt: skip
OVERWRITE = click.option("--overwrite", is_flag=True, help="Replace an output that exists.")


def resume(command: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options --resume and --overwrite, which exclude each other."""

    @functools.wraps(command)
    def checked(**values: Any) -> Any:
        if values["resume"] and values["overwrite"]:
            raise click.UsageError("--resume and --overwrite exclude each other")
        return command(**values)

    made: Callable[..., Any] = OVERWRITE(checked)
    return click.option("--resume", is_flag=True, help="Go on with what was stopped.")(made)


_CHOICES = {
    "camera": ("NAME", "Camera of a LeRobot source that has several."),
    "observation": ("KEY", "Pictures of a Minari source whose observations are a dictionary."),
    "columns": ("ROLE=COLUMN,...", "Columns of a source: actions=NAME; of hf: also video, frames, episode, text."),
}


def take_sources(metavar: str = "SOURCE...") -> Callable[[Any], Any]:
    """Return the argument `sources`, and the options that choose something of each SOURCE with a prefix."""

    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(command)
        def with_options(sources: tuple[str, ...], **values: Any) -> Any:
            given = {name: value for name in _CHOICES if (value := values.pop(name)) is not None}
            return command(sources=_chosen(sources, given), **values)

        made: Callable[..., Any] = with_options
        for name, (what, help) in reversed(_CHOICES.items()):
            made = click.option(f"--{name}", metavar=what, help=help)(made)
        return click.argument("sources", nargs=-1, required=True, metavar=metavar)(made)

    return decorate


SOURCES = take_sources()


def _chosen(sources: tuple[str, ...], given: dict[str, str]) -> tuple[str, ...]:
    if not given:
        return sources
    from framepred.sources.find import with_choices

    chosen = tuple(with_choices(source, given) for source in sources)
    if chosen == sources:
        name = next(iter(given))
        raise FramepredError(f"--{name} {given[name]} is for sources with a prefix, as lerobot:PATH: leave it out")
    return chosen


def out(help: str, required: bool = False) -> Callable[[Any], Any]:
    """Return the option -o."""
    return click.option("-o", "--out", required=required, type=click.Path(path_type=Path), help=help)


def how_to_resume(overwrite: bool) -> str:
    """Return how to go on with a command that has --resume, after it was stopped."""
    return f"give the same command with --resume{' in place of --overwrite' if overwrite else ''} to go on"


def settings(what: str) -> Callable[[Any], Any]:
    """Return the option --set, which changes a value of `what`."""
    return click.option(
        "--set", "settings", multiple=True, metavar="KEY=VALUE", help=f"Change a value of the {what} (repeatable)."
    )


def numbered(path: Path) -> Path:
    """Return a path that is free: `path`, or the first of clip-2.mp4, clip-3.mp4, …"""
    free, number = path, 2
    while free.exists():
        free, number = path.with_stem(f"{path.stem}-{number}"), number + 1
    return free


def check_video_output(path: Path, overwrite: bool, *inputs: str | Path | None) -> None:
    """Raise FramepredError unless a video or arrays can be written to `path`, which is none of the `inputs`."""
    if path.suffix.lower() not in _VIDEO_ENDINGS:
        raise FramepredError(
            f"output {path}: unknown ending {path.suffix!r}; give {', '.join(_VIDEO_ENDINGS[:-1])} or .npz"
        )
    check_file_output(path, overwrite, *inputs)


def check_file_output(path: Path, overwrite: bool, *inputs: str | Path | None) -> None:
    """Raise FramepredError as `check_output` does, and for what is no file, or one of the `inputs`."""
    check_output(path, overwrite)
    if path.exists() and not path.is_file():
        raise FramepredError(f"{path} is no file that can be replaced: choose another -o")
    if any(path.exists() and given and Path(given).exists() and path.samefile(given) for given in inputs):
        raise FramepredError(f"--overwrite would delete the input {path}: choose another -o")


def check_output(path: Path, overwrite: bool) -> None:
    """Raise FramepredError for an output that exists, without `overwrite`, or whose folder cannot be written."""
    if (path.exists() or path.is_symlink()) and not overwrite:
        raise FramepredError(f"{path} exists already: give --overwrite or another -o")
    folder = path.parent
    while not folder.exists():
        folder = folder.parent
    if not (folder.is_dir() and os.access(folder, os.W_OK)):
        raise FramepredError(f"{path} cannot be written: {folder} is no writable folder; choose another -o")


def fit(default: str) -> Callable[[Any], Any]:
    """Return the option --fit, whose default is described by `default`."""
    return click.option(
        "--fit", type=click.Choice(FITS),
        help="How pictures of another shape fit: crop cuts them off, pad adds black borders, stretch distorts them.  "
        f"[default: {default}]",
    )  # fmt: skip


def frame_size(_: click.Context, __: click.Parameter, value: str | None) -> tuple[int, int] | None:
    """Read the option --size: 64 or 64x96 → (height, width)."""
    if value is None:
        return None
    parts = value.lower().split("x")
    if len(parts) not in (1, 2) or not all(p.isdigit() and 8 <= int(p) <= 4096 for p in parts):
        raise click.BadParameter(f"{value!r}: give a side (64) or HEIGHTxWIDTH (64x96), 8 to 4096 pixels")
    return int(parts[0]), int(parts[-1])
