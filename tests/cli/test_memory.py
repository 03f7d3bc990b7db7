"""What a process frees it keeps, so that the kernel need not clear the same pages again."""

import subprocess
import sys

import pytest

from framepred.cli import memory
from framepred.cli.memory import _MMAP_MAX, _TRIM_THRESHOLD, keep_memory

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


class Library:
    """A C library with glibc's mallopt, which writes down what is set."""

    def __init__(self) -> None:
        self.settings: dict[int, int] = {}

    def mallopt(self, parameter: int, value: int) -> int:
        self.settings[parameter] = value
        return 1


@pytest.mark.parametrize(
    ("platform", "expected"), [("darwin", {}), ("win32", {}), ("linux", {_MMAP_MAX: 0, _TRIM_THRESHOLD: -1})]
)
def test_only_linux_keeps_its_memory(platform: str, expected: dict[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    library = Library()
    monkeypatch.setattr(memory.sys, "platform", platform)
    monkeypatch.setattr(memory.ctypes, "CDLL", lambda name: library)
    keep_memory()
    assert library.settings == expected


def test_a_c_library_without_the_setting_is_left_as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """As musl's; or none can be opened."""
    asked: list[str] = []

    class Musl:
        def __getattr__(self, name: str) -> None:
            asked.append(name)
            raise AttributeError(name)

    def cannot_be_opened(name: None) -> None:
        asked.append("CDLL")
        raise OSError("no such file")

    monkeypatch.setattr(memory.sys, "platform", "linux")
    for library in (lambda name: Musl(), cannot_be_opened):
        monkeypatch.setattr(memory.ctypes, "CDLL", library)
        keep_memory()
    assert asked == ["mallopt", "CDLL"]
