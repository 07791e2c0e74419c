"""Asks an application in its own process, without a network, and says how much processor time that took.

A program describes one contender: an application without and with authentication, and how people sign in. Then it reads
lines such as `cookie 500`, and answers each with the microseconds of processor time that one of 500 requests took, all
threads counted: to the route with authentication, and to the same route without. It needs nothing but Python, because
each contender has an environment of its own.
"""

from __future__ import annotations

import asyncio
import io
import json
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextlib import asynccontextmanager
from typing import Any, NamedTuple
from urllib.parse import urlencode

Headers = Mapping[str, str]

SESSIONS = 16
"""Sign-ins that take turns, so that no system profits from one that is always the same."""
GIVEN = (200, 201, 204)
SENT = {
    "host": "localhost:8000",
    "user-agent": "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0",
    "accept": "application/json",
    "accept-language": "en-US,en;q=0.5",
    "accept-encoding": "gzip, deflate, br",
}
"""What a browser's script sends with every request."""


class Answer(NamedTuple):
    """What an application answered."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)

    def cookie(self) -> Headers:
        """The header that sends its cookies back."""
        pairs = [value.partition(";")[0].strip() for name, value in self.headers if name.lower() == "set-cookie"]
        return {"cookie": "; ".join(pair for pair in pairs if not pair.endswith("="))}


class SignIn(NamedTuple):
    """How a client gets a proof, and where it uses it."""

    path: str
    content: Mapping[str, str]
    proof: Callable[[Answer], Headers]
    me: str = "/me"
    bare: str = "/me"
    """The same route without authentication."""
    form: bool = False

    def sent(self) -> tuple[Headers, bytes]:
        if self.form:
            kind, content = "application/x-www-form-urlencoded", urlencode(self.content).encode()
        else:
            kind, content = "application/json", json.dumps(self.content).encode()
        return {**SENT, "content-type": kind, "content-length": str(len(content))}, content


def bearer(field: str) -> Callable[[Answer], Headers]:
    """Return what reads the token in this field of an answer."""
    return lambda answer: {"authorization": f"Bearer {answer.json()[field]}"}


def check(answer: Answer, what: str, *expected: int) -> Answer:
    """Let an answer pass if it has one of these statuses. What is measured must be what was meant."""
    if answer.status not in (expected or GIVEN):
        raise SystemExit(f"{what}: {answer.status} {answer.body[:300]!r}")
    return answer


def say(text: object) -> None:
    """Answer the one who started this: a line that no log looks like."""
    print(f"= {text}", flush=True)


# --- ASGI ------------------------------------------------------------------------------------------------------------


def serve_asgi(bare: Any, app: Any, ways: Mapping[str, SignIn], register: SignIn | None = None) -> None:
    """Measure ASGI applications until the input ends.

    Args:
        bare: answers the same path without authentication.
        app: what is measured.
        ways: how to sign in, by the name of the measurement.
        register: what to send first, once.
    """
    from uvloop import run  # noqa: PLC0415 - what servers use; Flask and Django do without

    run(_serve_asgi(bare, app, ways, register))


async def _serve_asgi(bare: Any, app: Any, ways: Mapping[str, SignIn], register: SignIn | None) -> None:
    async with _living(bare), _living(app):
        scopes = await _signed_in(bare, app, ways, register)
        say("ready")
        while line := await asyncio.to_thread(sys.stdin.readline):
            name, count = line.split()
            with_it, without = [await _timed(*each, int(count)) for each in scopes[name]]
            say(f"{with_it} {without}")


async def _signed_in(
    bare: Any, app: Any, ways: Mapping[str, SignIn], register: SignIn | None
) -> dict[str, list[tuple[Any, list[dict[str, Any]]]]]:
    """Return what to ask for each measurement, with and without authentication; once every proof was accepted, and its
    absence refused.
    """
    if register is not None:
        headers, body = register.sent()
        check(await _ask(app, _scope("POST", register.path, headers), body), register.path)
    scopes: dict[str, list[tuple[Any, list[dict[str, Any]]]]] = {}
    for name, way in ways.items():
        check(await _ask(app, _scope("GET", way.me, SENT)), f"{name}, without a proof", 401, 403)
        proofs = []
        for _ in range(SESSIONS):
            headers, body = way.sent()
            proofs.append(way.proof(check(await _ask(app, _scope("POST", way.path, headers), body), way.path)))
        # The route without authentication gets the same bytes.
        scopes[name] = [
            (asked, [_scope("GET", path, {**SENT, **proof}) for proof in proofs])
            for asked, path in ((app, way.me), (bare, way.bare))
        ]
        for asked, some in scopes[name]:
            for scope in some:
                check(await _ask(asked, scope), name)
    return scopes


def _scope(method: str, path: str, headers: Headers) -> dict[str, Any]:
    return {
        "type": "http", "asgi": {"version": "3.0", "spec_version": "2.3"}, "http_version": "1.1", "method": method,
        "scheme": "http", "path": path, "raw_path": path.encode(), "query_string": b"", "root_path": "",
        "headers": [(name.encode(), value.encode()) for name, value in headers.items()],
        "client": ("127.0.0.1", 50000), "server": ("127.0.0.1", 8000), "state": {},
    }  # fmt: skip


async def _ask(app: Any, scope: dict[str, Any], content: bytes = b"") -> Answer:
    status, headers, body = 0, [], b""

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": content, "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        nonlocal status, headers, body
        if message["type"] == "http.response.start":
            status, headers = message["status"], message.get("headers", [])
        else:
            body += message.get("body", b"")

    await app(_fresh(scope), receive, send)
    return Answer(status, [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers], body)


def _fresh(scope: dict[str, Any]) -> dict[str, Any]:
    return {**scope, "headers": list(scope["headers"]), "state": {}}


async def _timed(app: Any, scopes: list[dict[str, Any]], count: int) -> float:
    bad = 0

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: dict[str, Any]) -> None:
        nonlocal bad
        if message["type"] == "http.response.start":
            bad += message["status"] != 200

    started = time.process_time()
    for number in range(count):
        await app(_fresh(scopes[number % len(scopes)]), receive, send)
    taken = time.process_time() - started
    if bad:
        raise SystemExit(f"{bad} of {count} requests were refused")
    return taken / count * 1e6


@asynccontextmanager
async def _living(app: Any) -> AsyncIterator[None]:
    """Start an application, and stop it afterwards."""
    started, stopping = asyncio.Event(), asyncio.Event()
    unread = iter(["lifespan.startup"])

    async def receive() -> dict[str, Any]:
        for kind in unread:
            return {"type": kind}
        await stopping.wait()
        return {"type": "lifespan.shutdown"}

    async def send(message: dict[str, Any]) -> None:
        if message["type"].endswith(".failed"):
            raise SystemExit(f"the application did not start: {message}")
        started.set()

    running = asyncio.ensure_future(app({"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}, receive, send))
    await started.wait()
    yield
    stopping.set()
    await running


# --- WSGI ------------------------------------------------------------------------------------------------------------


def serve_wsgi(bare: Any, app: Any, ways: Mapping[str, SignIn], register: SignIn | None = None) -> None:
    """Measure WSGI applications until the input ends. The arguments are those of `serve_asgi`."""
    if register is not None:
        headers, body = register.sent()
        check(_call(app, _environ("POST", register.path, headers), body), register.path)
    environs: dict[str, list[tuple[Any, list[dict[str, Any]]]]] = {}
    for name, way in ways.items():
        check(_call(app, _environ("GET", way.me, SENT)), f"{name}, without a proof", 401, 403)
        proofs = []
        for _ in range(SESSIONS):
            headers, body = way.sent()
            proofs.append(way.proof(check(_call(app, _environ("POST", way.path, headers), body), way.path)))
        environs[name] = [
            (asked, [_environ("GET", path, {**SENT, **proof}) for proof in proofs])
            for asked, path in ((app, way.me), (bare, way.bare))
        ]
        for asked, some in environs[name]:
            for environ in some:
                check(_call(asked, environ), name)
    say("ready")
    for line in sys.stdin:
        name, count = line.split()
        with_it, without = [_timed_calls(*each, int(count)) for each in environs[name]]
        say(f"{with_it} {without}")


def _environ(method: str, path: str, headers: Headers) -> dict[str, Any]:
    environ: dict[str, Any] = {
        "REQUEST_METHOD": method, "SCRIPT_NAME": "", "PATH_INFO": path, "QUERY_STRING": "", "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": "8000", "SERVER_PROTOCOL": "HTTP/1.1", "REMOTE_ADDR": "127.0.0.1", "REMOTE_PORT": "50000",
        "wsgi.version": (1, 0), "wsgi.url_scheme": "http", "wsgi.errors": sys.stderr, "wsgi.multithread": True,
        "wsgi.multiprocess": False, "wsgi.run_once": False,
    }  # fmt: skip
    for name, value in headers.items():
        key = name.upper().replace("-", "_")
        environ[key if key in {"CONTENT_TYPE", "CONTENT_LENGTH"} else f"HTTP_{key}"] = value
    return environ


def _call(app: Any, environ: dict[str, Any], content: bytes = b"") -> Answer:
    sent: list[Any] = []

    def start_response(status: str, headers: list[tuple[str, str]], _: object = None) -> None:
        sent[:] = [int(status.split(maxsplit=1)[0]), headers]

    body = _read(app({**environ, "wsgi.input": io.BytesIO(content)}, start_response))
    return Answer(sent[0], sent[1], body)


def _read(pieces: Iterable[bytes]) -> bytes:
    try:
        return b"".join(pieces)
    finally:
        close = getattr(pieces, "close", None)
        if close is not None:
            close()


def _timed_calls(app: Any, environs: list[dict[str, Any]], count: int) -> float:
    bad = 0

    def start_response(status: str, _headers: object, _: object = None) -> None:
        nonlocal bad
        bad += not status.startswith("200")

    started = time.process_time()
    for number in range(count):
        _read(app({**environs[number % len(environs)], "wsgi.input": io.BytesIO()}, start_response))
    taken = time.process_time() - started
    if bad:
        raise SystemExit(f"{bad} of {count} requests were refused")
    return taken / count * 1e6
