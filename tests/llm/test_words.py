"""Words in the stream: read beside videos, kept in stores, laid beside frames, learned, asked for, and given."""

import json
import math
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
import torch.nn.functional as F
from click.testing import CliRunner
from conftest import TINY_SETTINGS, tiny_recipe
from documents import documents
from doubles import Blocks
from grounding import fact_accuracy, facts_of, log_likelihoods
from language import text_loss
from tiny_llama import write_llama
from torch import Tensor

from framepred.cli import cli
from framepred.config.recipe import Recipe, TextRecipe, apply_settings
from framepred.decoding.sampling import Sampling
from framepred.engines.contract import predict_by
from framepred.errors import FramepredError, FramepredWarning
from framepred.llm.text import encode_text, prompt_ids
from framepred.llm.token_names import token_names
from framepred.predictor.llama import Llama
from framepred.recording.narration import GameWatcher, Transition, join_facts, narrate, scenario
from framepred.sequence.actions import ActionSpace
from framepred.sequence.layout import SequenceLayout
from framepred.sequence.vocabulary import Vocabulary
from framepred.sources.captions_csv import Caption, find_texts, read_captions, write_captions
from framepred.sources.folder import find_videos
from framepred.tokens.store import TokenEpisode, read_store
from framepred.tokens.tokenize import tokenize
from framepred.training.loop import make_accelerator
from framepred.training.objectives import llama_config, predictor_stage
from framepred.training.pipeline import Job, train
from framepred.training.windows import Windows, step_generator
from framepred.training.words import Words
from framepred.video.write import write_video
from framepred.world.rollout import predict
from framepred.world.run import load_run

# Reading.


def test_captions_are_read_as_they_were_written(tmp_path: Path) -> None:
    captions = [Caption(0.0, 1.5, 'a "red", door'), Caption(1.0, 2.0, "naïve\ntwo lines")]
    write_captions(tmp_path / "clip.captions.csv", captions)
    assert read_captions(tmp_path / "clip.mp4", 2.0) == captions
    (tmp_path / "clip.txt").write_text("the whole of it\n", encoding="utf-8")
    assert read_captions(tmp_path / "clip.mp4", 2.0) == [Caption(0.0, 2.0, "the whole of it"), *captions]
    assert read_captions(tmp_path / "clip.mp4", 1.8)[2].end == 1.8
    assert read_captions(tmp_path / "other.mp4", 2.0) == []


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\xff\xfe\x00", r"is not UTF-8 .*: save it as UTF-8"),
        (b"from,to,text\n0,1,x\n", r"begins with \['from', 'to', 'text'\]: the first row must be start,end,text"),
        (b"start,end,text\n0,one,x\n", r"line 2: .* is not start, end and text, times in seconds"),
        (b"start,end,text\n0,1\n", r"line 2: .* is not start, end and text"),
        (b"start,end,text\n0,1,x\n3,4,y\n", r"line 3: 3 to 4 s is not within the video's 2 s"),
        (b"start,end,text\n1,1,y\n", r"line 2: 1 to 1 s is not within"),
        (b"start,end,text\n-1,1,y\n", r"line 2: -1 to 1 s is not within"),
        (b"start,end,text\n0,nan,y\n", r"line 2: 0 to nan s is not within"),
        (b'start,end,text\n0,1,"x" y\n', r"line 2 is not CSV .*: mend it"),
    ],
)
def test_bad_captions_are_named(content: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / "clip.captions.csv").write_bytes(content)
    with pytest.raises(FramepredError, match=words):
        read_captions(tmp_path / "clip.mp4", 2.0)


def test_texts_are_files_or_folders_of_them(tmp_path: Path) -> None:
    (tmp_path / "a" / "b").mkdir(parents=True)
    for name in ("a/two.txt", "a/b/one.txt", "a/three.md"):
        (tmp_path / name).write_text(name)
    assert [f.name for f in find_texts([tmp_path / "a", tmp_path / "a/three.md"])] == ["one.txt", "two.txt", "three.md"]
    with pytest.raises(FramepredError, match=r"text .*none is no file, and no folder that holds a \.txt"):
        find_texts([tmp_path / "none"])


