"""The image tokenizer: shapes, types, and results that do not depend on how frames are batched."""

import pytest
import torch
from torch import Tensor

from framepred.config.recipe import Recipe, TokenizerRecipe, apply
from framepred.tokenizer import image as autoencoder
from framepred.tokenizer.contract import Tokenizer
from framepred.tokenizer.image import Autoencoder, reconstruction_loss, to_float, to_uint8


def recipe(size: tuple[int, int], downsampling: int = 8, quantizer: str = "fsq") -> TokenizerRecipe:
    table = {
        "levels": [4, 4, 4],
        "codebook_size": 64,
        "code_dim": 4,
        "width": 8,
        "encoder_blocks": 1,
        "decoder_blocks": 1,
    }
    chosen = table | {"downsampling": downsampling, "quantizer": quantizer}
    return apply(Recipe(), {"data": {"size": list(size)}, "tokenizer": chosen}).tokenizer


def build(size: tuple[int, int] = (32, 32), downsampling: int = 8, quantizer: str = "fsq") -> Autoencoder:
    torch.manual_seed(0)
    return Autoencoder(recipe(size, downsampling, quantizer), size).eval()


def noisy(count: int, size: tuple[int, int], seed: int = 0) -> Tensor:
    return torch.randint(0, 256, (count, 3, *size), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("quantizer", ["fsq", "ema"])
@pytest.mark.parametrize("downsampling", [4, 8, 16])
@pytest.mark.parametrize("size", [(32, 32), (16, 48), (64, 32)])
def test_frames_become_a_grid_and_frames_again(size: tuple[int, int], downsampling: int, quantizer: str) -> None:
    model = build(size, downsampling, quantizer)
    grid = (size[0] // downsampling, size[1] // downsampling)
    assert isinstance(model, Tokenizer)
    assert (model.grid, model.frame_size) == (grid, size)
    tokens = model.encode(noisy(3, size))
    assert tokens.shape == (3, *grid)
    assert tokens.dtype == torch.int64
    assert 0 <= int(tokens.min()) <= int(tokens.max()) < model.codebook_size
    frames = model.decode(tokens)
    assert frames.shape == (3, 3, *size)
    assert frames.dtype == torch.uint8
    assert torch.equal(frames, model.decode(tokens))


def test_encoding_agrees_with_the_forward_pass() -> None:
    model = build()
    frames = noisy(4, (32, 32))
    with torch.inference_mode():
        reconstruction, ids, _ = model(to_float(frames))
    assert torch.equal(model.encode(frames), ids)
    assert int((model.decode(ids).int() - to_uint8(reconstruction).int()).abs().max()) <= 1


def test_no_frames_give_no_tokens() -> None:
    model = build()
    assert model.encode(noisy(0, (32, 32))).shape == (0, 4, 4)
    assert model.decode(torch.empty(0, 4, 4, dtype=torch.int64)).shape == (0, 3, 32, 32)


@pytest.mark.parametrize("chunk", [1, 7, 64])
def test_tokens_do_not_depend_on_the_chunk(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model = build()
    frames = noisy(70, (32, 32))
    whole = model.encode(frames)
    pictures = model.decode(whole)
    monkeypatch.setattr(autoencoder, "_CHUNK", chunk)
    # Another batch size may round a convolution differently: a code on the edge of two levels can flip.
    assert float((model.encode(frames) == whole).float().mean()) > 0.999
    assert int((model.decode(whole).int() - pictures.int()).abs().max()) <= 1


def test_a_frame_does_not_see_its_neighbours() -> None:
    model = build()
    frames = noisy(6, (32, 32))
    alone = torch.cat([model.encode(frame[None]) for frame in frames])
    assert float((alone == model.encode(frames)).float().mean()) > 0.99


@pytest.mark.parametrize("size", [(32, 40), (40, 32), (64, 64), (8, 8)])
def test_another_frame_size_is_refused(size: tuple[int, int]) -> None:
    with pytest.raises(ValueError, match=r"the tokenizer takes \(32, 32\)"):
        build().encode(noisy(1, size))


def test_encoding_leaves_no_gradient_and_no_change() -> None:
    model = build(quantizer="ema")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    tokens = model.encode(noisy(2, (32, 32)))
    assert not model.decode(tokens).requires_grad
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_bytes_survive_the_way_to_floats_and_back() -> None:
    every = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).expand(1, 3, 16, 16)
    floats = to_float(every)
    assert (float(floats.min()), float(floats.max())) == (-1.0, 1.0)
    assert torch.equal(to_uint8(floats), every)
    assert to_uint8(torch.tensor([-3.0, 3.0])).tolist() == [0, 255]


def test_loss_is_zero_only_for_the_same_frames() -> None:
    frames = to_float(noisy(2, (8, 8)))
    assert float(reconstruction_loss(frames, frames)) == 0.0
    assert float(reconstruction_loss(frames + 0.5, frames)) == pytest.approx(0.25 + 0.05, rel=1e-4)


@pytest.mark.parametrize("quantizer", ["fsq", "ema"])
def test_a_few_steps_reduce_the_error(quantizer: str) -> None:
    model = build(quantizer=quantizer).train()
    frames = to_float(noisy(2, (4, 4)).repeat_interleave(8, -1).repeat_interleave(8, -2))
    optimizer = torch.optim.AdamW(model.parameters(), 3e-3)
    losses = []
    for _ in range(60):
        reconstruction, _, auxiliary = model(frames)
        loss = reconstruction_loss(reconstruction, frames) + auxiliary
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]
    assert all(p.grad is not None for p in model.parameters())
