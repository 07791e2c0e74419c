"""The guard of a WSGI application: the request in an environ, the engine's own paths, answered by its thread, and
streams that end with their session.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Callable, Iterable, Iterator
from http.client import responses
from typing import Any, Final, TypeVar

from dutchdoor.errors import DutchdoorError, Misconfigured
from dutchdoor.guard.gates import AsgiApp, Message, Scope
from dutchdoor.guard.threads import SyncGate
from dutchdoor.web.http import Header, Request
from dutchdoor.web.problems import problem

__all__ = ["answered", "engine_around", "request_in", "while_valid"]

Environ = dict[str, Any]
StartResponse = Callable[..., Any]
T = TypeVar("T")
WsgiApp = Callable[[Environ, StartResponse], Iterable[bytes]]

READ_AT_MOST: Final = 1 << 20
"""Bytes of a body that are read for the engine. Its own limits are far below."""


def request_in(environ: Environ) -> Request:
    """Return the request of an environ (PEP 3333). Raises `Misconfigured` for something else."""
    if "REQUEST_METHOD" not in environ:
        raise Misconfigured("This is not a WSGI request. An ASGI server runs this application, or a wrapper hides it.")
    return Request(
        environ["REQUEST_METHOD"],
        _decoded(environ.get("PATH_INFO", "")) or "/",
        environ.get("QUERY_STRING", "").encode("latin-1"),
        list(_headers(environ)),
        environ.get("REMOTE_ADDR", ""),
        environ.get("wsgi.url_scheme", "http"),
        port=int(port) if (port := environ.get("SERVER_PORT", "")).isdigit() else None,
    )


def _headers(environ: Environ) -> Iterator[Header]:
    for key, value in environ.items():
        if key.startswith("HTTP_"):
            yield key[5:].replace("_", "-").lower().encode("latin-1"), value.encode("latin-1")
        elif key in {"CONTENT_TYPE", "CONTENT_LENGTH"} and value:
            yield key.replace("_", "-").lower().encode(), value.encode("latin-1")


def _decoded(text: str) -> str:
    return text.encode("latin-1").decode("utf-8", "replace")


def engine_around(app: WsgiApp, gate: SyncGate) -> WsgiApp:
    """Return an application that answers the engine's paths, and leaves all others to `app`."""
    if gate.gate.application is None:
        return app

    def answering(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        engine = gate.gate.application
        if engine is None or not gate.gate.owns(
            _decoded(environ.get("PATH_INFO", "")), _decoded(environ.get("SCRIPT_NAME", ""))
        ):
            return app(environ, start_response)
        try:
            status, headers, body = gate.run(
                answered(engine, request_in(environ), _body(environ), _decoded(environ.get("SCRIPT_NAME", "")))
            )
        except Misconfigured:
            raise
        except DutchdoorError as error:  # the store is out of reach at the first request
            answer = problem(error)
            status, headers, body = answer.status, answer.headers, answer.body
        start_response(
            f"{status} {responses.get(status, '')}",
            [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers],
        )
        return [body]

    return answering


def while_valid(pieces: Iterable[T], check: Callable[[], None], *, is_bounded: bool) -> Iterator[T]:
    """Pass on the pieces of a response, each only if the proof that asked for them still holds.

    Args:
        pieces: what the application sends.
        check: raises if the proof does not hold any more.
        is_bounded: whether the length of the whole was announced.

    Raises:
        BrokenPipeError: the proof was revoked, and a client would wait for the rest: the server must hang up.
    """
    try:
        for piece in pieces:
            try:
                check()
            except DutchdoorError as error:
                if is_bounded:
                    raise BrokenPipeError(errno.EPIPE, "the session has ended") from error
                return
            yield piece
    finally:
        close = getattr(pieces, "close", None)
        if close is not None:
            close()


def _body(environ: Environ) -> bytes:
    length = environ.get("CONTENT_LENGTH") or "0"
    if length.isdigit() and int(length) == 0 and not environ.get("wsgi.input_terminated"):
        return b""
    at_most = min(int(length), READ_AT_MOST) if length.isdigit() and int(length) else READ_AT_MOST
    body: bytes = environ["wsgi.input"].read(at_most)
    return body


async def answered(
    engine: AsgiApp, asked: Request, body: bytes, root_path: str = ""
) -> tuple[int, list[Header], bytes]:
    """Pass a request through the engine's ASGI application. Returns the status, the headers and the body. `root_path`
    is where the application is mounted.
    """
    scope: Scope = {
        "type": "http",
        "method": asked.method,
        "path": asked.path,
        "query_string": asked.query,
        "headers": asked.headers,
        "scheme": asked.scheme,
        "client": (asked.peer, 0) if asked.peer else None,
        "root_path": root_path,
        "server": ("", asked.port),
    }
    sent: list[Message] = []
    unread = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive() -> Message:
        return unread.pop() if unread else await _never()

    async def send(message: Message) -> None:
        sent.append(message)

    await engine(scope, receive, send)
    return sent[0]["status"], sent[0]["headers"], b"".join(message.get("body", b"") for message in sent[1:])


async def _never() -> Message:
    """Wait without end: WSGI does not say that a client has hung up."""
    await asyncio.get_running_loop().create_future()
    raise AssertionError