def test_documents_are_texts_and_what_code_says_of_itself(tmp_path: Path) -> None:
    said, long = " ".join(["What it is for."] * 20), "a text that is long enough to be read, " * 6
    (tmp_path / "lib" / "tests").mkdir(parents=True)
    for name, content in (
        ("a.py", f'"""{said}"""\nHIDDEN = 1\n\nclass A:\n    """Of a class."""\n'), ("b.py", "not python :" * 50),
        ("licence", long), ("same.txt", long), ("short.txt", "short"), ("tests/c.txt", long), ("d.csv", long + "?"),
    ):  # fmt: skip
        (tmp_path / "lib" / name).write_text(content)
    (tmp_path / "lib" / "latin.txt").write_bytes(b"\xff" * 300)
    found = dict(documents([tmp_path / "lib"]))
    assert found == {"lib/a.py": f"{said}\n\nOf a class.", "lib/licence": long}


def test_a_store_keeps_captions_and_one_without_the_column_is_read(tmp_path: Path) -> None:
    for name in ("said", "mute"):
        write_video(tmp_path / "videos" / f"{name}.mp4", torch.zeros(8, 3, 16, 16, dtype=torch.uint8), 4.0)
    captions = (Caption(0.0, 1.0, "first"), Caption(1.0, 2.0, "second"))
    write_captions(tmp_path / "videos" / "said.captions.csv", captions)
    list(tokenize(find_videos([tmp_path / "videos"]), tmp_path / "store", Blocks(), "blocks", "0"))
    assert {e.name: e.captions for e in read_store(tmp_path / "store")} == {"said": captions, "mute": ()}
    (file,) = (tmp_path / "store").glob("*.parquet")
    pq.write_table(pq.read_table(file).drop_columns(["captions"]), file)
    assert {e.name: e.captions for e in read_store(tmp_path / "store")} == {"said": (), "mute": ()}


# Rows.

LAYOUT = SequenceLayout(Vocabulary(50, 6, 3), (1, 2), ActionSpace("discrete", ("a",), count=3))
START, STOP = LAYOUT.vocabulary.markers
END = 49


def test_markers_are_named_ids_behind_all_others() -> None:
    vocabulary = LAYOUT.vocabulary
    assert Vocabulary.from_json(json.loads(json.dumps(vocabulary.to_json()))) == vocabulary
    names = token_names(vocabulary)
    assert (names[START], names[STOP]) == ("<|frames|>", "<|/frames|>")
    assert max(names) == STOP == vocabulary.size - 1
    assert Vocabulary(0, 6, 3).size == 10


def episode(length: int, seed: int, *captions: Caption) -> TokenEpisode:
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(0, 6, (length, 1, 2), generator=generator).int()
    return TokenEpisode(f"e{seed}", "s", 1.0, tokens, torch.randint(0, 3, (length,), generator=generator), captions)


def letters(text: str) -> list[int]:
    return [ord(c) - ord("a") for c in text]


EPISODES = [
    episode(9, 0, Caption(0, 4, "abc"), Caption(4, 9, "def")),
    episode(3, 1, Caption(0, 3, "xy")),
    episode(6, 2),
]
WINDOW = 4
WINDOWS = Windows.build(EPISODES, ["s"] * 3, LAYOUT, WINDOW, 1.0)


def words_of(texts: tuple[str, ...] = ("hello", "w"), **changes: Any) -> Words:
    return Words.build(EPISODES, texts, letters, END, LAYOUT, TextRecipe(**changes))


