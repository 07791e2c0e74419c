"""The routes that the suite asks for, in plain ASGI."""

from __future__ import annotations

import asyncio
import json
from email.message import Message
from email.parser import BytesParser
from typing import Any
from urllib.parse import parse_qs

from settings import SETTINGS

from dutchdoor.asgi import Auth, csrf_token, current_principal, current_user, optional_user, session_data

auth = Auth(**SETTINGS)


async def answer(send: Any, content: object, kind: bytes = b"application/json") -> None:
    body = content.encode() if isinstance(content, str) else json.dumps(content).encode()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", kind)]})
    await send({"type": "http.response.body", "body": body})


async def index(_scope: Any, _receive: Any, send: Any) -> None:
    await answer(send, {"index": "the application's"})


async def who(scope: Any, _receive: Any, send: Any) -> None:
    user = await optional_user(scope)
    await answer(send, {"who": user.email if user else None})


async def hello(scope: Any, _receive: Any, send: Any) -> None:
    user, principal = await current_user(scope), await current_principal(scope)
    said = {"email": user.email, "id": user.id, "subject": principal.subject, "method": principal.method}
    await answer(send, said)


async def order(scope: Any, receive: Any, send: Any) -> None:
    principal = await current_principal(scope)
    body = await body_of(receive)
    await answer(send, {"by": principal.subject, "what": field(dict(scope["headers"]).get(b"content-type", b""), body)})


async def body_of(receive: Any) -> bytes:
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message.get("body", b""), message.get("more_body", False)
    return body


def field(kind: bytes, body: bytes) -> str | None:
    """The field `what` of a form."""
    if not kind.startswith(b"multipart/"):
        return parse_qs(body.decode()).get("what", [None])[0]
    parts: Any = BytesParser().parsebytes(b"content-type: " + kind + b"\r\n\r\n" + body).get_payload()
    named: dict[Any, Message] = {part.get_param("name", header="content-disposition"): part for part in parts}
    return str(named["what"].get_payload())


@auth.require(role="admin")
async def admin(_scope: Any, _receive: Any, send: Any) -> None:
    await answer(send, {"admin": True})


@auth.require(scope="orders:write")
async def scoped(_scope: Any, _receive: Any, send: Any) -> None:
    await answer(send, {"scoped": True})


@auth.require(fresh="1s")
async def fresh(_scope: Any, _receive: Any, send: Any) -> None:
    await answer(send, {"fresh": True})


@auth.require(factors=2)
async def factors(_scope: Any, _receive: Any, send: Any) -> None:
    await answer(send, {"factors": True})


async def form(scope: Any, _receive: Any, send: Any) -> None:
    await answer(send, f'<input type="hidden" name="csrf_token" value="{await csrf_token(scope)}">', b"text/html")


@auth.require()
async def stream(_scope: Any, _receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/plain")]})
    for number in range(10_000):
        await send({"type": "http.response.body", "body": b"%d\n" % number, "more_body": True})
        await asyncio.sleep(0.01)
    await send({"type": "http.response.body", "body": b""})


async def basket(scope: Any, receive: Any, send: Any) -> None:
    session = await session_data(scope)
    key = scope["path"].removeprefix("/basket").lstrip("/")
    if key:
        scope["session"].setdefault(key, []).append((await body_of(receive)).decode())
    await answer(send, dict(session))


async def empty(scope: Any, _receive: Any, send: Any) -> None:
    session = await session_data(scope)
    session.clear()
    await answer(send, dict(session))


async def said(scope: Any, receive: Any, send: Any) -> None:
    session = await session_data(scope)
    session["before"] = True
    await receive()
    await send({"type": "websocket.accept"})
    session["said"] = (await receive())["text"]
    await send({"type": "websocket.close"})


async def echo(scope: Any, receive: Any, send: Any) -> None:
    user = await current_user(scope)
    await receive()
    await send({"type": "websocket.accept"})
    while (message := await receive())["type"] == "websocket.receive":
        await send({"type": "websocket.send", "text": f"{user.email}: {message['text']}"})


ROUTES = {"/": index, "/ws": echo, "/ws-basket": said} | {
    f"/{each.__name__}": each
    for each in (who, hello, order, admin, scoped, fresh, factors, form, stream, basket, empty)
}


async def application(scope: Any, receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        while (await receive())["type"] != "lifespan.shutdown":
            await send({"type": "lifespan.startup.complete"})
        await send({"type": "lifespan.shutdown.complete"})
    elif scope["path"].startswith("/basket/"):
        await basket(scope, receive, send)
    elif scope["path"] in ROUTES:
        await ROUTES[scope["path"]](scope, receive, send)
    else:
        await send({"type": "http.response.start", "status": 404, "headers": [(b"content-type", b"text/plain")]})
        await send({"type": "http.response.body", "body": b"the application's"})


app = auth.around(application)
