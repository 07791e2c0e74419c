"""The ASGI application: requests in, through the phases of `api.py`, answers out.

A path that is exactly one of ours is found in a dictionary and served at once: routing would cost more than the answer
to `/auth/me`. Everything else (paths with a parameter, other methods, paths nobody has) goes through Starlette's
router. Mounted into another application, it opens at the first request what a server of its own opens at start-up.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Mapping

from starlette.routing import Route as StarletteRoute
from starlette.routing import Router
from starlette.types import Receive, Scope, Send

from dutchdoor.errors import DutchdoorError, NotFound, Unavailable
from dutchdoor.web.api import Api, Route
from dutchdoor.web.body import BoundedBody
from dutchdoor.web.http import MethodNotAllowed, Request, Response

__all__ = ["AsgiApplication"]

log = logging.getLogger("dutchdoor")

_SCHEMES = {"ws": "http", "wss": "https"}
"""Of a WebSocket: the scheme of the page that may open it."""


class AsgiApplication:
    """One API as an ASGI application (version 3)."""

    def __init__(
        self, api: Api, *, opened: Callable[[], Awaitable[None]], closed: Callable[[], Awaitable[None]]
    ) -> None:
        self._api, self._opened, self._closed = api, opened, closed
        self._exact = {(str(route.method), route.path): route for route in api.routes if "{" not in route.path}
        methods: dict[str, list[str]] = {}
        for route in api.routes:
            methods.setdefault(route.path, []).append(route.method)
        self._router = Router(
            [
                StarletteRoute(path, endpoint=_Endpoint(self, {r.method: r for r in api.routes if r.path == path}))
                for path in sorted(methods, key=lambda path: ("{" in path, path))
            ],
            redirect_slashes=False,
            default=_Nowhere(self),
        )
        self._ready = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        kind = scope["type"]
        if kind == "http":
            if not self._ready:
                try:
                    await self._open_once()
                except Unavailable as error:  # as it is later: the next request tries again
                    await self.serve(None, {}, scope, receive, send, refused=error)
                    return
            route = self._exact.get((scope["method"], scope["path"]))
            if route is not None and not scope.get("root_path"):
                await self.serve(route, {}, scope, receive, send)
            else:
                await self._router(scope, receive, send)
        elif kind == "lifespan":
            await self._live(receive, send)
        elif kind == "websocket":
            await receive()
            await send({"type": "websocket.close", "code": 1008, "reason": ""})

    async def serve(
        self,
        route: Route | None,
        params: Mapping[str, str],
        scope: Scope,
        receive: Receive,
        send: Send,
        refused: DutchdoorError | None = None,
    ) -> None:
        """Answer one request at a route, or with the refusal that stands for it."""
        request = request_of(scope)
        api = self._api
        try:
            response = None if route is not None and route.probe else api.admit(request)
            if response is None:
                if refused is not None or route is None:
                    raise refused or NotFound("no such path")
                if request.method != "GET":
                    request.body = await _body(request, receive, route.body_at_most)
                answering = api.answer(route, request, params)
                response = await (_while_there(answering, receive) if route.hangs else answering)
        except _Gone:
            return
        except Exception as error:  # noqa: BLE001 - the one place where everything becomes an answer
            response = api.refusal(request, error)
        body = b"" if scope["method"] == "HEAD" else response.body
        await send({"type": "http.response.start", "status": response.status, "headers": api.finish(request, response)})
        await send({"type": "http.response.body", "body": body})

    async def _open_once(self) -> None:
        await self._opened()  # of many at once it lets one open, and the others wait
        self._ready = True

    async def _live(self, receive: Receive, send: Send) -> None:
        while True:
            message = await receive()
            if message["type"] == "lifespan.startup":
                try:
                    await self._open_once()
                except DutchdoorError as error:
                    log.error("%s", error.reason or error)  # noqa: TRY400 - no traceback: it says what to do
                    await send({"type": "lifespan.startup.failed", "message": str(error)})
                    return
                await send({"type": "lifespan.startup.complete"})
            elif message["type"] == "lifespan.shutdown":
                await self._closed()
                self._ready = False
                await send({"type": "lifespan.shutdown.complete"})
                return


class _Endpoint:
    """What the router calls for one path. A class, so that Starlette hands it the bare ASGI triple and every method."""

    def __init__(self, app: AsgiApplication, by_method: Mapping[str, Route]) -> None:
        self._app, self._by_method = app, by_method

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        method = "GET" if scope["method"] == "HEAD" else scope["method"]
        route = self._by_method.get(method)
        allow = [*self._by_method, *(["HEAD"] if "GET" in self._by_method else [])]
        refused = None if route else MethodNotAllowed(allow)
        await self._app.serve(route, scope.get("path_params", {}), scope, receive, send, refused)


class _Nowhere:
    def __init__(self, app: AsgiApplication) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app.serve(None, {}, scope, receive, send)


class _Gone(Exception):
    """The client went away while its body was read: there is nobody to answer."""


def request_of(scope: Scope) -> Request:
    path, root = scope["path"], scope.get("root_path", "")
    if root and path.startswith(root):
        path = path[len(root) :]
    peer = scope.get("client")
    scheme: str = scope.get("scheme", "http")
    return Request(
        scope.get("method", "GET"),  # a WebSocket's scope has none
        path,
        scope.get("query_string", b""),
        scope["headers"],
        peer[0] if peer else "",
        _SCHEMES.get(scheme, scheme),
    )


async def _while_there(answering: Coroutine[None, None, Response], receive: Receive) -> Response:
    """Wait for an answer for as long as the client does. Raises `_Gone` when it hung up; the work is given up then."""
    task = asyncio.current_task()
    leaving = asyncio.create_task(_hang_up(receive, task))
    try:
        return await answering
    except asyncio.CancelledError:
        if task is None or not leaving.done() or leaving.cancelled():
            raise  # somebody else's, at the end of the server
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
    """Read a body within its bound. Raises `TooLarge`, `BadRequest`; `_Gone` when the client left."""
    bounded = BoundedBody(request, at_most=at_most)
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise _Gone
        bounded.add(message.get("body", b""))
        if not message.get("more_body", False):
            return bounded.whole()