def batch(words: Words, size: int = 300) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = step_generator(0, 1)
    places = WINDOWS.draw(size, generator)
    ids, real = WINDOWS.gather(*places)
    weights = torch.zeros(len(ids), WINDOW, LAYOUT.stride)
    weights[:, 1:, :2] = real[:, 1:, None].float()
    return ids, real, *words.add(ids, weights.flatten(1), real, *places, generator)


def test_rows_hold_frames_whole_with_their_own_words_before_or_behind() -> None:
    ids, real, made, weights = batch(words_of(weight=3.0, frame_weight=0.5))
    kinds = {"alone": 0, "frames": 0, "before": 0, "behind": 0}
    text = [*letters("hello"), END, *letters("w"), END]
    for row in range(len(ids)):
        line, weight = made[row].tolist(), weights[row]
        told = int(real[row].sum()) * LAYOUT.stride - 1
        if START not in line:
            if line[0] < 50:
                kinds["alone"] += 1
                assert line[: len(text)] == text
                assert weight[: len(text)].tolist() == [0.0, *[3.0] * (len(text) - 1)]
                assert not weight[len(text) :].any()
            else:
                kinds["frames"] += 1
                assert line[: ids.shape[1]] == ids[row].tolist()
                assert set(weight.tolist()) <= {0.0, 0.5}
            continue
        place = line.index(START)
        assert line[place + 1 : place + 1 + told] == ids[row, :told].tolist()
        assert weight[place] == 0
        if place:
            kinds["before"] += 1
            said = line[:place]
            assert weight[:place].tolist() == [0.0, *[3.0] * (place - 1)]
            assert STOP not in line
        else:
            kinds["behind"] += 1
            stop = 1 + told
            assert line[stop] == STOP and weight[stop] == 0
            end = line.index(END, stop)
            said = line[stop + 1 : end]
            assert weight[stop + 1 : end + 1].tolist() == [3.0] * (len(said) + 1)
            assert not weight[end + 1 :].any()
        assert "".join(chr(i + ord("a")) for i in said) in ("abc", "def", "xy")
    assert all(kinds.values())
    assert kinds["alone"] / len(ids) == pytest.approx(0.25, abs=0.08)


def test_a_caption_is_of_most_of_the_windows_frames() -> None:
    words = words_of(alone=0.0, captioned=1.0)
    assert words._caption(0, 0, 4, 0.9).tolist() == letters("abc")  # type: ignore[union-attr]
    assert words._caption(0, 3, 4, 0.9).tolist() == letters("def")  # type: ignore[union-attr]
    assert {tuple(words._caption(0, 2, 4, p).tolist()) for p in (0.1, 0.9)} == {  # type: ignore[union-attr]
        tuple(letters("abc")), tuple(letters("def")),
    }  # fmt: skip
    assert words._caption(2, 0, 4, 0.5) is None
    assert len(words_of(tokens=2).captions[0][0].ids) == 2


def test_a_batch_is_a_function_of_its_generator() -> None:
    one, again = batch(words_of()), batch(words_of())
    assert all(torch.equal(a, b) for a, b in zip(one, again, strict=True))


