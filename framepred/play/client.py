"""One open page: what waits to be sent to it, and how much it may say."""

import asyncio
import json
from collections import deque
from contextlib import suppress
from time import monotonic
from typing import Any

from aiohttp import web

_PER_SECOND, _BURST = 100.0, 200.0
"""Messages that a page may send; one that draws its keys sends a tenth."""
_MOST_TEXTS = 64
_PATIENCE = 5.0
"""Seconds that a message may take to be read before the page is given up."""
_GOODBYE = 1.0


class Client:
    """A connection. Of pictures only the latest waits for a slow reader; texts wait in order, a few of them."""

    def __init__(self, socket: web.WebSocketResponse, transport: asyncio.BaseTransport | None) -> None:
        self._socket, self._transport = socket, transport
        self._texts = deque[str](maxlen=_MOST_TEXTS)
        self._picture: bytes | None = None
        self._ready = asyncio.Event()
        self._allowed, self._counted = _BURST, monotonic()

    def show(self, picture: bytes) -> None:
        """Send a picture, unless a later one comes before it is this one's turn."""
        self._picture = picture
        self._ready.set()

    def tell(self, **values: Any) -> None:
        """Send a text message."""
        self._texts.append(json.dumps(values, allow_nan=False))
        self._ready.set()

    def may_speak(self) -> bool:
        """Count a message; False for one too many."""
        now = monotonic()
        self._allowed = min(_BURST, self._allowed + (now - self._counted) * _PER_SECOND) - 1
        self._counted = now
        return self._allowed >= 0

    async def send(self) -> None:
        """Send what comes up, until the connection ends or its other end stops reading."""
        while True:
            await self._ready.wait()
            self._ready.clear()
            async with asyncio.timeout(_PATIENCE):
                while self._texts:
                    await self._socket.send_str(self._texts.popleft())
                if self._picture is not None:
                    picture, self._picture = self._picture, None
                    await self._socket.send_bytes(picture)

    async def close(self, code: int, reason: str = "") -> None:
        """Say why it ends, and end it, even where nobody reads."""
        with suppress(TimeoutError, ConnectionError):
            async with asyncio.timeout(_GOODBYE):
                await self._socket.close(code=code, message=reason.encode()[:120], drain=False)
        if isinstance(self._transport, asyncio.WriteTransport):
            self._transport.abort()
