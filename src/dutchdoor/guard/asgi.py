"""The guard around an ASGI application.

It answers the paths of the engine, and passes all others on with a `Visit` in the scope: who sends this request, found
when it is first asked. An error that a guard raises becomes the same problem document that the engine sends.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable
from importlib import import_module
from typing import Any, Final

from dutchdoor.errors import DeviceProofRequired, DutchdoorError, Misconfigured, Unavailable
from dutchdoor.guard.asgi_connections import Answer, Open, Socket
from dutchdoor.guard.asgi_visit import KEY, Visit, refuse, sent_path, store_at_end
from dutchdoor.guard.gates import AsgiApp, Gate, Message, Receive, Scope, Send
from dutchdoor.guard.refusal import loads_again
from dutchdoor.guard.user import Anonymous
from dutchdoor.model.principal import Principal
from dutchdoor.web.origin import SAFE_METHODS

__all__ = ["Guard", "Middleware"]

_NAVIGATES: Final = (b"sec-fetch-mode", b"navigate")

_log = logging.getLogger("dutchdoor")


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
        self._open = Open(gate)

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
        stream = (Socket if kind == "websocket" else Answer)(self._open, visit, receive, send)
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
            self._open.leave(stream)
            stream.close()
            if kind == "websocket" and stream.started:
                await store_at_end(visit)

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
        self._open.stop()
        await self.gate.close()


class Middleware:
    """A guard in the form of ASGI middleware: the framework makes it, with the application that it wraps."""

    def __init__(self, app: Any, guard: Guard) -> None:
        self._app, self.guard = app, guard

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        # Any: each framework has names of its own for the same scopes and messages.
        await self.guard(self._app, scope, receive, send)


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