def test_the_loss_is_the_weighted_mean_over_what_is_to_be_said() -> None:
    settings = (*TINY_SETTINGS, f"predictor.window={WINDOW}", "predictor.batch_size=16", "predictor.action_dropout=0")
    recipe = apply_settings(tiny_recipe(), (*settings, "text.weight=3.0", "text.frame_weight=0.5"))
    config = replace(llama_config(recipe.predictor, LAYOUT), max_position_embeddings=64)
    model = Llama(config)
    model.initialise(torch.Generator().manual_seed(0))
    words = Words.build(EPISODES, ("hello", "w"), letters, END, LAYOUT, recipe.text)
    stage = predictor_stage(model, WINDOWS, WINDOWS, recipe, make_accelerator(), words, words)
    generator = step_generator(recipe.training.seed, 2, 5)
    places = WINDOWS.draw(16, generator)
    ids, real = WINDOWS.gather(*places)
    torch.rand(16, generator=generator)
    plain = torch.zeros(16, WINDOW, LAYOUT.stride)
    plain[:, 1:, :2] = real[:, 1:, None].float()
    made, weights = words.add(ids, plain.flatten(1), real, *places, generator)
    logits, wanted = model(made)[:, :-1], made[:, 1:]
    # Words among words, frames among the rest.
    is_word = wanted < LAYOUT.vocabulary.text_size
    illegal = is_word[..., None] != (torch.arange(logits.shape[-1]) < LAYOUT.vocabulary.text_size)
    losses = F.cross_entropy(logits.masked_fill(illegal, -torch.inf).transpose(1, 2), wanted, reduction="none")
    expected = (losses * weights[:, 1:]).sum() / weights.sum()
    assert set(is_word[weights[:, 1:] > 0].tolist()) == {True, False}
    assert stage.loss(model, 5)[0].item() == pytest.approx(expected.item(), rel=1e-5)
    assert set(stage.validate(model)) == {"validation_loss", "validation_loss_no_actions", "validation_caption_loss"}


# A run that learned words.


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Dark and bright videos, each with its word beside it."""
    folder = tmp_path_factory.mktemp("world")
    for i in range(4):
        shade = (20, 235)[i % 2]
        frames = torch.full((12, 3, 64, 64), shade, dtype=torch.uint8)
        frames[:, :, 8 * i : 8 * i + 8] = 128
        write_video(folder / f"clip{i}.mp4", frames, 10.0, lossless=True)
        write_captions(folder / f"clip{i}.captions.csv", [Caption(0, 1.2, ("night", "day")[i % 2])])
    return folder


@pytest.fixture(scope="module")
def told_run(world: Path, tiny_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run from a tiny Llama that was trained on the world, by the command."""
    folder = tmp_path_factory.mktemp("told")
    llama = write_llama(folder / "llama", num_hidden_layers=2)
    (folder / "more.txt").write_text("day and night, " * 20)
    settings = [
        *TINY_SETTINGS, "predictor.window=3", "predictor.batch_size=8", "training.predictor_steps=120",
        "data.validation_fraction=0", "predictor.optimizer=adamw", "llm.learning_rate=0.004", "text.alone=0.1",
        "text.captioned=0.9", "predictor.ema_decay=0.9",
    ]  # fmt: skip
    options = [part for s in settings for part in ("--set", s)]
    result = CliRunner().invoke(
        cli,
        ["train", str(world), "-o", str(folder / "run"), "--recipe", "tiny", "--tokenizer", str(tiny_run),
         "--init-from", str(llama), "--text", str(folder / "more.txt"), *options],
    )  # fmt: skip
    assert result.exit_code == 0, (result.stderr, result.exception)
    return folder / "run"


def say(*arguments: object) -> Any:
    return CliRunner().invoke(cli, [str(a) for a in arguments])


def test_what_frames_show_is_said(told_run: Path, world: Path) -> None:
    for i, word in enumerate(("night", "day")):
        told = json.loads(say("caption", world / f"clip{i}.mp4", "--model", told_run, "--json").stdout)
        assert told["captions"] == [word]
        assert told["context"] == 3
    samples = say("caption", world / "clip0.mp4", "--model", told_run, "--samples", 3, "--temperature", 0.5)
    assert len(samples.stdout.splitlines()) == 3
    again = say("caption", world / "clip0.mp4", "--model", told_run, "--samples", 3, "--temperature", 0.5)
    assert again.stdout == samples.stdout


