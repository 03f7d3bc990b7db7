"""Who plays: built-in policies play as they always did, installed ones are asked, and what does not fit is one line."""

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from installing import install

gymnasium = pytest.importorskip("gymnasium")

from random_run import write_random_run  # noqa: E402
from recording_worlds import Painter, Runner, registered  # noqa: E402

from framepred.config.action_names import ActionNames  # noqa: E402
from framepred.errors import FramepredError, FramepredWarning  # noqa: E402
from framepred.recording.environment import open_environment  # noqa: E402
from framepred.recording.gym import Recording, record  # noqa: E402
from framepred.recording.policy import Setup, find_policy  # noqa: E402
from framepred.sequence.actions import ActionSpace  # noqa: E402
from framepred.sources.folder import find_videos  # noqa: E402
from framepred.world.run import Run, load_run  # noqa: E402

INSTALLED = """
def patient(setup):
    def act(frames, actions):
        assert len(frames) == len(actions) + 1 and frames[0].shape == (3, 32, 32)
        return (setup.seed + len(actions)) % 4
    return act

def wild(setup):
    return lambda frames, actions: 4
"""


@pytest.fixture(scope="module", autouse=True)
def _registered() -> Iterator[None]:
    with registered({"test/Played-v0": (Painter, {}), "test/Other-v0": (Runner, {})}):
        yield


@pytest.fixture
def _installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named = "patient = some_policies:patient\nwild = some_policies:wild\nbroken = not_there:make\n"
    install(tmp_path, monkeypatch, "some_policies", INSTALLED, f"[framepred.policies]\n{named}")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return load_run(write_random_run(tmp_path_factory.mktemp("run")))


def small(**more: Any) -> Recording:
    return Recording(**({"env": "test/Played-v0", "episodes": 2, "steps": 12, "size": (32, 32), "seed": 11} | more))


def played(folder: Path) -> list[list[int]]:
    return [video.actions()[0].tolist() for video in find_videos([folder])]


def test_sticky_and_random_play_what_they_played_before_policies_had_names(tmp_path: Path) -> None:
    list(record(small(), tmp_path / "sticky"))
    list(record(small(policy="random"), tmp_path / "random"))
    list(record(small(env="test/Other-v0", actions_of="test/Played-v0"), tmp_path / "matched"))
    # Recorded by the version before.
    assert played(tmp_path / "sticky") == [[0] * 9 + [3] * 3, [2, 2] + [1] * 7 + [3] * 3]
    assert played(tmp_path / "random") == [[0, 0, 3, 1, 2, 2, 2, 0, 1, 0, 1, 3], [2, 1, 3, 3, 0, 0, 0, 0, 2, 1, 1, 0]]
    assert played(tmp_path / "matched") == [[3] * 8 + [1] * 4, [1] + [3] * 11]


def test_an_installed_policy_plays(tmp_path: Path, _installed: None) -> None:
    list(record(small(policy="patient"), tmp_path / "out"))
    assert played(tmp_path / "out") == [[(seed + t) % 4 for t in range(12)] for seed in (11, 12)]
    assert json.loads((tmp_path / "out" / "recording.json").read_text())["policy"] == "patient"


@pytest.mark.parametrize(
    ("policy", "says"),
    [
        ("no-such", "policy 'no-such' is unknown: give one of sticky, random, curious, broken, patient, wild"),
        ("broken", "policy 'broken' was installed and cannot be loaded"),
        ("wild", r"policy 'wild' took action 4, test/Played-v0 takes Discrete\(4\)"),
        ("curious", "policy 'curious' asks a run .* --model RUN"),
    ],
)
def test_a_policy_that_cannot_play_is_one_line(tmp_path: Path, _installed: None, policy: str, says: str) -> None:
    with pytest.raises(FramepredError, match=says) as caught:
        list(record(small(policy=policy), tmp_path / "out"))
    assert "\n" not in str(caught.value)
    assert not list(tmp_path.rglob("*.mp4"))
    assert policy == "wild" or not (tmp_path / "out").exists()


