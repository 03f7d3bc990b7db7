"""The command: one line with the address, memory that stays flat under abuse, and an end that leaves nothing."""

import asyncio
import json
import re
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from click.testing import CliRunner
from random_run import write_random_run
from serving import Visited

from framepred.cli import cli
from framepred.play import open as opening

MIB = 1 << 20


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_random_run(tmp_path_factory.mktemp("command") / "run")


def memory(process: "subprocess.Popen[str]") -> int:
    """Return the bytes of memory that a process holds."""
    pages = Path(f"/proc/{process.pid}/statm").read_text().split()[1]
    return int(pages) * 4096


async def abuse(url: str, process: "subprocess.Popen[str]") -> None:
    async with aiohttp.ClientSession() as http:
        visited = Visited(url, http)
        player = await visited.visit()
        await player.ask("pause", on=False)
        for _ in range(30):
            await player.picture()
        before = memory(process)
        for _ in range(4):
            rude = await visited.visit()
            with suppress(ConnectionError):
                await rude.socket.send_str("x" * (10 * MIB))
            flooder = await visited.visit()
            with suppress(ConnectionError):
                for number in range(1000):
                    await flooder.ask("hold", action=0, key=number)
            # These two never read: the server is to let them go, not to wait for them.
            for page in (rude, flooder):
                assert page.socket._response.connection is None or await page.end()
        for _ in range(30):
            await player.picture()
        assert memory(process) - before < 10 * MIB
        await player.ask("pause", on=True)
        await player.text("state", paused=True)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is read from /proc")
@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_it_says_where_it_serves_keeps_its_memory_and_ends_cleanly(
    run: Path, clips_dir: Path, tmp_path: Path, how: signal.Signals
) -> None:
    options = ["--clip", str(clips_dir / "clip0.mp4"), "-o", str(tmp_path), "--json"]
    command = [sys.executable, "-m", "framepred", "play", str(run), *options]
    before = signal.getsignal(signal.SIGINT)
    # What a shell starts in the background ignores Ctrl-C, and is ended by another signal.
    signal.signal(signal.SIGINT, before if how is signal.SIGINT else signal.SIG_IGN)
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        signal.signal(signal.SIGINT, before)
        try:
            assert process.stdout is not None
            url = json.loads(process.stdout.readline())["url"]
            ignored = int(re.findall(r"SigIgn:\s*(\w+)", Path(f"/proc/{process.pid}/status").read_text())[0], 16)
            assert bool(ignored >> signal.SIGINT - 1 & 1) is (how is not signal.SIGINT)
            assert url.startswith("http://127.0.0.1:")
            if how is signal.SIGINT:
                asyncio.run(abuse(url, process))
            process.send_signal(how)
            out, err = process.communicate(timeout=30)
        finally:
            process.kill()
    assert (process.returncode, out, err) == (0, "", "")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["--clip", "a.mp4", "--env", "CartPole-v1"], "give --clip or --env"),
        ([], "has no start.mp4 to begin from: give --clip FILE or --env ENV"),
        (["--clip", "missing.mp4"], "video missing.mp4 does not exist"),
        (["--env", "NoSuchEnv-v0"], "cannot make environment 'NoSuchEnv-v0'"),
        (["--env", "CartPole-v1"], "CartPole-v1 takes Discrete(2), the run knows 4 discrete ids"),
    ],
)
def test_what_does_not_fit_is_one_line(run: Path, options: list[str], says: str) -> None:
    result = CliRunner().invoke(cli, ["play", str(run), *options])
    assert result.exit_code == 1 and says in result.stderr and result.stderr.count("\n") == 1
    assert result.stdout == ""


def test_without_aiohttp_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith(("aiohttp", "framepred.play.server"))]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    result = CliRunner().invoke(cli, ["play"])
    assert (result.exit_code, result.stderr) == (1, "framepred: play needs aiohttp: pip install 'framepred[play]'\n")


class Pretend:
    """An environment of discrete actions with names of its own, in another order than the run's labels."""

    name, fps, size = "test/Pretend-v0", 10.0, (32, 32)

    def __init__(self, names: list[str] | None, count: int) -> None:
        import gymnasium

        self.action_names, self.action_space = names, gymnasium.spaces.Discrete(count)
        self.taken: list[Any] = []

    def step(self, action: Any) -> Any:
        self.taken.append(action)
        if len(self.taken) == 3:
            raise RuntimeError("the engine is gone")
        return None, True


def test_actions_are_the_environments_own_by_name() -> None:
    pytest.importorskip("gymnasium")
    from framepred.config.action_names import ActionNames
    from framepred.errors import FramepredError
    from framepred.play.controls import controls_of
    from framepred.play.scene import EnvironmentStage
    from framepred.sequence.actions import ActionSpace

    space = ActionSpace("discrete", ActionNames(("action",), ("LEFT", "RIGHT", "NOOP")), 3)
    controls = controls_of(space, None)
    assert (controls.names, controls.keys[:2], controls.idle) == (
        ("LEFT", "RIGHT", "NOOP"),
        ("ArrowLeft", "ArrowRight"),
        2,
    )
    env: Any = Pretend(["NOOP", "UP", "RIGHT", "LEFT"], 4)
    stage = EnvironmentStage(env, controls, space, 4)
    assert stage.step(1) is None and env.taken == [2]
    assert stage.step(0) is None and env.taken == [2], "the episode had ended"
    with pytest.raises(FramepredError, match="has no action LEFT"):
        EnvironmentStage(Pretend(["NOOP", "RIGHT", "UP"], 3), controls, space, 4)  # type: ignore[arg-type]
    broken: Any = Pretend(None, 3)
    broken.taken = [0, 0]
    with pytest.raises(FramepredError, match=r"failed \(RuntimeError\('the engine is gone'\)\)"):
        EnvironmentStage(broken, controls, ActionSpace("discrete", ("action",), count=3), 4).step(0)


def test_a_game_beside_a_real_environment(tmp_path: Path) -> None:
    pytest.importorskip("vizdoom")
    with opening.open_game("doom-64", env="VizdoomMyWayHome-v1") as game:
        assert game.controls.names[3] == "MOVE_FORWARD"
        first = game.view()
        views = [game.step(action) for action in (5, 5, 3)]
        assert first.real is not None and all(view.real is not None and view.psnr for view in views)
        assert game.anchor().psnr is None


def test_another_rate_than_the_runs_is_said(run: Path) -> None:
    pytest.importorskip("gymnasium")
    pytest.importorskip("pygame")
    from framepred.errors import FramepredWarning

    says = r"shows 4 frames a second, the run knows 10"
    with (
        pytest.warns(FramepredWarning, match=says),
        opening.open_game(str(run), env="FrozenLake-v1", context=2) as game,
    ):
        assert game.step(1).real is not None
