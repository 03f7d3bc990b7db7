"""A run → scores of every clip, file, sentence and caption, as quantities that are compared in pairs."""

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from grounding import Answer, fact_answers
from language import text_losses

from framepred.cli.console import say
from framepred.evaluation.aggregate import quantities
from framepred.evaluation.bootstrap import Quantity
from framepred.evaluation.clip_scores import ClipScores, score_clip
from framepred.evaluation.clips import make_groups, read_clips
from framepred.evaluation.futures import Scorer
from framepred.evaluation.perceptual import load_perceptual
from framepred.evaluation.protocol import Protocol, load_protocol
from framepred.io.atomic import write_text
from framepred.llm.token_names import TOKENIZER_JSON, text_ids, text_tokenizer
from framepred.predictor.llama import Llama
from framepred.tokens.store import read_store
from framepred.world.device import choose_device
from framepred.world.run import Run, load_run
from merge.account import account
from merge.arms import Arm
from merge.cloze import filled, make_gaps
from merge.setup import Setup

GIVEN, BARE = "model_true_actions", "model_no_actions"
_PIXELS = {"psnr": "psnr", "sharpness": "sharpness", "motion_ratio": "motion"}
STRETCH, STRETCHES = 128, 2
_MEASURING = ("measures.py", "cloze.py", "account.py", "../grounding.py", "../language.py")
Scores = dict[str, Quantity]


