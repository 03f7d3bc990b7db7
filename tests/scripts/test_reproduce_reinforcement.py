"""The experiment in reinforcement goes on where it was stopped, and its rows are of the runs that they name."""

import runpy
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gymnasium")

from clip_rows import measured, score_row
from experiment import claim, read_results
from scenarios import tokenized

from framepred.config.recipe import Recipe, apply
from framepred.errors import FramepredError
from framepred.evaluation.clips import make_groups, read_clips
from framepred.evaluation.protocol import Protocol
from framepred.world.run import load_run

SCRIPT = runpy.run_path(str(Path(__file__).parents[2] / "scripts" / "reproduce_reinforcement"), run_name="script")
PROTOCOL = Protocol(horizon=2, max_clips=2, samples=2)
RECIPE = apply(
    Recipe(),
    {"training": {"precision": "fp32", "compile": False, "validation_batches": 1},
     "predictor": {"learning_rate": 1e-3, "optimizer": "adamw", "ema_decay": 0.0, "batch_size": 2},
     "reinforcement": {"updates": 2, "contexts": 1, "group": 2, "context": 2, "horizon": 2, "learning_rate": 1e-3}},
)  # fmt: skip


def test_rows_are_trained_and_scored_once(tiny_run: Path, clips_dir: Path, tmp_path: Path) -> None:
    run, model, spent = load_run(tiny_run), str(tiny_run), tmp_path / "spent.jsonl"
    store = tokenized(clips_dir, tmp_path / "store", run)

    def everything() -> list[dict[str, Any]]:
        better = SCRIPT["reinforced"]([str(clips_dir)], model, tmp_path / "reinforced", RECIPE, spent)
        plain = SCRIPT["supervised"](store, model, tmp_path / "supervised", RECIPE, seconds=0.0)
        (group,) = make_groups([f"squares={clips_dir}"], [], PROTOCOL, run.tokenizer_sha256, ("action",))
        clips = [("squares", clip) for _, clip in read_clips(group, PROTOCOL, (64, 64), run.fps)]
        runs = {"start": model, "colder": model, "supervised": str(plain), "reinforced": str(better)}
        parts = [score_row(row, name, clips, PROTOCOL, tmp_path / "scores") for row, name in runs.items()]
        return [result for part in parts for result in part]

    results = everything()
    assert [made["update"] for made in read_results(spent)] == [1, 2]
    assert sorted(r["row"] for r in results) == sorted(2 * SCRIPT["ROWS"][:-1])
    found = {row: measured(results, "squares", row, PROTOCOL) for row in SCRIPT["ROWS"]}
    bits = {row: measures["bits"].by_horizon() for row, measures in found.items() if "bits" in measures}
    # The same weights cost the same, others do not, and copying has no bits.
    assert bits["start"] == bits["colder"] and set(bits) == set(SCRIPT["ROWS"]) - {"copying"}
    assert bits["start"] != bits["reinforced"] != bits["supervised"] != bits["start"]
    before = (tmp_path / "supervised" / "model.safetensors").read_bytes()
    lines = (tmp_path / "scores").read_text().splitlines(keepends=True)
    # Killed in the middle of a line.
    (tmp_path / "scores").write_text("".join(lines[:-1]) + lines[-1][:9])
    assert sorted(map(str, everything())) == sorted(map(str, results))
    assert (tmp_path / "supervised" / "model.safetensors").read_bytes() == before
    rows = SCRIPT["table"](results, "squares", PROTOCOL)
    assert "squares, 2 clips" in rows[0] and len(rows) == 4 + len(SCRIPT["ROWS"])
    assert len(SCRIPT["by_horizon"](results, "squares", PROTOCOL)) == 3 + 2 * len(SCRIPT["ROWS"])
    assert "<svg" in SCRIPT["curves"](results, ["squares"], PROTOCOL)


def test_a_folder_of_other_results_is_refused(tmp_path: Path) -> None:
    claim(tmp_path / "a", {"updates": 2, "settings": ()})
    claim(tmp_path / "a", {"updates": 2, "settings": ()})
    with pytest.raises(FramepredError, match=r"holds results of updates 2, not 3: give another folder"):
        claim(tmp_path / "a", {"updates": 3, "settings": ()})
