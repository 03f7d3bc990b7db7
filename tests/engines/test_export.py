"""An export is the same model under other names: same logits, readable ids, text as the LLM had it."""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner, Result
from conftest import FPS, moving_square
from random_run import write_random_run

from framepred.cli import cli
from framepred.engines.export import export, measure_loss
from framepred.errors import FramepredError
from framepred.io.compat import ensure_torchvision
from framepred.llm.token_names import token_names, tokenizer_json
from framepred.predictor import gguf as gguf_file
from framepred.predictor.huggingface import to_hugging_face
from framepred.sequence.vocabulary import Vocabulary
from framepred.sources.actions_csv import write_actions
from framepred.video.write import write_video
from framepred.world.run import load_run

TEXT = "the room turns left, and 123 walls wait: the door!"


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_run(tmp_path_factory.mktemp("export") / "run")


def text_tokenizer() -> Any:
    """A byte-level BPE tokenizer of 300 ids, as SmolLM2's is made, learnt from one sentence."""
    tokenizers = pytest.importorskip("tokenizers")
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Sequence(
        [tokenizers.pre_tokenizers.Digits(True), tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = tokenizers.decoders.ByteLevel()
    trainer = tokenizers.trainers.BpeTrainer(
        vocab_size=300,
        special_tokens=["<|endoftext|>"],
        initial_alphabet=tokenizers.pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([TEXT] * 4, trainer)
    return tokenizer


@pytest.fixture(scope="module")
def text_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose vocabulary begins with 320 text ids, of which its LLM's tokenizer names fewer."""
    folder = write_random_run(tmp_path_factory.mktemp("text") / "run", text_size=320, spare=3)
    text_tokenizer().save(str(folder / "tokenizer.json"))
    return folder


def test_names_are_readable_and_each_its_own() -> None:
    names = token_names(Vocabulary(10, 64, 3))
    assert (names[10], names[73], names[74], names[76], names[77], names[78], names[79]) == (
        "<|v_0000|>", "<|v_0063|>", "<|a_0|>", "<|a_2|>", "<|no_action|>", "<|frames|>", "<|/frames|>",
    )  # fmt: skip
    assert len(set(names.values())) == len(names) == 70
    assert token_names(Vocabulary(0, 65536, 0))[65535] == "<|v_65535|>"


def test_transformers_loads_the_export_and_gives_the_same_logits(run_dir: Path, tmp_path: Path) -> None:
    ensure_torchvision()
    transformers = pytest.importorskip("transformers")
    export(run_dir, tmp_path / "hf", "hf")
    model = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "hf", dtype=torch.float32)
    ids = torch.randint(0, 69, (2, 80), generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        assert torch.allclose(model(ids).logits, load_run(run_dir).predictor(ids), atol=1e-4)
        made = model.generate(ids[:1, :20], attention_mask=torch.ones(1, 20).long(), max_new_tokens=8, do_sample=False)
    assert made.shape == (1, 28)

    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "hf")
    assert len(tokenizer) == 69
    named = tokenizer.decode(made[0])
    assert named.startswith("<|") and " " not in named
    assert tokenizer(named).input_ids == made[0].tolist()
    assert tokenizer("<|v_0003|> <|a_1|>\n<|no_action|>").input_ids == [3, 65, 68]
    with pytest.raises(Exception, match="UNK"):
        tokenizer("words, which this model does not know")


def test_an_export_is_a_run(run_dir: Path, tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    original = to_hugging_face(load_run(run_dir).predictor.state_dict(), load_run(run_dir).predictor.config)
    for format in ("hf", "gguf"):
        run = export(run_dir, tmp_path / format, format)
        assert run.path == tmp_path / format
        assert run.layout == load_run(run_dir).layout
        weights = to_hugging_face(run.predictor.state_dict(), run.predictor.config)
        assert all(torch.equal(weights[name], original[name]) for name in original)
        assert not list(tmp_path.glob(".*"))
    # And back: a GGUF becomes a Hugging Face checkpoint again.
    back = export(tmp_path / "gguf", tmp_path / "back", "hf")
    assert all(torch.equal(v, original[k]) for k, v in
               to_hugging_face(back.predictor.state_dict(), back.predictor.config).items())  # fmt: skip


def test_text_stays_as_the_llm_had_it(text_run: Path, tmp_path: Path) -> None:
    ensure_torchvision()
    transformers = pytest.importorskip("transformers")
    own = text_tokenizer()
    export(text_run, tmp_path / "hf", "hf")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "hf")
    plain = own.encode(TEXT).ids
    assert tokenizer(TEXT, add_special_tokens=False).input_ids == plain
    assert tokenizer.decode(plain) == own.decode(plain) == TEXT
    mixed = [*plain, 320, 320 + 63, 384, 388, *plain[:2]]
    named = tokenizer.decode(mixed)
    assert named == TEXT + "<|v_0000|><|v_0063|><|a_0|><|no_action|>" + own.decode(plain[:2])
    assert tokenizer(named, add_special_tokens=False).input_ids == mixed
    # What is exported can be exported again.
    export(tmp_path / "hf", tmp_path / "again", "hf")
    assert (tmp_path / "again" / "tokenizer.json").read_bytes() == (tmp_path / "hf" / "tokenizer.json").read_bytes()


def test_llama_cpp_reads_text_as_the_llm_does(text_run: Path, tmp_path: Path) -> None:
    xllamacpp = pytest.importorskip("xllamacpp")
    pytest.importorskip("gguf")
    export(text_run, tmp_path / "gguf", "gguf")
    settings = xllamacpp.CommonParams()
    settings.model.path = str(tmp_path / "gguf" / gguf_file.NAME)
    settings.n_ctx, settings.n_parallel, settings.verbosity = 102, 1, -1
    settings.fit_params = settings.warmup = settings.use_jinja = False
    server = xllamacpp.Server(settings)
    plain = text_tokenizer().encode(TEXT).ids
    request = {"max_tokens": 6, "temperature": 0, "logprobs": 1, "ignore_eos": True}
    read, given = (server.handle_completions(request | {"prompt": p}) for p in (TEXT + "<|v_0007|>", [*plain, 327]))
    assert read["usage"]["prompt_tokens"] == given["usage"]["prompt_tokens"] == len(plain) + 1
    assert read["choices"][0]["text"] == given["choices"][0]["text"] != ""


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t["model"].update(type="Unigram"), "is a Unigram tokenizer; framepred extends BPE"),
        (lambda t: t["model"]["vocab"].update({"beyond": 330}), "token 'beyond' has id 330"),
        (lambda t: t["model"]["vocab"].update({"<|v_0001|>": 310}), "has a token '<|v_0001|>' of its own, id 310"),
        (lambda t: t.pop("model"), "cannot be read"),
        (None, "320 text ids but no tokenizer.json"),
    ],
)
def test_a_text_tokenizer_that_does_not_fit_is_refused(text_run: Path, tmp_path: Path, change: Any, said: str) -> None:
    shutil.copytree(text_run, tmp_path / "run")
    file = tmp_path / "run" / "tokenizer.json"
    if change is None:
        file.unlink()
    else:
        content = json.loads(file.read_text())
        change(content)
        file.write_text(json.dumps(content))
    with pytest.raises(FramepredError, match=said):
        export(tmp_path / "run", tmp_path / "out", "hf")
    assert [p.name for p in tmp_path.iterdir()] == ["run"]