def test_a_prompt_stands_before_the_frames_wherever_the_window_is(told_run: Path) -> None:
    run = load_run(told_run)
    prompt = prompt_ids(run, "night")
    assert int(prompt[-1]) == run.layout.vocabulary.markers[0]
    tokens = torch.randint(0, 64, (2, *run.layout.grid), generator=torch.Generator().manual_seed(0))
    greedy = Sampling(temperature=0)
    made = [
        torch.stack([p.tokens[0] for p in predict(run, tokens, None, 5, 1, greedy, decoder, prompt)])
        for decoder in ("sequential", "speculative")
    ]
    assert torch.equal(*made)
    # The reference: each token by the whole model, without a cache.
    frames, (first, stop) = tokens, run.layout.vocabulary.visual
    for frame in range(2, 7):
        start = 0 if frame < 3 else -(-(frame + 1 - 3) // 2) * 2
        grid: list[int] = []
        for _ in range(run.layout.frame_tokens):
            past = run.layout.pack(frames[start:], run.layout.action_ids(None, len(frames) - start))
            ids = torch.cat([prompt, past, torch.tensor(grid, dtype=torch.int64)])
            grid.append(first + int(run.predictor(ids[None])[0, -1, first:stop].argmax()))
        frames = torch.cat([frames, torch.tensor(grid).view(1, *run.layout.grid) - first])
    assert torch.equal(frames[2:], made[0])


@pytest.mark.parametrize(("engine", "package"), [("transformers", "transformers"), ("llama.cpp", "xllamacpp")])
def test_other_engines_give_the_same_frames_behind_the_same_words(engine: str, package: str, told_run: Path) -> None:
    pytest.importorskip(package)
    run = load_run(told_run)
    prompt = prompt_ids(run, "day")
    tokens = torch.randint(0, 64, (2, *run.layout.grid), generator=torch.Generator().manual_seed(1))
    greedy = Sampling(temperature=0)
    mine = torch.stack([p.tokens[0] for p in predict(run, tokens, None, 8, 1, greedy, prompt=prompt)])
    theirs = torch.stack([p.tokens[0] for p in predict_by(engine, run, tokens, None, 8, 1, greedy, prompt=prompt)])
    assert torch.equal(theirs, mine)


def test_rollout_takes_a_prompt(told_run: Path, world: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.npz"
    arguments = ("rollout", world / "clip0.mp4", "--model", told_run, "--horizon", 2, "--context", 2, "-o", out)
    result = say(*arguments, "--prompt", "night", "--json")
    assert result.exit_code == 0, (result.stderr, result.exception)
    assert json.loads(result.stdout)["prompt"] == "night"
    import numpy as np

    ids = np.load(out)["ids"]
    run = load_run(told_run)
    prompt = prompt_ids(run, "night")
    assert ids[: len(prompt)].tolist() == prompt.tolist()
    assert len(ids) == len(prompt) + 3 * run.layout.stride + run.layout.frame_tokens


def test_words_that_do_not_fit_are_refused(told_run: Path, tiny_run: Path, world: Path, tmp_path: Path) -> None:
    clip = world / "clip0.mp4"
    for arguments, words in (
        (("caption", clip, "--model", tiny_run), "knows no text: train a run with --init-from"),
        (("rollout", clip, "--model", tiny_run, "--prompt", "x"), "knows no text: train a run with --init-from"),
        (("rollout", clip, "--model", told_run, "--prompt", "x" * 999), "is 999 tokens of text: give 1 to"),
        (("rollout", clip, "--model", told_run, "--prompt", ""), "is 0 tokens of text: give 1 to"),
        (("caption", clip, "--model", told_run, "--tokens", 999), "the model's context is 512: give a smaller context"),
        (("caption", clip, "--model", told_run, "--context", 9), "context 9 is not allowed: the run sees 3 frames"),
        (("caption", clip, "--model", told_run, "--start", 12), "has 12 frames, fewer than 3 from frame 12"),
    ):
        result = say(*arguments)
        assert result.exit_code == 1
        assert words in " ".join(result.stderr.split()), result.stderr
    with pytest.raises(FramepredError, match=r"text more is for a run that knows text"):
        list(train(Job([str(world)], tmp_path / "run", tiny_recipe(), str(tiny_run), texts=["more"])))


def test_captions_without_a_language_model_are_not_used(world: Path, tiny_run: Path, tmp_path: Path) -> None:
    recipe = apply_settings(tiny_recipe(), ["training.predictor_steps=1"])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        list(train(Job([str(world)], tmp_path / "run", recipe, str(tiny_run))))
    said = [str(w.message) for w in caught if issubclass(w.category, FramepredWarning)]
    assert sum("captions are not used" in message for message in said) == 1


def test_a_model_that_ends_no_text_is_refused(world: Path, tiny_run: Path, tmp_path: Path) -> None:
    llama = write_llama(tmp_path / "llama", eos_token_id=None)
    job = Job([str(world)], tmp_path / "run", tiny_recipe(), str(tiny_run), init_from=str(llama))
    with pytest.raises(FramepredError, match="has no eos_token_id, which ends a caption"):
        list(train(job))


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("text.alone=1.5", "text.alone = 1.5 is not allowed"),
        ("text.captioned=0.9", "0 to 1 - text.alone = 0.75"),
        ("text.weight=-1.0", "text.weight = -1.0 is not allowed"),
        ("text.tokens=0", "text.tokens = 0 is not allowed"),
        ("llm.trained=some", "choose one of all, lora, added"),
        ("llm.lora_rank=0", "llm.lora_rank = 0 is not allowed"),
    ],
)
def test_bad_recipes_are_named(setting: str, words: str) -> None:
    with pytest.raises(FramepredError, match=words):
        apply_settings(Recipe(), [setting])


