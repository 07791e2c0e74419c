"""The ASGI application: each request passes the phases of `phases.py`.

A path without parameters is found in a dictionary: routing would cost more than the response to `/auth/me`. All other
requests (paths with a parameter, other methods, unknown paths) go through Starlette's router. Mounted into another
application, which may not run lifespan events, `AsgiApplication` opens the store at the first request.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping
from contextlib import suppress
from typing import TypeVar

from starlette.routing import Route as StarletteRoute
from starlette.routing import Router
from starlette.types import Receive, Scope, Send

from dutchdoor.errors import DutchdoorError, NotFound, Unavailable
from dutchdoor.texts import mark
from dutchdoor.web.api import Api, Route
from dutchdoor.web.body import BoundedBody
from dutchdoor.web.http import MethodNotAllowed, Request
from dutchdoor.web.phases import Phases
from dutchdoor.web.request_id import CURRENT, request_id
from dutchdoor.web.scope import below, request_of

__all__ = ["REQUEST", "AsgiApplication"]

REQUEST = "dutchdoor.request"
"""The key in an ASGI scope under which an answered request is found, with its client and its id."""

T = TypeVar("T")

log = logging.getLogger("dutchdoor")


class AsgiApplication:
    """One API as an ASGI application (version 3)."""

    def __init__(
        self, api: Api, *, opened: Callable[[], Awaitable[None]], closed: Callable[[], Awaitable[None]]
    ) -> None:
        self._api, self._phases = api, Phases(api)
        self._opened, self._closed = opened, closed
        self._base = api.site.base_path
        self._probes = {route.path for route in api.routes if route.probe}
        self._exact = {(str(route.method), route.path): route for route in api.routes if "{" not in route.path}
        methods: dict[str, dict[str, Route]] = {}
        for route in api.routes:
            methods.setdefault(route.path, {})[route.method] = route
        self._paths = frozenset(methods)
        self._router = Router(
            [
                StarletteRoute(path, endpoint=_Endpoint(self, methods[path]))
                for path in sorted(methods, key=lambda path: ("{" in path, path))
            ],
            redirect_slashes=False,
            default=_UnknownPath(self),
        )
        self._ready = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = scope["type"]
        if kind == "http":
            if self._base:
                await self._below_base_path(scope, receive, send)
            else:
                await self._serve_http(scope, receive, send)
        elif kind == "lifespan":
            await self._live(receive, send)
        elif kind == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008, "reason": ""})

    async def _serve_http(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not self._ready:
            try:
                await self._open_once()
            except Unavailable as error:  # the next request tries again
                await self.serve(None, {}, scope, receive, send, refused=error)
                return
        route = self._exact.get((scope["method"], scope["path"]))
        if route is not None and not scope.get("root_path"):
            await self.serve(route, {}, scope, receive, send)
        else:
            await self._router(scope, receive, send)

    async def _below_base_path(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve a request as if this were at the root. Monitoring finds the probes there, too."""
        path = below(self._base, scope["path"], scope.get("root_path", ""))
        if path is None and scope["path"] in self._probes:
            path = scope["path"]
        inner = {**scope, "path": path or "", "root_path": ""}
        try:
            await self._serve_http(inner, receive, send)
        finally:
            if REQUEST in inner:
                scope[REQUEST] = inner[REQUEST]

    async def serve(
        self,
        route: Route | None,
        params: Mapping[str, str],
        scope: Scope,
        receive: Receive,
        send: Send,
        refused: DutchdoorError | None = None,
    ) -> None:
        """Answer a request with its route, or with an error if there is no route or the request is refused."""
        request = request_of(scope)
        request.mount = self._base or request.mount
        api, phases = self._api, self._phases
        request.id = request_id(request, api.site.edge)
        scope[REQUEST] = request
        CURRENT.set(request)
        try:
            response = None if route is not None and route.probe else phases.admit(request)
            if response is None:
                if refused is not None or route is None:
                    raise refused or self._unknown(scope["path"])
                if request.method != "GET":
                    request.body = await _body(request, receive, route.body_at_most)
                answering = phases.answer(route, request, params)
                response = await (_while_there(answering, receive) if route.hangs else answering)
        except _Gone:
            return
        except Exception as error:  # noqa: BLE001 - the one place that turns every error into a response
            response = api.refusal(request, error)
        finally:
            request.answered = True
        body, pieces = (b"", None) if scope["method"] == "HEAD" else (response.body, response.pieces)
        headers = [*phases.finish(request, response), (b"x-request-id", request.id.encode())]
        await send({"type": "http.response.start", "status": response.status, "headers": headers})
        if pieces is not None:
            await send({"type": "http.response.body", "body": body, "more_body": True})
            with suppress(_Gone):
                await _while_there(_send(pieces, send), receive)
            return
        await send({"type": "http.response.body", "body": body})

    def _unknown(self, path: str) -> NotFound:
        """Say what is wrong with a path that is none of ours. Only our own paths are repeated."""
        text = mark("There is no such path.")
        if self._base and not path:
            text = mark("All paths of this server begin with %(base)s.", base=self._base)
        elif (without := path.rstrip("/")) in self._paths:
            text = mark("This path is %(path)s, without a slash at its end.", path=f"{self._base}{without}")
        return NotFound("no such path", message=text)

    async def _open_once(self) -> None:
        await self._opened()  # of many calls at once, one opens the store, and the others wait
        self._ready = True

    async def _live(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                try:
                    await self._open_once()
                except DutchdoorError as error:
                    log.error("%s", error.reason or error)  # noqa: TRY400 - no traceback: the message says what to do
                    await send({"type": "lifespan.startup.failed", "message": str(error)})
                    return
                await send({"type": "lifespan.startup.complete"})
            elif message["type"] == "lifespan.shutdown":
                await self._closed()
                self._ready = False
                await send({"type": "lifespan.shutdown.complete"})
                return


class _Endpoint:
    """The endpoint of one path. A class, because Starlette passes a class the ASGI arguments and every method."""

    def __init__(self, app: AsgiApplication, by_method: Mapping[str, Route]) -> None:
        self._app, self._by_method = app, by_method

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        route = self._by_method.get(method)
        allow = [*self._by_method, *(["HEAD"] if "GET" in self._by_method else [])]
        refused = None if route else MethodNotAllowed(allow)
        await self._app.serve(route, scope.get("path_params", {}), scope, receive, send, refused)


class _UnknownPath:
    def __init__(self, app: AsgiApplication) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app.serve(None, {}, scope, receive, send)


async def _send(pieces: AsyncIterator[bytes], send: Send) -> None:
    try:
        async for piece in pieces:
            await send({"type": "http.response.body", "body": piece, "more_body": True})
    except DutchdoorError as error:
        # Without an end, the server closes the connection, and the client knows that the response is not whole.
        log.warning("a response was cut off: %s", error.reason or error)
    else:
        await send({"type": "http.response.body", "body": b""})


class _Gone(Exception):
    """The client disconnected, so no response is possible."""


async def _while_there(answering: Coroutine[None, None, T], receive: Receive) -> T:
    """Wait for what answers a request until the client hangs up. Then cancel the work and raise `_Gone`."""
    task = asyncio.current_task()
    leaving = asyncio.create_task(_hang_up(receive, task))
    try:
        return await answering
    except asyncio.CancelledError:
        if task is None or not leaving.done() or leaving.cancelled():
            raise  # cancelled from outside, when the server stops
        task.uncancel()
        raise _Gone from None
    finally:
        leaving.cancel()


async def _hang_up(receive: Receive, work: asyncio.Task[None] | None) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
    if work is not None:
        work.cancel()


async def _body(request: Request, receive: Receive, at_most: int) -> bytes:
    """Read a body within its limit. Raises `TooLarge`, `BadRequest`, and `_Gone` if the client disconnects."""
    bounded = BoundedBody(request, at_most=at_most)
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _Gone
        bounded.add(message.get("body", b""))
        if not message.get("more_body", False):
            return bounded.whole()