def test_names_do_not_depend_on_how_a_text_range_is_padded() -> None:
    text = {"added_tokens": [], "model": {"type": "BPE", "vocab": {"a": 0, "b": 1}, "merges": []}}
    made = tokenizer_json(Vocabulary(8, 4, 0), text)
    assert made["model"]["vocab"] == {"a": 0, "b": 1} | {f"<|v_000{i}|>": 8 + i for i in range(4)} | {
        "<|no_action|>": 12, "<|frames|>": 13, "<|/frames|>": 14,
    }  # fmt: skip
    assert text["added_tokens"] == []


def test_quantizing_makes_files_smaller_and_says_what_it_costs(run_dir: Path, tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    clips = tmp_path / "clips"
    clips.mkdir()
    frames, actions = moving_square(0, 10)
    write_video(clips / "a.mp4", frames, FPS, lossless=True)
    write_actions(clips / "a.actions.csv", actions, ["action"])
    write_video(clips / "b.mp4", moving_square(1, 5)[0], FPS, lossless=True)
    run = load_run(run_dir)
    sizes, changes = [], []
    for quantize in (None, "f16", "q8_0", "q4_0"):
        after = export(run_dir, tmp_path / str(quantize), "gguf", quantize)
        sizes.append((tmp_path / str(quantize) / gguf_file.NAME).stat().st_size)
        *_, last = measure_loss(run, after, [clips])
        assert (last.done, last.total, last.frames) == (2, 2, 9 + 4)
        assert last.before > 16 * 2
        changes.append(abs(last.after - last.before))
    assert sizes == sorted(sizes, reverse=True) and len(set(sizes)) == 4
    assert changes[0] == 0
    assert changes[1] < changes[2] < changes[3]
    assert changes[2] < 0.05 * last.before


def test_the_loss_is_the_cross_entropy_of_the_frames(run_dir: Path, tmp_path: Path) -> None:
    """Worked out the long way: one pass over the whole clip, which is no longer than the window."""
    from framepred.video.read import read_video

    write_video(tmp_path / "a.mp4", moving_square(3, 6)[0], FPS, lossless=True)
    run = load_run(run_dir)
    tokens = run.tokenizer.encode(read_video(tmp_path / "a.mp4", (32, 32)).frames)
    ids = run.layout.pack(tokens, run.layout.action_ids(None, 6))[None]
    scores = run.predictor(ids)[0, :, :64].double().log_softmax(-1)
    wanted = [t for t in range(17, ids.shape[1]) if t % 17 != 16]
    bits = -sum(float(scores[t - 1, ids[0, t]]) for t in wanted) / torch.log(torch.tensor(2.0)).item()
    (measured,) = measure_loss(run, run, [tmp_path / "a.mp4"])
    assert measured.before == measured.after == pytest.approx(bits / 5, rel=1e-5)


def test_export_refuses_what_it_cannot_do(run_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "there").mkdir()
    for arguments, said in (
        (("there", "hf", None), "there exists already"),
        (("out", "onnx", None), "format 'onnx' is not known; give one of hf, gguf"),
        (("out", "hf", "q8_0"), "quantize 'q8_0' is not allowed with format 'hf'"),
        (("out", "gguf", "q2_k"), "quantize 'q2_k' is not allowed with format 'gguf'; give one of f16, q8_0, q4_0"),
    ):
        name, format, quantize = arguments
        with pytest.raises(FramepredError, match=said):
            export(run_dir, tmp_path / name, format, quantize)
    monkeypatch.setitem(sys.modules, "gguf", None)
    with pytest.raises(FramepredError, match=r"needs the gguf package .*pip install 'framepred\[export\]'"):
        export(run_dir, tmp_path / "out", "gguf", "q8_0")
    assert [p.name for p in tmp_path.iterdir()] == ["there"]


def test_a_gguf_that_is_broken_or_no_llama_is_refused(run_dir: Path, tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf")
    export(run_dir, tmp_path / "out", "gguf")
    file = tmp_path / "out" / gguf_file.NAME
    whole = file.read_bytes()
    for broken in (b"", b"no gguf", whole[:3000], whole[:-5000]):
        file.write_bytes(broken)
        with pytest.raises(FramepredError, match=r"model.gguf is no whole GGUF of a Llama"):
            load_run(tmp_path / "out")
    writer = gguf.GGUFWriter(file, "gpt2")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(FramepredError, match="holds a 'gpt2'"):
        load_run(tmp_path / "out")


def test_the_command_writes_measures_and_refuses(run_dir: Path, tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    write_video(tmp_path / "a.mp4", moving_square(3, 6)[0], FPS, lossless=True)

    def invoke(*options: object) -> Result:
        arguments = ["export", run_dir, "-o", tmp_path / "out", *options]
        return CliRunner().invoke(cli, [str(a) for a in arguments], prog_name="framepred")

    made = invoke("--format", "gguf", "--quantize", "q4_0", "--measure", tmp_path / "a.mp4", "--json")
    assert made.exit_code == 0, made.stderr
    facts = json.loads(made.stdout)
    assert {k: facts[k] for k in ("path", "format", "quantize")} == {
        "path": str(tmp_path / "out"), "format": "gguf", "quantize": "q4_0",
    }  # fmt: skip
    assert facts["bytes"] == (tmp_path / "out" / gguf_file.NAME).stat().st_size
    assert facts["loss"]["frames"] == 5
    assert facts["loss"]["bits_before"] != facts["loss"]["bits_after"]

    again = invoke("--format", "hf")
    assert (again.exit_code, again.stderr.count("\n")) == (1, 1)
    assert "out exists already: give --overwrite or another -o" in again.stderr
    assert invoke("--format", "hf", "--overwrite").exit_code == 0
    assert {p.name for p in (tmp_path / "out").glob("model.*")} == {"model.safetensors"}
    # A measurement that fails leaves what was there.
    failed = invoke("--format", "gguf", "--overwrite", "--measure", tmp_path / "none.mp4")
    assert (failed.exit_code, (tmp_path / "out" / "model.safetensors").exists()) == (1, True)
    assert invoke("--format", "onnx").exit_code == invoke("--format", "hf", "--quantize", "f16").exit_code == 2


@pytest.mark.parametrize(("format", "needs"), [("hf", "transformers"), ("gguf", "xllamacpp")])
def test_the_lines_of_an_exports_readme_load_it(
    run_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
    format: str, needs: str,
) -> None:  # fmt: skip
    pytest.importorskip(needs)
    export(run_dir, tmp_path / "out", format)
    text = (tmp_path / "out" / "README.md").read_text()
    monkeypatch.chdir(tmp_path / "out")
    ensure_torchvision()
    exec(text.partition("```python\n")[2].partition("```")[0], {})
    # Greedy tokens under the readable names of the folder's tokenizer.json.
    assert "<|v_" in capsys.readouterr().out
    assert "framepred rollout clip.mp4 --model out" in text