def test_a_folder_of_another_policy_or_run_is_refused(tmp_path: Path, run: Run) -> None:
    list(record(small(), tmp_path / "out"))
    about = json.loads((tmp_path / "out" / "recording.json").read_text())
    assert (about["policy"], about["sticky"], about["model_sha256"]) == ("sticky", 0.75, None)
    with pytest.raises(FramepredError, match="recorded with policy sticky, not random"):
        list(record(small(policy="random"), tmp_path / "out"))
    # An older version named no policy, and played that one.
    (tmp_path / "out" / "recording.json").write_text(
        json.dumps({k: v for k, v in about.items() if k not in ("policy", "model_sha256")})
    )
    with pytest.raises(FramepredError, match="recorded with policy sticky, not random"):
        list(record(small(policy="random"), tmp_path / "out"))
    assert len(list(record(small(episodes=3), tmp_path / "out"))) == 3
    shown = small(policy="curious", episodes=1, steps=1)
    list(record(shown, tmp_path / "curious", run))
    about = json.loads((tmp_path / "curious" / "recording.json").read_text())
    assert about["sticky"] is None and len(about["model_sha256"]) == 64
    (tmp_path / "curious" / "recording.json").write_text(json.dumps(about | {"model_sha256": "0" * 64}))
    with pytest.raises(FramepredError, match=r"recorded with model_sha256 0000.* not [0-9a-f]{64}"):
        list(record(shown, tmp_path / "curious", run))


def test_curious_plays_the_same_for_the_same_seed(tmp_path: Path, run: Run, one_thread: None) -> None:
    list(record(small(policy="curious"), tmp_path / "a", run))
    list(record(small(policy="curious", seed=12, episodes=1), tmp_path / "b", run))
    both, (second,) = played(tmp_path / "a"), played(tmp_path / "b")
    assert second == both[1] and [len(actions) for actions in both] == [12, 12]
    assert len({tuple(actions) for actions in both}) == 2


def test_curious_takes_only_what_both_environments_name(tmp_path: Path, run: Run) -> None:
    named = named_run(run, Runner.meanings)
    list(record(small(env="test/Other-v0", policy="curious", episodes=1, actions_of="test/Played-v0"), tmp_path, named))
    # The ids that Painter has for LEFT and JUMP; Painter has no DUCK.
    assert set(played(tmp_path)[0]) <= {1, 3}


def test_curious_refuses_a_run_of_another_world(run: Run) -> None:
    for env, size, model, says in (
        ("test/Played-v0", (32, 64), run, "size 32x64 is not what the run .* predicts: give --size 32x32"),
        ("test/Other-v0", (32, 32), run, r"takes Discrete\(3\), the run knows 4 discrete ids"),
        ("test/Other-v0", (32, 32), named_run(run, Painter.meanings), "has no action WAIT, which the run knows"),
        ("test/Played-v0", (32, 32), named_run(run, Painter.meanings[:3]), "has action JUMP, which the run does not"),
        ("test/Played-v0", (32, 32), named_run(run, None), "the run was trained without actions"),
    ):
        with open_environment(env, size) as made, pytest.raises(FramepredError, match=says) as caught:
            find_policy("curious")(Setup(made, 0, run=model))
        assert "\n" not in str(caught.value)
    with (
        open_environment("test/Played-v0", (32, 32), 1) as made,
        pytest.warns(FramepredWarning, match="recorded at 20 frames a second, the run predicts 10 frames"),
    ):
        find_policy("curious")(Setup(made, 0, run=run))


def named_run(run: Run, names: tuple[str, ...] | None) -> Run:
    """The run with actions of these names, or with none."""
    space = names and ActionSpace("discrete", ActionNames(("action",), names), len(names))
    return replace(run, layout=replace(run.layout, actions=space))
