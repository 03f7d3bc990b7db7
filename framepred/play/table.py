"""A game and those around it: the first page plays, the others watch, and one thread does what takes long."""

import asyncio
from collections import deque
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import monotonic
from typing import Any, TypeVar

from framepred.errors import FramepredError
from framepred.play import messages as m
from framepred.play.client import Client
from framepred.play.controls import Action
from framepred.play.game import Game, View
from framepred.play.keep import free_name, keep
from framepred.play.picture import pack_view

T = TypeVar("T")
_MOST_WAITING = 32
_RATE_FRAMES = 30
FPS_LIMITS = (0.1, 60.0)
_ENTROPY_EVERY = 4
"""While the game runs, every so many frames are read once more for their entropy: a pass of the model each time."""


class Table:
    """Runs a game for its clients: `run` until cancelled. The game is touched by the `worker`'s one thread alone."""

    def __init__(self, game: Game, worker: ThreadPoolExecutor, folder: Path, fps: float) -> None:
        self.clients: list[Client] = []
        self._game, self._worker, self._folder, self._fps = game, worker, folder, fps
        self._held: Action = game.controls.idle
        self._key, self._paused, self._count = 0, True, 0
        self._waiting = deque[m.Message]()
        self._wake = asyncio.Event()
        self._times = deque[float](maxlen=_RATE_FRAMES)
        self._last: bytes | None = None

    def join(self, client: Client) -> None:
        """Seat a client; the first plays."""
        self.clients.append(client)
        client.tell(kind="hello", controls=self._game.controls.to_json(), **self._about(client))
        if self._last is not None:
            client.show(self._last)
        self._wake.set()

    def leave(self, client: Client) -> None:
        """Let a client go. Where it played, its keys are let go too, and who waited longest plays."""
        played = self.clients[:1] == [client]
        self.clients.remove(client)
        if played:
            self._held, self._key = self._game.controls.idle, 0
            self._waiting.clear()
            self._announce()

    def hear(self, client: Client, message: m.Message) -> None:
        """Take a message of a client; FramepredError, which is for that client alone, for what is not allowed."""
        if client is not self.clients[0]:
            raise FramepredError("another page plays this game: this one watches")
        if isinstance(message, m.Hold):
            self._held, self._key = self._game.controls.read(message.action), message.key
        elif isinstance(message, m.Limit):
            if not FPS_LIMITS[0] <= message.fps <= FPS_LIMITS[1]:
                raise FramepredError(f"{message.fps:g} frames a second are not allowed: give 1 to {FPS_LIMITS[1]:g}")
            self._fps = float(message.fps)
            self._announce()
        elif len(self._waiting) >= _MOST_WAITING:
            raise FramepredError("too much is waiting to be done: wait a moment")
        else:
            if isinstance(message, m.Step):
                self._game.controls.read(message.action)
            self._waiting.append(message)
        self._wake.set()

    async def run(self) -> None:
        """Play: obey what was asked for, and show a frame whenever one is due and somebody looks."""
        await self._show(self._game.view)
        due = 0.0
        while True:
            while self._waiting:
                await self._obey(self._waiting.popleft())
            if self._paused or not self.clients:
                self._times.clear()
                await self._wait(None)
            elif (left := due - monotonic()) > 0:
                await self._wait(left)
            else:
                due = max(due, monotonic() - 1 / self._fps) + 1 / self._fps
                await self._advance()

    async def _advance(self) -> None:
        action, read = self._held, self._count % _ENTROPY_EVERY == 0
        self._count += 1
        try:
            await self._show(lambda: self._game.step(action, read), self._key)
        except FramepredError as error:
            self._paused = True
            self._tell_player(kind="error", text=str(error))
            self._announce()

    async def _wait(self, seconds: float | None) -> None:
        try:
            await asyncio.wait_for(self._wake.wait(), seconds)
        except TimeoutError:
            return
        self._wake.clear()

    async def _obey(self, message: m.Message) -> None:
        """Do what the player asked for; where it cannot be done, say why."""
        game, held = self._game, self._held
        try:
            match message:
                case m.Pause(on):
                    self._paused = on
                case m.Step(action, key):
                    self._paused = True
                    await self._show(lambda: game.step(game.controls.read(action), True), key)
                case m.Restart(start, seed, temperature):
                    await self._show(lambda: game.restart(start, seed, float(temperature)))
                case m.Fork():
                    await self._show(lambda: game.fork(held))
                case m.Choose(index):
                    await self._show(lambda: game.choose(index))
                case m.Anchor():
                    await self._show(game.anchor)
                case m.Keep(name):
                    await self._keep(name)
        except FramepredError as error:
            self._tell_player(kind="error", text=str(error))
        self._announce()

    async def _keep(self, name: str) -> None:
        game = self._game
        columns = game.run.layout.actions.names if game.run.layout.actions else ()
        played = await self._work(game.played)
        path = await self._work(lambda: keep(played, game.controls, columns, self._folder, name))
        self._tell_player(kind="kept", name=path.name, frames=len(played.frames))

    async def _show(self, change: Callable[[], View], key: int | None = None) -> None:
        """Change the game and show what is then to be seen; with the key of an action as a frame that took time."""
        last = self._times[-1] - self._times[0] if len(self._times) > 1 else 0.0
        rate = (len(self._times) - 1) / last if last else None
        self._last = await self._work(lambda: pack_view(change(), {"rate": rate, "key": key}))
        if key is not None:
            self._times.append(monotonic())
        for client in self.clients:
            client.show(self._last)

    async def _work(self, call: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._worker, call)

    def _announce(self) -> None:
        for client in self.clients:
            client.tell(kind="state", **self._about(client))

    def _tell_player(self, **values: Any) -> None:
        for client in self.clients[:1]:
            client.tell(**values)

    def _about(self, client: Client) -> dict[str, Any]:
        game = self._game
        return {
            "run": game.run.path.name, "plays": client is self.clients[0], "paused": self._paused,
            "forked": game.forked, "fps": self._fps, "start": game.start, "seed": game.seed,
            "temperature": game.temperature, "real": game.stage.is_real, "name": free_name(self._folder),
        }  # fmt: skip
