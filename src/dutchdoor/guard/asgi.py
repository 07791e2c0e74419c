"""The guard around an ASGI application.

It answers the paths of the engine, and passes all others on with a `Visit` in the scope: who sends this request, found
when it is first asked. An error that a guard raises becomes the same problem document that the engine sends.

A WebSocket or a stream ends when the proof that opened it is revoked. Each message is checked before it is passed on,
and a connection without messages is looked at whenever something was revoked.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from importlib import import_module
from typing import Any, Final
from urllib.parse import unquote

from dutchdoor.errors import DeviceProofRequired, DutchdoorError, Misconfigured, NotAuthenticated, Unavailable
from dutchdoor.guard.gates import AsgiApp, Gate, Known, Message, Receive, Scope, Send
from dutchdoor.guard.refusal import loads_again, refusal
from dutchdoor.guard.requirement import Requirement
from dutchdoor.guard.unloaded import STORED
from dutchdoor.guard.user import Anonymous
from dutchdoor.model.principal import Principal
from dutchdoor.model.session_data import SessionData
from dutchdoor.web.http import Request
from dutchdoor.web.origin import SAFE_METHODS
from dutchdoor.web.scope import request_of

__all__ = ["Guard", "Middleware", "Visit", "close_code", "sent_path", "visit_of"]

KEY: Final = "dutchdoor"
SIGNED_OUT: Final = 4401
"""The code that closes a WebSocket whose proof is not valid, or no longer."""
FORBIDDEN: Final = 4403
"""The code that closes a WebSocket whose caller may not open it."""
TRY_LATER: Final = 1013
"""The code that closes a WebSocket whose proof cannot be checked now (the registry of RFC 6455)."""
LOOKS_EVERY: Final = 0.25
"""Seconds between two looks at the log while connections are open."""
LOOKS_AT_ALL_EVERY: Final = 5.0
"""Seconds between two looks at each open connection: proofs also expire."""

_NAVIGATES: Final = (b"sec-fetch-mode", b"navigate")

_log = logging.getLogger("dutchdoor")


def visit_of(scope: Scope) -> Visit:
    """Return the visit of a request. Raises `Misconfigured` where no `Auth` is attached to the application."""
    visit = scope.get(KEY)
    if not isinstance(visit, Visit):
        raise Misconfigured("This route has a guard, but the application has no Auth. Create it: auth = Auth(app).")
    return visit


def sent_path(scope: Scope) -> str:
    """Return the path as the client sent it: Litestar cuts a mount's path off, and adds a slash."""
    raw: bytes = scope.get("raw_path") or scope["path"].encode()
    return unquote(raw.partition(b"?")[0].decode("latin-1"))


