"""A world as a Gymnasium environment: checked as Gymnasium checks it, N worlds in one session, each its own."""

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

gymnasium = pytest.importorskip("gymnasium")

from conftest import moving_square  # noqa: E402
from gymnasium.utils.env_checker import check_env  # noqa: E402
from temporal_run import SHAPE, write_temporal_run  # noqa: E402

import framepred  # noqa: E402
from framepred.errors import FramepredError, FramepredWarning  # noqa: E402
from framepred.sequence.actions import ActionSpace  # noqa: E402
from framepred.sources.episode import Episode  # noqa: E402
from framepred.video.read import Clip  # noqa: E402
from framepred.world.run import Run, load_run  # noqa: E402

ID = "framepred.world.gym_env:framepred/World-v0"


def episode(seed: int, frames: int = 24) -> Episode:
    pictures, actions = moving_square(seed, frames)
    return Episode(f"e{seed}", pictures, torch.arange(frames) / 10.0, 10.0, actions, ("action",))


CLIPS = [episode(seed) for seed in range(3)]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A temporal run of random weights: pictures, actions and context tokens all decide what comes."""
    return load_run(write_temporal_run(tmp_path_factory.mktemp("runs") / "temporal"))


def bright(before: Any, actions: Any, after: Any) -> Any:
    return after.reshape(len(after), -1).mean(1)


@pytest.mark.parametrize("kind", ["tiny", "temporal"])
def test_gymnasium_finds_nothing_to_say(kind: str, run: Run, tiny_run: Path) -> None:
    made = gymnasium.make(
        ID, disable_env_checker=True, run=run if kind == "temporal" else str(tiny_run), starts=CLIPS, horizon=3
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_env(made.unwrapped, skip_render_check=True)
    assert made.observation_space.shape == (64, 64, 3)
    assert made.action_space == gymnasium.spaces.Discrete(4)
    first, _ = made.reset(seed=0)
    assert np.array_equal(made.render(), first)


def test_a_world_shows_what_a_session_imagines(run: Run) -> None:
    env = framepred.make_env(run, CLIPS[:1], reward=bright, horizon=9, context=5)
    first, _ = env.reset(seed=3)
    (last,) = [t for t in range(24) if np.array_equal(CLIPS[0].frames[t].movedim(0, -1).numpy(), first)][:1]
    seed = int(np.random.default_rng(np.random.SeedSequence(3)).integers(2**31))
    frames, actions = CLIPS[0].frames[last - 4 : last + 1], CLIPS[0].actions[last - 4 : last]
    session = run.session(frames, actions, seed=seed)
    for step, action in enumerate([1, 3, 0, 2, 2, 1, 0, 3, 1]):
        shown, reward, ended, cut, _ = env.step(action)
        assert np.array_equal(shown, session.step(action)[0].movedim(0, -1).numpy())
        assert reward == pytest.approx(shown.mean())
        assert (ended, cut) == (False, step == 8)


def test_the_first_episode_of_row_0_is_the_world_alone_and_each_row_depends_on_its_own_actions(run: Run) -> None:
    options: Any = {"starts": CLIPS, "reward": bright, "horizon": 8}
    alone, many, other = (framepred.make_env(run, num_envs=n, **options) for n in (None, 3, 3))
    shown = alone.reset(seed=7)[0], many.reset(seed=7)[0], other.reset(seed=7)[0]
    assert np.array_equal(shown[0], shown[1][0]) and np.array_equal(shown[1], shown[2])
    for step in range(12):
        # Beyond the horizon all begin anew, at moments and with noise of their own.
        b, c = many.step(np.array([step % 4, 1, 2])), other.step(np.array([3, 1, 0]))
        if step < 8:
            a = alone.step(step % 4)
            assert np.array_equal(a[0], b[0][0]) and (a[1], a[2], a[3]) == tuple(x[0] for x in b[1:4])
            assert b[3].all() == (step == 7)
        assert np.array_equal(b[0][1], c[0][1])
    assert not np.array_equal(b[0][2], c[0][2])
    assert len({row.tobytes() for row in b[0]}) == 3
    again = [many.reset(seed=seed)[0] for seed in (7, 7, 8)]
    assert np.array_equal(again[0], shown[1]) and np.array_equal(again[1], shown[1])
    assert not np.array_equal(again[2], shown[1])


@pytest.mark.parametrize("kind", ["tiny", "temporal"])
def test_a_row_that_ends_begins_anew_and_the_others_go_on(kind: str, run: Run, tiny_run: Path) -> None:
    run = run if kind == "temporal" else load_run(tiny_run)

    def ends_at_action_3(before: Any, actions: Any, after: Any) -> Any:
        return np.ones(len(after)), actions == 3

    options: Any = {"starts": CLIPS, "num_envs": 3, "horizon": 50}
    env, calm = framepred.make_env(run, reward=ends_at_action_3, **options), framepred.make_env(run, **options)
    env.reset(seed=1), calm.reset(seed=1)
    clips = {frame.movedim(0, -1).numpy().tobytes() for clip in CLIPS for frame in clip.frames}
    # More steps than the window, so that it slides between one end and the next.
    for step in range(14):
        ends = step in (1, 4, 5, 11)
        actions = np.array([0, 3 if ends else 1, 2])
        shown, rewards, ended, cut, _ = env.step(actions)
        expected = calm.step(np.array([0, 1, 2]))[0]
        assert np.array_equal(shown[[0, 2]], expected[[0, 2]])
        # At step 5 its action is not taken: that is the reset after step 4.
        new = step in (2, 5, 12)
        assert (shown[1].tobytes() in clips) == new
        assert ended.tolist() == [False, ends and not new, False] and not cut.any()
        assert rewards.tolist() == [1, 0 if new else 1, 1]


def test_some_rows_can_be_reset_and_gymnasium_counts_episodes(run: Run) -> None:
    from gymnasium.wrappers.vector import RecordEpisodeStatistics

    inner = framepred.make_env(run, CLIPS, num_envs=2, reward=bright, horizon=3)
    env, lengths = RecordEpisodeStatistics(inner), list[int]()
    env.reset(seed=0)
    for _ in range(7):
        *_, facts = env.step(np.array([1, 2]))
        lengths += facts["episode"]["l"][facts["_episode"]].tolist() if facts else []
    assert lengths == [3, 3, 3, 3]
    # Both begin their third episode and take a step of it; then row 1 alone begins anew.
    inner.step(np.array([0, 0]))
    before, *_ = inner.step(np.array([0, 0]))
    after, _ = inner.reset(options={"reset_mask": np.array([False, True])})
    assert np.array_equal(after[0], before[0]) and not np.array_equal(after[1], before[1])
    cut = [inner.step(np.array([0, 0]))[3].tolist() for _ in range(3)]
    assert cut == [[False, False], [True, False], [False, True]]
    with pytest.raises(FramepredError, match="a reset_mask"):
        inner.reset(seed=1, options={"reset_mask": np.array([False, True])})


def test_a_goal_picture_is_a_reward_and_ends_an_episode(run: Run) -> None:
    frames, goal = CLIPS[0].frames, CLIPS[0].frames[0]
    env = framepred.make_env(run, CLIPS[:1], goal=goal, reached=0.9)
    env.reset(seed=0)
    shown, reward, ended, _, _ = env.step(1)
    error = ((torch.from_numpy(shown).movedim(-1, 0).float() - goal.float()) ** 2).mean().sqrt() / 255
    assert reward == pytest.approx(-float(error), abs=1e-6) and ended
    env = framepred.make_env(run, CLIPS[:1], goal=frames[0].movedim(0, -1).numpy(), reached=float(error) * 0.9)
    env.reset(seed=0)
    assert not env.step(1)[2]


def test_continuous_actions_are_a_box_that_reaches_every_bin(tmp_path: Path) -> None:
    space = ActionSpace("continuous", ("x", "y"), edges=((-1.0, 0.5, 2.0), (0.0,)))
    run = load_run(write_temporal_run(tmp_path / "run", space, replace(SHAPE, action_size=2, continuous=True)))
    env = framepred.make_env(run, Clip(CLIPS[0].frames, 10.0))
    low, high = torch.from_numpy(env.action_space.low)[None], torch.from_numpy(env.action_space.high)[None]
    assert space.encode(low).tolist() == [[0, 4]] and space.encode(high).tolist() == [[3, 5]]
    env.reset(seed=0)
    assert env.step(env.action_space.sample())[0].shape == (64, 64, 3)


def test_short_clips_stand_still_first_and_that_is_said(run: Run) -> None:
    with pytest.warns(FramepredWarning, match="e9 has 2 frames, the model sees 6"):
        env = framepred.make_env(run, [episode(9, 2)], context=4)
        env.reset(seed=0)
    env.step(0)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"starts": []}, "no clip to start from"),
        ({"starts": "nowhere.mp4"}, "nowhere.mp4 does not exist"),
        ({"num_envs": 0}, "num_envs 0 is not allowed"),
        ({"horizon": 0}, "horizon 0 is not allowed"),
        ({"context": 7}, "context 7 is not allowed: give a whole number from 1 to 6"),
        ({"goal": torch.zeros(3, 32, 64, dtype=torch.uint8)}, "the goal is 32x64 pixels, the world shows 64x64"),
        ({"goal": torch.zeros(3, 64, 64)}, "float32: give an RGB picture, uint8"),
        ({"goal": "nothing.png"}, "goal nothing.png does not exist"),
        ({"goal": CLIPS[0].frames[0], "reward": bright}, "a reward and a goal were given"),
        ({"reward": lambda *_: [1, 2]}, r"the reward has shape \(2,\), of 1 worlds"),
    ],
)
def test_what_is_not_allowed_is_one_line(run: Run, options: dict[str, Any], says: str) -> None:
    with pytest.raises(FramepredError, match=says) as caught:
        env = framepred.make_env(run, **{"starts": CLIPS} | options)
        env.reset(seed=0)
        env.step(0)
    assert "\n" not in str(caught.value)


def test_ppo_trains_in_it(tiny_run: Path) -> None:
    library = pytest.importorskip("stable_baselines3")
    env = framepred.make_env(tiny_run, CLIPS, reward=bright, horizon=4)
    model = library.PPO("CnnPolicy", env, n_steps=8, batch_size=8, n_epochs=1, seed=0)
    before = {name: value.clone() for name, value in model.policy.state_dict().items()}
    model.learn(16)
    assert model.num_timesteps == 16
    assert any(not torch.equal(value, before[name]) for name, value in model.policy.state_dict().items())
