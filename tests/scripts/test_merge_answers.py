"""What the merge's page says of scores: ratios to the truth are best at 1, too much is as wrong as too little."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from merge.answers import answers, to_row
from merge.measures import measured, to_json
from merge.page import write_page
from merge.questions import QUESTIONS

from framepred.evaluation.bootstrap import Quantity

START = next(question for question in QUESTIONS if question.name == "start")
ABOUT: Mapping[str, Any] = {
    "size": "tiny", "steps": 4, "machine": "none", "date": "today", "command": "none", "llm": "none", "cut": "whole",
    "cloze": "none", "texts": {"sources": ["none"]} | {p: {"files": 1} for p in ("train", "developed", "held-out")},
}  # fmt: skip


def run_of(ratio: float, seed: int) -> dict[str, Any]:
    """Return scores as a run has them: clips of different size, whose ratios to the truth are all about `ratio`."""
    generator = np.random.default_rng(seed)
    truth = np.random.default_rng(7).uniform(1, 3, (40, 1))
    # One clip where nothing moves: it has no ratio.
    truth[3] = 0
    noise = generator.normal(1, 0.01, truth.shape)
    scores = {name: to_json(Quantity(truth * ratio * noise, truth)) for name in ("sharpness", "motion")}
    return {"scores": scores}


def runs_of(ours: float, theirs: float, seeds: int = 3) -> dict[str, dict[int, dict[str, Any]]]:
    return {
        "video-llm": {seed: run_of(ours, seed) for seed in range(seeds)},
        "video-random": {seed: run_of(theirs, seed + 50) for seed in range(seeds)},
    }


@pytest.mark.parametrize(
    ("ours", "theirs", "difference", "verdict"),
    [
        (1.1, 0.5, -0.4, "better"),
        (1.1, 1.6, -0.5, "better"),
        (0.5, 1.1, 0.4, "worse"),
        (1.6, 1.1, 0.5, "worse"),
        # More is not better, and as far on both sides is alike.
        (3.0, 1.0, 2.0, "worse"),
        (0.8, 1.2, 0.0, "not there"),
        # Standing still is as wrong as moving twice as much.
        (0.0, 2.0, 0.0, "not there"),
    ],
)
def test_a_ratio_is_better_the_nearer_it_is_to_1(ours: float, theirs: float, difference: float, verdict: str) -> None:
    made = {one.asked.measure: one for one in answers(runs_of(ours, theirs), START)}
    for name in ("sharpness-error", "motion-error"):
        found = made[name]
        assert found.ours.value == pytest.approx(abs(ours - 1), abs=0.02)
        assert found.theirs.value == pytest.approx(abs(theirs - 1), abs=0.02)
        assert found.difference.value == pytest.approx(difference, abs=0.02)
        assert found.verdict == verdict
        low, high = found.difference.items
        assert low <= found.difference.value <= high and high - low < 0.05
        assert found.count_needed is not None
        json.dumps(to_row(found), allow_nan=False)


def test_the_page_its_tables_and_its_json_hold_distances_to_1(tmp_path: Path) -> None:
    runs = runs_of(0.5, 1.1) | {"video-bare": {0: run_of(1.6, 9)}}
    results = write_page(tmp_path, ABOUT, runs, {}, None)
    json.dumps(results, allow_nan=False)
    written = (tmp_path / "merge.md").read_text()
    row = next(line for line in written.splitlines() if line.startswith("| video-llm | video-random | motion-error"))
    assert "| +0.4" in row and "| worse |" in row
    assert "Of fewer seeds: video-bare 1." in written
    arm = {name: results["arms"][name]["measures"] for name in runs}
    for name, ratio in (("video-llm", 0.5), ("video-random", 1.1), ("video-bare", 1.6)):
        assert arm[name]["sharpness"]["value"] == pytest.approx(ratio, abs=0.02)
        assert arm[name]["sharpness-error"]["value"] == pytest.approx(abs(ratio - 1), abs=0.02)
    (motion,) = [row for row in results["questions"]["start"] if row["measure"] == "motion-error"]
    assert motion["better"] == -1 and motion["difference"]["value"] > 0.1 == motion["matters"]


def test_seeds_that_miss_1_on_both_sides_are_not_taken_for_right() -> None:
    runs = runs_of(1.0, 1.0)
    runs["video-llm"] = {0: run_of(0.6, 0), 1: run_of(1.4, 1)}
    (found, _) = answers(runs, START)
    assert found.ours.value == pytest.approx(0.4, abs=0.02)


def test_arms_are_compared_seed_by_seed_whichever_are_done() -> None:
    runs = runs_of(1.1, 1.3)
    runs["video-random"] = {2: run_of(1.6, 5)}
    runs["video-llm"][2] = run_of(1.5, 5)
    (found, _) = answers(runs, START)
    assert found.seeds == (2,) and found.difference.value == pytest.approx(-0.1, abs=0.01)
    assert found.ours.value == pytest.approx(0.5, abs=0.02)
    assert answers(runs | {"video-random": {7: run_of(1.6, 5)}}, START) == []


def test_scores_of_other_code_are_measured_anew(tmp_path: Path) -> None:
    file, made = tmp_path / "scores.json", []

    def make() -> dict[str, Any]:
        made.append(1)
        return {"scores": {"number": len(made)}}

    assert measured(file, make) == measured(file, make) and len(made) == 1
    for older in ({"scores": {}}, json.loads(file.read_text()) | {"measured_by": "of before"}):
        file.write_text(json.dumps(older))
        assert measured(file, make)["scores"] == {"number": len(made)} == measured(file, make)["scores"]
    assert len(made) == 3
