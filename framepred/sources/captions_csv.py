"""Captions: `NAME.txt` of a whole video and `NAME.captions.csv` of its parts, beside `NAME.mp4`."""

import csv
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from framepred.errors import FramepredError
from framepred.io.atomic import writing

_HEADER = ["start", "end", "text"]


@dataclass(frozen=True)
class Caption:
    """The caption of the frames from `start` to before `end`, in seconds."""

    start: float
    end: float
    text: str


def captions_path(video: str | os.PathLike[str]) -> Path:
    """Return where a video's time-stamped captions are looked for: NAME.mp4 → NAME.captions.csv."""
    return Path(video).with_suffix(".captions.csv")


def text_path(video: str | os.PathLike[str]) -> Path:
    """Return where the caption of a whole video is looked for: NAME.mp4 → NAME.txt."""
    return Path(video).with_suffix(".txt")


def read_captions(video: str | os.PathLike[str], seconds: float) -> list[Caption]:
    """Return the captions of a video that lasts `seconds`; none where it has no such files.

    Raises FramepredError for a file that is not UTF-8, no table of start, end and text, or speaks of times
    outside the video.
    """
    whole, parts = text_path(video), captions_path(video)
    captions = [Caption(0.0, seconds, read_text(whole).strip())] if whole.is_file() else []
    if parts.is_file():
        captions += _read_table(parts, seconds)
    return [c for c in captions if c.text]


def read_text(path: Path) -> str:
    """Read a text file, which must be UTF-8."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise FramepredError(f"text file {path} is not UTF-8 ({error}): save it as UTF-8") from error


def find_texts(sources: Sequence[str | os.PathLike[str]]) -> list[Path]:
    """Return the text files that are given, and the .txt files below the folders that are given, sorted."""
    found: list[Path] = []
    for source in map(Path, sources):
        files = [source] if source.is_file() else sorted(p for p in source.rglob("*.txt") if p.is_file())
        if not files:
            raise FramepredError(f"text {source} is no file, and no folder that holds a .txt: give text files")
        found += files
    return found


def _read_table(path: Path, seconds: float) -> list[Caption]:
    rows = csv.reader(read_text(path).splitlines(keepends=True), strict=True)
    captions = []
    try:
        header = [cell.strip() for cell in next(rows, [])]
        if header != _HEADER:
            raise FramepredError(f"captions file {path} begins with {header}: the first row must be start,end,text")
        for row in rows:
            if row:
                captions.append(_caption(row, f"captions file {path}, line {rows.line_num}", seconds))
    except csv.Error as error:
        raise FramepredError(f"captions file {path}, line {rows.line_num} is not CSV ({error}): mend it") from error
    return captions


def _caption(row: list[str], where: str, seconds: float) -> Caption:
    try:
        start, end, text = float(row[0]), float(row[1]), row[2].strip()
    except (ValueError, IndexError) as error:
        raise FramepredError(f"{where}: {row} is not start, end and text, times in seconds") from error
    if not (math.isfinite(end) and 0 <= start < end and start < seconds):
        raise FramepredError(
            f"{where}: {start:g} to {end:g} s is not within the video's {seconds:g} s; give 0 <= start < end"
        )
    return Caption(start, min(end, seconds), text)


def write_captions(path: str | os.PathLike[str], captions: Sequence[Caption]) -> None:
    """Write time-stamped captions as a captions file."""
    with writing(path) as temporary, temporary.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(_HEADER)
        writer.writerows([f"{c.start:.3f}", f"{c.end:.3f}", c.text] for c in captions)
