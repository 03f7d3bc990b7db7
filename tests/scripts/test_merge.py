"""The merge's experiment, whole and tiny: it stops, goes on, is not done twice, and says what it found."""

import json
import re
import runpy
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import FPS, moving_square, tiny_recipe
from tiny_llama import write_llama

from framepred.recording.narration import Transition, narrate
from framepred.sources.actions_csv import write_actions
from framepred.sources.captions_csv import write_captions
from framepred.tokenizer.checkpoint import save_tokenizer
from framepred.tokenizer.image import Autoencoder
from framepred.training import pipeline
from framepred.video.write import write_video
from framepred.world.run import load_run

pytest.importorskip("matplotlib")
SCRIPT = Path(__file__).parents[2] / "scripts" / "reproduce_merge"
SAID = ("moving left", "moving right", "moving up", "moving down")
ARMS = 10


def write_world(folder: Path, first: int, count: int) -> Path:
    for seed in range(first, first + count):
        frames, actions = moving_square(seed)
        write_video(folder / f"clip{seed}.mp4", frames, FPS, lossless=True)
        write_actions(folder / f"clip{seed}.actions.csv", actions, ["action"])
        transitions = [
            Transition(SAID[a], ("health is lost", "a shot hits")[a % 2 :][:1]) for a in actions[:-1].tolist()
        ]
        captions = narrate(("VizdoomOne-v1", "VizdoomOther-v1")[seed % 2], transitions, FPS)
        write_captions(folder / f"clip{seed}.captions.csv", captions)
    return folder


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The script's arguments for a world, an LLM, a tokenizer and texts of no size."""
    folder = tmp_path_factory.mktemp("merge")
    recipe = tiny_recipe()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        save_tokenizer(folder / "tokenizer", Autoencoder(recipe.tokenizer, (32, 32)), "")
    texts = folder / "texts"
    texts.mkdir()
    for name in ("one", "two", "three"):
        (texts / f"{name}.txt").write_text(f"the theme of {name} is the end of it. " * 10)
    (texts / "code.py").write_text(f'"""{"What the code is for. " * 20}"""\n\nHIDDEN = "never read" * 100\n')
    settings = ("data.size=32", "predictor.window=4", "predictor.batch_size=2", "training.precision=fp32")
    return [
        str(write_world(folder / "videos", 0, 3)), "--held-out", str(write_world(folder / "held-out", 10, 2)),
        "--llm", str(write_llama(folder / "llama")), "--layers", "2", "--steps", "4", "--clips", "1",
        "--text", str(texts), "--tokenizer", str(folder / "tokenizer"), "-o", str(folder / "out"),
        *(part for s in settings for part in ("--set", s)),
    ]  # fmt: skip


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """Run the script with arguments → what its last line says."""

    def run(*arguments: str) -> Any:
        monkeypatch.setattr(sys, "argv", ["reproduce_merge", *arguments])
        runpy.run_path(str(SCRIPT), run_name="__main__")
        return json.loads(capsys.readouterr().out.splitlines()[-1])

    return run


def test_it_goes_on_where_it_was_and_says_what_it_found(
    command: list[str], call: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = Path(command[command.index("-o") + 1])
    trained: list[tuple[str, bool]] = []
    train = pipeline.train

    def counting(job: pipeline.Job) -> Iterator[pipeline.Progress]:
        trained.append((job.out.name, job.resume))
        for progress in train(job):
            if job.out.name == "mixed" and not job.resume and getattr(progress, "step", 0) == 2:
                raise KeyboardInterrupt
            yield progress

    monkeypatch.setattr(pipeline, "train", counting)
    with pytest.raises(SystemExit, match="give the same command"):
        call(*command)
    begun = len(trained)
    assert trained[0] == ("cut-llm", False)
    assert trained[-1] == ("mixed", False)
    said = call(*command)
    assert trained[begun:] == [("mixed", True), ("text-only", False)]
    assert len({name for name, _ in trained}) == 1 + ARMS
    assert call(*command) == said
    assert len(trained) == 2 + ARMS

    results = json.loads((out / "results.json").read_text())
    runs = {name: scores[0] for name, scores in results["runs"].items()}
    steps = {name: run["steps"] for name, run in runs.items()}
    assert {steps.pop(f"video-{w}-{s}") for w in ("llm", "random") for s in ("0.25",)} == {1}
    assert steps["video-llm-0.5"] == 2 and steps["mixed"] == steps["video-random-1"] == 4
    assert all("text_loss" in run for name, run in runs.items() if name != "video-time")
    assert runs["text-only"]["facts"].keys() == runs["mixed"]["facts"].keys() == {"scene", "action", "event"}
    assert runs["video-llm-1"]["model_true_actions"]["bits"] > 0
    # Not one text is both read and asked for, and of code only what it says of itself.
    parts = [{f.name: f.read_text() for f in (out / "text" / part).iterdir()} for part in ("train", "held-out")]
    assert parts[0] and parts[1] and not parts[0].keys() & parts[1].keys()
    assert not any("never read" in text for part in parts for text in part.values())

    written = (out / "merge.md").read_text()
    assert all(note in written for note in said["notes"])
    images = re.findall(r"!\[.*\]\((.*)\)", written)
    assert len(images) == 4 and all((out / image).read_text().startswith("<svg") for image in images)
    # One way in for both: what differs is the weights.
    llm, random = (load_run(out / "seed-0" / f"video-{name}-1") for name in ("llm", "random"))
    assert llm.layout == random.layout and llm.predictor.config == random.predictor.config
    assert load_run(out / "seed-0" / "video-time").layout.vocabulary.text_size == 0


def test_another_experiment_needs_another_folder(
    command: list[str], call: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "settings.json").write_text('{"steps": 5}')
    with pytest.raises(SystemExit, match=r"was begun with .* = None, now it is .*: give another -o"):
        call(*command[: command.index("-o") + 1], str(tmp_path))
