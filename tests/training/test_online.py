"""Learning after training: what it costs falls, replay keeps the old, a killed run resumes to the same weights."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from conftest import moving_square
from random_run import write_random_run
from safetensors.torch import load_file

from framepred.cli import cli
from framepred.config.recipe import Recipe, apply
from framepred.errors import FramepredError
from framepred.io.compat import ensure_torchvision
from framepred.sources.actions_csv import write_actions
from framepred.training.learn import LearnJob, learn, transfer
from framepred.training.online import EpisodeLearned, Measured, read_learning
from framepred.video.write import write_video

RECIPE = apply(
    Recipe(),
    {"training": {"precision": "fp32"}, "learning": {"steps": 3, "batch_size": 4, "held_out": 0.25,
                                                     "learning_rate": 2e-3}},
)  # fmt: skip


@pytest.fixture(scope="module")
def new(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Clips of the world that the tiny run knows, in negative."""
    folder = tmp_path_factory.mktemp("new") / "negative"
    for seed in range(6):
        frames, actions = moving_square(100 + seed, 20)
        write_video(folder / f"{seed}.mp4", 255 - frames, 10, lossless=True)
        write_actions(folder / f"{seed}.actions.csv", actions, ["action"])
    return folder


def weights(run: Path) -> dict[str, torch.Tensor]:
    return load_file(run / "model.safetensors")


def run_all(job: LearnJob) -> tuple[list[EpisodeLearned], list[Measured]]:
    for _ in learn(job):
        pass
    return read_learning(job.out / "metrics.jsonl")


def test_what_a_new_world_costs_falls_and_the_run_stays_as_it_is(tiny_run: Path, new: Path, tmp_path: Path) -> None:
    before = (tiny_run / "model.safetensors").read_bytes()
    learned, measured = run_all(LearnJob([str(new)], str(tiny_run), tmp_path / "out", RECIPE))
    assert len(learned) == 4 and all(e.learned and e.frames == 19 for e in learned)
    result = transfer(measured, ["negative"])
    assert result["changes"]["negative"]["learned"] < 0
    assert learned[-1].bits < learned[0].bits
    assert (tiny_run / "model.safetensors").read_bytes() == before
    assert any(
        not torch.equal(a, b)
        for a, b in zip(weights(tiny_run).values(), weights(tmp_path / "out").values(), strict=True)
    )


def test_replay_forgets_less(tiny_run: Path, clips_dir: Path, new: Path, tmp_path: Path) -> None:
    recipe = apply(RECIPE, {"learning": {"steps": 12}})
    forgotten = []
    for name, share in (("with", 0.5), ("without", 0.0)):
        changed = apply(recipe, {"learning": {"replay": share}})
        _, measured = run_all(LearnJob([str(new)], str(tiny_run), tmp_path / name, changed, [str(clips_dir)]))
        forgotten.append(transfer(measured, ["negative"])["changes"][clips_dir.stem]["backward"])
    assert forgotten[0] < forgotten[1]


@pytest.mark.parametrize("lora", [0, 2])
def test_stopped_at_any_episode_it_resumes_to_the_same_weights(
    lora: int, tiny_run: Path, new: Path, tmp_path: Path
) -> None:
    if lora:
        # peft imports it.
        ensure_torchvision()
        pytest.importorskip("peft")
    recipe = apply(RECIPE, {"learning": {"lora_rank": lora, "only_surprising": True}})
    whole = LearnJob([str(new)], str(tiny_run), tmp_path / "whole", recipe)
    expected = run_all(whole)
    for stop in (1, 3):
        job = replace(whole, out=tmp_path / f"stopped-{stop}")
        progress = learn(job)
        for item in progress:
            if isinstance(item, EpisodeLearned) and item.step == stop:
                progress.close()
                break
        assert run_all(replace(job, resume=True)) == expected
        assert all(torch.equal(a, weights(job.out)[n]) for n, a in weights(whole.out).items())


def test_only_surprising_episodes_are_learned_from(tiny_run: Path, clips_dir: Path, tmp_path: Path) -> None:
    recipe = apply(RECIPE, {"learning": {"only_surprising": True}})
    learned, _ = run_all(LearnJob([str(clips_dir)], str(tiny_run), tmp_path / "out", recipe))
    for i, episode in enumerate(learned):
        earlier = [e.bits for e in learned[:i]]
        assert episode.learned == (not earlier or episode.bits > sum(earlier) / len(earlier))
    assert any(not episode.learned for episode in learned)


def test_the_changes_of_a_matrix() -> None:
    rows = [
        Measured(0, 0.0, "", {"a": 10.0, "b": 10.0, "old": 5.0}),
        Measured(4, 0.5, "a", {"a": 6.0, "b": 9.0, "old": 5.5}),
        Measured(8, 1.0, "b", {"a": 7.0, "b": 4.0, "old": 6.0}),
    ]
    assert transfer(rows, ["a", "b"])["changes"] == {
        "a": {"learned": -4.0, "forward": 0.0, "backward": 1.0},
        "b": {"learned": -5.0, "forward": -1.0, "backward": 0.0},
        "old": {"backward": 1.0},
    }


