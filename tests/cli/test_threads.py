"""How many threads a command takes: as many as the machine has free when it starts."""

from pathlib import Path

import pytest
import torch

from framepred.cli import threads


def machine(busy: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a machine of four cores be one of which so many are busy, as /proc/stat counts it."""
    file = tmp_path / "stat"
    ticks = [0, 0, 0, 0, 0, 0, 0, 0]

    def wait(seconds: float) -> None:
        ticks[0] += round(busy * 100 * seconds)
        ticks[3] += round((4 - busy) * 100 * seconds)
        file.write_text("cpu  " + " ".join(map(str, ticks)) + " 0 0\ncpu0 1 1 1 1\n")

    wait(1000)
    monkeypatch.setattr(threads, "_STAT", file)
    monkeypatch.setattr(threads.time, "sleep", wait)
    monkeypatch.setattr(threads.os, "cpu_count", lambda: 4)
    monkeypatch.setattr(threads.os, "sched_getaffinity", lambda _: {0, 1, 2, 3}, raising=False)


@pytest.mark.parametrize(("busy", "free"), [(0.0, 4), (0.3, 4), (1.0, 3), (2.1, 2), (4.0, 1)])
def test_the_cores_that_others_leave_idle_are_free(
    busy: float, free: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(busy, tmp_path, monkeypatch)
    assert threads.free_cores() == free


def test_what_the_user_says_or_cannot_be_known_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    machine(4.0, tmp_path, monkeypatch)
    asked: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", asked.append)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    threads.use_free_cores()
    assert asked == []
    monkeypatch.delenv("OMP_NUM_THREADS")
    threads.use_free_cores()
    assert asked == [1]
    monkeypatch.setattr(threads, "_STAT", tmp_path / "none")
    threads.use_free_cores()
    assert asked == [1, 4]
