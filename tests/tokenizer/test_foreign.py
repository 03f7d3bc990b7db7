"""Tokenizers of other libraries: tiny random checkpoints that those libraries save become framepred's contract."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from click.testing import CliRunner
from conftest import TINY_SETTINGS
from safetensors.torch import load_file, save_file
from torch import Tensor

from framepred.cli import cli
from framepred.errors import FramepredError
from framepred.io import zoo
from framepred.io.compat import ensure_torchvision
from framepred.tokenizer import foreign as adapters
from framepred.tokenizer.checkpoint import copy_tokenizer, load_tokenizer, tokenizer_sha256
from framepred.tokenizer.contract import Tokenizer
from framepred.tokenizer.foreign import ADAPTERS
from framepred.tokens.store import read_store
from framepred.world.info import describe
from framepred.world.run import load_run

ensure_torchvision()
transformers = pytest.importorskip("transformers")


def _diffusers() -> Any:
    return pytest.importorskip("diffusers")


def vqmodel(**more: Any) -> Any:
    blocks = {"block_out_channels": (8, 8), "down_block_types": ("DownEncoderBlock2D",) * 2}
    shape = blocks | {"up_block_types": ("UpDecoderBlock2D",) * 2, "norm_num_groups": 4, "num_vq_embeddings": 32}
    return _diffusers().VQModel(**(shape | more))


def vidtok(**more: Any) -> Any:
    library = _diffusers()
    if not hasattr(library, "AutoencoderVidTok"):
        pytest.skip("this diffusers has no AutoencoderVidTok")
    shape = {"ch": 32, "ch_mult": [1, 1], "z_channels": 2, "double_z": False, "num_res_blocks": 1, "codebook_size": 64}
    depth = {"spatial_ds": [0], "spatial_us": [1], "tempo_ds": [0], "tempo_us": [1], "regularizer": "fsq"}
    return library.AutoencoderVidTok(**(shape | depth | more))


def emu3(**more: Any) -> Any:
    shape = {"base_channels": 32, "channel_multiplier": [1, 1], "num_res_blocks": 1, "codebook_size": 64}
    config = transformers.Emu3VQVAEConfig(**(shape | {"attn_resolutions": [], "hidden_size": 32} | more))
    return transformers.Emu3VQVAE(config)


def janus(**more: Any) -> Any:
    shape = {"base_channels": 32, "channel_multiplier": [1, 1], "num_res_blocks": 1, "num_embeddings": 64}
    config = transformers.JanusVQVAEConfig(**(shape | {"latent_channels": 8, "num_patches": 8} | more))
    return transformers.JanusVQVAE(config)


MODELS: dict[str, Callable[..., Any]] = {
    "VQModel": vqmodel, "AutoencoderVidTok": vidtok, "Emu3VQVAE": emu3, "JanusVQVAE": janus,
}  # fmt: skip


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Return a function that saves a tiny random model by its class's name, once."""
    folder = tmp_path_factory.mktemp("foreign")

    def save(name: str) -> Path:
        if not (folder / name).exists():
            torch.manual_seed(0)
            model = MODELS[name]()
            for parameter in model.parameters():
                # As they come, random codes of some models are so alike that only one is ever used.
                parameter.data.add_(torch.randn_like(parameter) * 0.05)
            model.save_pretrained(folder / name)
        return folder / name

    return save


def pictures(count: int, size: tuple[int, int], seed: int = 0) -> Tensor:
    coarse = torch.rand(count, 3, 4, 4, generator=torch.Generator().manual_seed(seed)) * 255
    return torch.nn.functional.interpolate(coarse, size, mode="bilinear").to(torch.uint8)


def test_every_adapter_is_tried_here() -> None:
    assert MODELS.keys() == ADAPTERS.keys()


