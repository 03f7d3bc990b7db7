"""SOURCE arguments → video files with their actions."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from framepred.errors import FramepredError
from framepred.sources.actions_csv import actions_path, read_actions
from framepred.sources.captions_csv import Caption, read_captions
from framepred.sources.contract import Actions, StoredEpisode
from framepred.video.formats import video_suffixes
from framepred.video.probe import VideoInfo, has_rate, probe_video
from framepred.video.read import stream_timed


@dataclass(frozen=True)
class VideoFile(StoredEpisode):
    """One video of a source: `source` is the argument that named it or its folder."""

    path: Path
    source: str
    action_names: tuple[str, ...] | None = None

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
    def actions_file(self) -> Path | None:
        path = actions_path(self.path)
        return path if path.is_file() else None

    @property
    def actions_from(self) -> str | None:
        return str(self.actions_file) if self.actions_file else None

    def info(self) -> VideoInfo:
        """Return what the video's header says."""
        return probe_video(self.path)

    def own_actions(self) -> Actions | None:
        return read_actions(self.actions_file) if self.actions_file else None

    def stream_timed(
        self, size: tuple[int, int], fps: float | None, chunk: int = 64
    ) -> Iterator[tuple[Tensor, Tensor]]:
        # The reader keeps the frames of a slow video, and says so.
        rate = None if fps is None or self.actions_from or has_rate(self.info(), fps) else fps
        return stream_timed(self.path, size, rate, chunk, whole=self.actions_from is not None)

    def captions(self, times: Tensor, fps: float) -> tuple[Caption, ...]:
        return tuple(read_captions(self.path, float(times[-1]) + 1 / fps))


def find_videos(sources: Sequence[str | os.PathLike[str]]) -> list[VideoFile]:
    """Return the videos that files and folders hold, sorted within each source; none is an error."""
    found: dict[Path, VideoFile] = {}
    for source in sources:
        path = Path(source)
        if not path.exists():
            raise FramepredError(f"source {source} does not exist: give a video file or a folder of videos")
        paths = [path]
        if path.is_dir():
            paths = sorted(
                p for p in _files(path) if p.suffix.lower() in video_suffixes() and not p.name.startswith(".")
            )
            if not paths:
                raise FramepredError(
                    f"source {source} holds no video: framepred looks for {', '.join(video_suffixes())}"
                )
        for p in paths:
            found.setdefault(p.resolve(), VideoFile(p, str(source)))
    return list(found.values())


def _files(folder: Path) -> Iterator[Path]:
    """Yield every file below a folder, through linked folders too, each real folder once."""
    seen = set()
    for parent, folders, files in os.walk(folder, followlinks=True):
        folders.sort()
        real = os.path.realpath(parent)
        if real in seen:
            # A link to where the walk has been, or is: it would never end.
            folders.clear()
            continue
        seen.add(real)
        yield from (Path(parent) / name for name in files)
