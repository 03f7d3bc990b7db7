"""What a process frees it keeps, so that the kernel need not clear the same pages again."""

import subprocess
import sys

import pytest

from framepred.cli import memory
from framepred.cli.memory import keep_memory

FAULTS = """
import resource, torch
from framepred.cli.memory import keep_memory
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(4):
        torch.empty(1 << 24).fill_(1)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
given_back = faults()
keep_memory()
for _ in range(8):
    faults()
print(given_back, faults())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="needs glibc")
def test_large_arrays_are_kept_for_the_next() -> None:
    made = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True)
    given_back, kept = map(int, made.stdout.split())
    if given_back < 1000:
        pytest.skip("this C library keeps its memory by itself")
    assert kept < given_back / 20


@pytest.mark.parametrize(("platform", "asked"), [("darwin", 0), ("win32", 0), ("linux", 1)])
def test_elsewhere_nothing_happens(platform: str, asked: int, monkeypatch: pytest.MonkeyPatch) -> None:
    # A C library that has no such setting, as musl's.
    libraries = list[None]()
    monkeypatch.setattr(memory.sys, "platform", platform)
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda name: libraries.append(name) or object())
    keep_memory()
    assert len(libraries) == asked
