"""The tables and sentences of an evaluation: the question answered first, no row twice, every word explained."""

from typing import Any

import pytest

from framepred.evaluation import tables
from framepred.evaluation.futures import ROWS
from framepred.evaluation.protocol import Protocol
from framepred.evaluation.terms import COLUMNS
from framepred.evaluation.terms import ROWS as ROW_MEANINGS


def number(value: float, spread: float = 0.5) -> dict[str, float]:
    return {"value": value, "low": value - spread, "high": value + spread}


def group_of(gain: float, spread: float = 0.5, clips: int = 9) -> dict[str, Any]:
    """A group whose model is `gain` dB above copying; told the true actions it is the model's own row."""
    rows: dict[str, Any] = {row: {"clips": 0, "metrics": {}, "over_copy_last": {}, "note": "why"} for row in ROWS}
    own = {"psnr": number(20 + gain), "motion_psnr": number(15.0), "sharpness": number(0.5), "accuracy": number(0.4)}
    gains = {"psnr": number(gain, spread), "motion_psnr": number(gain + 1)}
    for row in ("model", "model_true_actions"):
        rows[row] = {"clips": clips, "metrics": own, "over_copy_last": gains}
    rows["model_no_actions"] = {"clips": clips, "metrics": own | {"psnr": number(19)}, "over_copy_last": gains}
    rows["copy_last"] = {"clips": clips, "metrics": {"psnr": number(20)}, "over_copy_last": {}}
    return {"name": "held-out", "clips": clips, "rows": rows}


@pytest.mark.parametrize(
    ("gain", "spread", "clips", "said"),
    [
        (2.0, 0.5, 9, "Yes: one future is 2.00 dB above copying the last frame"),
        (-2.0, 0.5, 9, "No: one future is 2.00 dB below copying the last frame"),
        (0.2, 0.5, 9, "Not clearly: one future is 0.20 dB above"),
        (-0.2, 0.5, 9, "Not clearly: one future is 0.20 dB below"),
        (2.0, 0.5, 1, "One clip cannot tell: one future is 2.00 dB above"),
    ],
)
def test_the_question_is_answered_by_the_interval_of_the_gain(
    gain: float, spread: float, clips: int, said: str
) -> None:
    answer = tables.answer(group_of(gain, spread, clips), Protocol().to_json())
    assert answer.startswith(f"Is it predicting? {said}")
    assert f"{gain + 1:+.2f} dB where the picture moves" in answer
    assert "\n" not in answer


def test_a_protocol_of_tokens_alone_says_that_nothing_was_predicted() -> None:
    group = group_of(1.0)
    group["rows"]["model"]["over_copy_last"] = {}
    assert "Not measured" in tables.answer(group, Protocol(rollout=False).to_json())


def test_the_models_own_row_is_not_shown_twice() -> None:
    group = group_of(1.0)
    names = [row[0] for row in tables.group_table(group)[1]]
    assert names == ["model", "model, no actions", "copy last frame"]
    group["rows"]["copy_last"]["clips"] = 9
    assert "only" not in "".join(tables.notes(group))
    group["rows"]["model_true_actions"] |= {"metrics": {"psnr": number(30)}, "clips": 2}
    assert "model, true actions: only 2 of the 9 clips, so not to be compared with the other rows" in tables.notes(
        group
    )
    assert "model, true actions" in [row[0] for row in tables.group_table(group)[1]]


def test_rows_without_numbers_are_named_once_for_each_reason() -> None:
    group = group_of(1.0)
    group["rows"]["linear"]["note"] = group["rows"]["nearest_training"]["note"] = "another reason"
    said = tables.notes(group)
    assert "linear extrapolation; nearest training clip: another reason" in said
    assert len(said) == 2


def test_every_column_and_row_of_a_table_has_its_words() -> None:
    assert {label for _, label, _ in tables.NEARNESS + tables.LOOK} | {tables.OVER_COPYING} == COLUMNS.keys()
    assert set(tables.ROW_NAMES) == set(ROWS)
    assert set(tables.ROW_NAMES.values()) == ROW_MEANINGS.keys()
    # After the label, a line of a terminal of 80 columns.
    assert max(map(len, COLUMNS.values())) <= 68
