"""What an artifact is: video, token store, tokenizer, run."""

import json
import warnings
from pathlib import Path
from typing import Any

import torch

from framepred.config.action_names import ActionNames, values_of
from framepred.config.frame_size import fit_of
from framepred.errors import FramepredError, FramepredWarning
from framepred.io import hub, zoo
from framepred.sources.actions import kind_of
from framepred.sources.contract import VideoInfo
from framepred.sources.find import Address, find_episodes
from framepred.sources.folder import VideoFile, find_videos
from framepred.tokenizer.checkpoint import KINDS, OwnTokenizer, load_tokenizer, tokenizer_sha256
from framepred.tokenizer.foreign import AdaptedTokenizer
from framepred.tokenizer.temporal import TemporalAutoencoder
from framepred.tokens.store import is_store, read_store, read_store_info
from framepred.tokens.tokenize import common_actions
from framepred.video.clock import doubt_rate, say_rate
from framepred.world.run import load_run


def describe(path_or_name: str) -> dict[str, Any]:
    """Return the facts of a video, a folder or another source, token store, tokenizer or run, as JSON values."""
    if not path_or_name.startswith("hf://") and Address.parse(path_or_name):
        return _source(path_or_name)
    path = hub.resolve(path_or_name)
    if not path.exists():
        for kind, show in (("models", _run), ("tokenizers", _tokenizer)):
            if path_or_name in zoo.names(kind):
                return show(zoo.resolve(kind, path_or_name))
        known = ", ".join(sorted({*zoo.names("models"), *zoo.names("tokenizers")})) or "nothing"
        raise FramepredError(f"{path_or_name} is neither a path nor in the zoo; the zoo has: {known}")
    if path.is_file():
        return _video(path)
    if is_store(path):
        return _store(path)
    if (path / "framepred.json").is_file():
        return _run(path)
    if ((path / "config.json").is_file() and not (path / "recipe.toml").is_file()) or _is_tokenizer(path):
        return _tokenizer(path)
    if (path / "recipe.toml").is_file():
        return {"path": str(path), "kind": "unfinished run", "next": "framepred train ... --resume"}
    return _folder(path)


def _is_tokenizer(path: Path) -> bool:
    try:
        return json.loads((path / "config.json").read_text()).get("kind") in KINDS
    except (OSError, ValueError, AttributeError):
        return False


def _video(path: Path) -> dict[str, Any]:
    video = VideoFile(path, str(path))
    facts, loaded, actions = video.info(), video.actions(), None
    _warn_of_rate(path.name, facts.fps)
    if loaded is not None:
        rows, names = loaded
        try:
            video.check_rows(rows, str(video.actions_from))
        except FramepredError as error:
            warnings.warn(FramepredWarning(str(error)), stacklevel=2)
        highest = "" if rows.is_floating_point() else f", ids up to {int(rows.max())}"
        plural = "" if len(rows) == 1 else "s"
        actions = f"{len(rows)} row{plural} of {', '.join(names)} ({kind_of(rows)}{_values(names) or highest})"
    return {"path": str(path), "kind": "video", **vars(facts), "rate": say_rate(facts.fps), "actions": actions}


def _warn_of_rate(name: str, fps: float) -> None:
    if doubt := doubt_rate(fps):
        warnings.warn(FramepredWarning(f"{name} {doubt}"), stacklevel=2)


def _folder(path: Path) -> dict[str, Any]:
    videos = find_videos([path])
    video, first = _first_readable(videos)
    _warn_of_rate(video.path.name, first.fps)
    try:
        kind, names = common_actions(videos, ())
    except FramepredError as error:
        warnings.warn(FramepredWarning(str(error)), stacklevel=2)
        kind, names = None, ActionNames()
    return {
        "path": str(path), "kind": "video folder", "videos": len(videos),
        "with_actions": sum(v.actions_file is not None for v in videos),
        "actions": f"{kind}: {', '.join(names)}{_values(names)}" if kind else None,
        "first": video.path.name, "width": first.width, "height": first.height, "fps": first.fps,
        "rate": say_rate(first.fps),
    }  # fmt: skip


def _first_readable(videos: list[VideoFile]) -> tuple[VideoFile, VideoInfo]:
    """Return the first video that can be read, and what it is like; one that cannot is skipped with a warning."""
    for i, video in enumerate(videos):
        try:
            return video, video.info()
        except FramepredError as error:
            if i + 1 == len(videos):
                raise
            warnings.warn(FramepredWarning(f"skipped: {error}"), stacklevel=2)
    raise AssertionError("a folder without videos is an error before")


