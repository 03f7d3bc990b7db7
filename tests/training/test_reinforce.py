"""Reinforcement: the rewards order futures, the update makes the better ones likelier, a stopped run resumes."""

from dataclasses import replace
from pathlib import Path
from shutil import copytree, ignore_patterns

import pytest
import torch
from click.testing import CliRunner
from conftest import moving_square
from safetensors.torch import load_file

from framepred.cli import cli
from framepred.config.learning import ReinforcementRecipe
from framepred.config.recipe import Recipe, apply
from framepred.errors import FramepredError
from framepred.sources.actions_csv import write_actions
from framepred.training.learn import LearnJob, reinforce
from framepred.training.reinforce import advantages, score
from framepred.video.write import write_video
from framepred.world.run import load_run

RECIPE = apply(
    Recipe(),
    {"training": {"precision": "fp32"},
     "reinforcement": {"updates": 4, "contexts": 1, "group": 4, "context": 2, "horizon": 2, "learning_rate": 1e-3}},
)  # fmt: skip


def test_the_true_future_has_the_highest_reward(tiny_run: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    truth, last = torch.randint(256, (3, 3, 64, 64), generator=generator, dtype=torch.uint8).split((2, 1))
    blurred = truth.float().mean((2, 3), keepdim=True).expand_as(truth.float()).byte()
    futures = torch.stack([truth, blurred, last.expand_as(truth)])
    run = load_run(tiny_run)
    for weights in (ReinforcementRecipe(), ReinforcementRecipe(features=1.0)):
        found = score(run, futures, truth, last[0], weights)
        assert found.reward.argmax(0).tolist() == [0, 0]
    assert found.error[0].tolist() == [0, 0] and found.sharpness[0].tolist() == [1, 1]
    # Copying is the measure of the error, and a mean colour has no gradient.
    assert found.error[2].square().mean().sqrt() == pytest.approx(1, abs=0.01)
    assert found.sharpness[1].max() < 1e-6


def test_advantages_count_what_follows_and_add_up_to_nothing() -> None:
    rewards = torch.tensor([[0.0, 1.0], [1.0, 0.0], [0.0, 0.0]], dtype=torch.float64)
    found = advantages(rewards)
    assert torch.allclose(found.sum(0), torch.zeros(2, dtype=torch.float64), atol=1e-9)
    # The first frame of both earns the same in all, the second does not.
    assert found[0, 0] == pytest.approx(float(found[1, 0])) and found[0, 1] > found[1, 1]


def test_the_reward_rises_and_futures_are_those_of_the_trained_weights(tiny_run: Path, tmp_path: Path) -> None:
    frames, actions = moving_square(0, 4)
    clip = tmp_path / "one.mp4"
    write_video(clip, frames, 10, lossless=True)
    write_actions(tmp_path / "one.actions.csv", actions, ["action"])
    changes = {"updates": 24, "group": 12, "kl": 0.0, "sharpness": 0.0}
    made = list(
        reinforce(LearnJob([str(clip)], str(tiny_run), tmp_path / "out", apply(RECIPE, {"reinforcement": changes})))
    )
    first, last = (sum(m.reward for m in part) for part in (made[:8], made[-8:]))
    assert last > first
    # Drawn from other weights than those that learn, what is drawn would soon be many nats from them.
    assert made[0].kl == pytest.approx(0, abs=1e-6) and 0 < made[-1].kl < 2


def test_stopped_or_killed_it_resumes_to_the_same_weights(tiny_run: Path, clips_dir: Path, tmp_path: Path) -> None:
    recipe = apply(RECIPE, {"training": {"save_minutes": 0}})
    whole = LearnJob([str(clips_dir)], str(tiny_run), tmp_path / "whole", recipe)
    expected = list(reinforce(whole))
    job = replace(whole, out=tmp_path / "stopped")
    progress = reinforce(job)
    assert [next(progress), next(progress)] == expected[:2]
    # What a kill would leave.
    copytree(job.out, tmp_path / "killed", ignore=ignore_patterns(".*"))
    progress.close()
    for out in (job.out, tmp_path / "killed"):
        assert list(reinforce(replace(job, out=out, resume=True))) == expected[2:]
        old, new = (load_file(folder / "model.safetensors") for folder in (whole.out, out))
        assert all(torch.equal(old[name], new[name]) for name in old)


def test_the_command_and_what_it_refuses(tiny_run: Path, clips_dir: Path, tmp_path: Path) -> None:
    words = ["reinforce", str(clips_dir), "--model", str(tiny_run), "-o", str(tmp_path / "out"), "--updates", "1"]
    words += ["--set", "reinforcement.context=2", "--set", "reinforcement.horizon=2"]
    done = CliRunner().invoke(cli, words)
    assert done.exit_code == 0, done.stderr
    assert "of copying's" in done.stdout and (tmp_path / "out" / "framepred.json").is_file()
    for change, said in (
        ({"reinforcement": {"horizon": 60}}, "window is"),
        ({"reinforcement": {"context": 0}}, "at least 1"),
    ):
        with pytest.raises(FramepredError, match=said):
            list(reinforce(LearnJob([str(clips_dir)], str(tiny_run), tmp_path / "a", apply(RECIPE, change))))
    assert not (tmp_path / "a").exists()
