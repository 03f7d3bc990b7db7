"""What a training will do, as it is said before it begins; and the shipped run that it starts from."""

import json
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from framepred.config.action_names import values_of
from framepred.config.frame_size import fit_of
from framepred.config.recipe import Recipe
from framepred.errors import FramepredError, FramepredWarning
from framepred.io import zoo
from framepred.io.atomic import write_text
from framepred.io.files import read_json
from framepred.io.remote import place
from framepred.sources.contract import StoredEpisode
from framepred.tokens.shards import read_shard, shard_files
from framepred.tokens.store import is_store, names_of_stores, read_store_info
from framepred.training.held_out import START, HeldOut, content
from framepred.training.tokenizer import unreadable
from framepred.training.windows import held_out_end, split_episodes
from framepred.video.clock import doubt_rate

NOTHING = "none"
"""The value of --init-from that starts from nothing."""
_PROBED = 500
"""Videos whose headers are read; of more, as many at even distances."""


@dataclass(frozen=True)
class Start:
    """What a training will do.

    `frames`, `hours` and `rates` (frames a second, the most common first) are those of the headers; of many videos an
    estimate. `size` is (height, width) as a `FrameSize`. `parameters` are counted by part; `origin` names the weights
    that training starts from, None is nothing. `minutes` 0 means that `steps`, by stage, decide.
    """

    videos: int
    frames: int | None
    hours: float | None
    rates: tuple[float, ...]
    size: tuple[int, int]
    actions: tuple[str, ...]
    held_out: tuple[HeldOut, ...]
    origin: str | None
    device: str
    threads: int
    parameters: dict[str, int]
    minutes: float
    steps: dict[str, int]

    def to_json(self) -> dict[str, Any]:
        """Return strict JSON values."""
        return json.loads(json.dumps(asdict(self) | {"fit": fit_of(self.size)}, allow_nan=False))


def save_start(run: Path, start: Start) -> None:
    """Keep what a training does in RUN/start.json."""
    write_text(run / START, json.dumps(start.to_json(), indent=1) + "\n")


def stored_origin(run: Path) -> str | None:
    """Return what a run that is resumed was started from, None where it was nothing or nobody knows."""
    try:
        return json.loads((run / START).read_text())["origin"]
    except (OSError, ValueError, KeyError, TypeError):
        return None


def fitting_run(sources: Sequence[str], size: tuple[int, int]) -> str | None:
    """Return the shipped run that training on these sources starts from where nothing is said; None where none fits.

    Its frames are of `size`, and a token store was made by its tokenizer.
    """
    made = {read_store_info(s).tokenizer_sha256 for s in sources if is_store(s)}
    for name in sorted(zoo.names("models"), key=lambda name: (name != zoo.DEFAULT, name)):
        about = read_json(zoo.resolve("models", name) / "framepred.json", "run")
        if made <= {about.get("tokenizer_sha256")} and about.get("frame_size") == list(size):
            return name
    return None


@dataclass(frozen=True)
class Footage:
    """What sources hold: names, keys and numbers of frames (None where a header has none) of episodes, and rates."""

    episodes: tuple[tuple[str, str, int | None], ...]
    rates: tuple[float, ...]
    actions: tuple[str, ...]
    hours: float | None
    frames: int | None


def without_bad(videos: Sequence[StoredEpisode]) -> list[StoredEpisode]:
    """Return the videos whose header and actions can be read and fit each other; each other one is a warning.

    Of many videos, `_PROBED` are looked at. Raises FramepredError where none is right.
    """
    bad = set[str]()
    for video in _probed(videos):
        try:
            _check(video)
        except FramepredError as error:
            bad.add(video.key)
            if len(videos) == 1:
                raise
            if len(bad) == len(videos):
                raise FramepredError(f"no training video of {len(videos)} can be used; the last: {error}") from error
            warnings.warn(FramepredWarning(f"skipped: {error}"), stacklevel=2)
    return [video for video in videos if video.key not in bad]