# Told by the game.


def test_a_scenario_is_said_by_its_name() -> None:
    assert scenario("VizdoomMyWayHome-v1") == "my way home"
    assert scenario("VizdoomDefendCenter-v1") == "defend center"


def test_captions_tell_what_lies_between_their_own_frames() -> None:
    transitions = [Transition("turning left", ())] * 9 + [Transition("shooting", ("a shot is fired",))] * 5
    captions = narrate("VizdoomBasic-v1", transitions, 5.0)
    assert [(c.start, c.end) for c in captions] == [(0, 1), (1, 2), (2, 3)]
    assert [c.text for c in captions] == [
        "Basic. Turning left.", "Basic. Turning left.", "Basic. Shooting. A shot is fired.",
    ]  # fmt: skip
    mixed = narrate("VizdoomBasic-v1", [*transitions[7:11]], 5.0)
    assert mixed[0].text == "Basic. Turning left, shooting. A shot is fired."
    assert math.isclose(mixed[0].end, 1.0)


def test_changes_of_the_games_variables_are_events() -> None:
    vizdoom = pytest.importorskip("vizdoom")

    class Game:
        values: dict[str, float] = {}  # noqa: RUF012

        def get_game_variable(self, variable: Any) -> float:
            return self.values.get(variable.name, 0.0)

    game = Game()
    game.values = {"HEALTH": 100.0, "SELECTED_WEAPON_AMMO": 10.0}
    watcher = GameWatcher(game)
    assert vizdoom.GameVariable.HEALTH.name == "HEALTH"
    assert watcher.after("NOOP") == Transition("standing still", ())
    game.values = {"HEALTH": 80.0, "SELECTED_WEAPON_AMMO": 9.0, "KILLCOUNT": 1.0}
    transition = watcher.after("ATTACK+TURN_LEFT")
    assert transition == Transition(
        "shooting and turning left", ("a monster dies", "a shot is fired", "health is lost")
    )
    assert watcher.after(None) == Transition("", ())


def test_vizdoom_is_recorded_with_words(tmp_path: Path) -> None:
    pytest.importorskip("vizdoom")
    from framepred.recording.gym import Recording, record

    (path,) = record(Recording("VizdoomMyWayHome-v1", episodes=1, steps=20, sticky=1.0), tmp_path / "a")
    captions = read_captions(path, 21 / 8.75)
    assert len(captions) == 3
    assert all(c.text.startswith("My way home. ") for c in captions)
    assert len({c.text for c in captions}) == 1


# What text is worth to a run, and what it is asked.


