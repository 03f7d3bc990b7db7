"""Evaluation of whole data sets: many clips in groups, resumable, in constant memory, reproducible."""

import hashlib
import json
import time
from collections.abc import Container, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import framepred
from framepred.config.frame_size import fit_of
from framepred.errors import FramepredError
from framepred.evaluation.aggregate import Table, summarise
from framepred.evaluation.clip_scores import ClipScores, score_clip
from framepred.evaluation.clips import (
    ALTERATIONS,
    Alteration,
    EvalClip,
    Group,
    known_members,
    make_groups,
    other_actions,
    read_clips,
)
from framepred.evaluation.futures import Scorer
from framepred.evaluation.perceptual import load_perceptual
from framepred.evaluation.protocol import Protocol
from framepred.evaluation.replay import replay
from framepred.evaluation.retrieval import TrainingIndex, index_training
from framepred.io.atomic import write_text
from framepred.io.files import file_sha256
from framepred.io.progress import Progress
from framepred.world.device import choose_device
from framepred.world.run import Run, load_run, weights_file

_RECORD_FORMAT = 4


@dataclass(frozen=True)
class Benchmark:
    """What to evaluate: sources (`NAME=SOURCE` or SOURCE), a run, a protocol, training clips, weights, a cache folder.

    Each of `alterations` of the first source is one more group. With `replay` the sources, which `record` wrote, are
    also played again under each action.
    """

    sources: tuple[str, ...]
    model: str
    protocol: Protocol
    train: tuple[str, ...] = ()
    alterations: tuple[Alteration, ...] = ()
    lpips: Path | None = None
    fid: Path | None = None
    fvd: Path | None = None
    device: str = "auto"
    cache: Path | None = None
    replay: bool = False


@dataclass(frozen=True)
class Evaluated:
    """The result as strict JSON values, and the groups and the scorer, from which a report reads clips again."""

    result: dict[str, Any]
    groups: tuple[Group, ...]
    scorer: Scorer


def evaluate(benchmark: Benchmark) -> Iterator[Progress | Evaluated]:
    """Score every clip of every group, yielding progress and at last the result.

    With a `cache` folder each clip's scores are kept there, under a hash of everything they depend on: after an
    interruption the same call continues. Raises FramepredError for what is not allowed.
    """
    protocol = benchmark.protocol
    for kind in benchmark.alterations:
        if kind not in ALTERATIONS:
            raise FramepredError(f"alteration {kind!r} is not known; give one of {', '.join(ALTERATIONS)}")
    device = choose_device(benchmark.device)
    run = load_run(benchmark.model, device)
    perceptual = load_perceptual(benchmark.lpips, benchmark.fid, benchmark.fvd, protocol.lpips, device)
    names, fit = run.layout.actions.names if run.layout.actions else None, fit_of(run.tokenizer.frame_size)
    groups = make_groups(benchmark.sources, benchmark.alterations, protocol, run.tokenizer_sha256, names, fit)
    index: TrainingIndex | None = None
    if benchmark.train:
        for step in index_training(benchmark.train, run.tokenizer, run.tokenizer_sha256, run.fps, benchmark.cache):
            if isinstance(step, TrainingIndex):
                index = step
            else:
                yield replace(step, name=f"training clip {step.name}")
    scorer = Scorer(run, protocol, index, perceptual)
    clips = _Clips(scorer, benchmark.cache)
    done, total, tables = 0, sum(len(g.members) for g in groups), []
    for group in groups:
        table = Table()
        for member, clip in read_clips(group, protocol, run.tokenizer.frame_size, run.fps):
            table.add(clips.score(clip, other_actions(group, member, protocol)))
            at = done + member + 1
            yield Progress(at, total, clip.name, clips.seconds_left(at, total))
        done += len(group.members)
        tables.append(summarise(group, table, protocol, run) | {"known": known_members(group, run.path)})
        if benchmark.replay and group.alteration is None:
            for found in replay(run, group.source, protocol):
                if isinstance(found, Progress):
                    yield found
                else:
                    tables[-1]["counterfactual"] = found
    result = {
        "protocol": protocol.to_json(),
        "run": run_facts(run),
        "train": list(benchmark.train) or None,
        "weights": perceptual.facts,
        "groups": tables,
    }
    yield Evaluated(json.loads(json.dumps(result, allow_nan=False)), tuple(groups), scorer)


def run_facts(run: Run) -> dict[str, Any]:
    """Return a run's path, the hashes of its weights and of its tokenizer, and its temperature."""
    weights = file_sha256(weights_file(run.path))
    return {
        "path": str(run.path), "sha256": weights, "tokenizer_sha256": run.tokenizer_sha256,
        "temperature": run.temperature,
    }  # fmt: skip


class _Clips:
    """Scores clips, or reads their scores from the cache."""

    def __init__(self, scorer: Scorer, cache: Path | None) -> None:
        self._scorer, self._cache = scorer, cache
        self._identity = _identity(scorer)
        self._spent, self._fresh, self._seen = 0.0, 0, 0

    def seconds_left(self, done: int, total: int) -> float | None:
        """Return the seconds that the remaining videos take, at the speed of the clips that were not in the cache."""
        if not self._fresh:
            return None
        return self._spent / self._fresh * self._seen / done * (total - done)

    def score(self, clip: EvalClip, others: Tensor | None) -> ClipScores:
        """Return a clip's scores, from the cache where they are there."""
        key = _key(self._identity, clip, others)
        record = _read(self._cache, key)
        if record is None:
            began = time.monotonic()
            # Through JSON text, so that new scores equal those from the cache to the last bit.
            record = json.loads(json.dumps(asdict(score_clip(self._scorer, clip, others)), allow_nan=False))
            _write(self._cache, key, record)
            self._spent, self._fresh = self._spent + time.monotonic() - began, self._fresh + 1
        self._seen += 1
        return ClipScores(**record)


def _identity(scorer: Scorer) -> str:
    device = scorer.run.predictor.embed.weight.device
    facts = {
        "made_by": [_RECORD_FORMAT, framepred.__version__, torch.__version__, str(device)],
        "protocol": scorer.protocol.sha256,
        "run": {**run_facts(scorer.run), "path": None},
        "layout": file_sha256(scorer.run.path / "framepred.json"),
        "index": scorer.index.digest() if scorer.index else None,
        "weights": scorer.perceptual.facts,
    }
    return json.dumps(facts, sort_keys=True)


def _key(identity: str, clip: EvalClip, others: Tensor | None) -> str:
    digest = hashlib.sha256(f"{identity} {clip.name} {clip.fps}".encode())
    for tensor in (clip.frames, clip.tokens, clip.actions, others):
        if tensor is None:
            digest.update(b"none")
        else:
            digest.update(f"{tensor.dtype} {tuple(tensor.shape)}".encode() + tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


def _read(cache: Path | None, key: str) -> dict[str, Any] | None:
    if cache is None:
        return None
    try:
        record: dict[str, Any] = json.loads((cache / f"{key}.json").read_text())
    except (OSError, ValueError):
        return None
    return record


def _write(cache: Path | None, key: str, record: dict[str, Any]) -> None:
    if cache is not None:
        write_text(cache / f"{key}.json", json.dumps(record, allow_nan=False))


def selected_clips(group: Group, scorer: Scorer, names: Container[str]) -> Iterator[EvalClip]:
    """Read a group again and yield the clips with these names."""
    run = scorer.run
    for _, clip in read_clips(group, scorer.protocol, run.tokenizer.frame_size, run.fps):
        if clip.name in names:
            yield clip
