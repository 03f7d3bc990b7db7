"""The merge's experiment, whole and tiny: it stops, goes on, is not done twice, and says what it found."""

import json
import re
import runpy
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import merge.arms
import merge.page
import merge.training
import pytest
import torch
from conftest import FPS, moving_square, tiny_recipe
from merge.arms import ARMS, SIZES, Arm
from merge.data import PARTS
from merge.setup import Request, Setup
from merge.training import Training, job_of
from tiny_llama import write_llama

from framepred.llm.model import load_language_model
from framepred.recording.narration import Transition, narrate
from framepred.sources.actions_csv import write_actions
from framepred.sources.captions_csv import write_captions
from framepred.tokenizer.checkpoint import save_tokenizer
from framepred.tokenizer.image import Autoencoder
from framepred.tokens.store import read_store
from framepred.training import pipeline
from framepred.training.windows import Windows
from framepred.video.write import write_video
from framepred.world.run import load_run

pytest.importorskip("matplotlib")
SCRIPT = Path(__file__).parents[2] / "scripts" / "reproduce_merge"
SAID = ("moving left", "moving right", "moving up", "moving down")
NAMES = ("video-llm", "video-random", "video-new-timed", "mixed-50", "captions", "shuffled", "adapt-llm")
WORDS = (
    "alpha", "bravo", "carol", "delta", "eagle", "flame", "grape", "house", "igloo", "joker", "koala", "lemon", "mango",
    "night", "ocean", "piano",
)  # fmt: skip
FEW = tuple(
    replace(arm, candidates=arm.candidates[: 2 if arm.name == "video-llm" else 1]) for arm in ARMS if arm.name in NAMES
)


def write_world(folder: Path, first: int, count: int) -> None:
    for seed in range(first, first + count):
        frames, actions = moving_square(seed)
        write_video(folder / f"clip{seed}.mp4", frames, FPS, lossless=True)
        write_actions(folder / f"clip{seed}.actions.csv", actions, ["action"])
        transitions = [
            Transition(SAID[a], ("health is lost", "a shot hits")[a % 2 :][:1]) for a in actions[:-1].tolist()
        ]
        captions = narrate(("VizdoomOne-v1", "VizdoomOther-v1")[seed % 2], transitions, FPS)
        write_captions(folder / f"clip{seed}.captions.csv", captions)


@pytest.fixture(scope="module")
def command(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The script's arguments for a world, an LLM, a tokenizer and texts of no size."""
    folder = tmp_path_factory.mktemp("merge")
    for part, (first, count) in zip(PARTS, ((0, 3), (10, 2), (20, 3), (30, 2)), strict=True):
        write_world(folder / "data" / part, first, count)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        save_tokenizer(folder / "tokenizer", Autoencoder(tiny_recipe().tokenizer, (32, 32)), "")
    texts = folder / "texts"
    texts.mkdir()
    for i in range(6):
        said = " ".join(f"This is what number {i} says of many things at the {word}." for word in WORDS)
        (texts / f"t{i}.txt").write_text(said)
    (texts / "code.py").write_text(f'"""{"What the code is for. " * 20}"""\n\nHIDDEN = "never read" * 100\n')
    settings = (
        "data.size=32",
        "predictor.window=4",
        "predictor.batch_size=2",
        "training.precision=fp32",
        "training.validation_batches=1",
    )
    return [
        "-o", str(folder / "out"), "--llm", str(write_llama(folder / "llama")), "--size", "tiny", "--seeds", "0",
        "--steps", "4", "--data", str(folder / "data"), "--text", str(texts), "--cloze", str(texts),
        "--tokenizer", str(folder / "tokenizer"),
        *(part for s in settings for part in ("--set", s)),
    ]  # fmt: skip


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., Any]:
    """Run the script with arguments, of a few arms → what its last line says."""
    for module in (merge.arms, merge.page, merge.training):
        monkeypatch.setattr(module, "ARMS", FEW)
    monkeypatch.setitem(SIZES, "tiny", replace(SIZES["tiny"], cloze=6, captions=6))

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
    drawn: dict[Path, list[Any]] = {}
    train, draw = pipeline.train, Windows.draw

    def counting(job: pipeline.Job) -> Iterator[pipeline.Progress]:
        trained.append((f"{job.out.parent.name}/{job.out.name}", job.resume))
        now.append(job.out)
        for progress in train(job):
            if trained[-1] == ("seed-0/mixed-50", False) and getattr(progress, "step", 0) == 2:
                raise KeyboardInterrupt
            yield progress
        now.pop()

    now: list[Path] = []

    def noting(self: Windows, *arguments: Any) -> Any:
        found = draw(self, *arguments)
        if now:
            drawn.setdefault(now[-1], []).append([t.tolist() for t in found])
        return found

    monkeypatch.setattr(merge.setup, "train", counting)
    monkeypatch.setattr(Windows, "draw", noting)
    with pytest.raises(SystemExit, match="give the same command"):
        call(*command)
    partial = (out / "merge.md").read_text()
    assert "Not run: mixed-50" in partial and "2 of the 3 seeds are missing" in partial
    begun = len(trained)
    assert trained[0] == ("out/healed", False)
    said = call(*command)
    assert trained[begun] == ("seed-0/mixed-50", True)
    # Two are timed beside each other, of which nothing is kept.
    names = [name for name, _ in trained if name.split("/")[0] in ("tuning", "seed-0")]
    assert len(names) == len(set(names)) + 1 == sum(len(arm.candidates) for arm in FEW) + len(FEW) + 1
    check_arms(out, {folder.name: places for folder, places in drawn.items() if folder.parent.name == "seed-0"})
    check_page(out, said)
    check_stopped_at_once(out, said, command, call, monkeypatch)


