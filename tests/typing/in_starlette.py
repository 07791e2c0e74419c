"""Starlette and plain ASGI: a decorator keeps the type of what it decorates."""

# pyright: reportUnnecessaryTypeIgnoreComment=true
from __future__ import annotations

from typing import Any, assert_type

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse

import dutchdoor.asgi
import dutchdoor.wsgi
from dutchdoor.starlette import Auth, Principal, User, next_path

auth = Auth(Starlette(), "sqlite:///app.db")


@auth.require(role="admin")
async def report(request: Request) -> PlainTextResponse:
    assert_type(next_path(request.query_params.get("next")), str)
    return PlainTextResponse("report")


async def calls(request: Request) -> None:
    assert_type(await report(request), PlainTextResponse)


plain = dutchdoor.asgi.Auth("sqlite:///app.db", issuer=None)


async def hello(scope: dict[str, Any], receive: Any, send: Any) -> None:
    assert_type(await dutchdoor.asgi.current_user(scope), User)
    assert_type(await dutchdoor.asgi.optional_principal(scope), Principal | None)


app = plain.around(plain.require(scope="orders")(hello))


def greet(environ: dict[str, Any], start_response: Any) -> list[bytes]:
    assert_type(dutchdoor.wsgi.current_user(environ), User)
    assert_type(dutchdoor.wsgi.optional_user(environ), User | None)
    return []


application = dutchdoor.wsgi.Auth("sqlite:///app.db").around(greet)
