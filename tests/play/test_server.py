"""The server: frames through the socket are a rollout's, one page plays, and no other page or machine gets in."""

import asyncio
import json
import re
import socket
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import moving_square
from random_run import write_random_run
from serving import Visited, Visitor, served

from framepred.errors import FramepredError
from framepred.play import client as client_module
from framepred.play import server
from framepred.play.client import Client
from framepred.play.controls import controls_of
from framepred.play.game import FORKS, Game
from framepred.play.scene import ClipStage
from framepred.sources.folder import VideoFile
from framepred.video.read import Clip
from framepred.video.resize import fit_frames
from framepred.world.rollout import rollout
from framepred.world.run import Run, load_run

CONTEXT = 4
ACTIONS = [3, 0, 1, 1, 2, 3, 0, 2]
pytestmark = pytest.mark.usefixtures("one_thread")
Test = Callable[[Visited], Awaitable[None]]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    return load_run(write_random_run(tmp_path_factory.mktemp("served") / "run"))


@pytest.fixture
def game(run: Run, clips_dir: Path) -> Game:
    stage = ClipStage(VideoFile(clips_dir / "clip0.mp4", ""), run, CONTEXT)
    return Game(run, controls_of(run.layout.actions), stage)


def try_out(game: Game, folder: Path, test: Test, fps: float = 60.0) -> None:
    async def whole() -> None:
        async with asyncio.timeout(60), served(game, folder, fps) as visited:
            await test(visited)

    asyncio.run(whole())


def expected(run: Run, actions: list[int], seed: int = 0, start: int = 0) -> torch.Tensor:
    """Return the frames (T, 3, H, W) of a rollout with one future."""
    frames, known = moving_square(0)
    given = torch.cat([known[start : start + CONTEXT - 1], torch.tensor(actions)])
    clip = Clip(fit_frames(frames, run.tokenizer.frame_size)[start:], 10.0)
    return torch.stack([f[0] for f in rollout(run, clip, given, CONTEXT, len(actions), seed, 1)])


async def steps(page: Visitor, actions: list[int]) -> torch.Tensor:
    """Take single steps; return their frames (T, 3, H, W)."""
    shown = []
    for number, action in enumerate(actions, 1):
        await page.ask("step", action=action, key=number)
        while (found := await page.picture())[0]["key"] != number:
            pass
        assert found[0]["action"] == action and found[0]["entropy"] > 0
        shown.append(found[1])
    return torch.cat(shown)


def test_single_steps_through_the_socket_are_the_frames_of_a_rollout(game: Game, run: Run, tmp_path: Path) -> None:
    async def test(visited: Visited) -> None:
        page = await visited.visit()
        assert torch.equal(await steps(page, ACTIONS), expected(run, ACTIONS))
        await page.ask("restart", start=6, seed=9, temperature=1)
        while (await page.picture())[0]["frame"] != CONTEXT - 1:
            pass
        assert torch.equal(await steps(page, ACTIONS), expected(run, ACTIONS, 9, 6))

    try_out(game, tmp_path, test)


