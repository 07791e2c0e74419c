"""The routes that the suite asks for, in plain WSGI."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from email.message import Message
from email.parser import BytesParser
from typing import Any
from urllib.parse import parse_qs

from settings import SETTINGS

from dutchdoor.wsgi import Auth, csrf_token, current_principal, current_user, optional_user, session_data

auth = Auth(**SETTINGS)


def answer(start: Any, content: object, kind: str = "application/json") -> list[bytes]:
    start("200 OK", [("Content-Type", kind)])
    return [content.encode() if isinstance(content, str) else json.dumps(content).encode()]


def index(_environ: Any, start: Any) -> list[bytes]:
    return answer(start, {"index": "the application's"})


def who(environ: Any, start: Any) -> list[bytes]:
    user = optional_user(environ)
    return answer(start, {"who": user.email if user else None})


def hello(environ: Any, start: Any) -> list[bytes]:
    user, principal = current_user(environ), current_principal(environ)
    said = {"email": user.email, "id": user.id, "subject": principal.subject, "method": principal.method}
    return answer(start, said)


def order(environ: Any, start: Any) -> list[bytes]:
    fields = form_in(environ)
    principal = current_principal(environ, fields.get("csrf_token"))
    return answer(start, {"by": principal.subject, "what": fields.get("what")})


def form_in(environ: Any) -> dict[str, str]:
    kind, length = environ.get("CONTENT_TYPE", ""), int(environ.get("CONTENT_LENGTH") or 0)
    body = environ["wsgi.input"].read(length)
    if not kind.startswith("multipart/"):
        return {name: values[0] for name, values in parse_qs(body.decode()).items()}
    parts: Any = BytesParser().parsebytes(b"content-type: " + kind.encode() + b"\r\n\r\n" + body).get_payload()
    named: dict[Any, Message] = {part.get_param("name", header="content-disposition"): part for part in parts}
    return {name: str(part.get_payload()) for name, part in named.items()}


@auth.require(role="admin")
def admin(_environ: Any, start: Any) -> list[bytes]:
    return answer(start, {"admin": True})


@auth.require(scope="orders:write")
def scoped(_environ: Any, start: Any) -> list[bytes]:
    return answer(start, {"scoped": True})


@auth.require(fresh="1s")
def fresh(_environ: Any, start: Any) -> list[bytes]:
    return answer(start, {"fresh": True})


@auth.require(factors=2)
def factors(_environ: Any, start: Any) -> list[bytes]:
    return answer(start, {"factors": True})


def form(environ: Any, start: Any) -> list[bytes]:
    return answer(start, f'<input type="hidden" name="csrf_token" value="{csrf_token(environ)}">', "text/html")


def stream(environ: Any, start: Any) -> Iterator[bytes]:
    current_principal(environ)  # only when the server asks for the first piece
    start("200 OK", [("Content-Type", "text/plain")])
    for number in range(10_000):
        yield b"%d\n" % number
        time.sleep(0.01)


def basket(environ: Any, start: Any) -> list[bytes]:
    session = session_data(environ)
    key = environ["PATH_INFO"].removeprefix("/basket").lstrip("/")
    if key:
        item = environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0)).decode()
        session.setdefault(key, []).append(item)
    return answer(start, dict(session))


def empty(environ: Any, start: Any) -> list[bytes]:
    session = session_data(environ)
    session.clear()
    return answer(start, dict(session))


ROUTES = {"/": index} | {
    f"/{each.__name__}": each
    for each in (who, hello, order, admin, scoped, fresh, factors, form, stream, basket, empty)
}


def application(environ: Any, start: Any) -> Iterable[bytes]:
    path = environ["PATH_INFO"]
    route = basket if path.startswith("/basket/") else ROUTES.get(path)
    if route is not None:
        return route(environ, start)
    start("404 Not Found", [("Content-Type", "text/plain")])
    return [b"the application's"]


app = auth.around(application)
