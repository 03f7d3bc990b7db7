"""The game: what is played is what a rollout gives; forks, reality and what is kept."""

from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import moving_square
from random_run import write_random_run
from temporal_run import write_temporal_run

from framepred.errors import FramepredError
from framepred.evaluation.forecast import make_forecast
from framepred.play.controls import controls_of
from framepred.play.game import FORKS, Game
from framepred.play.keep import free_name, keep
from framepred.play.scene import ClipStage, Scene
from framepred.sources.folder import VideoFile
from framepred.video.read import Clip
from framepred.video.resize import fit_frames
from framepred.world.rollout import rollout
from framepred.world.run import Run, load_run

CONTEXT = 4
ACTIONS = [3, 0, 1, 1, 2, 3, 0, 2, 2, 1]
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module", params=["image", "temporal"])
def run(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Run:
    write = write_random_run if request.param == "image" else write_temporal_run
    return load_run(write(tmp_path_factory.mktemp("play") / "run"))


class Given:
    """A stage whose reality is a list of frames."""

    def __init__(self, run: Run, real: bool = False) -> None:
        self.is_real, self.size, self.at = real, run.tokenizer.frame_size, 0

    def frames(self, seed: int) -> torch.Tensor:
        frames, _ = moving_square(seed)
        return frames if self.size == (64, 64) else frames[:, :, ::2, ::2].contiguous()

    def begin(self, start: int, seed: int) -> Scene:
        self.all, self.at = self.frames(seed), start + CONTEXT
        _, actions = moving_square(seed)
        return Scene(self.all[start : self.at], actions[start : self.at - 1], 10.0)

    def step(self, action: Any) -> torch.Tensor | None:
        self.at += 1
        return self.all[self.at - 1] if self.is_real and self.at <= len(self.all) else None


def play(run: Run, real: bool = False) -> Game:
    return Game(run, controls_of(run.layout.actions), Given(run, real))


def expected(run: Run, actions: list[int], seed: int, start: int = 0, temperature: float = 1.0) -> torch.Tensor:
    """Return the frames (T, 3, H, W) of a rollout with one future."""
    frames, known = Given(run).frames(seed), moving_square(seed)[1]
    given = torch.cat([known[start : start + CONTEXT - 1], torch.tensor(actions)])
    clip = Clip(frames[start:], 10.0)
    made = rollout(run, clip, given, CONTEXT, len(actions), seed, 1, temperature)
    return torch.stack([frame[0] for frame in made])


def test_what_is_played_is_what_a_rollout_gives(run: Run) -> None:
    game = play(run)
    for seed, start, temperature in ((0, 0, 1.0), (7, 3, 0.7), (7, 3, 0.0)):
        game.restart(start, seed, temperature)
        # An entropy is asked for now and then: it must leave no trace.
        views = [game.step(action, i % 3 == 0) for i, action in enumerate(ACTIONS)]
        frames = torch.cat([view.pictures for view in views])
        assert torch.equal(frames, expected(run, ACTIONS, seed, start, temperature))
        assert [view.frame for view in views] == list(range(CONTEXT, CONTEXT + len(ACTIONS)))
        assert [view.action for view in views] == ACTIONS
    assert frames.flatten(1).unique(dim=0).shape[0] > 3


def test_entropy_is_what_a_session_says_of_the_tokens_that_were_drawn(run: Run) -> None:
    game, scene = play(run), Given(run).begin(0, 0)
    session = run.session(scene.frames, scene.actions)
    for action in ACTIONS[:3]:
        here = session.mark()
        session.step(action)
        tokens, after = session.tokens.flatten(1), session.mark()
        session.rewind(here)
        seen = session.observe_tokens(tokens, run.layout.action_ids(torch.tensor([action]), 1))
        session.rewind(after)
        entropy = game.step(action, with_entropy=True).entropy
        assert entropy == pytest.approx(float(seen.entropy.mean()), rel=1e-5) and entropy > 0
    assert game.step(0).entropy is None


def test_of_four_futures_the_first_is_the_one_that_was_not_forked(run: Run) -> None:
    game = play(run)
    for action in ACTIONS[:3]:
        game.step(action)
    view = game.fork(ACTIONS[3])
    assert view.pictures.shape[0] == FORKS and view.pictures.flatten(1).unique(dim=0).shape[0] > 1
    game.step(ACTIONS[4])
    assert torch.equal(game.choose(0).pictures, expected(run, ACTIONS[:5], 0)[-1:])
    frames = [game.step(action).pictures for action in ACTIONS[5:]]
    assert torch.equal(torch.cat(frames), expected(run, ACTIONS, 0)[5:])


def test_the_chosen_future_is_the_one_that_is_remembered(run: Run) -> None:
    game = play(run)
    game.step(ACTIONS[0])
    four = [game.fork(ACTIONS[1]).pictures, game.step(ACTIONS[2]).pictures]
    assert torch.equal(game.choose(2).pictures, four[1][2:3])
    last = game.step(ACTIONS[3]).pictures
    played = game.played()
    assert torch.equal(played.frames[-3:], torch.cat([four[0][2:3], four[1][2:3], last]))
    assert played.actions[-4:] == tuple(ACTIONS[:4])


@pytest.mark.parametrize("steps", [2, 9])
def test_the_dream_goes_on_from_reality_once_it_is_anchored(run: Run, steps: int) -> None:
    if steps > run.window and run.tokenizer.past:
        pytest.skip("pictures go on from all pictures before them, not from those of a window")
    game = play(run, real=True)
    for action in ACTIONS[:steps]:
        view = game.step(action)
    real = Given(run).frames(0)
    assert torch.equal(view.real, real[CONTEXT + steps - 1]) and view.psnr is not None
    assert torch.equal(game.anchor().pictures[0], view.real)
    frames = [game.step(action).pictures for action in ACTIONS[:3]]
    # As a session that saw nothing but what really happened.
    actions = torch.cat([moving_square(0)[1][: CONTEXT - 1], torch.tensor(ACTIONS[:steps])])
    session = run.session(real[:CONTEXT], actions[: CONTEXT - 1])
    for i in range(CONTEXT, CONTEXT + steps):
        session.observe(real[i], int(actions[i - 1]))
    assert torch.equal(torch.cat(frames), torch.cat([session.step(action) for action in ACTIONS[:3]]))


def test_psnr_is_of_the_error_since_the_dream_and_reality_were_the_same(run: Run) -> None:
    game = play(run, real=True)
    assert game.view().psnr is None
    views = [game.step(action) for action in ACTIONS[:3]]
    errors = [((v.pictures[0].double() - v.real.double()) / 255).square().mean() for v in views if v.real is not None]
    assert views[-1].psnr == pytest.approx((float(-10 * torch.stack(errors).mean().log10()),))
    assert len(game.fork(0).psnr or ()) == FORKS
    kept = game.view().psnr[3]  # type: ignore[index]
    assert game.choose(3).psnr == (kept,)
    assert game.anchor().psnr is None
    again = game.step(1)
    alone = ((again.pictures[0].double() - again.real.double()) / 255).square().mean()  # type: ignore[union-attr]
    assert again.psnr == pytest.approx((float(-10 * alone.log10()),))


def test_where_an_episode_ends_the_dream_goes_on_alone(run: Run) -> None:
    game = play(run, real=True)
    views = [game.step(i % 4) for i in range(24)]
    assert [view.real is not None for view in views] == [True] * 20 + [False] * 4
    with pytest.raises(FramepredError, match="the episode has ended"):
        game.anchor()
    assert game.restart(0, 1, 1.0).real is not None


def test_what_cannot_be_done_changes_nothing(run: Run) -> None:
    game = play(run)
    game.step(1)
    for attempt, says in (
        (lambda: game.choose(0), "one future only"),
        (game.anchor, "nothing real"),
        (lambda: game.restart(0, 0, -1.0), "temperature -1.0 is not allowed"),
        (lambda: game.restart(0, -1, 1.0), "seed -1 is not allowed"),
    ):
        with pytest.raises(FramepredError, match=says):
            attempt()
    game.fork(2)
    for attempt, says in ((lambda: game.fork(1), "four futures already"), (game.played, "choose"),
                          (lambda: game.choose(4), "future 4 is none")):  # fmt: skip
        with pytest.raises(FramepredError, match=says):
            attempt()
    game.choose(0)
    assert torch.equal(game.step(3).pictures, expected(run, [1, 2, 3], 0)[-1:])


def test_what_is_kept_rolls_out_as_it_was_played(run: Run, tmp_path: Path) -> None:
    game = play(run)
    for action in ACTIONS:
        game.step(action)
    columns = run.layout.actions.names if run.layout.actions else ()
    path = keep(game.played(), game.controls, columns, tmp_path, free_name(tmp_path))
    assert (path.name, free_name(tmp_path)) == ("play-1.mp4", "play-2")
    forecast = make_forecast(path, str(run.path), CONTEXT, len(ACTIONS), samples=1)
    assert torch.equal(forecast.frames[0], forecast.truth)
    assert torch.equal(forecast.frames[0], expected(run, ACTIONS, 0))
    with pytest.raises(FramepredError, match=r"play-1.mp4 exists already"):
        keep(game.played(), game.controls, columns, tmp_path, "play-1")
    for name in ("", "../x", "a/b", "x" * 200, ".hidden"):
        with pytest.raises(FramepredError, match="is not allowed"):
            keep(game.played(), game.controls, columns, tmp_path, name)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["play-1.actions.csv", "play-1.mp4"]


def test_a_clip_begins_anywhere_and_says_where_it_ends(clips_dir: Path, tiny_run: Path) -> None:
    run = load_run(tiny_run)
    stage = ClipStage(VideoFile(clips_dir / "clip0.mp4", ""), run, CONTEXT)
    scene, frames = stage.begin(5, 0), moving_square(0)[0]
    assert torch.equal(scene.frames, fit_frames(frames, run.tokenizer.frame_size)[5 : 5 + CONTEXT])
    assert scene.actions.tolist() == moving_square(0)[1][5 : 5 + CONTEXT - 1].tolist()  # type: ignore[union-attr]
    with pytest.raises(FramepredError, match=r"has 24 frames.*begin at 20 or earlier"):
        stage.begin(21, 0)
