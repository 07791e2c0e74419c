"""A load generator that is faster than what it measures: HTTP/1.1 on raw protocols, requests encoded beforehand.

Closed loops: a connection sends its next request when the answer to the last one is complete, never earlier. Where
`wrk` is installed it replaces this one for plain repeated requests; README.md tells how far the two are apart.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from http.client import HTTPConnection
from pathlib import Path
from typing import NamedTuple, Protocol, cast

HOST = "127.0.0.1"


class Request(NamedTuple):
    """What to send; `encoded` is how it goes over the wire."""

    method: str
    path: str
    headers: Mapping[str, str] = {}
    body: str = ""

    def encoded(self) -> bytes:
        lines = [f"{self.method} {self.path} HTTP/1.1", f"host: {HOST}"]
        lines += [f"{name}: {value}" for name, value in self.headers.items()]
        if self.body or self.method != "GET":
            lines.append(f"content-length: {len(self.body.encode())}")
        return "\r\n".join([*lines, "", self.body]).encode()


class Answer(NamedTuple):
    """What came back, cookies as the `Cookie` header that returns them."""

    status: int
    cookies: str
    body: bytes

    def json(self) -> dict[str, object]:
        return json.loads(self.body)


def ask(port: int, request: Request) -> Answer:
    """Send one request and wait: for setting up, not for measuring."""
    connection = HTTPConnection(HOST, port, timeout=60)
    try:
        connection.request(request.method, request.path, request.body or None, {"host": HOST, **request.headers})
        response = connection.getresponse()
        cookies = [line.split(";", 1)[0] for line in response.headers.get_all("set-cookie", [])]
        return Answer(response.status, "; ".join(cookies), response.read())
    finally:
        connection.close()


class Figures(NamedTuple):
    """Good answers a second, latencies in milliseconds, how many answers were good, and how many were not."""

    rate: float
    p50: float
    p99: float
    good: int
    bad: int


# --- what a connection sends -----------------------------------------------------------------------------------------


class Script(Protocol):
    """What one connection says: something first, and something after each answer. None: nothing more."""

    def first(self) -> bytes | None: ...

    def after(self, answer: bytes, body_at: int) -> bytes | None:
        """Give the next request; the answer had status 200 and its body begins at `body_at`."""


class Take:
    """Sends what an iterator gives; connections that share it share the turns."""

    def __init__(self, turns: Iterator[bytes]) -> None:
        self._turns = turns

    def first(self) -> bytes | None:
        return next(self._turns, None)

    def after(self, answer: bytes, body_at: int) -> bytes | None:
        return next(self._turns, None)


class Chain:
    """Sends what the last answer's body makes of it: a refresh presents the token that the one before returned."""

    def __init__(self, start: bytes, follow: Callable[[bytes], bytes]) -> None:
        self._last, self._follow = start, follow

    def first(self) -> bytes:
        return self._last

    def after(self, answer: bytes, body_at: int) -> bytes:
        self._last = self._follow(answer[body_at:])
        return self._last


def repeating(requests: Iterable[Request], connections: int) -> list[Script]:
    """Send the requests in turn, for ever."""
    turns = itertools.cycle([request.encoded() for request in requests])
    return [Take(turns) for _ in range(connections)]


def once(requests: Iterable[Request], connections: int) -> list[Script]:
    """Send each request once."""
    turns = iter([request.encoded() for request in requests])
    return [Take(turns) for _ in range(connections)]


# --- sending it ------------------------------------------------------------------------------------------------------

_LENGTH = re.compile(rb"(?i)\r\ncontent-length: *(\d+)").search
_CHUNKED = re.compile(rb"(?i)\r\ntransfer-encoding: *chunked").search


class _Connection(asyncio.Protocol):
    def __init__(self, script: Script, until: float) -> None:
        self.script, self.until = script, until
        self.latencies: list[float] = []
        self.bad = 0
        self.done = asyncio.get_running_loop().create_future()
        self.received = b""
        self.sent_at = 0.0
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)

    def send(self, request: bytes | None) -> None:
        if request is None:
            self.finish()
            return
        self.sent_at = time.perf_counter()
        self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        if self.received:
            data = self.received + data
        head = data.find(b"\r\n\r\n")
        if head < 0:
            self.received = data
            return
        length = _LENGTH(data, 0, head)
        if length is None and _CHUNKED(data, 0, head):
            self.finish(RuntimeError("a chunked answer: this generator wants a content-length"))
            return
        if len(data) < head + 4 + (int(length[1]) if length else 0):
            self.received = data
            return
        self.received = b""
        now = time.perf_counter()
        if now >= self.until:
            self.finish()
            return
        if data.startswith((b"200", b"204"), 9):
            self.latencies.append(now - self.sent_at)
            following = self.script.after(data, head + 4)
        else:
            self.bad += 1
            following = self.script.first()
        self.send(following)

    def finish(self, failure: Exception | None = None) -> None:
        self.transport.close()
        if self.done.done():
            return
        if failure:
            self.done.set_exception(failure)
        else:
            self.done.set_result(None)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self.bad += 1  # the server hung up on a request
            self.done.set_result(None)


