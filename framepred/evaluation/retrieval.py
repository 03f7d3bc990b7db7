"""The copying baseline: find the training clip whose context is nearest, and replay its future."""

import hashlib
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from framepred.config.frame_size import fit_of
from framepred.errors import FramepredError, FramepredWarning
from framepred.io.atomic import writing
from framepred.io.progress import Progress
from framepred.sources.contract import StoredEpisode
from framepred.sources.find import find_episodes
from framepred.tokenizer.contract import Tokenizer
from framepred.tokens.store import TokenEpisode, check_made_by, is_store, read_store
from framepred.video.resize import fit_frames

_SIDE = 8
_ROWS = 65_536


def features(frames: Tensor) -> Tensor:
    """Frames uint8 (T, 3, H, W) → thumbnails uint8 (T, 192), by which contexts are compared."""
    return F.adaptive_avg_pool2d(frames.float(), _SIDE).round().to(torch.uint8).flatten(1)


@dataclass(frozen=True)
class TrainingIndex:
    """Thumbnails uint8 (F, 192) of every training frame, one episode after the other."""

    features: Tensor
    lengths: tuple[int, ...]
    episodes: tuple[StoredEpisode | TokenEpisode, ...]
    tokenizer: Tokenizer
    fps: float

    def digest(self) -> str:
        """Return a hash of what is indexed."""
        return hashlib.sha256(self.features.numpy().tobytes() + repr(self.lengths).encode()).hexdigest()

    def nearest(self, context: Tensor, horizon: int) -> tuple[int, int, float]:
        """Find the stretch nearest to a context uint8 (C, 3, H, W) that goes on for `horizon` frames.

        Returns (episode, its first frame, root mean square distance of the thumbnails in [0, 1]).
        """
        query = features(context).float()
        span, total = len(context) + horizon, len(self.features)
        distance = torch.zeros(max(0, total - span + 1))
        for at, row in enumerate(query):
            for start in range(0, len(distance), _ROWS):
                part = self.features[start + at : min(start + _ROWS, len(distance)) + at].float()
                distance[start : start + len(part)] += (part - row).square().sum(1)
        first = 0
        for length in self.lengths:
            # A stretch must not run on into the next episode.
            distance[max(0, first + length - span + 1) : first + length] = torch.inf
            first += length
        if not len(distance) or not bool(distance.isfinite().any()):
            raise FramepredError(f"no training clip has {span} frames: give longer ones to --train")
        best = int(distance.argmin())
        episode, offset = 0, best
        while offset >= self.lengths[episode]:
            offset, episode = offset - self.lengths[episode], episode + 1
        return episode, offset, float((distance[best] / query.numel()).sqrt() / 255)

    def frames(self, episode: int, start: int, count: int, size: tuple[int, int]) -> Tensor:
        """Read frames uint8 (count, 3, H, W) of an episode again."""
        source = self.episodes[episode]
        if isinstance(source, TokenEpisode):
            begin = 0 if self.tokenizer.past > 1 else start
            return fit_frames(_decode(self.tokenizer, source, begin, start + count)[-count:], size)
        kept, first = [], 0
        for chunk in source.stream(size, self.fps):
            kept.append(chunk[max(0, start - first) : max(0, start + count - first)])
            first += len(chunk)
            if first >= start + count:
                break
        return torch.cat(kept)


def _decode(tokenizer: Tokenizer, episode: TokenEpisode, start: int, stop: int) -> Tensor:
    """Decode frames of an episode, from its first where the tokenizer needs the picture that it begins from."""
    actions = None if episode.actions is None else episode.actions[start:]
    return tokenizer.decode(episode.tokens[start:stop].long(), actions, episode.first).cpu()


@torch.inference_mode()
def index_training(
    sources: Sequence[str], tokenizer: Tokenizer, tokenizer_sha256: str, fps: float, cache: Path | None = None
) -> Iterator[Progress | TrainingIndex]:
    """Index videos and token stores, yielding after each episode, and at last with the index.

    With a `cache` folder the thumbnails are kept there, until a file changes. Raises FramepredError where
    nothing is found, or a store holds another tokenizer's tokens.
    """
    found: list[StoredEpisode | TokenEpisode] = []
    for source in sources:
        if is_store(source):
            check_made_by(source, tokenizer_sha256, fit_of(tokenizer.frame_size))
            found += read_store(source)
        else:
            found += find_episodes([source])
    kept = None if cache is None else cache / f"training-{_state(found, tokenizer, tokenizer_sha256, fps)}.safetensors"
    parts = _read_parts(kept)
    if parts is None:
        parts = {}
        for i, item in enumerate(found):
            try:
                if isinstance(item, TokenEpisode):
                    length = len(item.tokens)
                    step = length if tokenizer.past > 1 else 64
                    chunks: Iterator[Tensor] = (
                        _decode(tokenizer, item, at, at + step) for at in range(0, length, step)
                    )
                else:
                    chunks = item.stream(tokenizer.frame_size, fps)
                parts[str(i)] = torch.cat([features(chunk) for chunk in chunks])
            except FramepredError as error:
                warnings.warn(FramepredWarning(f"skipped: {error}"), stacklevel=2)
            yield Progress(i + 1, len(found), item.name)
        if not parts:
            raise FramepredError(f"none of the {len(found)} training videos could be read: give others to --train")
        _write_parts(kept, parts)
    order = sorted(parts, key=int)
    yield TrainingIndex(
        torch.cat([parts[i] for i in order]), tuple(len(parts[i]) for i in order),
        tuple(found[int(i)] for i in order), tokenizer, fps,
    )  # fmt: skip


def _state(
    found: Sequence[StoredEpisode | TokenEpisode], tokenizer: Tokenizer, tokenizer_sha256: str, fps: float
) -> str:
    """Return a hash of all that thumbnails depend on; a stored episode is identified by its state."""
    digest = hashlib.sha256(repr((_SIDE, tokenizer.frame_size, tokenizer_sha256, fps)).encode())
    for item in found:
        if isinstance(item, TokenEpisode):
            digest.update(item.tokens.numpy().tobytes())
        else:
            digest.update(item.state.encode())
    return digest.hexdigest()


def _read_parts(path: Path | None) -> dict[str, Tensor] | None:
    try:
        return load_file(path) if path and path.is_file() else None
    except (SafetensorError, OSError):
        return None


def _write_parts(path: Path | None, parts: dict[str, Tensor]) -> None:
    if path is None:
        return
    with writing(path) as temporary:
        temporary.write_bytes(save(parts))
