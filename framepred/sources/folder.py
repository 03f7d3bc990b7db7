"""SOURCE arguments → video files with their actions."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor

from framepred.errors import FramepredError
from framepred.sources.actions_csv import actions_path, read_actions
from framepred.video.read import VIDEO_SUFFIXES, Clip, probe_video, read_video, stream_video


@dataclass(frozen=True)
class VideoFile:
    """One video of a source: `source` is the argument that named it or its folder."""

    path: Path
    source: str

    @property
    def name(self) -> str:
        return self.path.stem

    @property
    def actions_file(self) -> Path | None:
        path = actions_path(self.path)
        return path if path.is_file() else None

    def actions(self) -> tuple[Tensor, tuple[str, ...]] | None:
        """Return (actions, names) of the sidecar, None where there is none."""
        return read_actions(self.actions_file) if self.actions_file else None

    def resampled_to(self, fps: float | None) -> float | None:
        """Return `fps` where the video is to be resampled to it; None where it keeps its own frames.

        It keeps them where an actions file belongs to them, and where their rate is within 2 % of `fps`.
        """
        if fps is None or self.actions_file or abs(probe_video(self.path).fps - fps) <= 0.02 * fps:
            return None
        return fps

    def stream(self, size: tuple[int, int], fps: float | None) -> Iterator[Tensor]:
        """Yield frames uint8 (≤ 64, 3, H, W), `resampled_to` a rate."""
        return stream_video(self.path, size, self.resampled_to(fps))

    def read(self, size: tuple[int, int], fps: float | None = None, max_frames: int | None = None) -> Clip:
        """Read the video into memory, as `stream` yields it."""
        return read_video(self.path, size, self.resampled_to(fps), max_frames)


def find_videos(sources: Sequence[str | os.PathLike[str]]) -> list[VideoFile]:
    """Return the videos that files and folders hold, sorted within each source; none is an error."""
    found: dict[Path, VideoFile] = {}
    for source in sources:
        path = Path(source)
        if not path.exists():
            raise FramepredError(f"source {source} does not exist: give a video file or a folder of videos")
        paths = [path]
        if path.is_dir():
            paths = sorted(p for p in _files(path) if p.suffix.lower() in VIDEO_SUFFIXES and not p.name.startswith("."))
            if not paths:
                raise FramepredError(f"source {source} holds no video: framepred looks for {', '.join(VIDEO_SUFFIXES)}")
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
