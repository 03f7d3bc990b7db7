"""The predictor is exactly a Llama: parity with transformers, an honest cache, no look into the future."""

import dataclasses
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from framepred.errors import FramepredError
from framepred.predictor import attention, cpu
from framepred.predictor.attention import attend_in_blocks
from framepred.predictor.config import LlamaConfig
from framepred.predictor.cpu import ONEDNN, TORCH, PackedLayer, PackedNorm, Product, fast_layers, pack_layers
from framepred.predictor.huggingface import from_hugging_face, to_hugging_face
from framepred.predictor.kv_cache import KVCache
from framepred.predictor.llama import Llama
from framepred.sequence.layout import SequenceLayout
from framepred.sequence.vocabulary import Vocabulary
from framepred.world.run import load_predictor, save_run

CONFIG = LlamaConfig(
    vocab_size=40, hidden_size=32, intermediate_size=48, num_hidden_layers=3,
    num_attention_heads=4, num_key_value_heads=4, max_position_embeddings=64,
)  # fmt: skip
VARIANTS = [
    dataclasses.replace(CONFIG, num_key_value_heads=heads, tie_word_embeddings=tied, rope_theta=theta)
    for heads, tied, theta in ((4, True, 10000.0), (2, True, 500.0), (4, False, 10000.0), (1, False, 500000.0))
]


def build(config: LlamaConfig = CONFIG, seed: int = 0) -> Llama:
    """Return a model of random weights, norms included, large enough for the logits to differ."""
    model = Llama(config)
    generator = torch.Generator().manual_seed(seed)
    for parameter in model.parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        parameter.data = 1 + 0.3 * noise if parameter.ndim == 1 else 0.2 * noise
    if config.tie_word_embeddings:
        model.head.weight = model.embed.weight
    return model.eval()


