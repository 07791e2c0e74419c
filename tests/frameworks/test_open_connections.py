"""Connections that stay open while nothing passes, or while their client reads nothing, and what ends them."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx2
import pytest
import uvicorn
from starlette.applications import Starlette
from starlette.background import BackgroundTask
from starlette.requests import Request
from starlette.responses import StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

from dutchdoor.credentials.password import CHEAPEST, PasswordHasher
from dutchdoor.guard import asgi_connections
from dutchdoor.starlette import Auth

WHO = {"email": "ada@example.com", "password": "a door in two halves"}
PIECE = b"x" * 65_536
ENDS_WITHIN = 60.0
"""Seconds: less than the time after which every connection is looked at anyway, here."""


async def _socket(websocket: WebSocket) -> None:
    await websocket.accept()
    with contextlib.suppress(WebSocketDisconnect):
        await websocket.receive_text()


async def _flood(request: Request) -> StreamingResponse:
    async def pieces() -> AsyncIterator[bytes]:
        while True:
            yield PIECE

    return StreamingResponse(pieces())


async def _first_is_late(request: Request) -> StreamingResponse:
    async def pieces() -> AsyncIterator[bytes]:
        request.app.state.waits.set()
        await asyncio.to_thread(request.app.state.goes_on.wait, 60)
        yield b"news"

    return StreamingResponse(pieces())


async def _works_on(request: Request) -> StreamingResponse:
    async def pieces() -> AsyncIterator[bytes]:
        yield b"one"
        yield b"two"

    def work() -> None:
        request.app.state.waits.set()
        request.app.state.goes_on.wait(60)

    return StreamingResponse(pieces(), background=BackgroundTask(work))


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """A server in a thread of this process: its `url`, and the application's `state`."""
    monkeypatch.setattr(asgi_connections, "LOOKS_AT_ALL_EVERY", 10 * ENDS_WITHIN)
    app = Starlette()
    auth = Auth(app, f"sqlite:///{tmp_path}/app.db", hasher=PasswordHasher(CHEAPEST))
    app.router.routes += [
        WebSocketRoute("/socket", auth.require()(_socket)),
        *(Route(f"/{each.__name__}", auth.require()(each)) for each in (_flood, _first_is_late, _works_on)),
    ]
    app.state.waits, app.state.goes_on = threading.Event(), threading.Event()
    server = uvicorn.Server(uvicorn.Config(app, port=0, log_level="warning", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        time.sleep(0.01)
    app.state.url = f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    app.state.clients = []
    yield app.state
    for client in app.state.clients:
        client.close()
    app.state.goes_on.set()
    server.should_exit = True
    thread.join()


class Browser:
    """Someone who is signed in."""

    def __init__(self, site: Any) -> None:
        self.url, self.client = site.url, httpx2.Client(base_url=site.url)
        site.clients.append(self.client)
        self.client.post("/auth/register", json=WHO)
        self.csrf = self.client.post("/auth/login", json={**WHO, "mode": "session"}).json()["csrf_token"]
        self.cookies = "; ".join(f"{name}={value}" for name, value in self.client.cookies.items())

    def log_out(self) -> None:
        with httpx2.Client(base_url=self.url, headers={"cookie": self.cookies, "x-csrf-token": self.csrf}) as other:
            assert other.post("/auth/logout").json()["fenced"]

    def socket(self) -> Any:
        address = f"{self.url.replace('http', 'ws', 1)}/socket"
        return connect(address, additional_headers={"cookie": self.cookies}, origin=self.url)  # type: ignore[arg-type]


def ends(opened: Any) -> None:
    with pytest.raises(ConnectionClosed) as closed:
        opened.recv(timeout=ENDS_WITHIN)
    assert closed.value.rcvd is not None and closed.value.rcvd.code == 4401


def test_a_socket_ends_over_which_nothing_ever_passed(site: Any) -> None:
    """A WebSocket that has waited since it was opened closes when its session ends."""
    ada = Browser(site)
    with ada.socket() as opened:
        ada.log_out()
        ends(opened)


def test_a_client_that_reads_nothing_keeps_no_other_open(site: Any) -> None:
    """Someone who opens a stream, reads none of it and signs out keeps only their own connection."""
    stalled, other = Browser(site), Browser(site)
    host, port = site.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as raw, other.socket() as opened:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        raw.sendall(f"GET /_flood HTTP/1.1\r\nhost: {host}\r\ncookie: {stalled.cookies}\r\n\r\n".encode())
        raw.recv(100)
        time.sleep(0.3)  # the server's buffers fill, and its writes wait
        stalled.log_out()
        time.sleep(0.6)  # the watch meets the stalled client first
        other.log_out()
        ends(opened)


def test_the_first_piece_of_a_stream_is_checked(site: Any) -> None:
    """A stream that waits for its first news delivers none that comes after the log-out."""
    ada = Browser(site)
    got: list[bytes] = []

    def read() -> None:
        with (
            contextlib.suppress(httpx2.TransportError),
            ada.client.stream("GET", "/_first_is_late") as response,
        ):
            got.extend(response.iter_raw())

    reading = threading.Thread(target=read)
    reading.start()
    site.waits.wait(60)
    ada.log_out()
    site.goes_on.set()
    reading.join()
    assert b"".join(got) == b""


def test_a_task_in_the_background_is_no_open_connection(site: Any, caplog: pytest.LogCaptureFixture) -> None:
    """Where a task goes on after the response was sent, the end of its session sends nothing more, and no other
    connection waits for it.
    """
    ada, other = Browser(site), Browser(site)
    with other.socket() as opened:
        assert ada.client.get("/_works_on").text == "onetwo"
        site.waits.wait(60)
        ada.log_out()
        other.log_out()
        ends(opened)
    assert not [record for record in caplog.records if record.exc_info]
