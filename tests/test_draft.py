"""The draft: whatever it guesses, the tokens are the same; what has learned its world guesses better than a copy."""

import json
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner
from conftest import tiny_recipe
from random_run import random_context, write_random_run
from safetensors.torch import load_file, save_file
from torch import Tensor

from framepred import draft as drafts
from framepred.checkpoint import DRAFT, Run, load_run, save_draft
from framepred.cli import cli
from framepred.config import Recipe, apply, apply_settings, to_toml
from framepred.data.store import TokenEpisode
from framepred.data.windows import Windows
from framepred.draft import Draft, DraftConfig, previous_frame
from framepred.errors import FramepredError, FramepredWarning
from framepred.export import export
from framepred.llama_config import LlamaConfig
from framepred.pipeline import Job, recipe_for_draft, train
from framepred.predictor import Llama
from framepred.rollout import Prediction, predict
from framepred.sampling import Sampling
from framepred.sequence import ActionSpace, SequenceLayout, Vocabulary
from framepred.stages import draft_stage
from framepred.start import make_draft
from framepred.tokenizer.autoencoder import Autoencoder
from framepred.training import Budget, TrainProgress, fit, make_accelerator

pytestmark = pytest.mark.usefixtures("one_thread")

SIZE, GRID, CODES, WINDOW = (24, 32), (3, 4), 16, 5
SPACES = {
    "none": None,
    "discrete": ActionSpace("discrete", ("a",), count=4),
    "continuous": ActionSpace("continuous", ("x", "y"), edges=((0.0,), (-1.0, 1.0))),
}
RECIPE = apply_settings(
    tiny_recipe(),
    (
        "draft.width=16", "draft.blocks=1", "draft.learning_rate=0.01", "draft.batch_size=4",
        "training.predictor_steps=6", "training.validate_every=3",
    ),
)  # fmt: skip


def build(space: ActionSpace | None) -> Run:
    """Return an interlaced run of random weights in float64, no two logits nearly equal, with a random draft."""
    torch.manual_seed(0)
    table = {"levels": [4, 4], "width": 8, "encoder_blocks": 1, "decoder_blocks": 1}
    tokenizer = Autoencoder(apply(Recipe(), {"data": {"size": list(SIZE)}, "tokenizer": table}).tokenizer, SIZE).eval()
    layout = SequenceLayout(Vocabulary(0, CODES, space.size if space else 0), GRID, space, scan="interlaced")
    config = LlamaConfig(layout.vocabulary.size, 16, 24, 2, 2, 2, WINDOW * layout.stride, tie_word_embeddings=False)
    predictor = Llama(config)
    draft = make_draft(layout, RECIPE)
    for module in (predictor, draft):
        for parameter in module.parameters():
            if parameter.ndim > 1:
                parameter.data = torch.randn(parameter.shape) * 0.4
    return Run(Path("random"), predictor.double().eval(), tokenizer, layout, WINDOW, 10.0, "", draft=draft.eval())


def context(frames: int) -> Tensor:
    return torch.randint(0, CODES, (frames, *GRID), generator=torch.Generator().manual_seed(1))


def actions_of(space: ActionSpace | None, count: int = 40) -> Tensor | None:
    generator = torch.Generator().manual_seed(2)
    if space is None:
        return None
    discrete = space.kind == "discrete"
    return (
        torch.randint(0, 4, (count,), generator=generator) if discrete else torch.randn(count, 2, generator=generator)
    )


def tokens_of(made: list[Prediction]) -> Tensor:
    return torch.stack([p.tokens for p in made], 1)


@pytest.mark.parametrize("kind", SPACES)
@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize(("samples", "frames"), [(1, 1), (3, 1), (3, 3)])
def test_a_random_draft_changes_no_token(kind: str, temperature: float, samples: int, frames: int) -> None:
    run = build(SPACES[kind])
    assert run.draft
    for actions in (actions_of(SPACES[kind]), None):
        made = [
            tokens_of(list(predict(r, context(frames), actions, 7, samples, Sampling(temperature), decoder)))
            for r, decoder in ((run, "sequential"), (run, "auto"), (replace(run, draft=None), "speculative"))
        ]
        assert torch.equal(made[0], made[1])
        assert torch.equal(made[0], made[2])


def test_the_sequential_decoder_asks_no_draft(monkeypatch: pytest.MonkeyPatch) -> None:
    run, asked = build(None), list[int]()
    guess = Draft.guess
    monkeypatch.setattr(Draft, "guess", lambda *given: asked.append(1) or guess(*given))
    list(predict(run, context(2), None, 3, decoder="sequential"))
    assert asked == []
    list(predict(run, context(2), None, 3))
    assert len(asked) == 3