def test_a_game_that_runs_shows_the_frames_of_a_rollout_with_the_actions_that_it_tells(
    game: Game, run: Run, tmp_path: Path
) -> None:
    async def test(visited: Visited) -> None:
        page = await visited.visit()
        assert (await page.picture())[0]["frame"] == CONTEXT - 1
        await page.ask("pause", on=False)
        heads, frames = [], []
        for count in range(24):
            if count % 5 == 0:
                await page.ask("hold", action=count // 5 % 4, key=count + 1)
            head, picture = await page.picture()
            heads.append(head)
            frames.append(picture)
        assert [head["frame"] for head in heads] == list(range(CONTEXT, CONTEXT + 24))
        taken = [head["action"] for head in heads]
        assert set(taken) == {0, 1, 2, 3} and heads[-1]["rate"] > 1
        assert torch.equal(torch.cat(frames), expected(run, taken))

    try_out(game, tmp_path, test, fps=30.0)


def test_four_futures_and_one_of_them_go_through_the_socket(game: Game, tmp_path: Path) -> None:
    async def test(visited: Visited) -> None:
        page = await visited.visit()
        await steps(page, ACTIONS[:2])
        await page.ask("fork")
        _, four = await page.picture()
        assert len(four) == FORKS
        await page.text("state", forked=True)
        await page.ask("choose", index=2)
        head, one = await page.picture()
        assert torch.equal(one[0], four[2]) and head["frame"] == CONTEXT + 2
        await page.ask("choose", index=2)
        assert "one future only" in (await page.text("error"))["text"]
        await page.ask("keep", name="mine")
        assert await page.text("kept") == {"kind": "kept", "name": "mine.mp4", "frames": CONTEXT + 3}
        assert sorted(p.name for p in tmp_path.iterdir()) == ["mine.actions.csv", "mine.mp4"]

    try_out(game, tmp_path, test)


def test_one_page_plays_and_the_next_follows_when_it_leaves(game: Game, tmp_path: Path) -> None:
    async def test(visited: Visited) -> None:
        player, watcher = await visited.visit(), await visited.visit()
        assert (await player.text("hello"))["plays"] and not (await watcher.text("hello"))["plays"]
        await watcher.ask("step", action=1, key=1)
        assert "another page plays" in (await watcher.text("error"))["text"]
        shown = await steps(player, [2])
        while (seen := await watcher.picture())[0]["frame"] != CONTEXT:
            pass
        assert torch.equal(seen[1], shown)
        # A connection that breaks, without a word.
        player.socket._response.connection.transport.abort()  # type: ignore[union-attr]
        await watcher.text("state", plays=True)
        assert len(await steps(watcher, [1, 2])) == 2

    try_out(game, tmp_path, test)


@pytest.mark.parametrize(
    ("path", "headers", "status"),
    [
        ("/?token={token}", {}, 200),
        ("/play.js", {}, 200),
        ("/", {}, 403),
        ("/?token=wrong", {}, 403),
        ("/?token=%FF%00", {}, 403),
        ("/?token={token}", {"Host": "evil.example"}, 403),
        ("/play.js", {"Host": "evil.example:80"}, 403),
        ("/ws?token={token}", {"Origin": "{base}"}, 101),
        ("/ws", {"Origin": "{base}"}, 403),
        ("/ws?token={token}", {}, 403),
        ("/ws?token={token}", {"Origin": "http://evil.example"}, 403),
        ("/ws?token={token}", {"Origin": "null"}, 403),
        ("/ws?token={token}", {"Origin": "{base}", "Host": "evil.example"}, 403),
        ("/../server.py", {}, 404),
        ("/page/index.html", {}, 404),
    ],
)
def test_only_the_page_with_the_token_gets_in(
    game: Game, tmp_path: Path, path: str, headers: dict[str, str], status: int
) -> None:
    async def test(visited: Visited) -> None:
        fill = {"token": visited.token, "base": visited.base}
        sent = {name: value.format(**fill) for name, value in headers.items()}
        if "/ws" in path:
            sent |= {"Upgrade": "websocket", "Connection": "Upgrade", "Sec-WebSocket-Version": "13"}
            sent |= {"Sec-WebSocket-Key": "AAAAAAAAAAAAAAAAAAAAAA=="}
        async with visited.http.get(visited.base + path.format(**fill), headers=sent) as answer:
            assert answer.status == status
            if status == 200:
                assert "default-src 'none'" in answer.headers["Content-Security-Policy"]
                assert "http://" not in (await answer.text()) and "https://" not in (await answer.text())
        async with visited.http.post(visited.url, data=b"x" * 100) as answer:
            assert answer.status == 405
        with socket.socket() as other, pytest.raises(OSError):
            other.settimeout(1)
            other.connect((socket.gethostbyname(socket.gethostname()), int(visited.base.rsplit(":")[-1])))
            if other.getpeername()[0].startswith("127."):
                raise OSError("this machine's name is that of itself")

    try_out(game, tmp_path, test)


@pytest.mark.parametrize(
    "bad",
    [
        "", "hello", "[]", "{}",
        '{"do": 3}', '{"do": []}', '{"do": "shutdown"}', '{"do": "step"}', '{"do": "fork", "x": 1}',
        '{"do": "limit", "fps": "9"}', '{"do": "pause", "on": 1}', '{"do": "choose", "index": 1.0}',
        '{"do": "restart", "start": 0, "seed": 1e400, "temperature": 1}', '{"do": "choose", "index": 1e30}',
        '{"do": "restart", "start": 0, "seed": 0, "temperature": NaN}', "[" * 4000, b"\x00\x01", "x" * 10_000_000,
    ],
    ids=lambda bad: str(bad)[:30],
)  # fmt: skip
@pytest.mark.parametrize("plays", [True, False])
def test_a_bad_message_ends_that_page_alone(game: Game, tmp_path: Path, bad: str | bytes, plays: bool) -> None:
    async def test(visited: Visited) -> None:
        pages = [await visited.visit(), await visited.visit()]
        bad_page, good_page = pages if plays else pages[::-1]
        with suppress(ConnectionError):
            await (bad_page.socket.send_bytes(bad) if isinstance(bad, bytes) else bad_page.socket.send_str(bad))
        code, _ = await bad_page.end()
        assert code in (1008, 1009, 1006)
        if plays:
            await good_page.text("state", plays=True)
        assert len(await steps(good_page, [1])) == 1

    try_out(game, tmp_path, test)


@pytest.mark.parametrize(
    ("do", "fields", "says"),
    [
        ("step", {"action": 4, "key": 1}, "action 4 is not known: give an id from 0 to 3"),
        ("hold", {"action": True, "key": 1}, "action True is not known"),
        ("hold", {"action": [0.5], "key": 1}, "is not known"),
        ("limit", {"fps": 1e9}, "frames a second are not allowed"),
        ("restart", {"start": 10**9, "seed": 0, "temperature": 1}, "has 24 frames"),
        ("restart", {"start": -1, "seed": 0, "temperature": 1}, "frame -1 is not allowed"),
        ("restart", {"start": 0, "seed": -1, "temperature": 1}, "seed -1 is not allowed"),
        ("restart", {"start": 0, "seed": 0, "temperature": 1e6}, "temperature 1e\\+06|temperature 1000000"),
        ("keep", {"name": "../../etc/passwd"}, "is not allowed"),
        ("choose", {"index": 0}, "one future only"),
        ("anchor", {}, "nothing real"),
    ],
)
def test_what_cannot_be_done_is_said_and_the_game_goes_on(
    game: Game, run: Run, tmp_path: Path, do: str, fields: dict[str, Any], says: str
) -> None:
    async def test(visited: Visited) -> None:
        page = await visited.visit()
        await page.ask(do, **fields)
        error = await page.text("error")
        assert re.search(says, error["text"]), error
        assert torch.equal(await steps(page, [1, 2]), expected(run, [1, 2]))

    try_out(game, tmp_path, test)


def test_a_flood_ends_the_page_that_sends_it(game: Game, tmp_path: Path) -> None:
    async def test(visited: Visited) -> None:
        flooder, watcher = await visited.visit(), await visited.visit()
        for number in range(1000):
            await flooder.ask("hold", action=number % 4, key=number)
        assert (await flooder.end())[0] in (1008, 1006)
        await watcher.text("state", plays=True)
        assert len(await steps(watcher, [1])) == 1

    try_out(game, tmp_path, test)


def test_a_page_that_stops_reading_is_given_up_and_holds_nobody_up(
    game: Game, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "_HEARTBEAT", 0.4)

    async def test(visited: Visited) -> None:
        reader, writer = await asyncio.open_connection(server.HOST, int(visited.base.rsplit(":")[-1]), limit=1024)
        writer.write(
            f"GET /ws?token={visited.token} HTTP/1.1\r\nHost: {visited.base[7:]}\r\nOrigin: {visited.base}\r\n"
            "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode()
        )
        assert b"101" in await reader.readline()
        page = await visited.visit()
        # It was there first and so it plays, until it does not answer any longer.
        assert not (await page.text("hello"))["plays"]
        await page.text("state", plays=True)
        assert len(await steps(page, ACTIONS)) == len(ACTIONS)
        writer.transport.abort()

    try_out(game, tmp_path, test)


def test_of_what_a_slow_page_does_not_read_only_the_latest_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client_module, "_PATIENCE", 0.2)

    class Stuck:
        sent: list[Any]

        def __init__(self) -> None:
            self.sent = []

        async def send_bytes(self, data: bytes) -> None:
            self.sent.append(data)
            await asyncio.sleep(60)

        send_str = send_bytes

    async def test() -> None:
        stuck = Stuck()
        page = Client(stuck, None)  # type: ignore[arg-type]
        for number in range(1000):
            page.show(b"%d" % number)
        with pytest.raises(TimeoutError):
            await page.send()
        assert stuck.sent == [b"999"]
        for number in range(1000):
            page.tell(number=number)
        assert len(page._texts) < 100 and json.loads(page._texts[-1]) == {"number": 999}

    asyncio.run(test())


def test_a_port_that_is_taken_is_one_line(game: Game, tmp_path: Path) -> None:
    async def test(visited: Visited) -> None:
        port = int(visited.base.rsplit(":")[-1])
        with pytest.raises(FramepredError, match=f"port {port} cannot be used .*give another --port"):
            await server.serve(game, None, tmp_path, 9.0, port, print)  # type: ignore[arg-type]

    try_out(game, tmp_path, test)
