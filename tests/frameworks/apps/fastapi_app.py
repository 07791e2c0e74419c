"""The routes that the suite asks for, in FastAPI."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from fastapi import Depends, FastAPI, Request, WebSocket, WebSocketDisconnect
from fastapi.responses import HTMLResponse, StreamingResponse
from settings import SETTINGS

from dutchdoor.fastapi import Auth, CurrentPrincipal, CurrentUser, OptionalUser, SessionData

app = FastAPI()
auth = Auth(app, **SETTINGS)


@app.get("/")
async def index() -> dict[str, str]:
    return {"index": "the application's"}


@app.get("/who")
async def who(user: OptionalUser) -> dict[str, str | None]:
    return {"who": user.email if user else None}


@app.get("/hello")
async def hello(user: CurrentUser, principal: CurrentPrincipal) -> dict[str, object]:
    return {"email": user.email, "id": user.id, "subject": principal.subject, "method": principal.method}


@app.post("/order")
async def order(request: Request, principal: CurrentPrincipal) -> dict[str, object]:
    form = await request.form()
    return {"by": principal.subject, "what": form.get("what")}


@app.get("/admin", dependencies=[Depends(auth.require(role="admin"))])
async def admin() -> dict[str, bool]:
    return {"admin": True}


@app.get("/scoped", dependencies=[Depends(auth.require(scope="orders:write"))])
async def scoped() -> dict[str, bool]:
    return {"scoped": True}


@app.get("/fresh", dependencies=[Depends(auth.require(fresh="1s"))])
async def fresh() -> dict[str, bool]:
    return {"fresh": True}


@app.get("/factors", dependencies=[Depends(auth.require(factors=2))])
async def factors() -> dict[str, bool]:
    return {"factors": True}


@app.get("/form")
async def form(request: Request) -> HTMLResponse:
    return HTMLResponse(f'<input type="hidden" name="csrf_token" value="{await auth.csrf_token(request)}">')


@app.get("/stream")
async def stream(principal: CurrentPrincipal) -> StreamingResponse:
    async def numbers() -> AsyncIterator[bytes]:
        for number in range(10_000):
            yield b"%d\n" % number
            await asyncio.sleep(0.01)

    return StreamingResponse(numbers(), media_type="text/plain")


@app.get("/basket")
async def basket(session: SessionData) -> dict[str, object]:
    return dict(session)


@app.post("/basket/{key}")
async def add(key: str, request: Request, session: SessionData) -> dict[str, object]:
    session.setdefault(key, []).append((await request.body()).decode())
    return dict(session)


@app.post("/empty")
async def empty(session: SessionData) -> dict[str, object]:
    session.clear()
    return dict(session)


@app.websocket("/ws-basket")
async def said(socket: WebSocket, session: SessionData) -> None:
    session["before"] = True
    await socket.accept()
    session["said"] = await socket.receive_text()
    await socket.close()


@app.websocket("/ws")
async def echo(socket: WebSocket, user: CurrentUser) -> None:
    await socket.accept()
    try:
        while True:
            await socket.send_text(f"{user.email}: {await socket.receive_text()}")
    except WebSocketDisconnect:
        pass