def measured(file: Path, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return the scores that a JSON file holds, after measuring where there are none or where other code measured."""
    code = b"".join((Path(__file__).parent / name).read_bytes() for name in _MEASURING)
    by = {"measured_by": hashlib.sha256(code).hexdigest()}
    found: dict[str, Any] = json.loads(file.read_text()) if file.is_file() else {}
    if found.get("measured_by") != by["measured_by"]:
        found = make() | by
        write_text(file, json.dumps(found, indent=1, allow_nan=False) + "\n")
    return found


def measure(setup: Setup, arm: Arm, folder: Path) -> dict[str, Any]:
    """Return what a run drew in training, and its scores by measure, as strict JSON values."""
    say(f"{folder}: measuring")
    run = load_run(folder, choose_device("auto"))
    rows = json.loads((folder / "metrics.jsonl").read_text().splitlines()[-1])
    texts = [str(setup.out / "text" / "train")] if arm.texts else []
    scores: Scores = {}
    for kind in arm.measured:
        scores |= KINDS[kind](setup, run)
    drew = account(run, rows["step"], str(setup.stores / arm.store), texts)
    return {"account": drew, "scores": {name: to_json(quantity) for name, quantity in scores.items()}}


def measure_before(setup: Setup) -> dict[str, Any]:
    """Return the scores of the language model that the arms begin from."""
    llm = setup.llm
    predictor = llm.predictor.to(choose_device("auto"))
    scores = _text(setup, predictor, llm.text_size) | _cloze(setup, predictor, llm.text_size)
    return {"scores": {name: to_json(quantity) for name, quantity in scores.items()}}


def to_json(quantity: Quantity) -> dict[str, Any]:
    return {
        "top": quantity.numerator.sum(1).tolist(), "bottom": quantity.denominator.sum(1).tolist(),
        "decibels": quantity.decibels,
    }  # fmt: skip


def from_json(value: dict[str, Any]) -> Quantity:
    top, bottom = (np.array(value[name], dtype=np.float64)[:, None] for name in ("top", "bottom"))
    return Quantity(top, bottom, value["decibels"])


def mean_of(values: Sequence[float], weights: Sequence[float] | None = None) -> Quantity:
    """Return the mean of one value an item, weighted."""
    top = np.array(values, dtype=np.float64)[:, None]
    bottom = np.ones_like(top) if weights is None else np.array(weights, dtype=np.float64)[:, None]
    return Quantity(top * bottom, bottom)


def _protocol(rollout: bool) -> Protocol:
    return load_protocol("future", {"samples": 1, "rollout": rollout})


def _clips(run: Run, protocol: Protocol, source: Path) -> list[ClipScores]:
    """Score every clip of a source; no clip is told another's actions."""
    names = run.layout.actions.names if run.layout.actions else None
    (group,) = make_groups([str(source)], [], protocol, run.tokenizer_sha256, names)
    scorer = Scorer(run, protocol, None, load_perceptual(None, None, None, protocol.lpips))
    read = read_clips(group, protocol, run.tokenizer.frame_size, run.fps)
    return [score_clip(scorer, clip, None) for _, clip in read]


def _bits(setup: Setup, run: Run) -> Scores:
    """Score the tokens of held-out clips by teacher forcing, with the true actions and without."""
    protocol = _protocol(rollout=False)
    clips = _clips(run, protocol, setup.stores / "held-out")
    return {
        name: quantities([clip.rows[row] for clip in clips], protocol)["bits"]
        for name, row in (("bits", GIVEN), ("bits-bare", BARE))
    }


def _bits_new(setup: Setup, run: Run) -> Scores:
    protocol = _protocol(rollout=False)
    clips = _clips(run, protocol, setup.stores / "new-held-out")
    return {"bits-new": quantities([clip.rows[GIVEN] for clip in clips], protocol)["bits"]}


def _rollout(setup: Setup, run: Run) -> Scores:
    """Score the pictures of one future of each held-out clip, beside copying and what the tokenizer can give back."""
    protocol = _protocol(rollout=True)
    clips = _clips(run, protocol, setup.data / "held-out")
    scores: Scores = {}
    for suffix, row in (("", GIVEN), ("-bare", BARE), ("-copied", "copy_last"), ("-ceiling", "ceiling")):
        found = quantities([clip.rows[row] for clip in clips], protocol)
        scores |= {f"{name}{suffix}": found[measure] for measure, name in _PIXELS.items()}
    return scores


def _text(setup: Setup, model: Llama, size: int) -> Scores:
    """Score the middle of every held-out text: a page of each says more than the first texts whole."""
    words, losses, weights = text_tokenizer(setup.llm.files[TOKENIZER_JSON]), [], []
    for text in setup.read("held-out"):
        ids = text_ids(words, text)
        length = min(STRETCH, len(ids))
        page = ids[max(0, len(ids) - STRETCHES * length) // 2 :][: STRETCHES * length]
        if length > 1:
            found = text_losses(model, torch.tensor(page), size, length)
            losses.append(float(found.mean()))
            weights.append(float(len(found) * (length - 1)))
    return {"text": mean_of(losses, weights)}


def _cloze(setup: Setup, model: Llama, size: int) -> Scores:
    words = text_tokenizer(setup.llm.files[TOKENIZER_JSON])
    gaps = make_gaps(setup.cloze_texts(), setup.request.size.cloze)
    right = filled(model, gaps, lambda text: text_ids(words, text), size)
    return {"cloze": mean_of([float(r) for r in right])} if right else {}


def _facts(setup: Setup, run: Run, store: str = "held-out", suffix: str = "") -> Scores:
    """Score what is told of frames behind them, behind other frames, and by chance; each fact counts alike."""
    answers = fact_answers(run, read_store(setup.stores / store), setup.request.size.captions, ("action", "event"))
    scores: Scores = {}
    for kind in ("action", "event"):
        mine = [answer for answer in answers if answer.kind == kind]
        counts = Counter(answer.fact for answer in mine)
        told: dict[str, Callable[[Answer], float]] = {
            "": lambda a: a.right, "-unseen": lambda a: a.guessed, "-chance": lambda a: a.chance,
        }  # fmt: skip
        for how, value in told.items():
            if mine:
                weights = [len(mine) / len(counts) / counts[a.fact] for a in mine]
                scores[f"fact-{kind}{suffix}{how}"] = mean_of([value(a) for a in mine], weights)
    return scores


KINDS: dict[str, Callable[[Setup, Run], Scores]] = {
    "bits": _bits,
    "bits-new": _bits_new,
    "rollout": _rollout,
    "text": lambda setup, run: _text(setup, run.predictor, run.layout.vocabulary.text_size),
    "cloze": lambda setup, run: _cloze(setup, run.predictor, run.layout.vocabulary.text_size),
    "facts": _facts,
    "facts-new": lambda setup, run: _facts(setup, run, "new-held-out", "-new"),
}
"""What an arm may be `measured` by."""