# A world where each action leads to a picture of its own.

PICTURES = torch.stack([torch.randperm(CODES, generator=torch.Generator().manual_seed(i))[:12] for i in range(4)])


def episode(seed: int, frames: int = 20) -> TokenEpisode:
    actions = torch.randint(0, 4, (frames,), generator=torch.Generator().manual_seed(seed))
    tokens = torch.cat([PICTURES[:1], PICTURES[actions[:-1]]]).view(frames, *GRID)
    return TokenEpisode(f"e{seed}", "toy", 10.0, tokens, actions)


def windows(layout: SequenceLayout, seeds: range) -> Windows:
    episodes = [episode(seed) for seed in seeds]
    return Windows.build(episodes, [""] * len(episodes), layout, WINDOW, 1.0)


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> tuple[Run, list[TrainProgress]]:
    """A run that has learned that world, predictor and draft, and how the draft's training went."""
    run = build(SPACES["discrete"])
    layout, learning = run.layout, windows(run.layout, range(20))
    model = Llama(run.predictor.config)
    model.initialise(torch.Generator().manual_seed(0))
    optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
    generator = torch.Generator().manual_seed(0)
    for _ in range(150):
        ids, _ = learning.batch(8, generator)
        logits = model(ids[:, :-1])[:, layout.stride - 1 :]
        wanted = ids[:, layout.stride :]
        visual = wanted < layout.vocabulary.visual[1]
        loss = torch.nn.functional.cross_entropy(logits[visual], wanted[visual])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss.item() < 0.02
    recipe = apply_settings(RECIPE, ("training.validate_every=120", "draft.batch_size=8"))
    draft = make_draft(layout, recipe)
    stage = draft_stage(draft, learning, windows(layout, range(90, 94)), recipe, make_accelerator())
    out = tmp_path_factory.mktemp("world")
    progress = list(fit(stage, make_accelerator(), Budget(120), recipe.training, out))
    return replace(run, predictor=model.double().eval(), draft=draft.eval().requires_grad_(False)), progress


def test_it_learns_and_says_how_much_it_guesses_right(world: tuple[Run, list[TrainProgress]]) -> None:
    progress = world[1]
    assert progress[-1].stage == "draft"
    assert progress[-1].loss < 0.2 * progress[0].loss + 0.5
    assert progress[-1].values["validation_right"] > 0.95
    assert progress[-1].values["validation_loss"] < 0.3


@pytest.mark.parametrize(("temperature", "fewer"), [(0.0, 4), (1.0, 1.5)])
@pytest.mark.parametrize("samples", [1, 3])
def test_what_has_learned_needs_fewer_passes_for_the_same_tokens(
    world: tuple[Run, list[TrainProgress]], temperature: float, fewer: float, samples: int
) -> None:
    run, truth = world[0], episode(95)
    copying = replace(run, draft=None)
    made = {
        name: list(predict(r, truth.tokens[:2], truth.actions, 12, samples, Sampling(temperature), decoder))
        for name, r, decoder in (
            ("trained", run, "auto"), ("previous", copying, "auto"), ("sequential", run, "sequential"),
        )
    }  # fmt: skip
    assert torch.equal(tokens_of(made["trained"]), tokens_of(made["sequential"]))
    assert torch.equal(tokens_of(made["previous"]), tokens_of(made["sequential"]))
    passes = {name: steps[-1].passes for name, steps in made.items()}
    assert fewer * passes["trained"] < passes["previous"] < passes["sequential"]


def test_it_sees_the_action(world: tuple[Run, list[TrainProgress]]) -> None:
    draft = world[0].draft
    assert draft
    history = PICTURES[None, [0, 1]]
    for action in range(4):
        assert torch.equal(draft.guess(history, torch.tensor([action]), None, Sampling(0))[0], PICTURES[action])


def random_draft(action_size: int = 4) -> Draft:
    draft = Draft(DraftConfig(CODES, GRID, action_size, width=16, blocks=2))
    generator = torch.Generator().manual_seed(3)
    for parameter in draft.parameters():
        parameter.data = torch.randn(parameter.shape, generator=generator) * 0.3
    return draft.eval()