def test_the_command_learns_and_prints_the_matrix(tiny_run: Path, new: Path, tmp_path: Path) -> None:
    words = ["learn", str(new), "--model", str(tiny_run), "-o", str(tmp_path / "out"), "--steps", "1", "--json"]
    done = CliRunner().invoke(cli, words)
    assert done.exit_code == 0, done.stderr
    said = json.loads(done.stdout)
    assert {"episodes", "bits", "changes"} <= set(said) and set(said["bits"]) == {"before", "negative"}
    again = CliRunner().invoke(cli, words)
    assert again.exit_code == 1 and "is not empty" in again.stderr
    old = (tmp_path / "out" / "model.safetensors").read_bytes()
    replaced = CliRunner().invoke(cli, [*words, "--overwrite", "--set", "learning.learning_rate=0.01"])
    assert replaced.exit_code == 0, replaced.stderr
    assert (tmp_path / "out" / "model.safetensors").read_bytes() != old
    assert not list(tmp_path.glob(".out*"))


def test_what_does_not_fit_is_one_line(tiny_run: Path, new: Path, tmp_path: Path) -> None:
    for job, words in (
        (LearnJob([str(new), str(new)], str(tiny_run), tmp_path / "a", RECIPE), "given twice"),
        (LearnJob([str(new)], str(tiny_run), tiny_run, RECIPE), "the run itself"),
        (LearnJob([str(tmp_path / "none")], str(tiny_run), tmp_path / "a", RECIPE), "none"),
    ):
        with pytest.raises(FramepredError, match=words):
            list(learn(job))
    assert not (tmp_path / "a").exists()


def test_a_store_of_another_rate_and_actions_that_are_not_used_are_said(tmp_path: Path) -> None:
    run, clips = write_random_run(tmp_path / "run"), tmp_path / "clips"
    for seed in range(3):
        frames, actions = moving_square(seed, 8)
        write_video(clips / f"{seed}.mp4", frames, 25.0, lossless=True)
        write_actions(clips / f"{seed}.actions.csv", actions, ["action"])
    words = ["tokenize", str(clips), "-o", str(tmp_path / "store"), "--tokenizer", str(run)]
    assert CliRunner().invoke(cli, words).exit_code == 0
    learned = CliRunner().invoke(
        cli, ["learn", str(tmp_path / "store"), "--model", str(run), "-o", str(tmp_path / "a")]
    )
    assert "warning: 0 has 25 frames a second, not 10 frames a second: its own frames are read" in learned.stderr
    assert "are not used" not in learned.stderr
    scored = CliRunner().invoke(
        cli, ["eval", str(tmp_path / "store"), "--model", str(run), "--set", "rollout=false", "--set", "context=3",
              "--set", "horizon=2"],
    )  # fmt: skip
    assert "0 has 25 frames a second, not 10 frames a second" in scored.stderr, scored.stderr
    about = json.loads((run / "framepred.json").read_text())
    about["actions"], about["layout"]["action_slots"], about["vocabulary"]["action"] = None, 0, [64, 64]
    about["vocabulary"]["special"]["no_action"] = 64
    (run / "framepred.json").write_text(json.dumps(about))
    learned = CliRunner().invoke(
        cli, ["learn", str(tmp_path / "store"), "--model", str(run), "-o", str(tmp_path / "b")]
    )
    assert "store has actions, which are not used: the run was trained without" in learned.stderr, learned.stderr


def test_what_cannot_be_learned_writes_nothing_and_a_refused_resume_changes_nothing(
    tiny_run: Path, new: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    frames, actions = moving_square(0, 8)
    write_video(other / "a.mp4", frames, 10, lossless=True)
    write_actions(other / "a.actions.csv", actions, ["buttons"])
    with pytest.raises(FramepredError, match="no action named 'action'"):
        list(learn(LearnJob([str(new), str(other)], str(tiny_run), tmp_path / "out", RECIPE)))
    assert not (tmp_path / "out").exists()
    pytest.importorskip("peft")
    ensure_torchvision()
    job = LearnJob([str(new)], str(tiny_run), tmp_path / "out", apply(RECIPE, {"learning": {"lora_rank": 2}}))
    progress = learn(job)
    for item in progress:
        if isinstance(item, EpisodeLearned):
            progress.close()
            break
    before = (job.out / "recipe.toml").read_text()
    with pytest.raises(FramepredError, match="cannot resume from"):
        list(learn(replace(job, recipe=apply(RECIPE, {"learning": {"lora_rank": 3}}), resume=True)))
    assert (job.out / "recipe.toml").read_text() == before
