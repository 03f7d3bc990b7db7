"""A game that is served, and pages that talk with it."""

import asyncio
import io
import json
from collections import deque
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import numpy as np
import torch
from PIL import Image

from framepred.play.game import Game
from framepred.play.server import serve


class Visitor:
    """An open socket: `ask` sends a message, `picture` and `text` wait for what comes."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.socket, self._texts, self._pictures = socket, deque[dict[str, Any]](), deque[bytes]()

    async def ask(self, do: str, **fields: Any) -> None:
        await self.socket.send_str(json.dumps({"do": do, **fields}))

    async def picture(self) -> tuple[dict[str, Any], torch.Tensor]:
        """Return the next picture's head and its frames uint8 (N, 3, H, W)."""
        while not self._pictures:
            await self._receive()
        data = self._pictures.popleft()
        length = int.from_bytes(data[:4], "little")
        head, at, frames = json.loads(data[4 : 4 + length]), 4 + length, []
        for size in head["sizes"]:
            frames.append(np.array(Image.open(io.BytesIO(data[at : at + size]))))
            at += size
        assert at == len(data)
        return head, torch.from_numpy(np.stack(frames)).permute(0, 3, 1, 2)

    async def text(self, kind: str, **values: Any) -> dict[str, Any]:
        """Return the next text message of a kind and with these values; those before it are passed over."""
        while True:
            while not self._texts:
                await self._receive()
            said = self._texts.popleft()
            if all(said.get(name) == value for name, value in {"kind": kind, **values}.items()):
                return said

    async def _receive(self) -> None:
        message = await self.socket.receive(30)
        if message.type is aiohttp.WSMsgType.BINARY:
            self._pictures.append(message.data)
        else:
            assert message.type is aiohttp.WSMsgType.TEXT, message
            self._texts.append(json.loads(message.data))

    async def end(self) -> tuple[int | None, str]:
        """Wait until the server ends the connection; return its code and reason."""
        while (message := await self.socket.receive(30)).type in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY):
            pass
        return self.socket.close_code, str(message.extra or "")


class Visited:
    """A server's address, and the sockets that were opened to it."""

    def __init__(self, url: str, http: aiohttp.ClientSession) -> None:
        self.url, self.http = url, http
        self.base, self.token = url.split("/?token=")

    async def visit(self) -> Visitor:
        headers = {"Origin": self.base}
        return Visitor(await self.http.ws_connect(f"{self.base}/ws?token={self.token}", headers=headers))


@asynccontextmanager
async def served(game: Game, folder: Path, fps: float = 60.0) -> AsyncIterator[Visited]:
    """Serve a game in this process."""
    address = asyncio.get_running_loop().create_future()
    with ThreadPoolExecutor(1) as worker:
        task = asyncio.create_task(serve(game, worker, folder, fps, 0, address.set_result))
        try:
            await asyncio.wait([address, task], return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                await task
            async with aiohttp.ClientSession() as http:
                yield Visited(await address, http)
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
