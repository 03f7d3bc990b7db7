"""Rows of an experiment: each a run that is scored on the same clips, which are scored once and kept."""

from collections.abc import Iterable
from pathlib import Path

from experiment import Result, keep, read_results

from framepred.evaluation.aggregate import quantities
from framepred.evaluation.bootstrap import Quantity
from framepred.evaluation.clip_scores import score_clip
from framepred.evaluation.clips import EvalClip
from framepred.evaluation.futures import Scorer
from framepred.evaluation.perceptual import load_perceptual
from framepred.evaluation.protocol import Protocol
from framepred.world.device import choose_device
from framepred.world.run import load_run

COPYING = "copying"


def score_row(
    row: str, model: str, clips: Iterable[tuple[str, EvalClip]], protocol: Protocol, file: Path
) -> list[Result]:
    """Score clips, each of a group, by a run, and return their scores and those of copying; `file` keeps them."""
    known = {(r["row"], r["group"], r["clip"]): r for r in read_results(file)}
    run = load_run(model, choose_device("auto"))
    scorer, found = Scorer(run, protocol, None, load_perceptual(None, None, None, protocol.lpips)), list[Result]()
    for group, clip in clips:
        where = {"row": row, "group": group, "clip": clip.name}
        if (row, group, clip.name) not in known:
            scored = score_clip(scorer, clip, None)
            made = where | {"scores": scored.row("model"), "spread": scored.spread, COPYING: scored.rows["copy_last"]}
            keep(file, made)
            known[row, group, clip.name] = made
        found.append(known[row, group, clip.name])
    return found


def measured(results: list[Result], group: str, row: str, protocol: Protocol) -> dict[str, Quantity]:
    """Return the measures of a row, or of copying, in a group, over its clips in the order of their names."""
    first = next(r["row"] for r in results)
    mine = [r for r in results if (r["group"], r["row"]) == (group, first if row == COPYING else row)]
    mine.sort(key=lambda r: str(r["clip"]))
    return quantities([r[COPYING if row == COPYING else "scores"] for r in mine], protocol)


def diversity(results: list[Result], group: str, row: str) -> float | None:
    """Return how far a row's futures are from each other over how far from the truth; None where there is one each."""
    mine = [r["spread"] for r in results if (r["group"], r["row"]) == (group, row) and r["spread"]]
    total = {name: sum(sum(spread[name]) for spread in mine) for name in ("spread", "error")}
    return total["spread"] / total["error"] if mine else None