@pytest.mark.parametrize("name", MODELS)
def test_a_saved_model_is_a_tokenizer(name: str, saved: Callable[[str], Path]) -> None:
    tokenizer = load_tokenizer(saved(name), (16, 16))
    assert isinstance(tokenizer, Tokenizer)
    assert (tokenizer.frame_size, tokenizer.grid) == ((16, 16), (8, 8))
    frames = pictures(5, (16, 16))
    tokens = tokenizer.encode(frames)
    assert (tokens.shape, tokens.dtype) == ((5, 8, 8), torch.int64)
    assert 0 <= int(tokens.min()) < int(tokens.max()) < tokenizer.codebook_size
    decoded = tokenizer.decode(tokens)
    assert (decoded.shape, decoded.dtype) == ((5, 3, 16, 16), torch.uint8)
    # A frame's tokens and its picture are its own, however many models call a group.
    alone = torch.cat([tokenizer.encode(frame[None]) for frame in frames])
    assert float((alone == tokens).float().mean()) > 0.99
    single = torch.cat([tokenizer.decode(grid[None]) for grid in tokens])
    assert int((single.int() - decoded.int()).abs().max()) <= 1
    assert tokenizer.encode(frames[:0]).shape == (0, 8, 8)
    assert tokenizer.decode(tokens[:0]).shape == (0, 3, 16, 16)
    assert not any(p.requires_grad for p in tokenizer.parameters())
    with pytest.raises(ValueError, match=r"the tokenizer takes \(16, 16\)"):
        tokenizer.encode(pictures(1, (16, 18)))


def test_tokens_and_pictures_are_those_of_the_library_itself(saved: Callable[[str], Path]) -> None:
    frames = pictures(2, (16, 16))
    x = frames.float() / 127.5 - 1
    with torch.inference_mode():
        for name in MODELS:
            adapted = load_tokenizer(saved(name), (16, 16))
            model, ids = adapted.model, adapted.encode(frames)
            if name == "VQModel":
                latents = model.encode(x).latents
                expected, again = model.quantize(latents)[2][2], model.decode(latents).sample
            elif name == "AutoencoderVidTok":
                codes, expected = model.encode(torch.stack([x, x], 2))
                again = model.decode(codes)[:, :, 0]
            elif name == "Emu3VQVAE":
                expected = torch.stack(model.encode(x, image_sizes=torch.tensor([[16, 16]] * 2)).image_tokens)
                again = model.decode(expected)
            else:
                expected = model.encode(x).image_tokens
                again = model(x)[0]
            assert torch.equal(ids.flatten(), expected.flatten().long())
            shown = again.clamp(-1, 1).add(1).mul(127.5)
            assert float((adapted.decode(ids).float() - shown).abs().max()) <= 1, name


def test_groups_of_frames_are_named(saved: Callable[[str], Path]) -> None:
    assert load_tokenizer(saved("VQModel"), (16, 16)).group == 1
    assert load_tokenizer(saved("Emu3VQVAE"), (16, 16)).group == 4
    assert load_tokenizer(saved("AutoencoderVidTok"), (16, 16)).group == 2
    facts = describe(str(saved("Emu3VQVAE")))
    assert facts["quantizer"] == "Emu3VQVAE"
    assert facts["group"] == "16384 tokens for 4 frames of a video; here for each frame, as for pictures"
    assert "group" not in describe(str(saved("JanusVQVAE")))


@pytest.mark.parametrize("name", ["VQModel", "AutoencoderVidTok", "Emu3VQVAE"])
def test_a_size_that_does_not_divide_is_refused(name: str, saved: Callable[[str], Path]) -> None:
    with pytest.raises(
        FramepredError, match=rf"{name} makes a token of 2x2 pixels, frames are 15x16: .* such as 14x16"
    ):
        load_tokenizer(saved(name), (15, 16))
    assert load_tokenizer(saved(name), (8, 24)).grid == (4, 12)