def ids(batch: int, length: int, seed: int = 0) -> Tensor:
    return torch.randint(0, 40, (batch, length), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("config", VARIANTS, ids=["mha-tied", "gqa-tied", "mha-untied", "mqa-untied"])
def test_logits_are_those_of_transformers(config: LlamaConfig, tmp_path: Path) -> None:
    from framepred.io.compat import ensure_torchvision

    ensure_torchvision()
    transformers = pytest.importorskip("transformers")
    model = build(config)
    layout = SequenceLayout(Vocabulary(0, 36, 3), (2, 2))
    save_run(tmp_path, model, layout, 4, 10.0, (16, 16), "0" * 64)
    theirs, report = transformers.LlamaForCausalLM.from_pretrained(tmp_path, output_loading_info=True)
    assert not report["missing_keys"]
    assert not report["unexpected_keys"]
    assert not report["mismatched_keys"]
    assert sum(p.numel() for p in theirs.parameters()) == sum(p.numel() for p in model.parameters())
    tokens = ids(2, 64)
    with torch.inference_mode():
        ours = model(tokens)
        difference = (ours - theirs.eval()(tokens).logits).abs().max()
    assert float(ours.std()) > 0.5
    assert float(difference) < 1e-4


@pytest.mark.parametrize("config", VARIANTS)
def test_hugging_face_names_are_there_and_back(config: LlamaConfig) -> None:
    weights = build(config).state_dict()
    theirs = to_hugging_face(weights, config)
    assert ("lm_head.weight" in theirs) is not config.tie_word_embeddings
    again = from_hugging_face(theirs, config)
    assert again.keys() == weights.keys()
    assert all(torch.equal(again[name], weights[name]) for name in weights)
    once_more = to_hugging_face(again, config)
    assert all(torch.equal(once_more[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize("config", VARIANTS)
def test_saved_weights_load_as_they_were(config: LlamaConfig, tmp_path: Path) -> None:
    model = build(config)
    save_run(tmp_path, model, SequenceLayout(Vocabulary(0, 36, 3), (2, 2)), 4, 10.0, (16, 16), "0" * 64)
    loaded = load_predictor(tmp_path)
    assert loaded.config == config
    assert all(torch.equal(v, model.state_dict()[k]) for k, v in loaded.state_dict().items())
    assert (loaded.head.weight is loaded.embed.weight) is config.tie_word_embeddings


@pytest.mark.parametrize("config", VARIANTS[:2] + VARIANTS[3:])
@settings(max_examples=25)
@given(cuts=st.lists(st.integers(1, 39), max_size=6, unique=True), batch=st.integers(1, 3))
def test_cached_logits_are_the_uncached_however_the_prefix_is_split(
    config: LlamaConfig, cuts: list[int], batch: int
) -> None:
    model = build(config).double()
    tokens = ids(batch, 40)
    cache = KVCache(config, batch, 40, model.embed.weight)
    edges = [0, *sorted(cuts), 40]
    with torch.inference_mode():
        parts = [model.hidden(tokens[:, a:b], cache) for a, b in pairwise(edges)]
        assert cache.length == 40
        assert torch.allclose(model.head(torch.cat(parts, 1)), model(tokens), atol=1e-10)


def test_a_cache_that_is_set_back_forgets() -> None:
    model = build().double()
    cache = KVCache(CONFIG, 1, 20, model.embed.weight)
    with torch.inference_mode():
        model.hidden(ids(1, 20, seed=1), cache)
        cache.length = 7
        tokens = torch.cat([ids(1, 20, seed=1)[:, :7], ids(1, 9, seed=2)], 1)
        assert torch.allclose(model.hidden(tokens[:, 7:], cache), model.hidden(tokens)[:, 7:], atol=1e-10)


@pytest.mark.parametrize("config", VARIANTS[:2] + VARIANTS[3:])
# In fp32 the products are fused, as in rollouts; in fp64 they are not.
@pytest.mark.parametrize(("dtype", "near"), [(torch.float64, 1e-10), (torch.float32, 1e-5)])
@settings(max_examples=25)
@given(cuts=st.lists(st.integers(11, 29), max_size=4, unique=True), batch=st.integers(1, 4))
def test_one_prefill_serves_all_samples(
    config: LlamaConfig, dtype: torch.dtype, near: float, cuts: list[int], batch: int
) -> None:
    model = build(config).to(dtype).requires_grad_(False)
    prefix, rest = ids(1, 10), ids(batch, 20, seed=1)
    cache = KVCache(config, 1, 30, model.embed.weight)
    edges = [10, *sorted(cuts), 30]
    with torch.inference_mode():
        model.hidden(prefix, cache)
        cache = cache.fork(torch.zeros(batch, dtype=torch.int64))
        assert cache.capacity == 30
        whole = torch.cat([prefix.expand(batch, -1), rest], 1)
        parts = [model.hidden(whole[:, a:b], cache) for a, b in pairwise(edges)]
        assert torch.allclose(torch.cat(parts, 1), model.hidden(whole)[:, 10:], atol=near)
        cache.length = 17
        assert torch.allclose(model.hidden(whole[:, 17:], cache), model.hidden(whole)[:, 17:], atol=near)


@settings(max_examples=25)
@given(length=st.integers(1, 40), size=st.integers(1, 41), kv_heads=st.sampled_from([1, 2, 4]))
def test_attention_in_blocks_is_causal_attention(length: int, size: int, kv_heads: int) -> None:
    generator = torch.Generator().manual_seed(length)
    q = torch.randn(2, 4, length, 8, generator=generator, dtype=torch.float64, requires_grad=True)
    k, v, slope = (
        torch.randn(2, heads, length, 8, generator=generator, dtype=torch.float64, requires_grad=True)
        for heads in (kv_heads, kv_heads, 4)
    )
    expected = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
    made = attend_in_blocks(q, k, v, size)
    assert torch.allclose(made, expected, atol=1e-12)
    gradients = (torch.autograd.grad(y, (q, k, v), slope) for y in (made, expected))
    for mine, theirs in zip(*gradients, strict=True):
        assert torch.allclose(mine, theirs, atol=1e-12)


def test_attention_in_blocks_is_as_near_in_bf16() -> None:
    q, k, v, slope = torch.randn(4, 2, 4, 100, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)

    def gradients(dtype: torch.dtype) -> list[torch.Tensor]:
        given = [x.to(dtype).requires_grad_() for x in (q, k, v)]
        made = attend_in_blocks(*given, 32)
        return [x.detach().double() for x in (made, *torch.autograd.grad(made, given, slope.to(dtype)))]

    for rounded, exact in zip(gradients(torch.bfloat16), gradients(torch.float64), strict=True):
        assert float((rounded - exact).norm() / exact.norm()) < 0.01


def test_training_in_bf16_attends_in_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr("framepred.predictor.attention.attend_in_blocks", lambda *qkv: seen.extend(qkv) or qkv[0])
    with torch.autocast("cpu", torch.bfloat16):
        build()(ids(2, 8))
    assert len(seen) == 3 * CONFIG.num_hidden_layers and {x.dtype for x in seen} == {torch.bfloat16}


@given(width=st.integers(1, 300), size=st.floats(-6, 4), seed=st.integers(0, 99))
def test_the_packed_norm_is_torchs(width: int, size: float, seed: int) -> None:
    norm, generator = torch.nn.RMSNorm(width, 1e-5), torch.Generator().manual_seed(seed)
    torch.nn.init.normal_(norm.weight, generator=generator)
    x = torch.randn(2, 3, width, generator=generator) * 10**size
    x[0, 0] = 0
    with torch.inference_mode():
        torch.testing.assert_close(PackedNorm(norm)(x), norm(x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("product", [TORCH, ONEDNN], ids=["torch", "onednn"])
@pytest.mark.parametrize("config", VARIANTS[:2] + VARIANTS[3:])
@pytest.mark.parametrize("batch", [1, 3])
def test_packed_layers_give_the_numbers_of_the_layers(
    config: LlamaConfig, batch: int, product: Product, monkeypatch: pytest.MonkeyPatch
) -> None:
    if product is ONEDNN and not torch.backends.mkldnn.is_available():
        pytest.skip("this torch has no oneDNN")
    monkeypatch.setattr(cpu, "product", lambda: product)
    model, tokens = build(config).requires_grad_(False), ids(batch, 40)
    cache = KVCache(config, batch, 40, model.embed.weight)
    with torch.inference_mode():
        parts = [model.hidden(tokens[:, a:b], cache) for a, b in pairwise((0, 9, 25, 40))]
        layers, _ = fast_layers(model.layers, model.norm, parts[0], cache)
        assert all(isinstance(layer, PackedLayer) for layer in layers)
        alone = model.hidden(tokens)
    with torch.no_grad():
        expected = model.hidden(tokens)
    torch.testing.assert_close(torch.cat(parts, 1), expected, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(alone, expected, atol=1e-5, rtol=1e-5)


def test_layers_whose_weights_may_change_are_not_packed() -> None:
    model = build().requires_grad_(False)
    assert pack_layers(model.layers, model.norm)[0] is not model.layers
    model.layers[1].down.weight.requires_grad_(True)
    assert pack_layers(model.layers, model.norm) == (model.layers, model.norm)
    updated = build().requires_grad_(False)
    updated.layers[2].gate_up = torch.nn.Sequential(updated.layers[2].gate_up)
    assert pack_layers(updated.layers, updated.norm) == (updated.layers, updated.norm)


def test_packed_layers_live_as_long_as_their_cache() -> None:
    model = build().requires_grad_(False)
    kept = len(cpu._layers)
    cache = KVCache(CONFIG, 1, 9, model.embed.weight)
    with torch.inference_mode():
        model.hidden(ids(1, 4), cache)
        first = cpu._layers[cache]
        model.hidden(ids(1, 5), cache)
    assert cpu._layers[cache] is first
    del cache
    assert len(cpu._layers) == kept


@settings(max_examples=25)
@given(batch=st.integers(1, 3), length=st.integers(1, 5), past=st.integers(0, 4), kv_heads=st.sampled_from([1, 2, 4]))
def test_attention_with_a_prefix_is_attention_to_both_parts(batch: int, length: int, past: int, kv_heads: int) -> None:
    generator = torch.Generator().manual_seed(length)
    q = torch.randn(batch, 4, length, 8, generator=generator)
    prefix = torch.randn(2, kv_heads, 6, 8, generator=generator)
    k, v = torch.randn(2, batch, kv_heads, past + length, 8, generator=generator)
    sees = torch.ones(length, past + length, dtype=torch.bool).tril_(past)
    mask = torch.zeros(sees.shape).masked_fill_(~sees, -torch.inf)
    joined = [torch.cat([p.expand(batch, -1, -1, -1), own], 2) for p, own in zip(prefix, (k, v), strict=True)]
    expected = torch.nn.functional.scaled_dot_product_attention(
        q, *joined, attn_mask=torch.cat([torch.zeros(length, 6), mask], 1), enable_gqa=True
    )
    below = mask.repeat(4 // kv_heads, 1)[None, None]
    for mode in (torch.inference_mode, torch.no_grad):
        with mode():
            made = attention.attend_with_prefix(q, *prefix, k, v, below)
        torch.testing.assert_close(made, expected, atol=1e-5, rtol=1e-5)


@settings(max_examples=25)
@given(position=st.integers(1, 31), value=st.integers(0, 39))
def test_a_later_token_cannot_change_an_earlier_logit(position: int, value: int) -> None:
    model = build()
    tokens = ids(1, 32)
    changed = tokens.clone()
    changed[0, position] = value if value != int(tokens[0, position]) else (value + 1) % 40
    with torch.inference_mode():
        before, after = model(tokens), model(changed)
    assert torch.equal(before[:, :position], after[:, :position])
    assert not torch.allclose(before[:, position:], after[:, position:], atol=1e-3)


def test_every_earlier_token_matters_to_the_last_logit() -> None:
    model = build().double()
    tokens = ids(1, 16).requires_grad_(False)
    embedded = model.embed(tokens).detach().requires_grad_(True)
    model.embed.forward = lambda _: embedded  # type: ignore[method-assign]
    model(tokens)[0, -1].square().sum().backward()
    assert embedded.grad is not None
    assert bool((embedded.grad[0].abs().sum(-1) > 0).all())


def test_losses_are_of_the_ids_and_ranges_that_are_wanted() -> None:
    model = build()
    tokens = ids(2, 20)
    places, right = torch.tensor([0, 3, 39]), torch.tensor([6, 0, 2])
    empty = torch.tensor([], dtype=torch.int64)
    with torch.inference_mode():
        some, none = model(tokens, [(places, (2, 9), right), (empty, (0, 5), empty)])
        whole = model(tokens)
    chances = whole.flatten(0, 1)[places, 2:9].log_softmax(-1)
    assert torch.allclose(some, -chances[torch.arange(3), right], atol=1e-6)
    assert none.shape == (0,)


def test_order_matters() -> None:
    model = build()
    with torch.inference_mode():
        assert not torch.allclose(
            model(torch.tensor([[1, 2, 3]]))[0, -1], model(torch.tensor([[2, 1, 3]]))[0, -1], atol=1e-3
        )


def test_more_tokens_than_the_context_are_refused() -> None:
    model = build()
    with pytest.raises(FramepredError, match="65 tokens are more than the model's context of 64"):
        model(ids(1, 65))
    cache = KVCache(CONFIG, 1, 64, model.embed.weight)
    with torch.inference_mode():
        model.hidden(ids(1, 64), cache)
        with pytest.raises(FramepredError, match="65 tokens"):
            model.hidden(ids(1, 1), cache)


def test_initial_weights_depend_on_the_generator_alone() -> None:
    def built(seed: int) -> dict[str, Tensor]:
        torch.rand(3)
        model = Llama(CONFIG)
        model.initialise(torch.Generator().manual_seed(seed))
        return model.state_dict()

    one, same, other = built(0), built(0), built(1)
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["embed.weight"], other["embed.weight"])
    assert float(one["embed.weight"].std()) == pytest.approx(0.02, rel=0.1)
    assert float(one["layers.0.down.weight"].std()) == pytest.approx(0.02 / 6**0.5, rel=0.1)


def test_configuration_survives_json_and_only_a_llama_is_one() -> None:
    for config in VARIANTS:
        assert LlamaConfig.from_json(config.to_json()) == config
    old = {k: v for k, v in VARIANTS[1].to_json().items() if k != "rope_parameters"}
    assert LlamaConfig.from_json(old).rope_theta == 500.0
    with pytest.raises(FramepredError, match="model_type 'gpt2' is not a Llama"):
        LlamaConfig.from_json(CONFIG.to_json() | {"model_type": "gpt2"})