async def drive(port: int, scripts: Sequence[Script], seconds: float) -> Figures:
    """Run every script on a connection of its own, for so long at most; what is under way then is still answered."""
    loop = asyncio.get_running_loop()
    until = time.perf_counter() + seconds
    connections = [
        (await loop.create_connection(lambda s=script: _Connection(s, until), HOST, port))[1] for script in scripts
    ]
    for connection in connections:
        connection.send(connection.script.first())
    started_at = until - seconds
    await asyncio.wait_for(asyncio.gather(*(connection.done for connection in connections)), seconds + 30)
    latencies = sorted(itertools.chain.from_iterable(connection.latencies for connection in connections))
    bad = sum(connection.bad for connection in connections)
    if not latencies:
        return Figures(0.0, float("nan"), float("nan"), 0, bad or 1)
    lasted = min(time.perf_counter() - started_at, seconds)
    return Figures(len(latencies) / lasted, _at(latencies, 0.5), _at(latencies, 0.99), len(latencies), bad)


def _at(ordered: Sequence[float], part: float) -> float:
    return ordered[min(int(len(ordered) * part), len(ordered) - 1)] * 1000


# --- wrk -------------------------------------------------------------------------------------------------------------

_UNIT = {"us": 0.001, "ms": 1.0, "s": 1000.0}
_LUA = """\
local requests, turn = %s, 0
request = function()
  turn = turn %% #requests + 1
  return requests[turn]
end
"""


async def wrk(port: int, requests: Sequence[Request], connections: int, seconds: float) -> Figures:
    """Send the requests in turn with the program of this name."""
    encoded = ", ".join(_lua_text(request.encoded().decode()) for request in requests)
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder, "requests.lua")
        script.write_text(_LUA % f"{{{encoded}}}")
        process = await asyncio.create_subprocess_exec(
            *("wrk", "-t1", f"-c{connections}", f"-d{max(1, round(seconds))}s", "--latency", "-s", str(script)),
            f"http://{HOST}:{port}/",
            stdout=asyncio.subprocess.PIPE,
        )
        printed = (await process.communicate())[0].decode()
    rate = re.search(r"Requests/sec:\s+([\d.]+)", printed)
    total = re.search(r"(\d+) requests in", printed)
    refused = re.search(r"Non-2xx or 3xx responses: (\d+)", printed)
    broken = re.search(r"Socket errors: connect (\d+), read (\d+), write (\d+), timeout (\d+)", printed)
    bad = (int(refused[1]) if refused else 0) + (sum(map(int, broken.groups())) if broken else 0)
    answers = int(total[1]) if total else 0
    return Figures(
        float(rate[1]) if rate else 0.0, _latency(printed, "50"), _latency(printed, "99"), answers - bad, bad
    )


def _lua_text(text: str) -> str:
    return json.dumps(text).replace("\\/", "/")


def _latency(printed: str, percentile: str) -> float:
    found = re.search(rf"{percentile}%\s+([\d.]+)(us|ms|s)", printed)
    return float(found[1]) * _UNIT[found[2]] if found else float("nan")


# --- the two as one --------------------------------------------------------------------------------------------------


class Generator:
    """Plain repeated requests by wrk where `use_wrk`, everything else by the protocols above."""

    def __init__(self, *, use_wrk: bool) -> None:
        self.name = "wrk" if use_wrk else "own"
        self._use_wrk = use_wrk

    @classmethod
    def chosen(cls, name: str) -> Generator:
        """Choose by name: `wrk`, `own`, or `auto` for wrk if it is there."""
        return cls(use_wrk=name == "wrk" or (name == "auto" and shutil.which("wrk") is not None))

    async def repeat(self, port: int, requests: Sequence[Request], connections: int, seconds: float) -> Figures:
        if self._use_wrk:
            return await wrk(port, requests, connections, seconds)
        return await drive(port, repeating(requests, connections), seconds)
