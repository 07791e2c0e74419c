"""One request to an ASGI application: who sends it, and what it is answered if a guard refuses it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import unquote

from dutchdoor.errors import DutchdoorError, Misconfigured, NotAuthenticated, Unavailable
from dutchdoor.guard.gates import Gate, Known, Message, Scope, Send
from dutchdoor.guard.refusal import refusal
from dutchdoor.guard.requirement import Requirement
from dutchdoor.guard.unloaded import STORED
from dutchdoor.model.principal import Principal
from dutchdoor.model.session_data import SessionData
from dutchdoor.web.http import Request
from dutchdoor.web.scope import request_of

__all__ = ["KEY", "SIGNED_OUT", "Visit", "close_code", "refuse", "sent_path", "store_at_end", "visit_of"]

KEY: Final = "dutchdoor"
SIGNED_OUT: Final = 4401
"""The code that closes a WebSocket whose proof is not valid, or no longer."""
FORBIDDEN: Final = 4403
"""The code that closes a WebSocket whose caller may not open it."""
TRY_LATER: Final = 1013
"""The code that closes a WebSocket whose proof cannot be checked now (the registry of RFC 6455)."""

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
        "_user",
        "csrf_field",
        "data",
        "has_begun",
        "known",
        "scope",
    )

    def __init__(self, gate: Gate, scope: Scope) -> None:
        self._gate, self.scope = gate, scope
        self._asked: Request | None = None
        self._found = False
        self.known: Known | None = None
        """Who sends this, if a guard has found out already."""
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
            self._asked = request_of(self.scope)
        return self._asked

    async def identify(self) -> Known | None:
        """Return who sends this request, found once; None without a proof. Raises what `Auth.principal` raises."""
        if not self._found:
            try:
                self.known = await self._gate.identify(
                    self.asked, websocket=self.scope["type"] == "websocket", csrf_field=self.csrf_field
                )
            except DutchdoorError as error:
                self._error = error
            self._found = True
        if self._error is not None:
            raise self._error
        return self.known

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
            raise self.asked.unproven()
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
            raise self.asked.unproven()
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
        if self.scope["type"] == "http":
            data.close(STORED)
        elif data.token is None and not data.session_id:
            data.close("An open WebSocket cannot set a cookie. Store something for a visitor in a request before it.")

    async def refuse(self, error: DutchdoorError, send: Send) -> None:
        """Answer this request with an error."""
        await refuse(self.scope, send, error, self._gate)

    async def csrf_token(self) -> str:
        """Return the CSRF token for this page's forms and scripts; "" where no cookie is the proof."""
        known = await self.identify()
        return "" if known is None else self._gate.csrf_token(known)

    async def check(self) -> None:
        """Check the proof once more. Raises what `identify` raises."""
        if self.known is not None:
            await self._gate.check(self.known)


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


async def store_at_end(visit: Visit) -> None:
    """Store what the handler of a WebSocket has changed. There is no client left to answer."""
    try:
        await visit.store()
    except DutchdoorError as error:
        _log.warning("session data of a WebSocket is not stored: %s", error.reason or error)
