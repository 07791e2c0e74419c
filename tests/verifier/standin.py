"""An authority to follow: the real fencing, node and keys, behind a small HTTP server that can misbehave in every way.

It runs in a thread of its own, on loopback. `misbehave` takes over what is answered under a path.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import threading
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import parse_qs

import msgspec
import pytest

import dutchdoor.verifier
from dutchdoor.errors import InvalidToken
from dutchdoor.jose.access_token import AccessTokenIssuer, AccessTokenVerifier
from dutchdoor.jose.jwk import Key, KeySet
from dutchdoor.model.ids import new_id
from dutchdoor.revocation.fence import Fence
from dutchdoor.revocation.lease import Terms
from dutchdoor.revocation.log import FOR_EVER, Kind, Revocation
from dutchdoor.revocation.messages import Poll
from dutchdoor.services.fencing import Fencing
from dutchdoor.stores.base import Revoke
from dutchdoor.stores.sqlite import SqliteStore

T = TypeVar("T")
Misbehaviour = Callable[[bytes, asyncio.StreamWriter], Awaitable[None]]

JWKS, POLL, ASK = "/.well-known/jwks.json", "/auth/revocations/poll", "/oauth2/introspect"


def response(body: bytes, status: int = 200, *headers: str) -> bytes:
    lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(body)}", "Content-Type: application/json", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


def says(raw: bytes) -> Misbehaviour:
    """Answer with exactly this."""

    async def say(_body: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(raw)
        await writer.drain()

    return say


def says_and_closes(raw: bytes) -> Misbehaviour:
    """Answer with exactly this, and close the connection."""

    async def say(_body: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(raw)
        await writer.drain()
        writer.close()

    return say


async def hangs(_body: bytes, writer: asyncio.StreamWriter) -> None:
    """Answer nothing."""
    await asyncio.sleep(600)


async def drips(_body: bytes, writer: asyncio.StreamWriter) -> None:
    """Answer one byte at a time, and never all."""
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
    while True:
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(0.05)


async def hangs_up(_body: bytes, writer: asyncio.StreamWriter) -> None:
    """Close the connection."""
    writer.close()


class Standin:
    """One authority. `issuer` is where it is."""

    def __init__(
        self, folder: Path, *, lease_for: float = 60.0, port: int = 0, tls: ssl.SSLContext | None = None
    ) -> None:
        self.lease_for, self.port, self.tls = lease_for, port, tls
        self.keys = [Key.generate("ES256")]
        self.asked: Counter[str] = Counter()
        self.headers: list[dict[str, str]] = []
        self.misbehaviours: dict[str, Misbehaviour] = {}
        self.connections: set[asyncio.StreamWriter] = set()
        self.accepted = 0
        self.tasks: set[asyncio.Task[None]] = set()
        self.store = SqliteStore(folder / "standin.db")
        self.polls: list[Poll] = []

    @property
    def issuer(self) -> str:
        return f"http://127.0.0.1:{self.port}" if self.tls is None else f"https://localhost:{self.port}"

    # Its life

    def start(self) -> None:
        self.loop = asyncio.new_event_loop()
        ready = threading.Event()
        self.thread = threading.Thread(target=self._run, args=(ready,), daemon=True)
        self.thread.start()
        assert ready.wait(60)

    def _run(self, ready: threading.Event) -> None:
        with contextlib.closing(self.loop):
            self.loop.run_until_complete(self._open())
            ready.set()
            self.loop.run_forever()
            self.loop.run_until_complete(self._close())

    async def _open(self) -> None:
        self.fencing = Fencing(self.store, terms=Terms(lease_for=self.lease_for))
        await self.store.open()
        await self.fencing.open()
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", self.port, ssl=self.tls)
        self.port = self.server.sockets[0].getsockname()[1]

    async def _close(self) -> None:
        self.server.close()
        for task in self.tasks:
            task.cancel()
        for writer in self.connections:
            writer.transport.abort()
        await asyncio.gather(*self.tasks, return_exceptions=True)
        await self.fencing.close()
        await self.store.close()

    def stop(self) -> None:
        """End like a killed process: no other process is notified. `start` begins another life on its store."""
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(60)
        assert not self.thread.is_alive()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(90)

    # What it can do

    def token(self, *, key: Key | None = None, lifetime: float = 600.0, audience: str = "api", **more: Any) -> str:
        said: dict[str, Any] = {
            "subject": "ada", "client_id": "app", "epoch": 1, "amr": ("pwd",), "roles": ("user",),
            "session_id": new_id(),
        }  # fmt: skip
        issue = AccessTokenIssuer(issuer=more.pop("issuer", self.issuer), audience=audience)
        return issue(key=key or self.keys[0], now=more.pop("now", time.time()), lifetime=lifetime, **(said | more))

    def revoke(self, kind: Kind, id: str, *, min_epoch: int = 0, wait: float = 60.0) -> Fence:
        """End something, and wait for its fence."""

        async def end() -> Fence:
            expires_at = FOR_EVER if kind == "key" else time.time() + 3600
            entry = Revocation(kind=kind, id=id, min_epoch=min_epoch, expires_at=expires_at)
            return await self.fencing.fence(await self.store.commit(Revoke(entry)), wait=wait)

        return self.run(end())

    def misbehave(self, path: str, how: Misbehaviour | None) -> None:
        """Answer what is asked under a path like this from now on; None: behave again. Connections are cut, so that it
        begins at once.
        """
        if how is None:
            self.misbehaviours.pop(path, None)
        else:
            self.misbehaviours[path] = how
        self.cut()

    def restore(self) -> None:
        """Begin another log epoch, as an operator does after restoring a backup."""
        self.run(self.store.begin_log_epoch(time.time()))

    def cut(self) -> None:
        """Break every connection."""

        async def break_all() -> None:
            for writer in list(self.connections):
                writer.transport.abort()

        self.run(break_all())

    # HTTP

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.tasks.add(task)
        self.connections.add(writer)
        self.accepted += 1
        try:
            while not writer.is_closing():
                head = await reader.readuntil(b"\r\n\r\n")
                first, *lines = head.decode("latin-1").split("\r\n")
                headers = {name.lower(): value.strip() for name, _, value in (x.partition(":") for x in lines if x)}
                body = await reader.readexactly(int(headers.get("content-length", "0")))
                path = first.split(" ")[1]
                self.asked[path] += 1
                self.headers.append(headers)
                how = self.misbehaviours.get(path)
                if how is not None:
                    await how(body, writer)
                else:
                    writer.write(response(await self._answer(path, body)))
                    await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self.tasks.discard(task)
            self.connections.discard(writer)
            writer.transport.abort()

    async def _answer(self, path: str, body: bytes) -> bytes:
        match path:
            case "/.well-known/jwks.json":
                return msgspec.json.encode({"keys": [key.public_jwk() for key in self.keys]})
            case "/auth/revocations/poll":
                poll = msgspec.json.decode(body, type=Poll)
                self.polls.append(poll)
                return msgspec.json.encode(await self.fencing.poll(poll, credential="tests"))
            case "/oauth2/introspect":
                token = parse_qs(body.decode())["token"][0]
                await self.fencing.follow()
                try:
                    verifier = AccessTokenVerifier(keys=KeySet(self.keys), issuer=self.issuer, audience="api")
                    claims = verifier.verify(token, time.time())
                    active = self.fencing.log.covering_token(claims) is None
                except InvalidToken:
                    active = False
                return msgspec.json.encode({"active": active})
        raise AssertionError(path)


@contextlib.contextmanager
def standing(folder: Path, **how: Any) -> Iterator[Standin]:
    authority = Standin(folder, **how)
    authority.start()
    try:
        yield authority
    finally:
        authority.stop()


def stand_still(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no time pass for this process's verifiers: a lease of two seconds is soon over on a busy machine."""
    for module, name in ((dutchdoor.verifier, "elapsed"), (time, "time")):
        monkeypatch.setattr(module, name, partial(float, getattr(module, name)()))


def until(condition: Callable[[], object], seconds: float = 60.0) -> None:
    """Wait for a condition. It is asked often, and fails when it does not come true in time."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it did not come true"
        time.sleep(0.005)
