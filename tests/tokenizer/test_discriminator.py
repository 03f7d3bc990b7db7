"""The discriminator beside a tokenizer: who learns from what, and that it changes what is learned."""

from pathlib import Path

import pytest
import torch
from conftest import tiny_recipe
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from framepred.config.recipe import Recipe, apply
from framepred.errors import FramepredError
from framepred.io.compat import ensure_torchvision
from framepred.tokenizer.checkpoint import load_tokenizer
from framepred.tokenizer.discriminator import WithAdversary
from framepred.tokenizer.image import Autoencoder, reconstruction_loss
from framepred.training.loop import TrainProgress
from framepred.training.pipeline import Job, train

pytestmark = [
    pytest.mark.filterwarnings("ignore::framepred.errors.FramepredWarning"),
    pytest.mark.usefixtures("one_thread"),
]


@pytest.fixture
def pair() -> WithAdversary:
    torch.manual_seed(0)
    return WithAdversary(Autoencoder(Recipe().tokenizer, (32, 32)), 16)


def frames(count: int = 4) -> Tensor:
    return torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(1)) * 2 - 1


def gradients(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def backward(pair: WithAdversary, weight: float) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Return the gradients of the tokenizer and of the discriminator."""
    pair.zero_grad()
    made, _, auxiliary = pair(frames(), torch.tensor(weight))
    (reconstruction_loss(made, frames()) + auxiliary).backward()
    return gradients(pair.tokenizer), gradients(pair.discriminator)


def test_at_no_weight_the_tokenizer_learns_as_if_alone(pair: WithAdversary) -> None:
    found, judge = backward(pair, 0.0)
    pair.zero_grad()
    made, _, auxiliary = pair.tokenizer(frames())
    (reconstruction_loss(made, frames()) + auxiliary).backward()
    alone = gradients(pair.tokenizer)
    assert all(torch.allclose(found[name], alone[name], atol=1e-7) for name in alone)
    assert sum(bool(g.abs().sum() > 0) for g in judge.values()) >= len(judge) - 1


def test_the_discriminator_learns_from_telling_apart_alone(pair: WithAdversary) -> None:
    _, judge = backward(pair, 0.0)
    _, weighed = backward(pair, 2.0)
    assert all(torch.equal(judge[name], weighed[name]) for name in judge)
    pair.zero_grad()
    made = pair.tokenizer(frames())[0].detach()
    seen, fake = pair.discriminator(frames())[-1], pair.discriminator(made)[-1]
    (torch.relu(1 - seen).mean() + torch.relu(1 + fake).mean()).backward()
    assert all(torch.allclose(g / 2, judge[name], atol=1e-6) for name, g in gradients(pair.discriminator).items())


@pytest.mark.parametrize("weight", [0.1, 1.0, 3.0])
def test_looking_real_counts_its_weight_beside_being_near(pair: WithAdversary, weight: float) -> None:
    picture: list[Tensor] = []

    def keep(_: nn.Module, __: object, output: tuple[Tensor, Tensor, Tensor]) -> None:
        output[0].retain_grad()
        picture.append(output[0])

    pair.tokenizer.register_forward_hook(keep)
    grads = []
    for w in (0.0, weight):
        backward(pair, w)
        assert picture[-1].grad is not None
        grads.append(picture[-1].grad)
    near, both = grads
    assert float((both - near).norm()) == pytest.approx(weight * float(near.norm()), rel=1e-3)


def test_a_discriminator_learns_to_tell_noise_from_stripes() -> None:
    class Noise(nn.Module):
        def forward(self, given: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            return torch.rand_like(given).requires_grad_(), torch.zeros(1), torch.zeros(())

    torch.manual_seed(0)
    pair = WithAdversary(Noise(), 8)
    optimizer = torch.optim.Adam(pair.discriminator.parameters(), 2e-3)
    stripes = (torch.arange(32) % 8 < 4).float().expand(8, 3, 32, 32).contiguous()
    for _ in range(40):
        optimizer.zero_grad()
        pair(stripes, torch.tensor(0.0))[2].backward()
        optimizer.step()
    with torch.no_grad():
        assert float(pair.discriminator(stripes)[-1].mean()) > 0.5
        assert float(pair.discriminator(torch.rand(8, 3, 32, 32))[-1].mean()) < -0.5


def run(clips: Path, out: Path, **tokenizer: object) -> dict[str, Tensor]:
    """Train a tiny tokenizer; return its weights."""
    recipe = apply(tiny_recipe(), {"tokenizer": tokenizer, "training": {"tokenizer_steps": 6}})
    made = [p for p in train(Job([str(clips)], out, recipe, only="tokenizer")) if isinstance(p, TrainProgress)]
    assert made[-1].step == 6
    load_tokenizer(out / "tokenizer")
    return load_file(out / "tokenizer" / "model.safetensors")


def test_a_run_with_a_discriminator_saves_the_tokenizer_alone(clips_dir: Path, tmp_path: Path) -> None:
    plain = run(clips_dir, tmp_path / "plain")
    late = run(clips_dir, tmp_path / "late", adversarial=0.5, adversarial_after=6)
    later = run(clips_dir, tmp_path / "later", adversarial=5.0, adversarial_after=60)
    soon = run(clips_dir, tmp_path / "soon", adversarial=0.5, adversarial_after=3)
    assert plain.keys() == late.keys()
    assert all(torch.equal(late[name], later[name]) for name in plain)
    assert not all(torch.equal(late[name], soon[name]) for name in plain)


def test_perceptual_weights_change_what_is_learned(clips_dir: Path, tmp_path: Path) -> None:
    ensure_torchvision()
    pytest.importorskip("torchmetrics")
    models = pytest.importorskip("torchvision.models")
    torch.manual_seed(0)
    weights = {k: v for k, v in models.alexnet().state_dict().items() if k.startswith("features.")}
    save_file(weights, tmp_path / "alex.safetensors")
    given = {"perceptual": str(tmp_path / "alex.safetensors"), "perceptual_net": "alex"}
    plain, seen = run(clips_dir, tmp_path / "plain"), run(clips_dir, tmp_path / "seen", **given)
    assert plain.keys() == seen.keys()
    assert not all(torch.equal(plain[name], seen[name]) for name in plain)
    with pytest.raises(FramepredError, match="is not torchvision's vgg"):
        run(clips_dir, tmp_path / "wrong", **(given | {"perceptual_net": "vgg"}))
    with pytest.raises(FramepredError, match=r"weights nowhere\.safetensors do not exist"):
        run(clips_dir, tmp_path / "none", perceptual="nowhere.safetensors")
