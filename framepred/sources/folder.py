"""SOURCE arguments → video files with their actions."""

import os
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from torch import Tensor

from framepred.errors import FramepredError, FramepredWarning
from framepred.io.atomic import to_read
from framepred.io.files import file_sha256
from framepred.sources.actions_csv import actions_path, read_actions
from framepred.sources.captions_csv import Caption, captions_path, read_captions, text_path
from framepred.sources.contract import Actions, StoredEpisode
from framepred.video.formats import video_suffixes
from framepred.video.probe import VideoInfo, probe_video
from framepred.video.read import stream_timed


@dataclass(frozen=True)
class VideoFile(StoredEpisode):
    """One video of a source: `source` is the argument that named it or its folder.

    A frame that is missing is an error where it must be `whole`: by default where it has actions.
    """

    path: Path
    source: str
    action_names: tuple[str, ...] | None = None
    whole: bool | None = None

    @property
    def name(self) -> str:
        return self.path.stem

    @property
    def where(self) -> str:
        return str(self.path)

    @property
    def key(self) -> str:
        return str(self.path.resolve())

    @property
    def num_bytes(self) -> int:
        try:
            return self.path.stat().st_size
        except OSError:
            return 0

    @property
    def state(self) -> str:
        about = self.path.stat()
        return repr((self.path.resolve(), about.st_size, about.st_mtime_ns))

    @property
    def content(self) -> str:
        return hash_of(self.path)

    @property
    def said(self) -> str:
        return " ".join(hash_of(file) for file in (text_path(self.path), captions_path(self.path)) if file.is_file())

    @property
    def actions_file(self) -> Path | None:
        path = actions_path(self.path)
        return path if path.is_file() else None

    @property
    def actions_from(self) -> str | None:
        return str(self.actions_file) if self.actions_file else None

    def info(self) -> VideoInfo:
        """Return what the video is like, without decoding it."""
        return probe_video(self.path)

    def own_actions(self) -> Actions | None:
        return read_actions(self.actions_file) if self.actions_file else None

    def stream_timed(
        self, size: tuple[int, int], fps: float | None, chunk: int = 64
    ) -> Iterator[tuple[Tensor, Tensor]]:
        # The reader keeps the frames of a slow video, and says so.
        rate = None if fps is None or self.actions_from or self.info().has_rate(fps) else fps
        whole = self.actions_from is not None if self.whole is None else self.whole
        return stream_timed(self.path, size, rate, chunk, whole)

    def captions(self, times: Tensor, fps: float) -> tuple[Caption, ...]:
        return tuple(read_captions(self.path, max(float(times[-1]) + 1 / fps, self.info().seconds or 0)))


def hash_of(file: Path) -> str:
    """Return a file's sha256, read once as long as the file stays as it is."""
    try:
        about = file.stat()
        return _sha256(file.resolve(), about.st_size, about.st_mtime_ns, about.st_ino)
    except OSError as error:
        raise FramepredError(f"{file} cannot be read ({error.strerror}): check its permissions") from error


@cache
def _sha256(file: Path, *state: int) -> str:
    return file_sha256(file)


def find_videos(sources: Sequence[str | os.PathLike[str]]) -> list[VideoFile]:
    """Return the videos that files and folders hold, sorted within each source; none is an error.

    Of a folder, what is hidden, cannot be read or has a name that is not UTF-8 is left out with a warning.
    """
    found: dict[Path, VideoFile] = {}
    for source in sources:
        path = to_read(source)
        if not _is_utf8(path):
            raise FramepredError(f"the name of source {_shown(path)} is not UTF-8: rename it")
        if not path.exists():
            raise FramepredError(f"source {source} does not exist: give a video file or a folder of videos")
        for p in _videos_below(path) if path.is_dir() else [path]:
            found.setdefault(p.resolve(), VideoFile(p, str(source)))
    return list(found.values())


def _videos_below(folder: Path) -> list[Path]:
    """Return a folder's videos, sorted; warn of those that are left out."""
    files = list(_files(folder))
    videos = sorted(p for p in files if p.suffix.lower() in video_suffixes())
    hidden = [p for p in videos if any(part.startswith(".") for part in p.relative_to(folder).parts)]
    seen = [p for p in videos if p not in set(hidden)]
    for why, left_out in (
        ("are hidden", hidden),
        ("have a name that is not UTF-8", [p for p in seen if not _is_utf8(p)]),
    ):
        if left_out:
            words = f"{len(left_out)} video files below {folder} {why}, as {_shown(left_out[0])}: left out"
            warnings.warn(FramepredWarning(words), stacklevel=3)
    found = [p for p in seen if _is_utf8(p)]
    _warn_of_tables(folder, files, found)
    if not found:
        raise FramepredError(
            f"source {folder} holds no video: framepred looks for the endings that FFmpeg writes, as .mp4, .mkv, .webm"
        )
    return found


def _warn_of_tables(folder: Path, files: Sequence[Path], videos: Sequence[Path]) -> None:
    """Warn of CSV files that are no video's: a name that is wrong by a letter would leave a video without actions."""
    own = {place(video) for video in videos for place in (actions_path, captions_path)}
    tables = (p for p in files if p.suffix.lower() == ".csv" and p not in own)
    left = sorted(p for p in tables if not any(part.startswith(".") for part in p.relative_to(folder).parts))
    if left:
        words = (
            f"{len(left)} CSV files below {folder} belong to no video, as {_shown(left[0])}: not read; the actions of "
            "NAME.mp4 are in NAME.actions.csv beside it"
        )
        warnings.warn(FramepredWarning(words), stacklevel=4)


def _is_utf8(path: Path) -> bool:
    """Say whether a path is text: on Linux any bytes may be a name."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def _shown(path: Path) -> str:
    return os.fsencode(path).decode(errors="backslashreplace")


def _files(folder: Path) -> Iterator[Path]:
    """Yield every file below a folder, through linked folders too, each real folder once."""
    seen = set()
    for parent, folders, files in os.walk(folder, onerror=_warn_unreadable, followlinks=True):
        folders.sort()
        real = os.path.realpath(parent)
        if real in seen:
            # A link to where the walk has been, or is: it would never end.
            folders.clear()
            continue
        seen.add(real)
        yield from (Path(parent) / name for name in files)


def _warn_unreadable(error: OSError) -> None:
    message = f"folder {_shown(Path(error.filename))} cannot be read ({error.strerror}): its videos are left out"
    warnings.warn(FramepredWarning(message), stacklevel=2)
