"""The guard of a WSGI application: the request in an environ, the engine's own paths, answered by its thread, and
streams that end with their session.
"""

from __future__ import annotations

import asyncio
import errno
import itertools
from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from http.client import responses
from typing import Any, Final, TypeVar

from dutchdoor.errors import DeviceProofRequired, DutchdoorError, Misconfigured, NotAuthenticated
from dutchdoor.guard.gates import AsgiApp, Known, Message, Scope
from dutchdoor.guard.refusal import loads_again, refusal
from dutchdoor.guard.requirement import Requirement
from dutchdoor.guard.threads import SyncGate
from dutchdoor.guard.unloaded import STORED
from dutchdoor.model.principal import Principal
from dutchdoor.model.session_data import SessionData
from dutchdoor.web.http import Header, Request
from dutchdoor.web.problems import problem

__all__ = [
    "FORMS",
    "Environ",
    "StartResponse",
    "Visit",
    "answered",
    "around",
    "engine_around",
    "navigates",
    "prove_first",
    "readable",
    "request_in",
    "visit_of",
    "while_valid",
]

Environ = dict[str, Any]
StartResponse = Callable[..., Any]
T = TypeVar("T")
WsgiApp = Callable[[Environ, StartResponse], Iterable[bytes]]

FORMS: Final = ("application/x-www-form-urlencoded", "multipart/form-data")
"""What browsers send for a form that has fields."""
KEY: Final = "dutchdoor"
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
        mount=_mount(environ),
    )


def _headers(environ: Environ) -> Iterator[Header]:
    for key, value in environ.items():
        if key.startswith("HTTP_"):
            yield _header_name(key[5:]), value.encode("latin-1")
        elif key in {"CONTENT_TYPE", "CONTENT_LENGTH"} and value:
            yield _header_name(key), value.encode("latin-1")


@lru_cache(maxsize=256)  # the same few names come with every request
def _header_name(key: str) -> bytes:
    return key.replace("_", "-").lower().encode("latin-1")


def _decoded(text: str) -> str:
    return text.encode("latin-1").decode("utf-8", "replace")


def _mount(environ: Environ) -> str:
    """Return where the application is mounted."""
    return _decoded(environ.get("SCRIPT_NAME", ""))