def test_janus_has_one_size(saved: Callable[[str], Path]) -> None:
    assert load_tokenizer(saved("JanusVQVAE")).frame_size == (16, 16)
    with pytest.raises(FramepredError, match="JanusVQVAE of 8x8 tokens takes frames of 16x16 only, not 32x32"):
        load_tokenizer(saved("JanusVQVAE"), (32, 32))


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: vqmodel(in_channels=1), "VQModel takes 1 channels and gives 3, frames have 3"),
        (lambda: emu3(in_channels=4, out_channels=4), "Emu3VQVAE takes 4 channels and gives 4"),
        (lambda: janus(out_channels=1), "JanusVQVAE takes 3 channels and gives 1"),
        (lambda: vidtok(in_channels=6), "AutoencoderVidTok takes 6 channels"),
        (lambda: vidtok(is_causal=False), "not causal takes 16 frames at once.*give a causal checkpoint"),
        (lambda: vidtok(regularizer="kl"), "regularizer 'kl' has no tokens: give a checkpoint with 'fsq'"),
    ],
)
def test_a_model_that_cannot_serve_is_refused(build: Callable[[], Any], words: str, tmp_path: Path) -> None:
    build().save_pretrained(tmp_path / "m")
    with pytest.raises(FramepredError, match=words) as caught:
        load_tokenizer(tmp_path / "m")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"architectures": ["ChameleonVQVAE"]}, "Chameleon's tokenizer only encodes"),
        ({"architectures": ["ChameleonForConditionalGeneration"]}, "Chameleon's tokenizer only encodes"),
        ({"architectures": ["Emu3ForConditionalGeneration"]}, r"save its tokenizer alone, model.model.vqmodel"),
        ({"architectures": ["LlamaForCausalLM"]}, "says LlamaForCausalLM; it reads its own and VQModel"),
        ({"_class_name": "AutoencoderKL"}, "says AutoencoderKL; it reads its own and VQModel"),
        ({"architectures": None}, "says nothing; it reads its own"),
    ],
)
def test_a_checkpoint_of_another_kind_is_named(config: dict[str, Any], words: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(config))
    save_file({"x": torch.zeros(1)}, tmp_path / "model.safetensors")
    with pytest.raises(FramepredError, match=words) as caught:
        load_tokenizer(tmp_path)
    assert "\n" not in str(caught.value)


def test_weights_that_are_not_whole_are_refused(saved: Callable[[str], Path], tmp_path: Path) -> None:
    shutil.copytree(saved("JanusVQVAE"), tmp_path / "m")
    file = tmp_path / "m" / "model.safetensors"
    weights = load_file(file)
    save_file({k: v for k, v in weights.items() if k != "quantize.embedding.weight"}, file, {"format": "pt"})
    with pytest.raises(FramepredError, match=r"not a whole JanusVQVAE: .* such as quantize.embedding.weight"):
        load_tokenizer(tmp_path / "m")
    file.write_bytes(b"\0" * 100)
    with pytest.raises(FramepredError, match="is not a whole JanusVQVAE"):
        load_tokenizer(tmp_path / "m")
    file.rename(file.with_name("pytorch_model.bin"))
    with pytest.raises(FramepredError, match="has no safetensors: pickled weights can run code and are not read"):
        load_tokenizer(tmp_path / "m")


def test_code_beside_the_weights_is_never_run(saved: Callable[[str], Path], tmp_path: Path) -> None:
    shutil.copytree(saved("Emu3VQVAE"), tmp_path / "m")
    file = tmp_path / "m" / "config.json"
    config = json.loads(file.read_text()) | {"auto_map": {"AutoModel": "evil.Emu3VQVAE", "AutoConfig": "evil.Config"}}
    file.write_text(json.dumps(config))
    (tmp_path / "m" / "evil.py").write_text(f"open({str(tmp_path / 'run')!r}, 'w')\n")
    assert load_tokenizer(tmp_path / "m", (16, 16)).grid == (8, 8)
    assert not (tmp_path / "run").exists()


