"""The experiment in learning: every arm is of the same episodes, and a second call learns nothing anew."""

import runpy
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("gymnasium")

from conftest import moving_square
from scenarios import tokenized

from framepred.config.recipe import Recipe, apply
from framepred.io.compat import ensure_torchvision
from framepred.sources.actions_csv import write_actions
from framepred.video.write import write_video
from framepred.world.run import load_run

# peft imports it.
ensure_torchvision()
pytest.importorskip("peft")

SCRIPT = runpy.run_path(str(Path(__file__).parents[2] / "scripts" / "reproduce_learning"), run_name="script")
RECIPE = apply(
    Recipe(),
    {"training": {"precision": "fp32", "compile": False, "validation_batches": 1},
     "learning": {"steps": 1, "batch_size": 4, "held_out": 0.3, "learning_rate": 2e-3}},
)  # fmt: skip


def make_stores(folder: Path, tiny_run: Path) -> dict[str, Path]:
    """The known world, and three that it is not: in negative, and with red or blue in place of green."""
    run, stores = load_run(tiny_run), {}
    for number, name in enumerate((SCRIPT["KNOWN"], *SCRIPT["TASKS"])):
        for seed in range(3):
            frames, actions = moving_square(10 * number + seed, 8)
            shown = (frames, 255 - frames, frames.roll(1, 1), frames.roll(2, 1))[number]
            write_video(folder / name / f"{seed}.mp4", shown, 10, lossless=True)
            write_actions(folder / name / f"{seed}.actions.csv", actions, ["action"])
        stores[name] = tokenized(folder / name, folder / "stores" / name, run)
    return stores


def test_arms_learn_the_same_episodes_and_nothing_twice(tiny_run: Path, tmp_path: Path) -> None:
    stores = make_stores(tmp_path, tiny_run)

    def everything() -> dict[str, list[dict[str, Any]]]:
        made = SCRIPT["results"](tmp_path / "arms", stores, RECIPE, 1, str(tiny_run))
        return {arm: [result] for _, arm, result in made}

    found = everything()
    assert set(found) == {*SCRIPT["ARMS"], *(f"offline {name}" for name in SCRIPT["TASKS"])}
    # Nobody has learned before the first episode came, and one that never learns forgets nothing.
    assert len({arm[0]["curve"][0] for name, arm in found.items() if name in SCRIPT["ARMS"]}) == 1
    rows = {row["arm"]: row for row in SCRIPT["rows_of"](found)}
    assert (rows["frozen"]["of_offline"], rows["frozen"]["forgotten_old"]) == (0, 0)
    assert rows["plain"]["of_offline"] != 0 and rows["plain"]["forgotten_old"] != 0
    files = {path: path.stat().st_mtime_ns for path in (tmp_path / "arms").rglob("config.json")}
    assert everything() == found
    assert files == {path: path.stat().st_mtime_ns for path in (tmp_path / "arms").rglob("config.json")}
    lines = SCRIPT["page"](list(rows.values()), "facts").splitlines()
    assert [line.split(" | ")[0] for line in lines[-len(rows) :]] == [f"| {arm}" for arm in rows]
    assert "<svg" in SCRIPT["curves"](found)
