"""What the experiments share: a folder whose results are kept line by line, and go on where they were stopped."""

import json
import math
import platform
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click
import torch

from framepred.errors import FramepredError
from framepred.io.atomic import write_text

Result = dict[str, Any]


def claim(folder: Path, about: Result) -> None:
    """Note in a folder what its results are of; FramepredError where it holds those of something else."""
    folder.mkdir(parents=True, exist_ok=True)
    mark, new = folder / "about.json", json.loads(json.dumps(about))
    old = json.loads(mark.read_text()) if mark.exists() else new
    if changed := [key for key in new if old.get(key) != new[key]]:
        was, now = (json.dumps(values.get(changed[0])) for values in (old, new))
        raise FramepredError(f"{folder} holds results of {changed[0]} {was}, not {now}: give another folder")
    write_text(mark, json.dumps(new) + "\n")


def read_results(file: Path) -> list[Result]:
    """Return the results of a file; a last line that was cut off is left out, there too."""
    lines = file.read_text().splitlines(keepends=True) if file.exists() else []
    whole = [line for line in lines if line.endswith("\n")]
    if len(whole) < len(lines):
        write_text(file, "".join(whole))
    return [json.loads(line) for line in whole]


def keep(file: Path, result: Result) -> None:
    """Write a result behind the others."""
    with file.open("a") as log:
        log.write(json.dumps(result) + "\n")


def machine() -> str:
    """Say what the numbers were made on."""
    return f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}"


def pooled(decibels: Sequence[float]) -> float:
    """Return the PSNR of the mean error of what has these PSNRs, in dB."""
    return -10 * math.log10(sum(10 ** (-value / 10) for value in decibels) / len(decibels))


def run_script(command: click.Command) -> None:
    """Run a script's command; an error of framepred's is one line that begins with the script's name."""
    try:
        command(standalone_mode=False)
    except FramepredError as error:
        raise SystemExit(f"{Path(sys.argv[0]).name}: {error}") from error
