"""A refusal passes through the application's own middleware, wherever that was added."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from fastapi import FastAPI
from starlette.applications import Starlette
from starlette.middleware.base import BaseHTTPMiddleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response
from starlette.routing import Route, WebSocketRoute
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect

import dutchdoor.fastapi
import dutchdoor.starlette
from dutchdoor.errors import NotAuthenticated

PAGE = "https://app.example.com"
Attach = Callable[[Any], None]


def on_fastapi(around: Attach | None = None, within: Attach | None = None) -> FastAPI:
    app = FastAPI()
    if within:
        within(app)
    auth = dutchdoor.fastapi.Auth(app, "memory:")
    if around:
        around(app)

    @app.get("/hello")
    async def hello(user: dutchdoor.fastapi.CurrentUser) -> None: ...

    @app.websocket("/socket")
    async def socket(websocket: Any, user: dutchdoor.fastapi.CurrentUser) -> None: ...

    assert auth.engine
    return app


def on_starlette(around: Attach | None = None, within: Attach | None = None) -> Starlette:
    auth = dutchdoor.starlette.Auth(None, "memory:")

    @auth.require()
    async def hello(request: Request) -> Response:
        return PlainTextResponse("hello")

    @auth.require()
    async def socket(websocket: Any) -> None: ...

    app = Starlette(routes=[Route("/hello", hello), WebSocketRoute("/socket", socket)])
    if within:
        within(app)
    auth.attach(app)
    if around:
        around(app)
    return app


BOTH = pytest.mark.parametrize("application", [on_fastapi, on_starlette], ids=["fastapi", "starlette"])


def cors(app: Any) -> None:
    app.add_middleware(CORSMiddleware, allow_origins=[PAGE], allow_headers=["Authorization"])


@BOTH
@pytest.mark.parametrize("place", ["around", "within"])
def test_f36_a_page_of_another_origin_reads_a_refusal(application: Any, place: str) -> None:
    """Whether `CORSMiddleware` was added before or after `Auth`, a 401 carries its headers: without them a browser
    hides the answer, and the page sees a network that failed, and never refreshes its token.
    """
    with TestClient(application(**{place: cors})) as client:
        answer = client.get("/hello", headers={"origin": PAGE})
        assert (answer.status_code, answer.json()["code"]) == (401, "not_authenticated")
        assert answer.headers["access-control-allow-origin"] == PAGE
        assert answer.headers["www-authenticate"].startswith("Bearer")
        assert answer.headers["cache-control"] == "no-store"
        assert client.head("/hello").content == b""


@BOTH
def test_a_middleware_sees_a_refusal_as_an_answer(application: Any) -> None:
    """A log or a metric that was added before `Auth` counts a 401, and no exception."""
    seen: list[int] = []

    async def count(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        response = await call_next(request)
        seen.append(response.status_code)
        return response

    def counting(app: Any) -> None:
        app.add_middleware(BaseHTTPMiddleware, dispatch=count)

    with TestClient(application(within=counting)) as client:
        assert client.get("/hello").status_code == 401
    assert seen == [401]


@BOTH
def test_a_socket_is_closed_with_the_code_for_it(application: Any) -> None:
    """A WebSocket without a proof closes with 4401, as before."""
    with (
        TestClient(application()) as client,
        pytest.raises(WebSocketDisconnect) as closed,
        client.websocket_connect("/socket", headers={"origin": "http://testserver"}),
    ):
        pass
    assert closed.value.code == 4401


@BOTH
def test_an_application_may_answer_itself(application: Any) -> None:
    """A handler of the application's own for one of the errors is the one that is called."""

    async def sorry(request: Request, error: Exception) -> Response:
        return PlainTextResponse("sorry", 418)

    with TestClient(application(within=lambda app: app.add_exception_handler(NotAuthenticated, sorry))) as client:
        assert client.get("/hello").status_code == 418