def engine_around(app: WsgiApp, gate: SyncGate) -> WsgiApp:
    """Return an application that answers the engine's paths, and leaves all others to `app`."""
    if gate.gate.application is None:
        return app

    def answering(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        engine = gate.gate.application
        mount = _mount(environ)
        if engine is None or not gate.gate.owns(_decoded(environ.get("PATH_INFO", "")), mount):
            return app(environ, start_response)
        try:
            status, headers, body = gate.run(answered(engine, request_in(environ), _body(environ), mount))
        except Misconfigured:
            raise
        except DutchdoorError as error:  # the store is out of reach at the first request
            answer = problem(error)
            status, headers, body = answer.status, answer.headers, answer.body
        _start(start_response, status, headers)
        return [body]

    return answering


def _start(start_response: StartResponse, status: int, headers: Iterable[Header]) -> None:
    start_response(f"{status} {responses.get(status, '')}", readable(headers))


def readable(headers: Iterable[Header]) -> list[tuple[str, str]]:
    """Return headers as WSGI has them."""
    return [(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers]


class Visit:
    """One request, and who sends it."""

    __slots__ = ("_asked", "_environ", "_error", "_found", "_gate", "_user", "data", "has_begun", "known")

    def __init__(self, gate: SyncGate, environ: Environ) -> None:
        self._gate, self._environ, self._found = gate, environ, False
        self._asked: Request | None = None
        self.known: Known | None = None
        """Who sends this, if a guard has found out already."""
        self._error: DutchdoorError | None = None
        self._user: Any = None
        self.data: SessionData | None = None
        self.has_begun = False

    @property
    def asked(self) -> Request:
        """The request, as the engine takes it."""
        if self._asked is None:
            self._asked = request_in(self._environ)
        return self._asked

    def identify(self, csrf_field: str | None = None) -> Known | None:
        """Return who sends this request, found once; None without a proof. Raises what `Auth.principal` raises."""
        if not self._found:
            kind = self._environ.get("CONTENT_TYPE", "").partition(";")[0].strip().lower()
            try:
                self.known = self._gate.identify(self.asked, csrf_field if kind in FORMS else None)
            except DutchdoorError as error:
                self._error = error
            self._found = True
        if self._error is not None:
            raise self._error
        return self.known

    def user(self, csrf_field: str | None = None) -> Any:
        """Return the `User` behind the request, or the application's own object; None without a proof. Raises what
        `Auth.principal` raises.
        """
        known = self.identify(csrf_field)
        if known is not None and self._user is None:
            self._user = self._gate.user(known)
        return self._user

    def require(self, requirement: Requirement, csrf_field: str | None = None) -> Principal:
        """Return the principal, if it meets a requirement. Raises what `Auth.principal` raises, and
        `StepUpRequired`.
        """
        known = self.identify(csrf_field)
        if known is None:
            raise self.asked.unproven()
        requirement.check(known.principal, self._gate.gate.clock())
        return known.principal

    def session(self, csrf_field: str | None = None) -> SessionData:
        """Return the session data, read once.

        Raises `Misconfigured` in a service that only verifies, `Forbidden` and `Unavailable`.
        """
        if self.data is None:
            try:
                known = self.identify(csrf_field)
            except NotAuthenticated:  # such as the cookie of a session that has ended
                known = None
            self.data = self._gate.session_data(self.asked, known)
            if self.has_begun:
                self.data.close(STORED)
        return self.data

    def begin(self) -> list[Header]:
        """Store changed session data, and return the headers for the response. Raises what `Gate.save` raises."""
        data, self.has_begun = self.data, True
        if data is None or data.is_closed:
            return []
        return self._gate.save(self.asked, data)

    def csrf_token(self) -> str:
        """Return the CSRF token for this page's forms and scripts; "" where no cookie is the proof."""
        known = self.identify()
        return "" if known is None else self._gate.gate.csrf_token(known)


def visit_of(environ: Environ) -> Visit:
    """Return the visit of a request. Raises `Misconfigured` where no `Auth` is around the application."""
    visit = environ.get(KEY)
    if not isinstance(visit, Visit):
        raise Misconfigured("This application asks who sends a request, but has no Auth: app = auth.around(app).")
    return visit


def around(app: WsgiApp, gate: SyncGate) -> WsgiApp:
    """Return an application that answers what a guard of `app` raises, and ends its streams with their session."""

    def guarded(environ: Environ, start_response: StartResponse) -> Iterable[bytes]:
        if KEY in environ:
            raise Misconfigured("This application has an Auth already. One Auth serves all of its routes.")
        visit = environ[KEY] = Visit(gate, environ)
        lengths: list[str] = []
        started = False

        def starting(status: str, headers: list[tuple[str, str]], *exc_info: Any) -> Any:
            nonlocal started
            headers = [*headers, *readable(visit.begin())]
            started = True
            lengths[:] = [value for name, value in headers if name.lower() == "content-length"]
            pass_on = start_response(status, headers, *exc_info)

            def write(piece: bytes) -> object:
                try:
                    check()
                except DutchdoorError as error:
                    raise _ended() from error
                return pass_on(piece)

            return write

        def check() -> None:
            """Check the proof once more, if the application has found out by now who sends the request."""
            if visit.known is not None:
                gate.check(visit.known)

        def refused(error: DutchdoorError) -> list[bytes]:
            if started or isinstance(error, Misconfigured):
                raise error
            answer = refusal(error, visit.asked, gate.gate, _mount(environ))
            _start(start_response, answer.status, answer.headers)
            return [answer.body]

        def lazily(pieces: Iterable[bytes]) -> Iterator[bytes]:
            """Find out in the generator of the application who sends the request, and check it before each piece."""
            iterator = iter(pieces)
            try:
                first = list(itertools.islice(iterator, 1))  # here the application starts its response
                yield from while_valid(itertools.chain(first, iterator), check, is_bounded=bool(lengths))
            except DutchdoorError as error:
                yield from refused(error)
            finally:
                close = getattr(pieces, "close", None)
                if close is not None:
                    close()

        try:
            if gate.gate.reload_page and navigates(environ) and loads_again(visit.asked):
                prove_first(visit.identify)
            pieces = app(environ, starting)
        except DutchdoorError as error:
            return refused(error)
        return pieces if isinstance(pieces, (list, tuple)) else lazily(pieces)

    return guarded


def navigates(environ: Environ) -> bool:
    """Whether a browser opens a page."""
    return environ.get("HTTP_SEC_FETCH_MODE") == "navigate"


def prove_first(identify: Callable[[], object]) -> None:
    """Raise `DeviceProofRequired` if a browser has to load its page again, with a proof of its key. What else is wrong
    with its proof, a guard raises.
    """
    try:
        identify()
    except DeviceProofRequired:
        raise
    except DutchdoorError:
        pass


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
                    raise _ended() from error
                return
            yield piece
    finally:
        close = getattr(pieces, "close", None)
        if close is not None:
            close()


def _ended() -> BrokenPipeError:
    """Return what servers take for a client that has gone."""
    return BrokenPipeError(errno.EPIPE, "the session has ended")


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
