"""What a training will do, as it is said before it begins; and the shipped run that it starts from."""

import json
import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from framepred.config.action_names import names_from_json, values_of
from framepred.config.frame_size import fit_of
from framepred.config.recipe import Recipe
from framepred.errors import FramepredError, FramepredWarning
from framepred.io import zoo
from framepred.io.atomic import write_text
from framepred.io.files import read_json
from framepred.io.remote import place
from framepred.sources.contract import StoredEpisode
from framepred.sources.find import find_episodes
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

    Its frames are of `size`, and a token store was made by its tokenizer. Of those that fit, it is one that knows the
    sources' actions by the same names, else the default; a tokenizer that sees actions fits no others.
    """
    stores = [source for source in sources if is_store(source)]
    made = {read_store_info(store).tokenizer_sha256 for store in stores}
    fitting = dict[str, tuple[str, ...]]()
    for name in zoo.names("models"):
        about = read_json(zoo.resolve("models", name) / "framepred.json", "run")
        if made <= {about.get("tokenizer_sha256")} and about.get("frame_size") == list(size):
            fitting[name] = _names(names_from_json(about["actions"]) if about.get("actions") else ())
    if len(fitting) < 2:
        return next(iter(fitting), None)
    given = _names(names_of_stores(stores) if stores else _names_of_first(sources))
    return next((name for name, known in fitting.items() if given and given == known), zoo.DEFAULT)


def _names_of_first(sources: Sequence[str]) -> tuple[str, ...]:
    """Return the names of the actions of the first episode that has any that can be read."""
    for episode in find_episodes(sources):
        if episode.actions_from:
            try:
                return (episode.actions() or (None, ()))[1]
            except FramepredError:
                continue
    return ()


def _names(columns: Sequence[str]) -> tuple[str, ...]:
    """Return the names of ids, where ids have names, else those of columns."""
    return values_of(columns) or tuple(columns)


@dataclass(frozen=True)
class Footage:
    """What sources hold: names, keys and numbers of frames (None where a header has none) of episodes, and rates."""

    episodes: tuple[tuple[str, str, int | None], ...]
    rates: tuple[float, ...]
    actions: tuple[str, ...]
    hours: float | None
    frames: int | None


def look_at_videos(videos: Sequence[StoredEpisode]) -> tuple[list[StoredEpisode], Footage]:
    """Read the headers and actions of videos → the videos that can be used, and what they hold.

    One whose header or actions cannot be read, or do not fit each other, is left out with a warning; so is said of a
    rate that can hardly be. Of many videos, `_PROBED` are looked at. Raises FramepredError where none can be used.
    """
    probed = videos[:: max(1, -(-len(videos) // _PROBED))]
    seen, bad = dict[str, _Header](), set[str]()
    for video in probed:
        try:
            seen[video.key] = _Header.read(video)
        except FramepredError as error:
            bad.add(video.key)
            if len(videos) == 1:
                raise
            if len(bad) == len(videos):
                raise FramepredError(f"no training video of {len(videos)} can be used; the last: {error}") from error
            warnings.warn(FramepredWarning(f"skipped: {error}"), stacklevel=2)
    kept = [video for video in videos if video.key not in bad]
    if not seen:
        raise unreadable(len(videos))
    headers, scale = list(seen.values()), len(kept) / len(seen)
    counts, seconds = [h.frames for h in headers], [h.seconds for h in headers]
    rates = [_short(h.fps) for h in headers]
    # Of episodes that were not looked at, none says how long it is.
    known = {key: header.frames for key, header in seen.items()} if len(seen) == len(kept) else {}
    return kept, Footage(
        tuple((v.name, v.key, known.get(v.key)) for v in kept),
        tuple(sorted(set(rates), key=lambda rate: -rates.count(rate))),
        next((h.actions for h in headers if h.actions), ()),
        None if None in seconds else sum(s or 0 for s in seconds) * scale / 3600,
        None if None in counts else round(sum(n or 0 for n in counts) * scale),
    )


@dataclass(frozen=True)
class _Header:
    """What is known of a video before its frames are read: `actions` by name."""

    frames: int | None
    seconds: float | None
    fps: float
    actions: tuple[str, ...]

    @staticmethod
    def read(video: StoredEpisode) -> "_Header":
        """Raise FramepredError for a video that cannot be read, or whose actions cannot or do not fit its frames."""
        info, loaded = video.info(), video.actions()
        if loaded:
            video.check_rows(loaded[0], str(video.actions_from))
        if doubt := doubt_rate(info.fps):
            choice = "; --fps chooses frames by their times" if info.fps > 1 else ""
            warnings.warn(FramepredWarning(f"{video.name} {doubt}; every frame is taken{choice}"), stacklevel=3)
        names = loaded[1] if loaded else ()
        return _Header(info.num_frames, info.seconds, info.fps, _names(names))


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
        _names(names),
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
