"""Videos behind a URL of fsspec (`s3://BUCKET/FOLDER`, `hf://datasets/OWNER/NAME/FOLDER`) → episodes.

A file is copied to this machine whole when it is read; the last few copies stay until the process ends.
"""

import hashlib
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any

from torch import Tensor

from framepred.errors import FramepredError
from framepred.io.atomic import writing
from framepred.io.remote import place, reaching
from framepred.sources.actions_csv import actions_path
from framepred.sources.captions_csv import Caption, captions_path, text_path
from framepred.sources.contract import Actions, Choices, StoredEpisode, VideoInfo, refuse_unknown
from framepred.sources.folder import VideoFile, hash_of
from framepred.video.formats import video_suffixes

_KEPT = 4
"""Videos whose copies stay on this machine."""


@dataclass(frozen=True)
class RemoteVideo(StoredEpisode):
    """One video: `url` is its address, `stamp` changes with it, `beside` are the addresses of its actions and captions.

    Its content is that of its bytes, as if it lay on this machine: a token store knows it from here and there.
    """

    url: str
    source: str
    size: int
    stamp: str
    beside: tuple[str, ...] = ()
    action_names: tuple[str, ...] | None = None

    @property
    def name(self) -> str:
        return PurePosixPath(self.url).stem

    @property
    def where(self) -> str:
        return self.url

    @property
    def key(self) -> str:
        return self.url

    @property
    def num_bytes(self) -> int:
        return self.size

    @property
    def state(self) -> str:
        return repr((self.url, self.size, self.stamp))

    @property
    def content(self) -> str:
        return _content(replace(self, action_names=None))

    @property
    def said(self) -> str:
        return self._copy(whole=False).said

    @property
    def actions_from(self) -> str | None:
        return next((url for url in self.beside if url.endswith(".actions.csv")), None)

    def info(self) -> VideoInfo:
        with self._named():
            return self._copy().info()

    def own_actions(self) -> Actions | None:
        with self._named():
            return self._copy(whole=False).own_actions() if self.actions_from else None

    def stream_timed(
        self, size: tuple[int, int], fps: float | None, chunk: int = 64
    ) -> Iterator[tuple[Tensor, Tensor]]:
        with self._named():
            yield from self._copy().stream_timed(size, fps, chunk)

    def captions(self, times: Tensor, fps: float) -> tuple[Caption, ...]:
        with self._named():
            return self._copy().captions(times, fps)

    def _copy(self, whole: bool = True) -> VideoFile:
        """Return the copy here, with what stands beside it; the video itself only where it is `whole`."""
        for url in self.beside:
            _copied(url, self)
        return VideoFile(_copied(self.url, self) if whole else _copy_of(self.url, self), self.source)

    @contextmanager
    def _named(self) -> Iterator[None]:
        """Let errors name the address in place of the copy."""
        folder = str(_copy_of(self.url, self).parent)
        try:
            yield
        except FramepredError as error:
            if folder not in str(error):
                raise
            raise FramepredError(str(error).replace(folder, self.url.rpartition("/")[0])) from error


def find_remote(url: str, choices: Choices) -> Sequence[RemoteVideo]:
    """Return the videos that a URL is or that lie below it, sorted, without reading them.

    Raises FramepredError for one that cannot be reached or holds no video.
    """
    refuse_unknown(choices, (), url)
    with reaching(url):
        root: Any = place(url)
        found: dict[str, Any] = root.fs.find(root.path, detail=True)
    about = {str(root.fs.unstrip_protocol(name)): info for name, info in found.items()}
    shown = [u for u in sorted(about) if not any(p.startswith(".") for p in u.removeprefix(url).split("/"))]
    videos = [u for u in shown if PurePosixPath(u).suffix.lower() in video_suffixes()]
    if not videos:
        raise FramepredError(f"source {url} is not there, or holds no video: give a video or a folder of videos")

    def beside(video: str) -> tuple[str, ...]:
        folder, _, name = video.rpartition("/")
        names = (of(name).name for of in (actions_path, captions_path, text_path))
        return tuple(u for name in names if (u := f"{folder}/{name}") in about)

    def stamp(video: str) -> str:
        parts = [sorted((k, str(v)) for k, v in about[u].items()) for u in (video, *beside(video))]
        return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]

    return [RemoteVideo(u, url, int(about[u].get("size") or 0), stamp(u), beside(u)) for u in videos]


@cache
def _content(video: RemoteVideo) -> str:
    return hash_of(_copied(video.url, video))


@cache
def _root(process: int) -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory(prefix="framepred-")


def _copy_of(url: str, video: RemoteVideo) -> Path:
    """Return where the copy here of a file that belongs to a video is, or would be."""
    folder = hashlib.sha256(video.state.encode()).hexdigest()[:16]
    return Path(_root(os.getpid()).name, folder, PurePosixPath(url).name)


_LAST = list[Path]()
"""The copies of videos that are here, in the order of their last use."""


def _copied(url: str, video: RemoteVideo) -> Path:
    """Return the copy here of a file that belongs to a video, fetched where it is not here."""
    path = _copy_of(url, video)
    if not path.exists():
        with writing(path) as temporary, reaching(url):
            remote: Any = place(url)
            remote.fs.get_file(remote.path, str(temporary))
    if url == video.url:
        _LAST[:] = [p for p in _LAST if p != path] + [path]
        for old in _LAST[:-_KEPT]:
            old.unlink(missing_ok=True)
        del _LAST[:-_KEPT]
    return path
