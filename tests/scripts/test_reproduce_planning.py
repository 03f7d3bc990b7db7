"""The experiment in planning goes on where it was stopped, and counts only what every row has tried."""

import json
import runpy
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gymnasium")

from experiment import read_results
from planning.square import ID, registered

from framepred.planning.protocol import GoalProtocol
from framepred.planning.search import Search
from framepred.planning.trial import ROWS
from framepred.world.run import load_run

SCRIPT = runpy.run_path(str(Path(__file__).parents[2] / "scripts" / "reproduce_planning"), run_name="script")
PROTOCOL = GoalProtocol(
    env=ID, steps=(2,), goals=2, before=4, near=0.01, budget=1.0, search=Search(horizon=2, candidates=2, rounds=1)
)


@pytest.fixture(scope="module", autouse=True)
def _registered() -> Iterator[None]:
    with registered():
        yield


def outcomes(results: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    return [(r["distance"], r["goal"], r["row"], r["seed"], r["reached"], r["steps"]) for r in results]


def test_an_experiment_that_was_stopped_goes_on_to_the_same_results(tiny_run: Path, tmp_path: Path) -> None:
    run, file = load_run(tiny_run), tmp_path / "attempts.jsonl"
    whole = list(SCRIPT["attempts"](run, PROTOCOL, []))
    assert len(whole) == 2 * len(ROWS) and len(SCRIPT["complete"](whole)) == len(whole)
    first = list(islice(SCRIPT["attempts"](run, PROTOCOL, []), 7))
    # Killed in the middle of a line.
    file.write_text("".join(json.dumps(r) + "\n" for r in first) + '{"distance": 2, "go')
    known = read_results(file)
    assert outcomes(known) == outcomes(first)
    assert len(SCRIPT["complete"](known)) == len(ROWS)
    assert outcomes(known + list(SCRIPT["attempts"](run, PROTOCOL, known))) == outcomes(whole)
    some = SCRIPT["complete"](whole[:-1], ("simulator", "random"))
    assert {r["row"] for r in some} == {"simulator", "random"} and len(some) == 4
    assert len(SCRIPT["table"](some).splitlines()) == 4
    lines = SCRIPT["table"](whole).splitlines()
    assert len(lines) == 2 + len(ROWS) and all(" of 2, " in line for line in lines[2:])
    assert "<svg" in SCRIPT["curves"](whole, PROTOCOL)


@pytest.mark.parametrize(("reached", "count", "low", "high"), [(0, 10, 0.0, 0.278), (5, 10, 0.237, 0.763)])
def test_intervals_of_shares(reached: int, count: int, low: float, high: float) -> None:
    assert SCRIPT["interval"](reached, count) == pytest.approx((low, high), abs=0.001)