def test_it_sees_two_frames_and_one_stands_twice() -> None:
    draft, history = random_draft(), context(4).flatten(1)[None]
    actions = torch.tensor([[1]])
    assert torch.equal(draft(history, actions), draft(history[:, -2:], actions))
    assert not torch.equal(draft(history, actions), draft(history[:, -1:], actions))
    assert torch.equal(draft(history[:, :1], actions), draft(history[:, [0, 0]], actions))
    assert draft(history, actions).shape == (1, 12, CODES)


def test_slots_of_an_action_are_summed_and_missing_is_one_more_id() -> None:
    draft, history = random_draft(), context(2).flatten(1)[None]
    both = draft(history, torch.tensor([[0, 3]]))
    assert torch.allclose(both, draft(history, torch.tensor([[3, 0]])))
    assert not torch.allclose(both, draft(history, torch.tensor([[0, 4]])))


def test_many_samples_are_guessed_some_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    draft, history = random_draft(), torch.randint(0, CODES, (7, 2, 12))
    noise = torch.randn(7, 12, CODES)
    whole = draft.guess(history, torch.tensor([2]), noise, Sampling())
    monkeypatch.setattr(drafts, "_ROWS", 3)
    assert torch.equal(draft.guess(history, torch.tensor([2]), noise, Sampling()), whole)


def test_an_untrained_one_says_that_nothing_moves() -> None:
    draft, history = Draft(DraftConfig(64, GRID, 4)), torch.randint(0, 64, (2, 3, 12))
    guess = draft.guess(history, torch.tensor([0]), None, Sampling(0))
    assert torch.equal(guess, history[:, -1])
    assert torch.equal(guess, previous_frame(history, torch.tensor([0]), None, Sampling(0)))


# Files.


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write_random_run(tmp_path / "run")


def with_draft(folder: Path) -> Draft:
    draft = make_draft(load_run(folder).layout, RECIPE).eval()
    torch.nn.init.normal_(draft.join.weight)
    save_draft(folder, draft)
    return draft


def test_a_run_has_a_draft_only_where_one_was_made(folder: Path) -> None:
    assert load_run(folder).draft is None
    draft = with_draft(folder)
    loaded = load_run(folder).draft
    assert loaded
    assert loaded.config == draft.config
    assert all(torch.equal(value, loaded.state_dict()[name]) for name, value in draft.state_dict().items())
    tokens, actions = random_context()
    history = tokens.flatten(1)[None]
    assert torch.equal(draft(history, actions[:1, None]), loaded(history, actions[:1, None]))
    # What serves the Llama takes every such file beside it for its weights.
    assert [file.name for file in folder.glob("*.safetensors")] == ["model.safetensors"]


def test_an_export_keeps_the_draft(folder: Path, tmp_path: Path) -> None:
    with_draft(folder)
    export(folder, tmp_path / "out", "hf")
    assert load_run(tmp_path / "out").draft
    files = [f / DRAFT / "model.safetensors" for f in (folder, tmp_path / "out")]
    assert files[0].read_bytes() == files[1].read_bytes()


def _truncate(file: Path) -> None:
    file.write_bytes(file.read_bytes()[:-100])


def _forget_config(file: Path) -> None:
    save_file(load_file(file), file)


def _lose_a_weight(file: Path) -> None:
    config = json.dumps({"visual_size": 64, "grid": [4, 4], "action_size": 4, "width": 16, "blocks": 2})
    save_file(load_file(file), file, {"config": config})


@pytest.mark.parametrize(
    ("damage", "words"),
    [
        (_truncate, "is not a whole draft ("),
        (_forget_config, "is not a whole draft ('config')"),
        (_lose_a_weight, "is not a whole draft (Error(s) in loading state_dict for Draft: Missing key(s)"),
        (Path.unlink, "is not a whole draft ("),
    ],
)
def test_a_broken_draft_is_an_error_that_says_what_to_do(
    folder: Path, damage: Callable[[Path], None], words: str
) -> None:
    with_draft(folder)
    damage(folder / DRAFT / "model.safetensors")
    with pytest.raises(FramepredError) as caught:
        load_run(folder)
    assert words in str(caught.value)
    assert f"retrain it (framepred train --only draft --init-from RUN), or delete {folder / DRAFT}" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (DraftConfig(63, (4, 4), 4), "grids (4, 4) of 63 codes with 4 action ids, the run has (4, 4) of 64 with 4"),
        (DraftConfig(64, (2, 8), 4), "guesses grids (2, 8) of 64 codes"),
        (DraftConfig(64, (4, 4), 0), "with 0 action ids, the run has (4, 4) of 64 with 4: retrain it"),
    ],
)  # fmt: skip
def test_a_draft_of_another_run_is_refused(folder: Path, config: DraftConfig, words: str) -> None:
    save_draft(folder, Draft(config))
    with pytest.raises(FramepredError) as caught:
        load_run(folder)
    assert words in str(caught.value)


