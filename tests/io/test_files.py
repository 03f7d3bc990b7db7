"""The files of a checkpoint: the same weights make the same bytes."""

import math
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from framepred.errors import FramepredError
from framepred.io.files import read_weights, replace_files


def test_the_same_weights_make_the_same_file(tmp_path: Path) -> None:
    weights = {f"layer.{i}": torch.arange(6.0).view(2, 3) + i for i in range(4)}
    about = {f"key{i}": f'{{"é": {i}}}' for i in range(6)}
    made = set()
    for i in range(8):
        replace_files(tmp_path / str(i), {}, weights, about)
        made.add((tmp_path / str(i) / "model.safetensors").read_bytes())
    assert len(made) == 1
    read, said = read_weights(tmp_path / "0" / "model.safetensors")
    assert said == {"format": "pt", **about}
    assert all(torch.equal(read[name], weights[name]) for name in weights)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_weights_that_are_no_numbers_are_refused(tmp_path: Path, value: float) -> None:
    weights = {"good": torch.ones(3), "ids": torch.arange(3), "bad": torch.tensor([0.0, value])}
    replace_files(tmp_path, {}, weights, {})
    with pytest.raises(FramepredError, match=r"holds weights that are no numbers \(bad\): restore it, or train again"):
        read_weights(tmp_path / "model.safetensors")


def test_an_interrupt_while_weights_are_read_is_an_interrupt_and_no_other_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is not Python turns an exception in the middle of a tensor into one of its own."""
    replace_files(tmp_path, {}, {"a": torch.ones(3), "b": torch.ones(3)}, {})
    read = []

    class Stored:
        def __init__(self, opened: Any) -> None:
            self.opened = opened

        def __enter__(self) -> "Stored":
            return Stored(self.opened.__enter__())

        def __exit__(self, *error: object) -> None:
            self.opened.__exit__(*error)

        def keys(self) -> list[str]:
            return ["a", "b"]

        def metadata(self) -> None:
            return None

        def get_tensor(self, name: str) -> torch.Tensor:
            try:
                signal.raise_signal(signal.SIGINT)
            except KeyboardInterrupt:
                raise ValueError(
                    "could not determine the shape of object type 'torch.storage.UntypedStorage'"
                ) from None
            read.append(name)
            return self.opened.get_tensor(name)

    monkeypatch.setattr("framepred.io.files.safe_open", lambda *given: Stored(safe_open(*given)))
    with pytest.raises(KeyboardInterrupt):
        read_weights(tmp_path / "model.safetensors")
    assert read == ["a", "b"]
