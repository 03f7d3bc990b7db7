"""What holds on a GPU: the decoders agree, and a CPU and a GPU tell the same of the same weights."""

from copy import deepcopy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from conftest import TINY_SETTINGS

from framepred.cli import cli
from framepred.decoding.sampling import Sampling, gumbel_noise
from framepred.evaluation.forecast import make_forecast
from framepred.world.rollout import predict
from framepred.world.run import Run, load_run

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU: torch sees none"),
]

CLIPS = [str(Path(__file__).parents[1] / "examples" / name) for name in ("my-way-home.mp4", "box.mp4")]


@pytest.fixture(scope="module")
def runs() -> dict[str, Run]:
    return {device: load_run("doom-64", device) for device in ("cpu", "cuda")}


@pytest.mark.parametrize("clip", CLIPS, ids=lambda c: Path(c).name)
@pytest.mark.parametrize("samples", [1, 5])
@pytest.mark.parametrize(
    "sampling", [Sampling(0), Sampling(1, seed=3), Sampling(0.8, top_k=50, top_p=0.9, seed=1)], ids=str
)
def test_speculative_decoding_gives_the_sequential_tokens_on_a_gpu(
    clip: str, samples: int, sampling: Sampling, runs: dict[str, Run]
) -> None:
    made = make_forecast(clip, horizon=1, device="cuda")
    # In float64 no two logits are nearly equal; in float32 bench_rollout counts what differs.
    run = replace(runs["cuda"], predictor=deepcopy(runs["cuda"].predictor).double())
    tokens = {}
    for decoder in ("sequential", "speculative"):
        # 16 frames: the window slides on the way.
        moments = predict(run, made.context_tokens, _longer(made.actions, 20), 16, samples, sampling, decoder=decoder)
        tokens[decoder] = torch.stack([moment.tokens for moment in moments])
    assert torch.equal(tokens["speculative"], tokens["sequential"])


def _longer(actions: torch.Tensor | None, count: int) -> torch.Tensor | None:
    return None if actions is None else actions.repeat(count)[:count]


def test_noise_is_the_same_on_a_cpu_and_a_gpu() -> None:
    noise = [
        gumbel_noise(5, torch.arange(3, device=d), 7, torch.arange(16, device=d), 4096).cpu() for d in ("cpu", "cuda")
    ]
    torch.testing.assert_close(noise[0], noise[1], rtol=1e-5, atol=1e-5)


@torch.inference_mode()
def test_logits_are_the_same_on_a_cpu_and_a_gpu(runs: dict[str, Run]) -> None:
    ids = torch.randint(0, 4096, (2, 200), generator=torch.Generator().manual_seed(0))
    ours, theirs = (runs[d].predictor(ids.to(d)).cpu() for d in ("cpu", "cuda"))
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)


@torch.inference_mode()
def test_a_cpu_and_a_gpu_make_nearly_the_same_tokens_and_pictures(runs: dict[str, Run]) -> None:
    frames = make_forecast(CLIPS[0], horizon=1, device="cpu").context
    cpu, gpu = (runs[d].tokenizer.encode(frames.to(d)).cpu() for d in ("cpu", "cuda"))
    assert (cpu == gpu).float().mean() > 0.98
    shown = [runs[d].tokenizer.decode(cpu.to(d)).cpu().int() for d in ("cpu", "cuda")]
    assert int((shown[0] - shown[1]).abs().max()) <= 3


def test_many_futures_of_one_context_are_the_futures_one_by_one(runs: dict[str, Run]) -> None:
    made = make_forecast(CLIPS[0], horizon=1, device="cuda")
    moments = predict(runs["cuda"], made.context_tokens, made.actions, 2, 64, Sampling(1, seed=2))
    many = torch.stack([m.tokens for m in moments])
    alone = predict(runs["cuda"], made.context_tokens, made.actions, 2, 1, Sampling(1, seed=2))
    assert torch.equal(many[:, :1], torch.stack([m.tokens for m in alone]))


def test_training_and_rolling_out_on_a_gpu_from_the_command_line(clips_dir: Path, tmp_path: Path) -> None:
    settings = [part for setting in TINY_SETTINGS for part in ("--set", setting)]
    trained = CliRunner().invoke(cli, ["train", str(clips_dir), "-o", str(tmp_path / "run"), *settings])
    assert trained.exit_code == 0, trained.output
    clip = next(clips_dir.rglob("*.mp4"))
    out = str(tmp_path / "future.mp4")
    rolled = CliRunner().invoke(
        cli, ["rollout", str(clip), "--model", str(tmp_path / "run"), "-o", out, "--device", "cuda", "--horizon", "4"]
    )
    assert rolled.exit_code == 0, rolled.output
    assert Path(out).exists()
    scored = CliRunner().invoke(cli, ["surprise", str(clip), "--model", str(tmp_path / "run"), "--device", "cuda"])
    assert scored.exit_code == 0, scored.output
