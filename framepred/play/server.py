"""The local server: one page, its script and style, and a socket that only this page can open."""

import asyncio
import hmac
import secrets
import signal
from collections.abc import Awaitable, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

from aiohttp import WSCloseCode, WSMsgType, web

from framepred.errors import FramepredError
from framepred.io.interrupts import ENDING
from framepred.play.client import Client
from framepred.play.game import Game
from framepred.play.messages import read_message
from framepred.play.table import Table

HOST = "127.0.0.1"
_PAGE = Path(__file__).parent / "page"
_FILES = {
    "/": ("index.html", "text/html"), "/play.js": ("play.js", "text/javascript"), "/play.css": ("play.css", "text/css"),
}  # fmt: skip
_MOST_CLIENTS = 8
_MOST_BYTES = 4096
"""What a message may hold."""
_HEARTBEAT = 10.0
"""Seconds between the questions whether a page still answers."""
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}
_TABLE = web.AppKey("table", Table)
_TOKEN = web.AppKey("token", str)
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


async def serve(
    game: Game, worker: ThreadPoolExecutor, folder: Path, fps: float, port: int, announce: Callable[[str], None]
) -> None:
    """Serve a game to this machine until a signal ends it; `announce` is given the address once it can be opened.

    `port` 0 is a free one; FramepredError for one that is taken.
    """
    app, table = web.Application(middlewares=[_guard]), Table(game, worker, folder, fps)
    app[_TABLE], app[_TOKEN] = table, secrets.token_urlsafe(24)
    app.router.add_get("/ws", _socket)
    for path in _FILES:
        app.router.add_get(path, _file)
    runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=1.0)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, HOST, port).start()
        except OSError as error:
            raise FramepredError(f"port {port} cannot be used ({error.strerror}): give another --port") from error
        with _signals() as stop:
            announce(f"http://{HOST}:{runner.addresses[0][1]}/?token={app[_TOKEN]}")
            await _play(table, stop)
    finally:
        await runner.cleanup()


@contextmanager
def _signals() -> Iterator[asyncio.Event]:
    """Yield an event that the signals set which end a program; one that is ignored stays so."""
    stop, loop = asyncio.Event(), asyncio.get_running_loop()
    names = [name for name in ENDING if signal.getsignal(name) is not signal.SIG_IGN]
    for name in names:
        loop.add_signal_handler(name, stop.set)
    try:
        yield stop
    finally:
        for name in names:
            loop.remove_signal_handler(name)


async def _play(table: Table, stop: asyncio.Event) -> None:
    """Run the game until it is to stop; an error of the game itself goes on to the caller."""
    playing, stopped = asyncio.create_task(table.run()), asyncio.create_task(stop.wait())
    try:
        await asyncio.wait([playing, stopped], return_when=asyncio.FIRST_COMPLETED)
        if playing.done():
            await playing
    finally:
        for task in (playing, stopped):
            task.cancel()
        await asyncio.gather(playing, stopped, return_exceptions=True)
        for client in list(table.clients):
            await client.close(WSCloseCode.GOING_AWAY, "framepred play has ended")


@web.middleware
async def _guard(request: web.Request, handler: _Handler) -> web.StreamResponse:
    """Refuse what another page or machine asks for: by the name of this server, the token, and the page's origin."""
    port = request.transport.get_extra_info("sockname")[1] if request.transport else 0
    hosts = {f"{HOST}:{port}", f"localhost:{port}"}
    token = request.query.get("token", "").encode()
    wrong = None
    if request.headers.get("Host") not in hosts:
        wrong = "this address is not the one that framepred play printed"
    elif request.path in ("/", "/ws") and not hmac.compare_digest(token, request.app[_TOKEN].encode()):
        wrong = "open the whole address that framepred play printed, with its token"
    elif request.path == "/ws" and request.headers.get("Origin") not in {f"http://{host}" for host in hosts}:
        wrong = "only framepred's own page may open this socket"
    if wrong:
        raise web.HTTPForbidden(text=f"{wrong}\n", headers=_HEADERS)
    return await handler(request)


async def _file(request: web.Request) -> web.Response:
    name, kind = _FILES[request.path]
    return web.Response(body=(_PAGE / name).read_bytes(), content_type=kind, charset="utf-8", headers=_HEADERS)


async def _socket(request: web.Request) -> web.WebSocketResponse:
    """Talk with one page until it leaves, or breaks a rule."""
    table = request.app[_TABLE]
    if len(table.clients) >= _MOST_CLIENTS:
        raise web.HTTPServiceUnavailable(text=f"{_MOST_CLIENTS} pages are open already: close one\n")
    socket = web.WebSocketResponse(max_msg_size=_MOST_BYTES, heartbeat=_HEARTBEAT, compress=False, timeout=1.0)
    await socket.prepare(request)
    client = Client(socket, request.transport)
    table.join(client)
    sending, hearing = asyncio.create_task(client.send()), asyncio.create_task(_hear(table, client, socket))
    try:
        await asyncio.wait([sending, hearing], return_when=asyncio.FIRST_COMPLETED)
    finally:
        table.leave(client)
        for task in (sending, hearing):
            task.cancel()
        _, reason = await asyncio.gather(sending, hearing, return_exceptions=True)
        await client.close(WSCloseCode.POLICY_VIOLATION, reason if isinstance(reason, str) else "")
    return socket


async def _hear(table: Table, client: Client, socket: web.WebSocketResponse) -> str:
    """Pass on what a page asks for; return why it is not listened to any longer."""
    async for message in socket:
        if message.type is not WSMsgType.TEXT:
            return "only text messages are understood"
        if not client.may_speak():
            return "too many messages"
        try:
            asked = read_message(message.data)
        except FramepredError as error:
            return str(error)
        try:
            table.hear(client, asked)
        except FramepredError as error:
            client.tell(kind="error", text=str(error))
    return "the connection has ended"
