"""Scores of all seeds → each question's comparisons, with intervals and what they decide."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from framepred.evaluation.bootstrap import Quantity
from merge.measures import from_json
from merge.questions import BEFORE, MEASURES, Comparison, Measure, Question
from merge.statistics import Estimate, estimate, needed

Runs = Mapping[str, Mapping[int, Mapping[str, Any]]]
"""An arm's name → what `measures.measure` returned for each seed; what was before any arm stands at seed 0."""


@dataclass(frozen=True)
class Answer:
    """A comparison that was made: of which seeds, both arms' means, their difference, and what it decides."""

    asked: Comparison
    measure: Measure
    seeds: tuple[int, ...]
    ours: Estimate
    theirs: Estimate
    difference: Estimate
    verdict: str

    @property
    def count_needed(self) -> int | None:
        """How many items show the smallest effect that matters, by the spread that was found."""
        spread = self.difference.spread
        return None if spread is None else needed(spread, self.measure.matters)


def scores_of(runs: Runs, arm: str, measure: str) -> dict[int, Quantity]:
    """Return the score that a measure is of, by the seeds of an arm that have it."""
    name = MEASURES[measure].ratio or measure if measure in MEASURES else measure
    found = {seed: run["scores"].get(name) for seed, run in runs.get(arm, {}).items()}
    return {seed: from_json(value) for seed, value in found.items() if value is not None}


def answer(runs: Runs, asked: Comparison) -> Answer | None:
    """Make a comparison over the seeds that both arms have; None where one of them was not run."""
    measure = MEASURES[asked.measure]
    ours, theirs = (
        scores_of(runs, asked.ours, asked.measure),
        scores_of(runs, asked.theirs, asked.against or asked.measure),
    )
    if asked.theirs == BEFORE and theirs:
        theirs = dict.fromkeys(ours, theirs[0])
    seeds = sorted(ours.keys() & theirs.keys())
    if not seeds:
        return None
    pair = [[found[seed] for seed in seeds] for found in (ours, theirs)]
    own, other = (estimate(found, distance_to_1=bool(measure.ratio)) for found in pair)
    difference = estimate(*pair, bool(measure.ratio))
    return Answer(asked, measure, tuple(seeds), own, other, difference, verdict(measure, difference))


def verdict(measure: Measure, difference: Estimate) -> str:
    """Say what a difference decides: "better", "worse", "not there", or "open"."""
    low, high = sorted(measure.better * bound for bound in difference.bounds())
    value = measure.better * difference.value
    if difference.seeds is None:
        towards = "better" if low > 0 else "worse" if high < 0 else "no difference"
        return f"open: one seed ({towards} over its {measure.items})"
    if low > 0 and value >= measure.matters:
        return "better"
    if high < 0 and -value >= measure.matters:
        return "worse"
    if -measure.matters < low and high < measure.matters:
        return "not there"
    return "open"


def answers(runs: Runs, question: Question) -> list[Answer]:
    """Return those comparisons of a question that were run, in order."""
    return [made for asked in question.decides if (made := answer(runs, asked)) is not None]


def sentence(question: Question, made: Sequence[Answer]) -> str:
    """Say what the first comparison of a question answers."""
    first = question.decides[0]
    found = next((a for a in made if a.asked == first), None)
    if found is None:
        return f"Not run: {first.ours} against {first.theirs}."
    unit = f" {found.measure.unit}" if found.measure.unit else ""
    d = found.difference
    over = "" if d.seeds is None else f", over seeds {d.seeds[0]:+.3g} to {d.seeds[1]:+.3g}"
    label, items = found.measure.label, found.measure.items
    return (
        f"{label[0].upper()}{label[1:]}: {first.ours} {found.ours.value:.4g}, {first.theirs} {found.theirs.value:.4g}"
        f"{unit}; difference {d.value:+.3g} (95% over {items} {d.items[0]:+.3g} to {d.items[1]:+.3g}{over}). "
        f"Decided: **{found.verdict}**."
    )


def to_row(made: Answer) -> dict[str, Any]:
    """Return a comparison as strict JSON values."""

    def of(found: Estimate) -> dict[str, Any]:
        return {"value": found.value, "items": list(found.items), "seeds": list(found.seeds) if found.seeds else None}

    asked = made.asked
    return {
        "ours": asked.ours, "theirs": asked.theirs, "measure": asked.measure, "against": asked.against or asked.measure,
        "unit": made.measure.unit, "seeds": list(made.seeds),
        "ours_value": of(made.ours), "theirs_value": of(made.theirs),
        "difference": of(made.difference), "matters": made.measure.matters, "better": made.measure.better,
        "count": made.difference.count, "spread": made.difference.spread, "needed": made.count_needed,
        "verdict": made.verdict,
    }  # fmt: skip
