"""SOURCE arguments → video files with their actions."""

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from framepred.errors import FramepredError
from framepred.sources.actions_csv import actions_path, read_actions
from framepred.sources.captions_csv import Caption, read_captions
from framepred.sources.episode import Episode, check_action_count, order_actions
from framepred.video.read import VIDEO_SUFFIXES, VideoInfo, probe_video, read_timed, stream_timed

__all__ = ["VideoFile", "VideoInfo", "find_videos"]


@dataclass(frozen=True)
class VideoFile:
    """One video of a source: `source` is the argument that named it or its folder.

    `action_names`, where given, are the names that its actions must have, in the order in which they are wanted.
    """

    path: Path
    source: str
    action_names: tuple[str, ...] | None = None

    @property
    def name(self) -> str:
        return self.path.stem

    @property
    def actions_file(self) -> Path | None:
        path = actions_path(self.path)
        return path if path.is_file() else None

    def info(self) -> VideoInfo:
        """Return what the video's header says."""
        return probe_video(self.path)

    def actions(self, file: Path | None = None) -> tuple[Tensor, tuple[str, ...]] | None:
        """Return (actions, names) of an actions file, by default the one beside the video; None where there is none.

        Raises FramepredError where their names are not the `action_names`; another order is put right.
        """
        file = file or self.actions_file
        if file is None:
            return None
        actions, names = read_actions(file)
        if self.action_names is None:
            return actions, names
        return order_actions(actions, names, self.action_names, str(file)), self.action_names

    def ordered(self, action_names: tuple[str, ...] | None) -> "VideoFile":
        """Return the video with its actions in the order of these names."""
        return replace(self, action_names=action_names)

    def resampled_to(self, fps: float | None) -> float | None:
        """Return `fps` where the video is to be resampled to it; None where it keeps its own frames.

        It keeps them where an actions file belongs to them, and where their rate is within 2 % of `fps`.
        """
        if fps is None or self.actions_file or abs(self.info().fps - fps) <= 0.02 * fps:
            return None
        return fps

    def stream(self, size: tuple[int, int], fps: float | None, chunk: int = 64) -> Iterator[Tensor]:
        """Yield frames uint8 (≤ chunk, 3, H, W), `resampled_to` a rate."""
        return (frames for frames, _ in self.stream_timed(size, fps, chunk))

    def stream_timed(
        self, size: tuple[int, int], fps: float | None, chunk: int = 64
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield frames as `stream` does, with their times float64 (≤ chunk,) in seconds from the first."""
        return stream_timed(self.path, size, self.resampled_to(fps), chunk)

    def captions(self, times: Tensor, fps: float) -> tuple[Caption, ...]:
        """Return the captions of frames at `times`, the last of which is shown for 1 / fps seconds."""
        return tuple(read_captions(self.path, float(times[-1]) + 1 / fps))

    def read(
        self, size: tuple[int, int], fps: float | None = None, max_frames: int | None = None, with_actions: bool = True
    ) -> Episode:
        """Read the video, or its first `max_frames` frames, into memory, as `stream` yields it."""
        rate = self.resampled_to(fps)
        frames, times = read_timed(self.path, size, rate, max_frames)
        loaded = self.actions() if with_actions else None
        actions, names = loaded or (None, ())
        if actions is not None:
            if len(frames) == max_frames:
                actions = actions[:max_frames]
            check_action_count(actions, len(frames), str(self.actions_file))
        return Episode(self.name, frames, times, rate or self.info().fps, actions, names)


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