def check_stopped_at_once(
    out: Path, said: dict[str, Any], command: list[str], call: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The page keeps all that was measured, but for what other code measured."""

    def stopped(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(merge.training, "tune", stopped)
    with pytest.raises(SystemExit, match="give the same command"):
        call(*command)
    assert json.loads((out / "merge.json").read_text())["questions"] == said["questions"]
    file = out / "seed-0" / "video-random" / "scores.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"measured_by": "of before"}))
    with pytest.raises(SystemExit, match="give the same command"):
        call(*command)
    left = json.loads((out / "merge.json").read_text())["questions"]
    assert left["start"] == [] and left["grounding"] == said["questions"]["grounding"] != []
    assert "Not run: video-random" in (out / "merge.md").read_text()


def check_arms(out: Path, drawn: dict[str, list[Any]]) -> None:
    """Arms draw the same windows in the same order, and differ in nothing but what they say."""
    scores = {arm.name: json.loads((out / "seed-0" / arm.name / "scores.json").read_text()) for arm in FEW}
    accounts = {name: found["account"] for name, found in scores.items()}
    same = ("video-llm", "video-random", "captions", "shuffled")
    assert all(drawn[name] == drawn["video-llm"] for name in same)
    assert {accounts[name]["windows_sha256"] for name in (*same, "mixed-50")} == {
        accounts["video-llm"]["windows_sha256"]
    }
    assert {accounts[name]["steps"] for name in (*same, "mixed-50")} == {4}
    assert accounts["adapt-llm"]["steps"] == 1
    assert accounts["adapt-llm"]["windows_sha256"] != accounts["video-llm"]["windows_sha256"]
    assert accounts["captions"]["ids"] == accounts["mixed-50"]["ids"]
    assert accounts["captions"]["text_ids"] == accounts["mixed-50"]["text_ids"] > 0 == accounts["video-llm"]["text_ids"]
    assert accounts["captions"]["frame_ids"] == 0 < accounts["mixed-50"]["frame_ids"]
    # The same frames with the words of others.
    true, wrong = (sorted(read_store(out / "tokens" / name), key=lambda e: e.name) for name in ("train", "shuffled"))
    assert all(torch.equal(a.tokens, b.tokens) for a, b in zip(true, wrong, strict=True))
    told, mixed = ([c for e in episodes for c in e.captions] for episodes in (true, wrong))
    assert [c.start for c in told] == [c.start for c in mixed] and told != mixed
    assert sorted(c.text for c in told) == sorted(c.text for c in mixed)
    # One way in: what differs is the weights.
    llm, random = (load_run(out / "seed-0" / f"video-{name}") for name in ("llm", "random"))
    assert llm.layout == random.layout and llm.predictor.config == random.predictor.config
    assert load_run(out / "seed-0" / "video-new-timed").layout.vocabulary.text_size == 0


def check_page(out: Path, said: dict[str, Any]) -> None:
    """Every number has its interval, pictures are there, and no text is both read and asked for."""
    written, results = (out / "merge.md").read_text(), json.loads((out / "merge.json").read_text())
    assert results["questions"] == said["questions"]
    proof = results["proof"]
    if "missing" not in proof:
        # What it says is no text: the model is random.
        assert proof["equal_tokens"] == proof["tokens"] and "llama.cpp reads the GGUF of mixed-50" in written
    rows = [row for rows in said["questions"].values() for row in rows]
    assert {"bits", "psnr", "text", "cloze", "fact-action"} <= {row["measure"] for row in rows}
    for row in rows:
        low, high = row["difference"]["items"]
        assert low <= row["difference"]["value"] <= high and row["verdict"].startswith("open: one seed")
    images = re.findall(r"!\[.*\]\((.*)\)", written)
    assert images and all((out / image).read_text().startswith("<svg") for image in images)
    parts = {f.parent.name: {} for f in (out / "text").glob("*/*")}
    for file in (out / "text").glob("*/*"):
        parts[file.parent.name][file.name] = file.read_text()
    assert len(parts) == 3 and len({name for texts in parts.values() for name in texts}) == 7
    assert not any("never read" in text for texts in parts.values() for text in texts.values())


def test_another_experiment_needs_another_folder(command: list[str], call: Callable[..., Any], tmp_path: Path) -> None:
    (tmp_path / "settings.json").write_text('{"steps": 5}')
    with pytest.raises(SystemExit, match=r"was begun with .* = None, now it is .*: give another -o"):
        call("-o", str(tmp_path), *command[2:])
    older = '{"size": "tiny", "tables_sha256": "of other arms"}'
    (tmp_path / "settings.json").write_text(older)
    with pytest.raises(SystemExit, match=r"^Error: .* was begun with other arms .* has now: give another -o$"):
        call("-o", str(tmp_path), *command[2:])
    assert [file.name for file in tmp_path.iterdir()] == ["settings.json"]
    assert (tmp_path / "settings.json").read_text() == older
    with pytest.raises(SystemExit, match=r"--seeds 1,1 is not allowed: give up to 10 different ones"):
        call(*command, "--seeds", "1,1")


def flat(table: dict[str, Any], before: str = "") -> dict[str, Any]:
    parts = [flat(v, f"{before}{k}.") if isinstance(v, dict) else {f"{before}{k}": v} for k, v in table.items()]
    return {key: value for part in parts for key, value in part.items()}


def test_every_arm_is_trained_by_the_same_job_but_for_what_it_says(tmp_path: Path) -> None:
    llm = load_language_model(write_llama(tmp_path / "llama"))
    request = Request(tmp_path, SIZES["tiny"], str(tmp_path / "llama"), (), (), None, "t", 1.0, 8, ())
    setup = Setup(request, request.recipe, tmp_path, tmp_path / "tokens", tmp_path / "t", llm, {}, 8)
    base = flat(asdict(setup.recipe))
    own = {"training.seed", "training.predictor_steps"}
    shape = {f"predictor.{name}" for name in ("width", "layers", "mlp_width", "heads", "kv_heads")}

    def keys(arm: Arm, candidate: int) -> set[str]:
        return {setting.split("=")[0] for setting in (*arm.settings, *arm.candidates[candidate])}

    for arm in ARMS:
        for candidate in range(len(arm.candidates)):
            start = tmp_path / "start"
            job = job_of(setup, Training(arm, 5, candidate, tmp_path / "run", 8, start))
            recipe = flat(asdict(job.recipe))
            changed = {key for key in base if recipe[key] != base[key]}
            assert changed <= own | keys(arm, candidate) | (shape if arm.start == "new" else set()), arm.name
            assert (recipe["training.seed"], recipe["training.predictor_steps"]) == (5, 8)
            assert (job.sources, job.only) == ([str(tmp_path / "tokens" / arm.store)], "predictor")
            known = {"llm": str(llm.path), "random": str(tmp_path / "random-llm" / "5"), "new": None}
            assert job.init_from == known.get(arm.start, str(start))
            assert bool(job.texts) is arm.texts
    random = load_language_model(tmp_path / "random-llm" / "5")
    assert random.predictor.config == llm.predictor.config and random.files == llm.files
    assert not torch.equal(random.predictor.embed.weight, llm.predictor.embed.weight)