# Training beside a run.


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of random weights, with the files that a trained one has beside them."""
    folder = write_random_run(tmp_path_factory.mktemp("begun") / "run")
    (folder / "calibration.json").write_text("{}")
    (folder / "resume-predictor.safetensors").write_bytes(b"large")
    (folder / "metrics.jsonl").write_text(json.dumps({"stage": "predictor", "step": 3, "loss": 1.0}) + "\n")
    return folder


def add_draft(begun: Path, clips: Path, out: Path, stop: int = 0, resume: bool = False) -> list[TrainProgress]:
    """Train a draft beside the run, or `stop` after so many steps."""
    made = []
    progress = train(Job([str(clips)], out, RECIPE, only="draft", init_from=str(begun), resume=resume))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FramepredWarning)
        for p in progress:
            if isinstance(p, TrainProgress):
                made.append(p)
            if stop and len(made) == stop:
                progress.close()
                break
    return made


def test_only_draft_leaves_the_run_as_it_was_and_resumes_to_the_same(
    begun: Path, clips_dir: Path, tmp_path: Path
) -> None:
    made = add_draft(begun, clips_dir, tmp_path / "whole")
    assert {p.stage for p in made} == {"draft"}
    assert made[-1].step == 6
    assert {"validation_loss", "validation_right"} <= made[-1].values.keys()
    for name in (
        "model.safetensors",
        "config.json",
        "framepred.json",
        "calibration.json",
        "tokenizer/model.safetensors",
    ):
        assert (tmp_path / "whole" / name).read_bytes() == (begun / name).read_bytes()
    assert not (tmp_path / "whole" / "resume-predictor.safetensors").exists()
    stages = [json.loads(line)["stage"] for line in (tmp_path / "whole" / "metrics.jsonl").read_text().splitlines()]
    assert stages == ["predictor"] + 6 * ["draft"]

    add_draft(begun, clips_dir, tmp_path / "cut", stop=2)
    assert load_run(tmp_path / "cut").draft is None
    rest = add_draft(begun, clips_dir, tmp_path / "cut", resume=True)
    assert [p.step for p in rest] == [3, 4, 5, 6]
    one, other = (load_file(tmp_path / n / DRAFT / "model.safetensors") for n in ("whole", "cut"))
    assert one.keys() == other.keys()
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_the_recipe_is_that_of_the_run_without_its_minutes(folder: Path) -> None:
    assert recipe_for_draft(str(folder)) == Recipe()
    own = apply_settings(RECIPE, ("training.minutes=90",))
    (folder / "recipe.toml").write_text(to_toml(own))
    assert recipe_for_draft(str(folder)) == RECIPE


def test_a_recipe_from_before_drafts_is_read(folder: Path) -> None:
    text = to_toml(RECIPE)
    before, after = text.split("[draft]")
    (folder / "recipe.toml").write_text(before + after[after.index("[llm]") :])
    assert recipe_for_draft(str(folder)) == replace(RECIPE, draft=Recipe().draft)


def refused(*arguments: object) -> str:
    result = CliRunner().invoke(cli, [str(a) for a in arguments])
    assert result.exit_code == 1, result.exception
    assert len(result.stderr.splitlines()) == 1
    return result.stderr


def test_a_draft_is_for_a_run(clips_dir: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    message = refused("train", clips_dir, "-o", out, "--only", "draft")
    assert message == "framepred: --only draft needs the run whose frames it guesses: give --init-from RUN\n"
    message = refused("train", clips_dir, "-o", out, "--only", "draft", "--init-from", tmp_path / "none")
    assert "none" in message
    assert not out.exists()


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("draft.width=12", "draft.width = 12 is not allowed; it must be a positive multiple of 8"),
        ("draft.blocks=0", "draft.blocks = 0 is not allowed; it must be at least 1"),
        ("draft.batch_size=0", "draft.batch_size = 0 is not allowed; it must be at least 1"),
        ("draft.learning_rate=0", "draft.learning_rate = 0.0 is not allowed; it must be above 0, below 1"),
    ],
)
def test_what_no_draft_can_be_is_refused(setting: str, words: str) -> None:
    with pytest.raises(FramepredError, match=words.replace(".", r"\.")):
        apply_settings(Recipe(), (setting,))
