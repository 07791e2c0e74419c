"""The routes that the suite asks for, in Litestar."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

from litestar import Litestar, MediaType, Request, WebSocket, get, post, websocket
from litestar.exceptions import WebSocketDisconnect
from litestar.response import Stream
from settings import SETTINGS

from dutchdoor.litestar import Auth, CurrentPrincipal, CurrentUser, OptionalUser, SessionData

auth = Auth(**SETTINGS)


@get("/")
async def index() -> dict[str, str]:
    return {"index": "the application's"}


@get("/who")
async def who(optional_user: OptionalUser) -> dict[str, str | None]:
    return {"who": optional_user.email if optional_user else None}


@get("/hello")
async def hello(current_user: CurrentUser, current_principal: CurrentPrincipal) -> dict[str, Any]:
    return {
        "email": current_user.email,
        "id": current_user.id,
        "subject": current_principal.subject,
        "method": current_principal.method,
    }


@post("/order", status_code=200)
async def order(request: Request[Any, Any, Any], current_principal: CurrentPrincipal) -> dict[str, Any]:
    form = await request.form()
    return {"by": current_principal.subject, "what": form.get("what")}


@get("/admin", guards=[auth.require(role="admin")])
async def admin() -> dict[str, bool]:
    return {"admin": True}


@get("/scoped", guards=[auth.require(scope="orders:write")])
async def scoped() -> dict[str, bool]:
    return {"scoped": True}


@get("/fresh", guards=[auth.require(fresh="1s")])
async def fresh() -> dict[str, bool]:
    return {"fresh": True}


@get("/factors", guards=[auth.require(factors=2)])
async def factors() -> dict[str, bool]:
    return {"factors": True}


@get("/form", media_type=MediaType.HTML)
async def form(request: Request[Any, Any, Any]) -> str:
    return f'<input type="hidden" name="csrf_token" value="{await auth.csrf_token(request)}">'


@get("/stream", guards=[auth.require()])
async def stream() -> Stream:
    async def numbers() -> AsyncIterator[bytes]:
        for number in range(10_000):
            yield b"%d\n" % number
            await asyncio.sleep(0.01)

    return Stream(numbers(), media_type="text/plain")


@get("/basket")
async def basket(session_data: SessionData) -> dict[str, Any]:
    return dict(session_data)


@post("/basket/{key:str}", status_code=200)
async def add(key: str, request: Request[Any, Any, Any]) -> dict[str, Any]:
    await auth.session(request)
    request.session.setdefault(key, []).append((await request.body()).decode())
    return dict(request.session)


@post("/empty", status_code=200)
async def empty(session_data: SessionData) -> dict[str, Any]:
    session_data.clear()
    return dict(session_data)


@websocket("/ws-basket")
async def said(socket: WebSocket[Any, Any, Any], session_data: SessionData) -> None:
    session_data["before"] = True
    await socket.accept()
    session_data["said"] = await socket.receive_text()
    await socket.close()


@websocket("/ws")
async def echo(socket: WebSocket[Any, Any, Any], current_user: CurrentUser) -> None:
    await socket.accept()
    try:
        while True:
            await socket.send_text(f"{current_user.email}: {await socket.receive_text()}")
    except WebSocketDisconnect:
        pass


app = Litestar(
    [
        *(index, who, hello, order, admin, scoped, fresh, factors, form, stream, echo),
        *(basket, add, empty, said),
    ],
    plugins=[auth],
    openapi_config=None,
)
