"""A client that speaks raw HTTP to a cluster, and the history of the answers."""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import time
from collections.abc import Iterable
from typing import Any, Literal, NamedTuple

HOST = "auth.example.com"
PATIENCE = 30.0
"""Seconds in which any answer comes, or the server hangs."""

Result = Literal["ok", "fail", "unknown"]


class Answer(NamedTuple):
    status: int
    headers: list[tuple[str, str]]
    raw: bytes
    size: int
    """Bytes of the whole answer."""

    @property
    def json(self) -> Any:
        return json.loads(self.raw) if self.raw else None

    def header(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key == name), None)

    @property
    def cookies(self) -> dict[str, str]:
        """The cookies that are set; an empty value is one that is cleared."""
        pairs = (value.partition(";")[0].partition("=") for key, value in self.headers if key == "set-cookie")
        return {name: value for name, _, value in pairs}


class Operation(NamedTuple):
    """One request and what became of it. `unknown` may have happened or not."""

    name: str
    about: str
    began: float
    ended: float
    result: Result
    status: int
    """0: no answer."""
    node: int = -1


class History:
    """Operations, with their times on one clock."""

    def __init__(self) -> None:
        self.operations: list[Operation] = []

    def add(self, operation: Operation) -> None:
        self.operations.append(operation)

    def named(self, *names: str) -> list[Operation]:
        return [each for each in self.operations if each.name in names]

    def accepted_after(self, ends: Iterable[str], uses: Iterable[str]) -> list[tuple[Operation, Operation]]:
        """I-01: each use that began after an end of the same thing was acknowledged, and was accepted all the same."""
        uses = set(uses)
        ended: dict[str, Operation] = {}
        for each in sorted(self.named(*ends), key=lambda each: each.ended):
            if each.result == "ok":
                ended.setdefault(each.about, each)
        return [
            (ended[each.about], each)
            for each in self.operations
            if each.name in uses
            and each.result == "ok"
            and each.about in ended
            and each.began > ended[each.about].ended
        ]

    def without_service(self, *names: str) -> float:
        """The longest time in seconds between two operations that were served, both ends included."""
        served = sorted((each.began, each.ended) for each in self.named(*names) if each.result == "ok")
        return max((later[1] - earlier[1] for earlier, later in itertools.pairwise(served)), default=0.0)


def result_of(status: int) -> Result:
    """What an answer says happened. A 503 to a write may come after the write."""
    if 200 <= status < 300:
        return "ok"
    return "unknown" if status == 503 else "fail"


class Wire:
    """One connection to one port, opened when it is needed and again after it broke."""

    def __init__(
        self, port: int, *, node: int = -1, patience: float = PATIENCE, public: str = f"https://{HOST}"
    ) -> None:
        self.port, self.node, self.patience = port, node, patience
        self.scheme, _, self.host = public.partition("://")
        self.address = f"10.{random.randrange(256)}.{random.randrange(256)}.{random.randrange(1, 255)}"
        """An address of its own, as the proxy in front would tell it."""
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def send(
        self,
        method: str,
        path: str,
        body: Any = None,
        *,
        bearer: str = "",
        cookie: str = "",
        form: str | None = None,
        headers: Iterable[tuple[str, str]] = (),
    ) -> Answer:
        """Send one request once. Raises `OSError`, `EOFError` or `TimeoutError` where no whole answer came."""
        content, typed = b"", ""
        if form is not None:
            content, typed = form.encode(), "application/x-www-form-urlencoded"
        elif body is not None:
            content, typed = json.dumps(body).encode(), "application/json"
        lines = [
            f"{method} {path} HTTP/1.1",
            f"Host: {self.host}",
            f"X-Forwarded-Proto: {self.scheme}",
            f"X-Forwarded-For: {self.address}",
            f"Content-Length: {len(content)}",
        ]
        if typed:
            lines.append(f"Content-Type: {typed}")
        if bearer:
            lines.append(f"Authorization: Bearer {bearer}")
        if cookie:
            lines.append(f"Cookie: {cookie}")
        lines += [f"{name}: {value}" for name, value in headers]
        try:
            async with asyncio.timeout(self.patience):
                if self._streams is None:
                    self._streams = await asyncio.open_connection("127.0.0.1", self.port)
                reader, writer = self._streams
                writer.write("\r\n".join([*lines, "", ""]).encode() + content)
                return await _read(reader, self)
        except BaseException:
            self.close()
            raise

    async def served(self, method: str, path: str, body: Any = None, **more: Any) -> Answer:
        """Send a request until the answer is no 503: a busy machine's database may take more than the second that it
        has, and a client comes again when it is asked to.
        """
        async with asyncio.timeout(60):
            while (answer := await self.send(method, path, body, **more)).status == 503:
                await asyncio.sleep(0.1)
            return answer

    async def once_more(self, method: str, path: str, body: Any = None, **more: Any) -> Answer:
        """Send a request, and once more on a new connection if there was no answer: what every client should do."""
        try:
            return await self.send(method, path, body, **more)
        except (OSError, EOFError):
            return await self.send(method, path, body, **more)

    async def noted(
        self, history: History, name: str, about: str, method: str, path: str, body: Any = None, **more: Any
    ) -> Answer | None:
        """Send a request once, and write down what became of it. None: no answer."""
        began = time.monotonic()
        try:
            answer = await self.send(method, path, body, **more)
        except (OSError, EOFError, TimeoutError):
            history.add(Operation(name, about, began, time.monotonic(), "unknown", 0, self.node))
            return None
        history.add(Operation(name, about, began, time.monotonic(), result_of(answer.status), answer.status, self.node))
        return answer

    def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None


async def _read(reader: asyncio.StreamReader, wire: Wire) -> Answer:
    head = await reader.readuntil(b"\r\n\r\n")
    lines = head.decode("latin-1").split("\r\n")
    headers = [(name.lower(), value) for name, _, value in (line.partition(": ") for line in lines[1:] if line)]
    length = next((int(value) for name, value in headers if name == "content-length"), 0)
    raw = await reader.readexactly(length)
    if ("connection", "close") in headers:
        wire.close()
    return Answer(int(lines[0].split()[1]), headers, raw, len(head) + length)