def test_a_caption_is_taken_apart_as_it_was_told() -> None:
    facts = {"scene": ["my way home"], "action": ["moving forward", "turning left"], "event": ["a shot hits"]}
    assert join_facts(facts) == "My way home. Moving forward, turning left. A shot hits."
    assert facts_of(join_facts(facts)) == facts
    for kind in ("action", "event"):
        fewer = {k: v for k, v in facts.items() if k != kind}
        assert facts_of(join_facts(fewer)) == fewer
    (caption,) = narrate("VizdoomBasic-v1", [Transition("shooting", ("a shot is fired", "a shot hits"))] * 3, 5.0)
    assert join_facts(facts_of(caption.text)) == caption.text


def test_text_is_measured_stretch_by_stretch_among_words_alone(told_run: Path) -> None:
    run = load_run(told_run)
    size = run.layout.vocabulary.text_size
    ids = torch.tensor(encode_text(run, "day and night, " * 4))
    losses = []
    for row in ids[: len(ids) // 10 * 10].view(-1, 10):
        logits = run.predictor(row[None])[0, :-1, :size]
        losses += F.cross_entropy(logits, row[1:], reduction="none").tolist()
    assert text_loss(run.predictor, ids, size, 10) == pytest.approx(sum(losses) / len(losses), rel=1e-4)
    other = torch.randint(0, size, (60,), generator=torch.Generator().manual_seed(0))
    assert text_loss(run.predictor, ids, size, 10) < text_loss(run.predictor, other, size, 10)
    with pytest.raises(FramepredError, match="9 tokens of text are too few to be measured on: give at least 10"):
        text_loss(run.predictor, ids[:9], size, 10)


def test_the_likelihood_of_words_is_that_of_the_whole_sequence(told_run: Path) -> None:
    run = load_run(told_run)
    (episode, *_) = read_store(told_run / "tokens")
    tokens, texts = episode.tokens[:3], ["night", "a day that is long", ""]
    start, stop = run.layout.vocabulary.markers
    frames = run.layout.pack(tokens, run.layout.action_ids(None, 2)).tolist()
    for text, found in zip(texts, log_likelihoods(run, tokens, None, texts).tolist(), strict=True):
        said = [*encode_text(run, text), run.predictor.config.end_of_text]
        ids = torch.tensor([start, *frames, stop, *said])
        logits = run.predictor(ids[None])[0, -len(said) - 1 : -1, : run.layout.vocabulary.text_size]
        assert found == pytest.approx(-float(F.cross_entropy(logits, ids[-len(said) :], reduction="sum")), rel=1e-4)


def test_facts_are_told_by_their_own_frames_and_not_by_others(told_run: Path) -> None:
    run = load_run(told_run)
    episodes = sorted(read_store(told_run / "tokens"), key=lambda e: e.name)
    scene = fact_accuracy(run, episodes[:2])["scene"]
    assert (scene.count, scene.accuracy, scene.guessed, scene.chance) == (2, 1.0, 0.0, 0.5)
    # What is told more often does not count for more: a run that says always the same is half right.
    often = [replace(e, captions=e.captions * (3 if i else 1)) for i, e in enumerate(episodes[:2])]
    deaf = [replace(e, tokens=episodes[1].tokens) for e in often]
    assert fact_accuracy(run, often)["scene"].accuracy == 1.0
    assert fact_accuracy(run, deaf)["scene"].accuracy == 0.5
    # Of frames that look alike the other's words are as good.
    assert fact_accuracy(run, episodes)["scene"].guessed == 1.0
    assert fact_accuracy(run, episodes, most=1)["scene"].count == 1
    assert fact_accuracy(run, episodes[::2]) == {}
    lying = [
        replace(e, captions=(replace(e.captions[0], text=("day", "night")[i]),)) for i, e in enumerate(episodes[:2])
    ]
    assert fact_accuracy(run, lying)["scene"].accuracy == 0.0