class Visit:
    """One request, and who sends it."""

    __slots__ = (
        "_asked",
        "_error",
        "_found",
        "_gate",
        "_holding",
        "_known",
        "_scope",
        "_user",
        "csrf_field",
        "data",
        "has_begun",
    )

    def __init__(self, gate: Gate, scope: Scope) -> None:
        self._gate, self._scope = gate, scope
        self._asked: Request | None = None
        self._found = False
        self._known: Known | None = None
        self._error: DutchdoorError | None = None
        self._user: Any = None
        self.data: SessionData | None = None
        self._holding: Scope | None = None
        self.has_begun = False
        self.csrf_field: str | None = None

    @property
    def asked(self) -> Request:
        """The request, as the engine takes it."""
        if self._asked is None:
            self._asked = request_of(self._scope)
        return self._asked

    @property
    def scope(self) -> Scope:
        """The scope of the request."""
        return self._scope

    @property
    def known(self) -> Known | None:
        """Who sends this, if a guard has found out already."""
        return self._known

    async def identify(self) -> Known | None:
        """Return who sends this request, found once; None without a proof. Raises what `Auth.principal` raises."""
        if not self._found:
            try:
                self._known = await self._gate.identify(
                    self.asked, websocket=self._scope["type"] == "websocket", csrf_field=self.csrf_field
                )
            except DutchdoorError as error:
                self._error = error
            self._found = True
        if self._error is not None:
            raise self._error
        return self._known

    async def principal(self) -> Principal | None:
        """Return the principal, or None. Raises what `Auth.principal` raises."""
        known = await self.identify()
        return None if known is None else known.principal

    async def user(self) -> Any:
        """Return the `User` behind the request, or the application's own object; None without a proof. Raises what
        `Auth.principal` raises.
        """
        known = await self.identify()
        if known is None:
            return None
        if self._user is None:
            try:
                self._user = await self._gate.user(known)
            except NotAuthenticated as error:
                self._error = error  # a guard of this request refuses it, too
                raise
        return self._user

    async def current_user(self) -> Any:
        """Return the user behind the request. Raises `NotAuthenticated` without a proof, and as `user` does."""
        user = await self.user()
        if user is None:
            raise NotAuthenticated("no proof was sent")
        return user

    async def optional_user(self) -> Any:
        """Return the user behind the request; None also for a proof that is not valid, such as the cookie of a
        session that has ended. Raises `Forbidden` and `Unavailable`.
        """
        try:
            return await self.user()
        except NotAuthenticated:
            return None

    async def optional_principal(self) -> Principal | None:
        """Return the principal; None also for a proof that is not valid. Raises `Forbidden` and `Unavailable`."""
        try:
            return await self.principal()
        except NotAuthenticated:
            return None

    async def require(self, requirement: Requirement) -> Principal:
        """Return the principal, if it meets a requirement.

        Raises:
            NotAuthenticated: the request carries no proof, or one that is not valid.
            Forbidden: a role or a scope is missing, or another site's page sent the request.
            StepUpRequired: the caller must prove who they are again.
            Unavailable: the store is out of reach.
        """
        known = await self.identify()
        if known is None:
            raise NotAuthenticated("no proof was sent")
        requirement.check(known.principal, self._gate.clock())
        return known.principal

    async def session(self, scope: Scope) -> SessionData:
        """Return the session data, read once, and put it into the `scope`, where frameworks look for it.

        Raises:
            Misconfigured: this service only verifies.
            Forbidden, Unavailable: as `identify` does.
        """
        if self.data is None:
            try:
                known = await self.identify()
            except NotAuthenticated:  # such as the cookie of a session that has ended
                known = None
            data = await self._gate.session_data(self.asked, known)
            if self.data is None:  # another task of this request may have been faster
                self.data = data
                self._close_what_is_lost()
        if scope.get("session") is self._gate.unloaded:
            scope["session"] = self.data
            self._holding = scope
        return self.data

    async def store(self, message: Message | None = None) -> None:
        """Store changed session data, and add its headers to the `message` that begins the response; without one, the
        handler of a WebSocket has ended. Raises what `Gate.save` raises.
        """
        data, self.has_begun = self.data, True
        if data is None or data.is_closed:
            return
        given = data if self._holding is None else self._holding["session"]
        if given is not data:  # Litestar's `set_session` and `clear_session` put another object in its place
            data.clear()
            data.update(given if isinstance(given, Mapping) else {})
        try:
            headers = await self._gate.save(self.asked, data)
        except BaseException:
            data.close(STORED)  # or the error's own response would try again
            raise
        if message is not None:
            message["headers"] = [*message.get("headers", ()), *headers]
        self._close_what_is_lost()

    def _close_what_is_lost(self) -> None:
        """Refuse changes that nothing would store, or that would be stored where no request finds them."""
        data = self.data
        if data is None or not self.has_begun:
            return
        if self._scope["type"] == "http":
            data.close(STORED)
        elif data.token is None and not data.session_id:
            data.close("An open WebSocket cannot set a cookie. Store something for a visitor in a request before it.")

    async def refuse(self, error: DutchdoorError, send: Send) -> None:
        """Answer this request with an error."""
        await refuse(self._scope, send, error, self._gate)

    async def csrf_token(self) -> str:
        """Return the CSRF token for this page's forms and scripts; "" where no cookie is the proof."""
        known = await self.identify()
        return "" if known is None else self._gate.csrf_token(known)

    async def check(self) -> None:
        """Check the proof once more. Raises what `identify` raises."""
        if self._known is not None:
            await self._gate.check(self._known)