def test_a_library_that_is_not_there_is_named(saved: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError(f"No module named {name!r}")

    monkeypatch.setattr(adapters.importlib, "import_module", missing)
    monkeypatch.setattr(adapters, "ensure_torchvision", lambda: None)
    with pytest.raises(
        FramepredError, match=r"No module named 'transformers'\): pip install -U 'framepred\[adapters\]'"
    ):
        load_tokenizer(saved("JanusVQVAE"))


def test_the_hash_covers_configuration_and_weights(saved: Callable[[str], Path], tmp_path: Path) -> None:
    source = saved("VQModel")
    copy_tokenizer(source, tmp_path / "copy", (16, 24))
    assert load_tokenizer(tmp_path / "copy").frame_size == (16, 24)
    assert load_tokenizer(tmp_path / "copy", (32, 32)).frame_size == (16, 24)
    assert tokenizer_sha256(tmp_path / "copy") == tokenizer_sha256(source)
    config = tmp_path / "copy" / "config.json"
    config.write_text(config.read_text() + " ")
    assert tokenizer_sha256(tmp_path / "copy") != tokenizer_sha256(source)
    (tmp_path / "copy" / "adapter.json").write_text("{}")
    with pytest.raises(FramepredError, match=r"adapter\.json has no frame_size"):
        load_tokenizer(tmp_path / "copy")


def invoke(*arguments: object) -> Any:
    result = CliRunner().invoke(cli, [str(a) for a in arguments])
    assert result.exit_code == 0, result.output
    return result


@pytest.mark.parametrize("name", ["VQModel", "Emu3VQVAE"])
@pytest.mark.filterwarnings("ignore::framepred.errors.FramepredWarning")
def test_tokenize_train_and_roll_out_with_another_librarys_tokenizer(
    name: str, saved: Callable[[str], Path], clips_dir: Path, tmp_path: Path
) -> None:
    store, run = tmp_path / "store", tmp_path / "run"
    invoke("tokenize", clips_dir, "-o", store, "--tokenizer", saved(name), "--size", "16")
    assert read_store(store)[0].tokens.shape == (24, 8, 8)
    settings = [*TINY_SETTINGS, "training.predictor_steps=2"]
    sets = [part for s in settings for part in ("--set", s)]
    invoke("train", store, "-o", run, "--recipe", "tiny", *sets)
    made = load_run(run)
    assert made.tokenizer.frame_size == (16, 16)
    assert made.tokenizer_sha256 == tokenizer_sha256(saved(name))
    out = invoke(
        "rollout", clips_dir / "clip0.mp4", "--model", run, "-o", tmp_path / "o.npz", "--horizon", "2", "--json"
    )
    assert json.loads(out.stdout)["mean"]["ceiling"]["psnr"] > 0
    other = tmp_path / "other"
    invoke("train", clips_dir, "-o", other, "--tokenizer", saved(name), "--only", "predictor", "--recipe", "tiny",
           *sets, "--set", "data.size=16")  # fmt: skip
    a, b = (load_file(folder / "model.safetensors") for folder in (run, other))
    assert all(torch.equal(a[k], b[k]) for k in a)
    refused = CliRunner().invoke(cli, ["tokenize", str(clips_dir), "-o", str(tmp_path / "x"), "--tokenizer", str(run),
                                       "--size", "32"])  # fmt: skip
    assert refused.exit_code == 1
    assert "takes frames of 16x16, not 32x32: leave --size out" in refused.output
    tuned = CliRunner().invoke(cli, ["train", str(clips_dir), "-o", str(tmp_path / "y"), "--tokenizer",
                                     str(saved(name)), "--only", "tokenizer"])  # fmt: skip
    assert tuned.exit_code == 1
    assert f"is a {name}: framepred trains only its own" in tuned.output


# The Hub.


def test_an_address_is_fetched_without_code_or_pickles(
    saved: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, dict[str, Any]]] = []

    def snapshot(repository: str, **more: Any) -> str:
        asked.append((repository, more))
        return str(saved("JanusVQVAE").parent)

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    assert load_tokenizer("hf://owner/name@v1/JanusVQVAE").frame_size == (16, 16)
    ((repository, more),) = asked
    assert (repository, more["revision"]) == ("owner/name", "v1")
    assert all(p.startswith("JanusVQVAE/") for p in more["allow_patterns"])
    assert not any(p.endswith((".py", ".bin", "*", ".pt")) for p in more["allow_patterns"])
    with pytest.raises(FramepredError, match=r"no tokenizer \(no config\.json\)|no tokenizer"):
        load_tokenizer("hf://owner/name")


@pytest.mark.parametrize("address", ["hf://", "hf://owner", "hf://owner/", "hf:///name"])
def test_half_an_address_is_refused(address: str) -> None:
    with pytest.raises(FramepredError, match="is no address on the Hub: give hf://owner/name"):
        zoo.tokenizer_folder(address)


def test_no_network_is_said_in_one_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(FramepredError, match=r"hf://owner/name: the Hub cannot be reached") as caught:
        zoo.tokenizer_folder("hf://owner/name")
    assert "\n" not in str(caught.value)
