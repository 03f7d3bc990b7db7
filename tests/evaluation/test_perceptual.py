"""LPIPS, FID and FVD with weights that a user brings: random ones here, whose scores are known all the same."""

import hashlib
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from framepred.errors import FramepredError
from framepred.evaluation.perceptual import load_perceptual
from framepred.io.compat import ensure_torchvision


class Frames(nn.Module):
    """A frame detector of the published signature: mean colours."""

    def forward(self, x: Tensor, return_features: bool = False) -> Tensor:
        return x.float().mean((2, 3))


class Video(nn.Module):
    """A video detector of the published signature."""

    def forward(self, x: Tensor, rescale: bool, resize: bool, return_features: bool) -> Tensor:
        assert rescale and resize and return_features
        return x.mean((3, 4)).flatten(1)


@pytest.fixture
def frames() -> Tensor:
    return torch.randint(0, 256, (4, 3, 64, 64), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


def test_without_weights_each_says_that_it_needs_them() -> None:
    loaded = load_perceptual(None, None, None, "alex")
    assert loaded.facts == {"lpips": "needs weights", "fid": "needs weights", "fvd": "needs weights"}
    assert loaded.lpips is loaded.fid is loaded.fvd is None


def test_detectors_are_called_as_they_were_published(tmp_path: Path, frames: Tensor) -> None:
    for name, module in (("fid.pt", Frames()), ("fvd.pt", Video())):
        torch.jit.script(module).save(str(tmp_path / name))
    loaded = load_perceptual(None, tmp_path / "fid.pt", tmp_path / "fvd.pt", "alex")
    assert loaded.fid is not None
    assert loaded.fvd is not None
    assert torch.allclose(loaded.fid(frames), frames.float().mean((2, 3)))
    assert torch.allclose(loaded.fvd(frames), frames.float().mean((2, 3)).T.flatten()[None])
    assert loaded.facts["fvd"]["file"] == "fvd.pt"
    assert loaded.facts["fvd"]["sha256"] == hashlib.sha256((tmp_path / "fvd.pt").read_bytes()).hexdigest()
    assert "TorchScript" in loaded.facts["fvd"]["variant"]


@pytest.mark.parametrize("net", ["alex", "squeeze"])
def test_lpips_is_torchmetrics_with_the_given_backbone(tmp_path: Path, frames: Tensor, net: str) -> None:
    ensure_torchvision()
    module = pytest.importorskip("torchmetrics.functional.image.lpips")
    models = pytest.importorskip("torchvision.models")
    torch.manual_seed(0)
    backbone = (models.alexnet if net == "alex" else models.squeezenet1_1)().eval()
    save_file(backbone.state_dict(), tmp_path / "net.safetensors")
    theirs = module._LPIPS(pretrained=True, net=net, pnet_rand=True)
    parts = theirs.net.slices if net == "squeeze" else [getattr(theirs.net, f"slice{i}") for i in range(1, 6)]
    for part in parts:
        for number, layer in part.named_children():
            layer.load_state_dict(backbone.features[int(number)].state_dict())
    other = frames.flip(0)
    expected = theirs.eval()(frames.float() / 127.5 - 1, other.float() / 127.5 - 1).flatten()
    loaded = load_perceptual(tmp_path / "net.safetensors", None, None, net)
    assert loaded.lpips is not None
    assert torch.allclose(loaded.lpips(frames, other).float(), expected, atol=1e-5)
    assert loaded.lpips(frames, frames).abs().max() < 1e-6
    assert net in loaded.facts["lpips"]["variant"]
    with pytest.raises(FramepredError, match="is not torchvision's vgg"):
        load_perceptual(tmp_path / "net.safetensors", None, None, "vgg")


def test_files_that_are_not_weights(tmp_path: Path, frames: Tensor) -> None:
    (tmp_path / "text").write_text("hello")
    with pytest.raises(FramepredError, match="is no safetensors file"):
        load_perceptual(tmp_path / "text", None, None, "alex")
    with pytest.raises(FramepredError, match="is no TorchScript file"):
        load_perceptual(None, tmp_path / "text", None, "alex")
    with pytest.raises(FramepredError, match=r"weights .*none do not exist: give the file"):
        load_perceptual(None, None, tmp_path / "none", "alex")
    torch.jit.script(Frames()).save(str(tmp_path / "frames.pt"))
    loaded = load_perceptual(None, None, tmp_path / "frames.pt", "alex")
    assert loaded.fvd is not None
    with pytest.raises(FramepredError, match="cannot score 4 frames"):
        loaded.fvd(frames)
