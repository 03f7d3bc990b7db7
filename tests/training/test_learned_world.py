"""A world that is learned in seconds: a square of 8 pixels goes round a 4x4 torus as its actions say."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from conftest import TINY_SETTINGS
from torch import Tensor
from training_runs import do, losses, rows

from framepred.config.recipe import Recipe, apply_settings, load_recipe
from framepred.evaluation.metrics import copy_last, mse, psnr_of
from framepred.sources.actions_csv import read_actions, write_actions
from framepred.training.windows import split_episodes
from framepred.video.read import read_video
from framepred.video.write import write_video
from framepred.world.rollout import rollout
from framepred.world.run import Run, load_run

pytestmark = [
    pytest.mark.filterwarnings("ignore::framepred.errors.FramepredWarning"),
    pytest.mark.usefixtures("one_thread"),
]


SIDE, CELL = 32, 8
STEPS = {0: (0, -1), 1: (0, 1), 2: (-1, 0), 3: (1, 0)}


def walk(seed: int, frames: int = 48) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    row, column = torch.randint(0, 4, (2,), generator=generator).tolist()
    actions = torch.randint(0, 4, (frames,), generator=generator)
    pictures = torch.full((frames, 3, SIDE, SIDE), 40, dtype=torch.uint8)
    for t, action in enumerate(actions.tolist()):
        pictures[t, :, row * CELL : (row + 1) * CELL, column * CELL : (column + 1) * CELL] = 230
        row, column = (row + STEPS[action][0]) % 4, (column + STEPS[action][1]) % 4
    return pictures, actions


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return a folder of walks and a run that has learned them."""
    folder = tmp_path_factory.mktemp("world")
    clips = folder / "clips"
    clips.mkdir()
    for i in range(12):
        frames, actions = walk(i)
        write_video(clips / f"walk{i}.mp4", frames, 10.0, lossless=True)
        write_actions(clips / f"walk{i}.actions.csv", actions, ["move"])
    do(clips, out=folder / "run", recipe=world_recipe())
    return clips, folder / "run"


def world_recipe(*more: str) -> Recipe:
    settings = (
        *TINY_SETTINGS, "data.size=32", "tokenizer.downsampling=16", "tokenizer.levels=[4, 4]", "tokenizer.augment=0.0",
        "tokenizer.learning_rate=0.003", "tokenizer.ema_decay=0.97", "training.tokenizer_steps=250",
        "predictor.width=64", "predictor.mlp_width=128", "predictor.window=3", "predictor.batch_size=32",
        "predictor.learning_rate=0.004", "predictor.ema_decay=0.98", "predictor.action_dropout=0.1",
        "training.predictor_steps=400", "training.validate_every=100", *more,
    )  # fmt: skip
    return apply_settings(load_recipe("tiny"), settings)


def held_out(clips: Path) -> Path:
    paths = sorted(clips.glob("*.mp4"))
    (index,) = split_episodes([p.stem for p in paths], world_recipe().data.validation_fraction)[1]
    return paths[index]


def score(run: Run, video: Path, actions: Tensor | None, context: int = 4, horizon: int = 16) -> float:
    """Return the PSNR of a greedy rollout's mean error."""
    clip = read_video(video)
    made = torch.stack(list(rollout(run, clip, actions, context, horizon, temperature=0)))
    return float(psnr_of(mse(made, clip.frames[context : context + horizon]).mean()))


@pytest.mark.slow
def test_a_learned_world_is_predicted_where_it_was_never_seen(world: tuple[Path, Path]) -> None:
    clips, folder = world
    run, video = load_run(folder), held_out(clips)
    frames = read_video(video).frames
    actions, _ = read_actions(video.with_suffix(".actions.csv"))
    model = score(run, video, actions)
    copying = float(psnr_of(mse(copy_last(frames[:4], 16), frames[4:20]).mean()))
    shuffled = actions.clone()
    shuffled[3:] = (actions[3:] + 1 + torch.arange(len(actions) - 3) % 3) % 4
    wrong, without = score(run, video, shuffled), score(run, video, None)
    print(f"model {model:.1f} dB, copying {copying:.1f}, wrong actions {wrong:.1f}, no actions {without:.1f}")
    assert model > copying + 8
    assert model > wrong + 8
    assert model > without + 4


@pytest.mark.slow
def test_the_losses_of_a_learned_world_fall(world: tuple[Path, Path]) -> None:
    _, folder = world
    tokens, frames = losses(folder, "predictor"), losses(folder, "tokenizer")
    assert tokens[0] > 1.5
    assert sum(tokens[-20:]) / 20 < 0.15
    assert sum(frames[-10:]) / 10 < 0.1 * frames[0]
    last = rows(folder, "predictor")[-1]
    assert last["validation_loss"] < 0.3 * last["validation_loss_no_actions"]


@pytest.mark.slow
def test_a_learned_world_takes_few_passes(world: tuple[Path, Path]) -> None:
    from framepred.decoding.sampling import Sampling
    from framepred.world.rollout import predict

    clips, folder = world
    run, video = load_run(folder), held_out(clips)
    tokens = run.tokenizer.encode(read_video(video).frames[:4])
    actions, _ = read_actions(video.with_suffix(".actions.csv"))
    made = {
        name: list(predict(run, tokens, actions, 12, 1, Sampling(0), name)) for name in ("sequential", "speculative")
    }
    pairs = zip(made["sequential"], made["speculative"], strict=True)
    assert all(torch.equal(a.tokens, b.tokens) for a, b in pairs)
    assert made["speculative"][-1].passes < made["sequential"][-1].passes


@pytest.mark.slow
def test_init_from_goes_on_where_the_run_ended(world: tuple[Path, Path], tmp_path: Path) -> None:
    clips, folder = world
    recipe = world_recipe("training.predictor_steps=5", "predictor.learning_rate=0.0001")
    first = shutil.copytree(folder, tmp_path / "first")
    about = json.loads((first / "framepred.json").read_text())
    (first / "framepred.json").write_text(json.dumps(about | {"temperature": 0.7}))
    do(clips, out=tmp_path / "more", recipe=recipe, init_from=str(first))
    before, after = losses(folder, "predictor"), losses(tmp_path / "more", "predictor")
    assert after[0] < sum(before[-20:]) / 20 + 0.2
    assert after[0] < 0.15 * before[0]
    assert (tmp_path / "more" / "tokenizer" / "model.safetensors").read_bytes() == (
        folder / "tokenizer" / "model.safetensors"
    ).read_bytes()
    more = load_run(tmp_path / "more")
    assert more.layout == load_run(folder).layout
    assert more.temperature == 0.7
