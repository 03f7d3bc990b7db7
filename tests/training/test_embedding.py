"""Shared digits: the sum is trained, what is saved is plain, a digit is learned from all codes that have it."""

import math

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from framepred.config.recipe import TokenizerRecipe
from framepred.predictor.config import LlamaConfig
from framepred.predictor.huggingface import to_hugging_face
from framepred.predictor.llama import Llama
from framepred.tokenizer.quantizers import FSQ, QUANTIZERS
from framepred.training.embedding import DigitSum, merge_rows, share_digits

DIGITS = (4, 3, 2)
FIRST, V = 5, 24


def model_of(tied: bool = True) -> Llama:
    model = Llama(LlamaConfig(40, 32, 64, 2, 2, 2, 64, tie_word_embeddings=tied))
    model.initialise(torch.Generator().manual_seed(0))
    return model


@given(st.lists(st.integers(2, 5), min_size=2, max_size=4).map(tuple))
def test_members_are_the_digits_of_the_id(digits: tuple[int, ...]) -> None:
    shared = DigitSum(digits, 0, 8)
    rows = shared.members.split(digits, 1)
    basis = 1
    found = torch.zeros(math.prod(digits), dtype=torch.int64)
    for size, row in zip(digits, rows, strict=True):
        assert bool((row.sum(1) == 1).all())
        found += row.argmax(1) * basis
        basis *= size
    assert found.tolist() == list(range(math.prod(digits)))


@pytest.mark.parametrize("quantizer", ["fsq", "ema"])
def test_every_quantizer_names_the_digits_of_its_codes(quantizer: str) -> None:
    made = QUANTIZERS[quantizer](TokenizerRecipe(quantizer=quantizer, levels=(4, 3), codebook_size=64))  # type: ignore[arg-type]
    assert math.prod(made.digits) == made.codebook_size == (12 if quantizer == "fsq" else 64)
    assert (len(made.digits) > 1) is (quantizer != "ema")


def test_fsq_codes_of_one_digit_share_that_channel() -> None:
    quantizer = FSQ(DIGITS)
    codes = quantizer.lookup(torch.arange(V).view(1, 1, V))[0, :, 0]
    for channel, members in enumerate(DigitSum(DIGITS, 0, 4).members.split(DIGITS, 1)):
        for value in range(DIGITS[channel]):
            assert len(codes[channel, members[:, value] > 0].unique()) == 1


@pytest.mark.parametrize("tied", [True, False])
def test_a_models_function_stays_when_sharing_begins_and_when_it_ends(tied: bool) -> None:
    model, ids = model_of(tied), torch.randint(0, 40, (2, 9), generator=torch.Generator().manual_seed(1))
    before = model(ids)
    share_digits(model, DIGITS, FIRST)
    assert torch.equal(model(ids), before)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("vectors"):
                parameter.normal_(generator=torch.Generator().manual_seed(2))
    moved = model(ids)
    assert not torch.allclose(moved, before)
    merge_rows(model)
    assert torch.allclose(model(ids), moved, atol=1e-5)
    assert (model.head.weight is model.embed.weight) is tied
    plain = to_hugging_face(model.state_dict(), model.config)
    assert plain.keys() == to_hugging_face(model_of(tied).state_dict(), model.config).keys()


def test_a_step_on_one_code_moves_those_that_share_a_digit_and_no_other_id() -> None:
    model = model_of()
    share_digits(model, DIGITS, FIRST)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    before = model.embed.weight.detach().clone()
    F.embedding(torch.tensor([FIRST]), model.embed.weight).sum().backward()
    optimizer.step()
    moved: Tensor = (model.embed.weight.detach() - before).abs().sum(1)
    alike = DigitSum(DIGITS, 0, 4).members @ DigitSum(DIGITS, 0, 4).members[0]
    assert bool(((moved[FIRST : FIRST + V] > 0) == (alike > 0)).all())
    assert float(moved[FIRST]) == float(moved.max())
    assert not moved[:FIRST].any() and not moved[FIRST + V :].any()


def test_a_new_models_codes_start_alike_where_their_digits_are() -> None:
    model = model_of()
    share_digits(model, (8, 4), 0, torch.Generator().manual_seed(0))
    merge_rows(model)
    rows = model.embed.weight.detach()[:32]
    assert float(rows.std()) == pytest.approx(0.02, rel=0.3)
    near = F.cosine_similarity(rows[:-1:2], rows[1::2]).mean()
    far = F.cosine_similarity(rows[:8], rows[24:].flip(0)).mean()
    assert near > far + 0.3


def test_codes_of_one_digit_are_left_alone() -> None:
    model = model_of()
    share_digits(model, (24,), FIRST)
    assert model.embed.weight is model.head.weight


def test_two_ranges_of_codes_each_share_their_own_digits() -> None:
    model, plain, generator = model_of(), model_of(), torch.Generator().manual_seed(0)
    share_digits(model, (8, 2), 0, generator)
    share_digits(model, (4, 4), 20, generator)
    merge_rows(model)
    rows, before = model.embed.weight.detach(), plain.embed.weight.detach()
    for start in (0, 20):
        assert float(rows[start : start + 16].std()) == pytest.approx(0.02, rel=0.4)
        # Three tenths of each row are its own.
        assert not torch.allclose(rows[start : start + 16], before[start : start + 16], atol=1e-3)
    assert torch.equal(rows[16:20], before[16:20]) and torch.equal(rows[36:], before[36:])