def _probed(videos: Sequence[StoredEpisode]) -> Sequence[StoredEpisode]:
    return videos[:: max(1, -(-len(videos) // _PROBED))]


def _check(video: StoredEpisode) -> None:
    """Raise FramepredError for a video that cannot be read, or whose actions cannot or do not fit its frames."""
    video.info()
    if loaded := video.actions():
        video.check_rows(loaded[0], str(video.actions_from))


def look_at_videos(videos: Sequence[StoredEpisode]) -> Footage:
    """Read the headers of videos; a file that cannot be read is left out, its own error comes when it is its turn.

    Warns of a rate that can hardly be. Raises FramepredError where none can be read.
    """
    probed = _probed(videos)
    counts, seconds, rates, actions = list[int | None](), list[float | None](), list[float](), tuple[str, ...]()
    for video in probed:
        try:
            info = video.info()
            names = (video.actions() or (None, ()))[1]
            actions = actions or values_of(names) or names
        except FramepredError:
            if len(videos) == 1:
                raise
            continue
        if doubt := doubt_rate(info.fps):
            choice = "; --fps chooses frames by their times" if info.fps > 1 else ""
            warnings.warn(FramepredWarning(f"{video.name} {doubt}; every frame is taken{choice}"), stacklevel=2)
        counts.append(info.num_frames)
        seconds.append(info.seconds)
        rates.append(_short(info.fps))
    if not counts:
        raise unreadable(len(videos))
    scale = len(videos) / len(counts)
    known = dict(zip((v.name for v in probed), counts, strict=False)) if len(probed) == len(counts) else {}
    return Footage(
        tuple((v.name, v.key, known.get(v.name)) for v in videos),
        tuple(sorted(set(rates), key=lambda rate: -rates.count(rate))),
        actions,
        None if None in seconds else sum(s or 0 for s in seconds) * scale / 3600,
        None if None in counts else round(sum(n or 0 for n in counts) * scale),
    )


def _short(fps: float) -> float:
    """Return a rate to four digits: 29.97, or 0.0002778 for a frame an hour."""
    return float(f"{fps:.4g}")


def look_at_stores(stores: Sequence[str]) -> Footage:
    """Read what token stores hold, without their tokens."""
    rows = [
        row
        for store in stores
        for file in shard_files(place(store))
        for row in read_shard(file, ["episode", "source", "fps", "num_frames"]).to_pylist()
    ]
    rates, names = [_short(row["fps"]) for row in rows], names_of_stores(stores)
    return Footage(
        tuple((row["episode"], row["source"], row["num_frames"]) for row in rows),
        tuple(sorted(set(rates), key=lambda rate: -rates.count(rate))),
        values_of(names) or names,
        sum(row["num_frames"] / row["fps"] for row in rows) / 3600,
        sum(row["num_frames"] for row in rows),
    )


def held_out_of(footage: Footage, fraction: float, videos: Sequence[StoredEpisode] = ()) -> tuple[HeldOut, ...]:
    """Return what is held out: whole episodes, or the end of the only one where that is long enough."""
    names = [name for name, _, _ in footage.episodes]
    held = [HeldOut(*footage.episodes[i][:2]) for i in split_episodes(names, fraction)[1]]
    if len(names) == 1 and (count := footage.episodes[0][2]) and (end := held_out_end(count, fraction)):
        held = [HeldOut(*footage.episodes[0][:2], count - end)]
    of = {video.key: video for video in videos}
    return tuple(replace(one, content=content(of[one.key])) if one.key in of else one for one in held)


def count_parameters(recipe: Recipe, tokenizer: Any, init: Any) -> dict[str, int]:
    """Return how many numbers a tokenizer has, and the predictor of a run, or of a new one for this tokenizer."""
    from framepred.predictor.config import LlamaConfig
    from framepred.predictor.llama import Llama

    found = {"tokenizer": sum(p.numel() for p in tokenizer.parameters())}
    if init is not None:
        return found | {"predictor": sum(p.numel() for p in init.predictor.parameters())}
    pred, grid = recipe.predictor, tokenizer.grid
    codes = tokenizer.codebook_size * (grid[0] * grid[1] if tokenizer.past > 1 else 1)
    config = LlamaConfig(
        vocab_size=codes + tokenizer.context_codebook_size + 1, hidden_size=pred.width,
        intermediate_size=pred.mlp_width, num_hidden_layers=pred.layers, num_attention_heads=pred.heads,
        num_key_value_heads=pred.kv_heads, max_position_embeddings=1,
    )  # fmt: skip
    with torch.device("meta"):
        return found | {"predictor": sum(p.numel() for p in Llama(config).parameters())}
