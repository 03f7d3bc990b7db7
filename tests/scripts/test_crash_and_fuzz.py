"""scripts/crash_test and scripts/fuzz: a few kills and damages, and that what they compare tells good from bad."""

import json
import os
import random
import subprocess
import sys
from pathlib import Path

import pytest
from crash_outputs import contents, difference, left_over
from damages import damage

ROOT = Path(__file__).parents[2]


def run_script(name: str, *options: str) -> list[str]:
    command = [sys.executable, str(ROOT / "scripts" / name), *options]
    env = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, env=env, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()


@pytest.mark.slow
def test_kills_lose_nothing() -> None:
    pytest.importorskip("pygame")
    lines = run_script("crash_test", "--kills", "6", "--commands", "export")
    assert json.loads(lines[-1]) == {"kills": 6, "seed": 0, "losses": 0}
    assert len(lines) == 7


@pytest.mark.slow
def test_damages_are_results_or_clear_errors() -> None:
    lines = run_script("fuzz", "--damages", "6", "--kinds", "csv,toml")
    assert json.loads(lines[-1]) == {"damages": 6, "seed": 0, "findings": 0}


def test_contents_leave_out_times_and_see_everything_else(tmp_path: Path) -> None:
    for name, file, text in (("a", "x.json", "1"), ("b", "x.json", "1"), ("c", "x.json", "2"), ("d", "y.json", "1")):
        (tmp_path / name).mkdir()
        (tmp_path / name / file).write_text(text)
        (tmp_path / name / "metrics.jsonl").write_text(name)
    made = {name: contents(tmp_path / name) for name in "abcd"}
    assert made["a"] is not None
    assert difference(made["b"], made["a"]) == ""
    assert difference(made["c"], made["a"]) == "x.json"
    assert difference(made["d"], made["a"]) == "x.json, y.json"
    assert difference(contents(tmp_path / "missing"), made["a"]) == "x.json"


def test_what_is_left_over_is_seen(tmp_path: Path) -> None:
    for place in ("like/a.json", "trial/out/a.json", "trial/out/.a.json.partial", "trial/.out.partial/b"):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).write_text("x")
    assert left_over(tmp_path / "trial", tmp_path / "like") == [".a.json.partial", ".out.partial"]


@pytest.mark.parametrize("suffix", [".mp4", ".json", ".safetensors", ".csv"])
def test_damages_are_many_and_come_again_by_their_seed(suffix: str) -> None:
    data = (2).to_bytes(8, "little") + b"{}" if suffix == ".safetensors" else b'{"a": [1, 2], "b": "c"}'
    made = [damage(data, suffix, random.Random(seed)) for seed in range(300)]
    assert made == [damage(data, suffix, random.Random(seed)) for seed in range(300)]
    assert len(set(made)) > 50
    assert damage(b"", suffix, random.Random(0)) is not None