class Guard:
    """The ASGI middleware. One for each `Auth`.

    Args:
        gate: who finds the caller.
        eager: whether to put `user` and `auth` into the scope, as Starlette's convention has them.
    """

    def __init__(self, gate: Gate, *, eager: bool = False) -> None:
        self.gate, self._eager, self._engine = gate, eager, gate.application
        self._find_token: Callable[[Visit, Scope, Receive], Awaitable[Receive]] | None = None
        if gate.reads_cookies:
            # Imported now: a service that only verifies reads no forms, and does not have the package for it.
            self._find_token = import_module("dutchdoor.guard.forms").find_token
        self._streams: set[_Stream] = set()
        self._watching: asyncio.Task[None] | None = None

    async def __call__(self, app: AsgiApp, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request of `app`."""
        kind = scope["type"]
        if kind == "lifespan":
            await self._live(app, scope, receive, send)
            return
        if kind not in {"http", "websocket"}:
            await app(scope, receive, send)
            return
        if self._engine is not None and self.gate.owns(scope["path"], scope.get("root_path", "")):
            await self._engine(scope, receive, send)
            return
        visit = scope[KEY] = Visit(self.gate, scope)
        scope.setdefault("session", self.gate.unloaded)  # a framework's own middleware may have been first
        if self._find_token is not None and kind == "http" and scope["method"] not in SAFE_METHODS:
            receive = await self._find_token(visit, scope, receive)
        if kind == "http" and _NAVIGATES in scope["headers"]:
            unproved = await self._unproved(visit)
            if unproved is not None:
                await refuse(scope, send, unproved, self.gate)
                return
        if self._eager:
            await _put_user(visit, scope)
        stream = (_Socket if kind == "websocket" else _Answer)(self, visit, receive, send)
        try:
            await app(scope, stream.receive, stream.send)
        except DutchdoorError as error:
            if stream.started or isinstance(error, Misconfigured):
                raise
            await refuse(scope, send, error, self.gate)
        except Exception:
            # The application found its client gone, which was our doing.
            if not stream.ended:
                raise
        finally:
            self.leave(stream)
            stream.close()
            if kind == "websocket" and stream.started:
                await _store_at_end(visit)

    async def _unproved(self, visit: Visit) -> DeviceProofRequired | None:
        """Return why a browser has to load its page again, with a proof of its key; None if it has not to."""
        asked, scope = visit.asked, visit.scope
        if not self.gate.reload_page or not loads_again(asked):
            return None
        if not self.gate.owns(sent_path(scope), scope.get("root_path", "")):  # Litestar mounts the API inside of this
            try:
                await visit.identify()
            except DeviceProofRequired as error:
                return error
            except DutchdoorError:
                pass  # a guard raises it, and a public page is served
        return None

    # Connections that stay open

    def keep(self, stream: _Stream) -> None:
        """Watch a connection until it ends."""
        self._streams.add(stream)
        watching, loop = self._watching, asyncio.get_running_loop()
        if watching is None or watching.done() or watching.get_loop() is not loop:  # a TestClient has a loop a request
            self._watching = loop.create_task(self._watch())

    def leave(self, stream: _Stream) -> None:
        """Stop watching a connection whose last message has been sent."""
        self._streams.discard(stream)

    async def _watch(self) -> None:
        """End connections whose proof is not valid any more. Runs while there are some."""
        position: object = None
        looked_at_all = -math.inf
        now = asyncio.get_running_loop().time
        while self._streams:
            try:
                newest = await self.gate.position()
                if newest != position or now() - looked_at_all > LOOKS_AT_ALL_EVERY:
                    for stream in tuple(self._streams):
                        await stream.look()
                    position, looked_at_all = newest, now()
            except Unavailable:
                pass  # an outage ends no connection; but no message passes meanwhile
            except Exception:  # noqa: BLE001
                # The loop must go on: otherwise no quiet connection would end any more.
                _log.exception("could not look at open connections")
            await asyncio.sleep(LOOKS_EVERY)

    # Start and end

    async def _live(self, app: AsgiApp, scope: Scope, receive: Receive, send: Send) -> None:
        """Open the gate before the application starts, and close it after it has stopped."""
        failed = False

        async def opened() -> Message:
            nonlocal failed
            message = await receive()
            if message["type"] == "lifespan.startup":
                try:
                    await self.gate.open()
                except Unavailable as error:  # public routes are served meanwhile, and the first guard tries again
                    _log.warning("the store is out of reach at the start: %s", error.reason)
                except DutchdoorError as error:
                    failed = True
                    _log.error("%s", error.reason or error)
                    await send({"type": "lifespan.startup.failed", "message": str(error)})
                    raise
            return message

        async def closed(message: Message) -> None:
            if message["type"] in {"lifespan.shutdown.complete", "lifespan.shutdown.failed"}:
                await self.stop()
            if not failed:
                await send(message)

        try:
            await app(scope, opened, closed)
        except DutchdoorError as error:
            if failed:  # or a TestClient takes the start for done, and waits for ever at its end
                raise error.with_traceback(None) from None
            raise

    async def stop(self) -> None:
        """Close the gate, and stop watching."""
        if self._watching is not None:
            self._watching.cancel()
        await self.gate.close()


class Middleware:
    """A guard in the form of ASGI middleware: the framework makes it, with the application that it wraps."""

    def __init__(self, app: Any, guard: Guard) -> None:
        self._app, self.guard = app, guard

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        # Any: each framework has names of its own for the same scopes and messages.
        await self.guard(self._app, scope, receive, send)


async def refuse(scope: Scope, send: Send, error: DutchdoorError, gate: Gate) -> None:
    """Answer a request that a guard refused, or close the WebSocket."""
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": close_code(error), "reason": str(error)[:100]})
        return
    answer = refusal(error, request_of(scope), gate, scope.get("root_path", ""))
    headers = [*answer.headers, (b"content-length", b"%d" % len(answer.body))]
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else answer.body})


def close_code(error: DutchdoorError) -> int:
    """Return the code that closes a WebSocket for this error."""
    if isinstance(error, NotAuthenticated):
        return SIGNED_OUT
    return TRY_LATER if isinstance(error, Unavailable) else FORBIDDEN


async def _store_at_end(visit: Visit) -> None:
    """Store what the handler of a WebSocket has changed. There is no client left to answer."""
    try:
        await visit.store()
    except DutchdoorError as error:
        _log.warning("session data of a WebSocket is not stored: %s", error.reason or error)


async def _put_user(visit: Visit, scope: Scope) -> None:
    """Put the user into the scope. An error stays in the visit: a public route is served, and a guard raises it."""
    scope["user"], scope["auth"] = Anonymous(), Credentials(None)
    try:
        known = await visit.identify()
        user = await visit.user()
    except DutchdoorError:
        return
    if known is not None:
        scope["user"], scope["auth"] = user, Credentials(known.principal)


class Credentials:
    """`request.auth`: the principal, and the words that Starlette's `requires` looks for."""

    __slots__ = ("principal", "scopes")

    def __init__(self, principal: Principal | None) -> None:
        self.principal = principal
        self.scopes: list[str] = (
            [] if principal is None else ["authenticated", *principal.roles, *principal.scope.split()]
        )


# --- connections that stay open --------------------------------------------------------------------------------------


class _Ended(ConnectionError):
    """The proof of this connection is not valid any more. ASGI reports by an `OSError` that a client is gone."""


class _Stream:
    """One request and its answer. Once the proof is known, what passes is checked."""

    __slots__ = (
        "_closing", "_ending", "_guard", "_is_kept", "_next", "_receive", "_send", "_visit", "ended", "started",
    )  # fmt: skip

    gone = "http.disconnect"

    def __init__(self, guard: Guard, visit: Visit, receive: Receive, send: Send) -> None:
        self._guard, self._visit, self._receive, self._send = guard, visit, receive, send
        self._closing: asyncio.Future[None] | None = None
        self._next: asyncio.Task[Message] | None = None
        self._ending: asyncio.Task[None] | None = None
        self.started = self.ended = self._is_kept = False

    async def look(self) -> None:
        """End this connection if its proof is not valid any more."""
        if not self.ended:
            try:
                await self._visit.check()
            except Unavailable:
                pass
            except DutchdoorError as error:
                # In a task of its own: a client that reads nothing must not keep open what others have.
                self._ending = asyncio.ensure_future(self._end_if_there(error))

    async def _end_if_there(self, error: DutchdoorError) -> None:
        with suppress(Exception):  # the client is gone already: servers differ in what they raise then
            await self.end(error)

    def watched(self) -> None:
        """Have the guard look at this connection from now on, if the proof is known."""
        if not self._is_kept and self._visit.known is not None:
            self._is_kept = True
            self._guard.keep(self)

    async def end(self, error: DutchdoorError) -> None:
        """End this connection. The application sees that its client is gone."""
        if not self.ended:
            self.ended = True
            if self._closing is not None and not self._closing.done():
                self._closing.set_result(None)
            await self._finish(error)

    async def checked(self) -> None:
        """Let one message pass. Raises `_Ended`."""
        if not self.ended and self._visit.known is not None:
            self.watched()
            try:
                await self._visit.check()
            except DutchdoorError as error:
                await self.end(error)
        if self.ended:
            raise _Ended("the session has ended")

    async def _received(self) -> Message:
        """Wait for a message of the client, or for the end of its proof."""
        if self._next is None:
            self._next = asyncio.ensure_future(self._receive())
        closing = self._closing = self._closing or asyncio.get_running_loop().create_future()
        if not self.ended:
            await asyncio.wait({self._next, closing}, return_when=asyncio.FIRST_COMPLETED)
        if self.ended:
            return {"type": self.gone, "code": SIGNED_OUT, "reason": ""}
        message, self._next = self._next.result(), None
        return message

    def close(self) -> None:
        """Stop what still waits beside the application."""
        if self._next is not None:
            self._next.cancel()

    async def _finish(self, error: DutchdoorError) -> None:
        raise NotImplementedError


class _Answer(_Stream):
    """A response. One that is sent whole was just asked for; each piece of a stream is checked, also the first: it may
    come an hour after the status.
    """

    __slots__ = ("_has_body", "_is_bounded", "_is_refused", "_is_stream")

    def __init__(self, guard: Guard, visit: Visit, receive: Receive, send: Send) -> None:
        super().__init__(guard, visit, receive, send)
        self._has_body = self._is_bounded = self._is_refused = self._is_stream = False

    async def receive(self) -> Message:
        if self._has_body:  # what waits now waits for the client to hang up
            return await self._received()
        message = await self._receive()
        self._has_body = not message.get("more_body", False)
        return message

    async def send(self, message: Message) -> None:
        if self._is_refused:
            return
        if message["type"] == "http.response.start":
            self.started = self._visit.has_begun = True
            if self._visit.data is not None and not await self._stored(message):
                return
            self._is_bounded = any(name == b"content-length" for name, _ in message.get("headers", ()))
        elif self._is_stream or message.get("more_body", False):
            self._is_stream = True
            await self.checked()
            if not message.get("more_body", False):
                self._guard.leave(self)  # a task may go on in the background
        await self._send(message)

    async def _stored(self, message: Message) -> bool:
        """Store session data. If that fails, the client gets the error instead of the response."""
        try:
            await self._visit.store(message)
        except Misconfigured:
            raise
        except DutchdoorError as error:
            # Not raised: the framework has begun to respond, and would not answer any more.
            self._is_refused = True
            await self._visit.refuse(error, self._send)
        return not self._is_refused

    async def _finish(self, error: DutchdoorError) -> None:  # noqa: ARG002 - the status has been sent
        if not self._is_bounded:  # otherwise the server cuts the connection, because the body is not whole
            await self._send({"type": "http.response.body", "body": b"", "more_body": False})


class _Socket(_Stream):
    """A WebSocket. Every message in either direction is checked."""

    __slots__ = ()

    gone = "websocket.disconnect"

    async def receive(self) -> Message:
        if self._visit.known is None or not self.started:
            return await self._receive()
        message = await self._received()
        if message["type"] == self.gone:
            return message
        try:
            await self.checked()
        except _Ended:
            return {"type": self.gone, "code": SIGNED_OUT, "reason": ""}
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "websocket.accept":
            await self._visit.store(message)
            self.started = True
            self.watched()
        elif message["type"] == "websocket.send":
            await self.checked()
        elif message["type"] == "websocket.close" and self.started:
            await _store_at_end(self._visit)  # a client that sees the end finds what was stored
            self._guard.leave(self)
        if not self.ended:  # it has been closed already
            await self._send(message)

    async def _finish(self, error: DutchdoorError) -> None:
        await self._send({"type": "websocket.close", "code": close_code(error), "reason": str(error)[:100]})