def _source(source: str) -> dict[str, Any]:
    episodes = find_episodes([source])
    first, counts = episodes[0], [episode.info().num_frames for episode in episodes]
    info, loaded = first.info(), first.actions()
    times = torch.arange(counts[0] or 1, dtype=torch.float64) / info.fps
    actions = f"{kind_of(loaded[0])}: {', '.join(loaded[1])}" if loaded else None
    return {
        "path": source, "kind": "source", "episodes": len(episodes),
        "frames": sum(n or 0 for n in counts) if all(counts) else None,
        "with_actions": sum(e.actions_from is not None for e in episodes),
        "first": first.name, "width": info.width, "height": info.height, "fps": info.fps, "codec": info.codec,
        "actions": actions, "captions": [c.text for c in first.captions(times, info.fps)] or None,
    }  # fmt: skip


def _store(path: Path) -> dict[str, Any]:
    info, episodes = read_store_info(path), read_store(path)
    grid = info.grid if info.context_codebook_size else episodes[0].tokens.shape[1:]
    return {
        "path": str(path), "kind": "token store", "episodes": len(episodes),
        "frames": sum(len(e.tokens) for e in episodes), "grid": list(grid),
        **_context(info.context_grid, info.context_codebook_size),
        "codebook_size": info.codebook_size, "frame_size": list(info.frame_size), "fit": fit_of(info.frame_size),
        "tokenizer": info.tokenizer, "tokenizer_sha256": info.tokenizer_sha256,
        "actions": f"{info.action_kind}: {', '.join(info.action_names)}{_values(info.action_names)}"
        if info.action_kind
        else None,
    }  # fmt: skip


def _values(names: tuple[str, ...]) -> str:
    """Return what to add of the names of ids: ": 0 left, 1 right", or nothing where they have none."""
    values = [f"{i} {value}" for i, value in enumerate(values_of(names))]
    return f": {', '.join(values)}" if values else ""


def _tokenizer(path: Path) -> dict[str, Any]:
    tokenizer = load_tokenizer(path)
    tokens = tokenizer.grid[0] * tokenizer.grid[1]
    facts = {
        "path": str(path), "kind": "tokenizer",
        "quantizer": _quantizer(tokenizer),
        "frame_size": list(tokenizer.frame_size), "fit": fit_of(tokenizer.frame_size), "grid": list(tokenizer.grid),
        "tokens_per_frame": tokens, "codebook_size": tokenizer.codebook_size,
        **_context(tokenizer.context_grid, tokenizer.context_codebook_size),
        "parameters": sum(p.numel() for p in tokenizer.parameters()), "sha256": tokenizer_sha256(path),
    }  # fmt: skip
    if isinstance(tokenizer, TemporalAutoencoder):
        shape = tokenizer.shape
        kind = "continuous numbers" if shape.continuous else "discrete ids"
        known = f"{shape.action_size} {kind}{_values(shape.action_names)}" if shape.action_size else None
        facts |= {"past": shape.past, "actions": known}
    if isinstance(tokenizer, AdaptedTokenizer) and tokenizer.group > 1:
        facts["group"] = (
            f"{tokens} tokens for {tokenizer.group} frames of a video; here for each frame, as for pictures"
        )
    return facts


def _quantizer(tokenizer: OwnTokenizer | AdaptedTokenizer) -> str:
    if isinstance(tokenizer, AdaptedTokenizer):
        return tokenizer.name
    return "fsq" if isinstance(tokenizer, TemporalAutoencoder) else tokenizer.recipe.quantizer


def _context(grid: tuple[int, int], codebook_size: int) -> dict[str, Any]:
    """What there is to say of contexts, where frames are coded given the one before."""
    return {"context_grid": list(grid), "context_codebook_size": codebook_size} if codebook_size else {}


def _run(path: Path) -> dict[str, Any]:
    run = load_run(path)
    config = run.predictor.config
    space = run.layout.actions
    actions = None
    if space is not None:
        actions = f"continuous: {', '.join(space.names)}"
        if space.kind == "discrete":
            actions = f"{space.count} discrete ids{_values(space.names)}"
    return {
        "path": str(path), "kind": "run", "frame_size": list(run.tokenizer.frame_size),
        "fit": fit_of(run.tokenizer.frame_size), "fps": run.fps,
        "grid": list(run.layout.grid), "tokens_per_frame": run.layout.frame_tokens, "scan": run.layout.scan,
        **_context(run.layout.context_grid, run.tokenizer.context_codebook_size),
        "codebook_size": run.tokenizer.codebook_size, "vocabulary": run.layout.vocabulary.size,
        "window_frames": run.window, "temperature": run.temperature, "actions": actions,
        "layers": config.num_hidden_layers, "hidden_size": config.hidden_size,
        "parameters": sum(p.numel() for p in run.predictor.parameters()),
        "tokenizer_sha256": run.tokenizer_sha256,
    }  # fmt: skip
