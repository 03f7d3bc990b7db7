"""The questions of the merge stand written as the code asks them, of arms that exist."""

import math
from pathlib import Path

import numpy as np
import pytest
from merge.arms import ARMS, SIZES
from merge.questions import BEFORE, MEASURES, QUESTIONS, questions_page
from merge.statistics import estimate, half_width, needed, seed_interval

from framepred.evaluation.bootstrap import Quantity

PAGE = Path(__file__).parents[2] / "scripts" / "results" / "merge" / "questions.md"


def test_the_page_is_what_the_code_asks() -> None:
    assert PAGE.read_text() == questions_page()


def test_questions_name_arms_and_measures_that_exist() -> None:
    names = [arm.name for arm in ARMS]
    assert len(set(names)) == len(names)
    compared = [one for question in QUESTIONS for one in question.decides]
    assert {one.ours for one in compared} | {one.theirs for one in compared} - {BEFORE} == set(names)
    assert {one.measure for one in compared} == MEASURES.keys()
    # What an arm goes on from is trained before it.
    for place, arm in enumerate(ARMS):
        assert arm.start in ("llm", "random", "new", *names[:place])


def test_the_sizes_that_decide_ask_as_much_as_an_effect_takes() -> None:
    for size in (SIZES["cut"], SIZES["135m"]):
        asked = {"clips": size.clips, "captions": size.captions, "sentences": size.cloze}
        for measure in MEASURES.values():
            assert needed(measure.spread, measure.matters) <= asked.get(measure.items, math.inf)
        assert half_width(MEASURES["fact-action"].spread, size.captions) <= 0.04


def test_as_many_items_as_needed_show_an_effect_in_80_of_100_experiments() -> None:
    spread, effect = 2.0, 0.5
    count = needed(spread, effect)
    draws = np.random.default_rng(0).normal(effect, spread, (4000, count))
    shown = draws.mean(1) - 1.96 * draws.std(1, ddof=1) / math.sqrt(count) > 0
    assert shown.mean() == pytest.approx(0.8, abs=0.03)


def quantity(values: "np.ndarray[tuple[int], np.dtype[np.float64]]") -> Quantity:
    return Quantity(values[:, None], np.ones((len(values), 1)))


def test_a_difference_is_paired_over_items_and_has_an_interval_over_seeds() -> None:
    generator = np.random.default_rng(1)
    hard = generator.normal(10, 5, 60)
    ours = [quantity(hard + 1 + generator.normal(0, 0.5, 60) + shift) for shift in (-0.1, 0.0, 0.1)]
    theirs = [quantity(hard)] * 3
    found = estimate(ours, theirs)
    assert found.value == pytest.approx(1, abs=0.2)
    assert found.items[1] - found.items[0] < 0.3
    assert found.spread == pytest.approx(0.5 / math.sqrt(3), rel=0.4)
    assert found.seeds == pytest.approx(seed_interval([float(np.mean(q.numerator - hard[:, None])) for q in ours]))
    low, high = found.bounds()
    assert low <= found.items[0] < found.items[1] <= high
    assert estimate(ours[:1], theirs[:1]).seeds is None
    # The t-interval of 1, 2, 3 is 2 +- 4.303 / sqrt(3).
    assert seed_interval([1.0, 2.0, 3.0]) == pytest.approx((2 - 2.4843, 2 + 2.4843), abs=1e-3)
