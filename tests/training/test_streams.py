"""Training the temporal tokenizer: chains of what it gave back, the same after a stop, and actions of every kind."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from framepred.config.recipe import Recipe, apply
from framepred.errors import FramepredError, FramepredWarning, Interrupted
from framepred.sources.actions_csv import write_actions
from framepred.sources.folder import find_videos
from framepred.tokenizer.checkpoint import load_tokenizer
from framepred.tokenizer.image import scaled
from framepred.tokenizer.temporal import TemporalAutoencoder
from framepred.tokenizer.temporal_net import TemporalShape
from framepred.training.frames import Actions, Episodes, known_actions, read_episodes
from framepred.training.initialisation import tokenizer_to_train
from framepred.training.loop import Budget, TrainProgress, fit, make_accelerator
from framepred.training.pipeline import Job, train
from framepred.training.streams import Footage, Streams
from framepred.training.temporal import _CollapseWatch, temporal_stage
from framepred.training.tokenizer import footage_of
from framepred.training.windows import step_generator
from framepred.video.write import write_video

pytestmark = [
    pytest.mark.filterwarnings("ignore::framepred.errors.FramepredWarning"),
    pytest.mark.usefixtures("one_thread"),
]
TABLE = {
    "kind": "temporal", "levels": [5, 3], "context_levels": [4, 4], "width": 16, "encoder_blocks": 1,
    "batch_size": 16, "optimizer": "adamw", "learning_rate": 3e-3, "bits": 10.0, "ema_decay": 0.9,
}  # fmt: skip


def recipe_of(**tokenizer: Any) -> Recipe:
    loop = {"precision": "fp32", "tokenizer_steps": 6, "validate_every": 3}
    return apply(Recipe(), {"data": {"size": [32, 32]}, "tokenizer": TABLE | tokenizer, "training": loop})


def moving(episodes: int, frames: int, seed: int = 0) -> Episodes:
    """Random textures that an action moves by two pixels: left, right or not."""
    generator = torch.Generator().manual_seed(seed)
    pictures, actions = [], []
    for _ in range(episodes):
        wide = torch.rand(1, 3, 8, 24, generator=generator)
        wide = torch.nn.functional.interpolate(wide, (32, 96), mode="bilinear")[0].mul(255).byte()
        at = 32
        for _ in range(frames):
            pictures.append(wide[:, :, at : at + 32])
            action = int(torch.randint(3, (), generator=generator))
            at = max(0, min(64, at + 2 * (action - 1)))
            actions.append(action)
    return Episodes(torch.stack(pictures), (frames,) * episodes, ("s",) * episodes, torch.tensor(actions))


def new(recipe: Recipe) -> TemporalAutoencoder:
    made = tokenizer_to_train(recipe, None, Actions(("action",), 3))
    assert isinstance(made, TemporalAutoencoder)
    return made


def test_a_chain_goes_on_from_what_was_given_back_and_ends_with_its_episode() -> None:
    footage = footage_of(new(recipe_of()), moving(4, 6), 1.0)
    assert sorted(footage.steps.tolist()) == [i for i in range(24) if i % 6]
    streams = Streams(footage, 16, 3, 4)
    streams.begin(torch.ones(16, dtype=torch.bool), step_generator(0))
    for step in range(20):
        at, before = streams.at.clone(), streams.pictures.clone()
        assert bool((footage.first[at] <= streams.since).all() and (streams.since < at).all())
        streams.advance(torch.full((16, 3, 32, 32), 128, dtype=torch.uint8), 0.0, step_generator(0, step))
        on = streams.at == at + 1
        assert bool((footage.first[streams.at[on]] == footage.first[at[on]]).all())
        assert bool((streams.pictures[on][:, -1] == 128).all())
        assert torch.equal(streams.pictures[on][:, :-1], before[on][:, 1:])


def test_sources_are_drawn_by_their_weight() -> None:
    frames = torch.zeros(12, 3, 32, 32, dtype=torch.uint8)
    footage = Footage.build(frames, torch.zeros(12, 1), torch.tensor([2, 10]), torch.tensor([0.5, 0.5]))
    assert footage.steps.tolist() == [1, *range(3, 12)]
    assert footage.odds.diff(prepend=torch.zeros(1)).tolist() == pytest.approx([0.5] + [0.5 / 9] * 9)


def test_training_learns_to_move_as_the_actions_say(tmp_path: Path) -> None:
    """A net that learned nothing copies: half of these pictures move by two pixels."""
    recipe = recipe_of(adversarial=0.0)
    model = new(recipe)
    net, footage, unseen = model.net, footage_of(model, moving(60, 8), 1.0), footage_of(model, moving(20, 18, 9), 1.0)
    stage = temporal_stage(model, footage, unseen, recipe, make_accelerator())
    made = list(fit(stage, make_accelerator(), Budget(160), replace(recipe.training, validate_every=500), tmp_path))
    at = torch.arange(20) * 18 + 4
    since, none = at - 4, torch.zeros(20, dtype=torch.bool)
    with torch.no_grad():
        given = scaled(unseen.pictures(at, since, 3))
        known = net.picture(net.past(given, unseen.action_rows(at, since, none, 4)), None)
        unknown = net.picture(net.past(given, unseen.action_rows(at, since, ~none, 4)), None)
    truth = scaled(unseen.frames[at])
    error, blind, copying = ((x - truth).square().mean() for x in (known, unknown, given[:, -1]))
    assert error < 0.5 * copying and error < 0.8 * blind
    values = made[-1].values
    assert values["validation_psnr"] > values["validation_psnr_without_codes"] - 1
    assert values["validation_bits"] > 0


def test_it_learns_from_true_pictures_first_then_from_what_it_gave_back() -> None:
    model, recipe = new(recipe_of()), recipe_of()
    footage = footage_of(model, moving(4, 12), 1.0)
    stage = temporal_stage(model, footage, footage, recipe, make_accelerator())
    streams = stage.model.streams
    assert isinstance(streams, Streams)
    for step, (fraction, true) in enumerate([(0.0, True), (0.3, True), (0.5, False), (0.5, False), (0.9, False)]):
        loss, row = stage.loss(stage.model, step, fraction)
        loss.backward()
        assert (row["bits"] == 0) is true
        # Processes that train together wait for a gradient of every weight.
        assert all(p.grad is not None for p in model.net.parameters())
        known = streams.pictures == footage.pictures(streams.at, streams.since, 3)
        begun = known.flatten(1).all(1)
        assert bool(begun.all()) is true


def test_a_codeless_chain_goes_on_as_expected() -> None:
    model, recipe = new(recipe_of()), recipe_of()
    footage = footage_of(model, moving(4, 12), 1.0)
    stage = temporal_stage(model, footage, footage, recipe, make_accelerator())
    with torch.no_grad():
        model.net.paint[-1].weight.normal_(std=0.1)
        given = scaled(footage.pictures(torch.tensor([4, 4]), torch.tensor([0, 0]), 3))
        rows = footage.action_rows(torch.tensor([4, 4]), torch.tensor([0, 0]), torch.zeros(2, dtype=torch.bool), 4)
        frames, codeless = scaled(footage.frames[torch.tensor([4, 4])]), torch.tensor([True, False])
        shown = stage.model(given, rows, frames, codeless, torch.tensor(0.0), None)[1]
        coded = model.net(given, rows, frames)
    assert torch.equal(shown[0], coded.expected[0]) and torch.equal(shown[1], coded.picture[1])
    assert not torch.equal(coded.expected, coded.picture)


def test_a_stopped_training_resumes_to_the_same_weights(tmp_path: Path) -> None:
    recipe = recipe_of(adversarial=0.5)

    def weights(run: Path, stop: int | None) -> dict[str, Tensor]:
        model = new(recipe)
        footage = footage_of(model, moving(6, 6), 1.0)
        stage = temporal_stage(model, footage, footage, recipe, make_accelerator())

        def loss(runner: nn.Module, step: int, fraction: float) -> tuple[Tensor, dict[str, float]]:
            if step == stop:
                raise KeyboardInterrupt
            return stage.loss(runner, step, fraction)

        run.mkdir(exist_ok=True)
        list(fit(replace(stage, loss=loss), make_accelerator(), Budget(6), recipe.training, run))
        return {name: value.clone() for name, value in stage.model.state_dict().items()}

    straight = weights(tmp_path / "straight", None)
    with pytest.raises(Interrupted, match="stopped in tokenizer step 4"):
        weights(tmp_path / "stopped", 4)
    resumed = weights(tmp_path / "stopped", None)
    assert all(torch.equal(straight[name], resumed[name]) for name in straight)
    fresh = temporal_stage(
        new(recipe),
        footage_of(new(recipe), moving(6, 6), 1.0),
        footage_of(new(recipe), moving(6, 6), 1.0),
        recipe,
        make_accelerator(),
    )
    judge = {n: v for n, v in fresh.model.state_dict().items() if n.startswith("discriminator") and v.ndim > 1}
    assert judge and not any(torch.equal(v, straight[n]) for n, v in judge.items())


def test_collapse_is_warned_of_and_only_then() -> None:
    watch = _CollapseWatch(recipe_of().tokenizer, True)
    for _ in range(300):
        watch.count_step(1.0, 0.0, 0.01, False)
        watch.count_step(0.5, 8.0, 0.01, True)
    with pytest.warns(FramepredWarning, match="the codes are collapsing: 99.0% of the tokens say nothing, 0.2 bits"):
        watch.count_step(0.99, 0.2, 0.01, True)
    watch.count_step(0.99, 0.2, 0.01, True)


def test_pictures_that_get_much_worse_are_warned_of_and_only_then() -> None:
    watch = _CollapseWatch(recipe_of().tokenizer, True)
    for error in torch.linspace(0.02, 0.01, 300).tolist() + [0.02] * 300:
        watch.count_step(0.5, 8.0, error, True)
    says = r"pictures are collapsing: \d+\.\d dB in training, \d+\.\d before \(tokenizer.bits = .*adversarial"
    with pytest.warns(FramepredWarning, match=says):
        for _ in range(100):
            watch.count_step(0.5, 8.0, 0.06, True)


def write_clips(folder: Path, actions: list[Tensor | None], names: tuple[str, ...]) -> Path:
    for i, taken in enumerate(actions):
        write_video(folder / f"clip{i}.mp4", moving(1, 8, i).frames, 10.0, lossless=True)
        if taken is not None:
            write_actions(folder / f"clip{i}.actions.csv", taken, list(names))
    return folder


ANGLES = torch.randn(3, 8, 2, generator=torch.Generator().manual_seed(0)) * 5 + 2
KINDS: dict[str, tuple[list[Tensor | None], tuple[str, ...], int, bool]] = {
    "discrete": ([torch.arange(8) % 3, torch.arange(8) % 5, None], ("action",), 5, False),
    "continuous": ([*ANGLES[:2], None], ("steer", "gas"), 2, True),
    "none": ([None, None, None], (), 0, False),
}


@pytest.mark.parametrize("kind", KINDS)
def test_it_learns_from_videos_with_the_actions_that_they_have(kind: str, tmp_path: Path) -> None:
    actions, names, size, continuous = KINDS[kind]
    (tmp_path / "clips").mkdir()
    clips = write_clips(tmp_path / "clips", actions, names)
    for _ in train(Job([str(clips)], tmp_path / "run", recipe_of(adversarial=0.5), only="tokenizer")):
        pass
    made = load_tokenizer(tmp_path / "run")
    assert isinstance(made, TemporalAutoencoder)
    assert (made.shape.action_size, made.shape.continuous) == (size, continuous)
    if continuous:
        assert made.action_mean.tolist() == pytest.approx(ANGLES[:2].flatten(0, 1).mean(0).tolist(), abs=1e-3)
        assert made.action_scale.tolist() == pytest.approx(
            ANGLES[:2].flatten(0, 1).std(0, correction=0).tolist(), abs=1e-3
        )
    saved = load_file(tmp_path / "run" / "tokenizer" / "model.safetensors")
    assert not any("discriminator" in name or "streams" in name for name in saved)
    episodes = read_episodes(find_videos([clips]), (32, 32), None, 100, False)
    footage = footage_of(made, episodes, 1.0)
    assert footage.actions.shape == (24, size + 1)
    assert float(footage.actions[:, -1].sum()) == (0 if kind == "none" else 16)


def test_frames_are_limited_and_what_is_not_known_is_marked(tmp_path: Path) -> None:
    clips = write_clips(tmp_path, [torch.arange(7) % 3, None, torch.arange(8) % 3], ("action",))
    read = read_episodes(find_videos([clips]), (32, 32), None, 9, False)
    assert read.lengths == (8, 8)
    every = read_episodes(find_videos([clips]), (32, 32), None, 100, False)
    assert every.actions is not None
    assert int((every.actions == -1).sum()) == 9


def test_two_kinds_of_actions_are_refused(tmp_path: Path) -> None:
    clips = write_clips(tmp_path, [torch.arange(8) % 3, torch.randn(8, 1)], ("action",))
    with pytest.raises(FramepredError, match=r"has continuous actions.*has discrete .*one store or run holds one kind"):
        known_actions(find_videos([clips]))


def test_it_goes_on_from_one_that_knows_the_same_actions(tmp_path: Path) -> None:
    actions, names, _, _ = KINDS["discrete"]
    (tmp_path / "clips").mkdir()
    clips = write_clips(tmp_path / "clips", actions, names)
    for out, origin in (("first", None), ("second", str(tmp_path / "first"))):
        for _ in train(Job([str(clips)], tmp_path / out, recipe_of(), origin, only="tokenizer")):
            pass
    with pytest.raises(FramepredError, match="knows 5 discrete actions, the videos have 3"):
        tokenizer_to_train(recipe_of(), str(tmp_path / "first"), Actions(("action",), 3))
    with pytest.raises(FramepredError, match="is of the kind temporal: give --set"):
        tokenizer_to_train(apply(Recipe(), {"data": {"size": [32, 32]}}), str(tmp_path / "first"), Actions())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"tokenizer": {"levels": [4, 3]}}, "tokenizer.levels = (4, 3) is not allowed; it must be odd numbers"),
        ({"data": {"size": [40, 40]}}, "multiples of a temporal tokenizer's 16"),
        ({"tokenizer": {"bits": 0.0}}, "tokenizer.bits = 0.0 is not allowed; it must be above 0"),
    ],
)
def test_a_recipe_that_cannot_be_is_named(change: dict[str, Any], words: str) -> None:
    with pytest.raises(FramepredError) as caught:
        apply(recipe_of(), change)
    assert words in str(caught.value)


def test_shapes_follow_the_recipe() -> None:
    assert new(recipe_of()).shape == TemporalShape(
        frame_size=(32, 32), action_size=3, widths=(16, 32, 32), blocks=1, condition=32, levels=(5, 3),
        context_levels=(4, 4), action_names=("action",),
    )  # fmt: skip


def test_a_single_video_is_trained_on_without_validation(tmp_path: Path) -> None:
    frames = torch.randint(0, 255, (6, 3, 64, 64), dtype=torch.uint8)
    write_video(tmp_path / "v" / "one.mp4", frames, 10.0)
    made = list(train(Job([str(tmp_path / "v")], tmp_path / "run", recipe_of(adversarial=0.0), only="tokenizer")))
    assert made
    assert not any("validation" in name for step in made if isinstance(step, TrainProgress) for name in step.values)
