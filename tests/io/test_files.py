"""The files of a checkpoint: the same weights make the same bytes."""

from pathlib import Path

import torch

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
