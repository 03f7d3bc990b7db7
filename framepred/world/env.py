"""A run as a Gymnasium environment: one world, or N worlds that are the rows of one session."""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

from framepred.errors import FramepredError
from framepred.world.goal import goal_picture
from framepred.world.rollout import MAX_HORIZON, MAX_SAMPLES, check_count
from framepred.world.run import Run, load_run
from framepred.world.starts import Given, Starts
from framepred.world.worlds import Array, Reward, Worlds, goal_reward, no_reward

if TYPE_CHECKING:
    import gymnasium


def make_env(
    run: Run | str | os.PathLike[str],
    starts: Given | Sequence[Given],
    num_envs: int | None = None,
    *,
    reward: Reward | None = None,
    goal: Tensor | Array | str | os.PathLike[str] | None = None,
    reached: float = 0.0,
    horizon: int = 64,
    context: int = 4,
    temperature: float | None = None,
    top_k: int = 0,
    top_p: float = 1.0,
    decoder: str = "auto",
    device: str = "cpu",
    render_mode: str | None = "rgb_array",
) -> "gymnasium.Env[Any, Any] | gymnasium.vector.VectorEnv[Any, Any, Any]":
    """Make a `gymnasium.Env` of a run, or with `num_envs` a `VectorEnv` of so many worlds in one session.

    Observations are uint8 (H, W, 3); actions are the run's own. `starts` are clips, videos or folders, any moment of
    which may begin an episode, after `context` frames. `reward` is a callable (`Reward`) or -1 times the distance to a
    `goal` picture, 0 without either; an episode is truncated after `horizon` steps, and ends where the reward says so
    or the goal is `reached`. Raises FramepredError for what is not allowed.
    """
    gym_env = _gym_env()
    loaded = run if isinstance(run, Run) else load_run(os.fspath(run), device)
    check_count("num_envs", 1 if num_envs is None else num_envs, MAX_SAMPLES)
    check_count("horizon", horizon, MAX_HORIZON)
    check_count("context", context, loaded.window)
    if reward is not None and goal is not None:
        raise FramepredError("a reward and a goal were given: give one of them")
    if goal is not None:
        reward = goal_reward(goal_picture(goal, loaded.tokenizer.frame_size), reached)
    worlds = Worlds(
        loaded, Starts(loaded, starts), num_envs or 1, context, horizon, reward or no_reward,
        temperature=temperature, top_k=top_k, top_p=top_p, decoder=decoder,
    )  # fmt: skip
    made = gym_env.WorldEnv if num_envs is None else gym_env.WorldVectorEnv
    return made(worlds, render_mode)


def _gym_env() -> Any:
    try:
        from framepred.world import gym_env
    except ImportError as error:
        raise FramepredError("an environment needs gymnasium: pip install 'framepred[gym]'") from error
    return gym_env
