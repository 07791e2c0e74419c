"""The routes that the suite asks for, in Starlette."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from settings import SETTINGS
from starlette.applications import Starlette
from starlette.authentication import requires
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket, WebSocketDisconnect

from dutchdoor.starlette import Auth

auth = Auth(None, **SETTINGS)


async def index(request: Request) -> JSONResponse:
    return JSONResponse({"index": "the application's"})


async def who(request: Request) -> JSONResponse:
    return JSONResponse({"who": request.user.email})


@auth.require()
async def hello(request: Request) -> JSONResponse:
    user, principal = request.user, request.auth.principal
    return JSONResponse({"email": user.email, "id": user.id, "subject": principal.subject, "method": principal.method})


@auth.require()
async def order(request: Request) -> JSONResponse:
    form = await request.form()
    return JSONResponse({"by": request.user.id, "what": form.get("what")})


@requires("admin")
async def their_own(request: Request) -> JSONResponse:
    return JSONResponse({"admin": True})


@auth.require(role="admin")
async def admin(request: Request) -> JSONResponse:
    return JSONResponse({"admin": True})


@auth.require(scope="orders:write")
async def scoped(request: Request) -> JSONResponse:
    return JSONResponse({"scoped": True})


@auth.require(fresh="1s")
async def fresh(request: Request) -> JSONResponse:
    return JSONResponse({"fresh": True})


@auth.require(factors=2)
async def factors(request: Request) -> JSONResponse:
    return JSONResponse({"factors": True})


async def form(request: Request) -> HTMLResponse:
    return HTMLResponse(f'<input type="hidden" name="csrf_token" value="{await auth.csrf_token(request)}">')


@auth.require()
async def stream(request: Request) -> StreamingResponse:
    async def numbers() -> AsyncIterator[bytes]:
        for number in range(10_000):
            yield b"%d\n" % number
            await asyncio.sleep(0.01)

    return StreamingResponse(numbers(), media_type="text/plain")


async def basket(request: Request) -> JSONResponse:
    return JSONResponse(dict(await auth.session(request)))


async def add(request: Request) -> JSONResponse:
    await auth.session(request)
    request.session.setdefault(request.path_params["key"], []).append((await request.body()).decode())
    return JSONResponse(dict(request.session))


async def empty(request: Request) -> JSONResponse:
    session = await auth.session(request)
    session.clear()
    return JSONResponse(dict(session))


async def said(websocket: WebSocket) -> None:
    session = await auth.session(websocket)
    session["before"] = True
    await websocket.accept()
    session["said"] = await websocket.receive_text()
    await websocket.close()


@auth.require()
async def echo(websocket: WebSocket) -> None:
    await websocket.accept()
    try:
        while True:
            await websocket.send_text(f"{websocket.user.email}: {await websocket.receive_text()}")
    except WebSocketDisconnect:
        pass


app = Starlette(
    routes=[
        Route("/", index),
        Route("/who", who),
        Route("/hello", hello),
        Route("/order", order, methods=["POST"]),
        Route("/admin", admin),
        Route("/their-own", their_own),
        Route("/scoped", scoped),
        Route("/fresh", fresh),
        Route("/factors", factors),
        Route("/form", form),
        Route("/stream", stream),
        Route("/basket", basket),
        Route("/basket/{key}", add, methods=["POST"]),
        Route("/empty", empty, methods=["POST"]),
        WebSocketRoute("/ws-basket", said),
        WebSocketRoute("/ws", echo),
    ]
)
auth.attach(app)
