"""The lab over HTTP: one page, its buttons, and what its script asks for. For this machine alone.

The page is at `/lab` of a server of its own, which `dutchdoor lab` runs. `dutchdoor serve` has no such route, whatever
its settings are: a lab shows secrets on purpose.

A request is answered if it comes from loopback, names this very host and port, and passed no proxy; any other gets 404.
So a page of another site reaches nothing here by a name that leads to 127.0.0.1 (DNS rebinding). A button is answered
if this page sent it (CSRF).
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl

import msgspec
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from dutchdoor.choice.lab.laboratory import ACCESS_FOR, Lab
from dutchdoor.choice.lab.labs import Full, Labs
from dutchdoor.choice.lab.patterns import BY_ID
from dutchdoor.choice.lab.view import cells, outcomes, view
from dutchdoor.errors import DutchdoorError
from dutchdoor.model.durations import read_duration
from dutchdoor.texts import mark
from dutchdoor.texts.languages import Language, Languages
from dutchdoor.texts.templates import environment
from dutchdoor.web.headers import SecurityHeaders
from dutchdoor.web.http import Response as Plain
from dutchdoor.web.http import json_response
from dutchdoor.web.pages.files import STATIC, StaticFile, static

__all__ = ["PATH", "site"]

PATH: Final = "/lab"
COOKIE: Final = "dutchdoor_lab"
HTTP: Final = 80
AT_MOST: Final = 1024
"""Bytes of a form."""

_HERE: Final = Path(__file__).parent
_FILES: Final[Mapping[str, StaticFile]] = {
    "page.css": STATIC["/assets/page.css"],
    "door.svg": STATIC["/assets/door.svg"],
    "lab.css": static((_HERE / "static" / "lab.css").read_bytes(), "text/css; charset=utf-8"),
    "lab.js": static((_HERE / "static" / "lab.js").read_bytes(), "text/javascript; charset=utf-8"),
}
_PROXIED: Final = frozenset(
    {b"forwarded", b"via", b"x-forwarded-for", b"x-forwarded-host", b"x-forwarded-proto", b"x-real-ip"}
)
_HEADERS: Final = SecurityHeaders(hsts="off")
_FULL: Final = mark("Three labs are open on this machine. End one of them, or wait until it is left alone.")


def site(labs: Labs, port: int, access_for: str = ACCESS_FOR) -> ASGIApp:
    """Return the application for a server on this port of loopback."""
    languages = Languages()
    end = "" if port == HTTP else f":{port}"  # browsers leave out the usual one
    origins = [f"http://{host}{end}" for host in ("localhost", "127.0.0.1")]

    def lab_of(request: Request) -> Lab | None:
        return labs.find(request.cookies.get(COOKIE, ""))

    async def show(request: Request) -> Response:
        return await run_in_threadpool(
            partial(_page, lab_of(request), languages.of(request.headers.get("accept-language")), access_for)
        )

    async def now(request: Request) -> Response:
        lab = lab_of(request)
        if lab is None:
            return _finished(Plain(204))
        return await run_in_threadpool(partial(_now, lab, languages.of(request.headers.get("accept-language"))))

    async def press(request: Request) -> Response:
        if request.headers.get("origin") not in origins:  # cross-site request forgery
            return _not_found()
        form = await _form(request)
        if form is None:
            return _finished(Plain(413, kind="page"))
        secret = request.cookies.get(COOKIE, "")
        language = languages.of(request.headers.get("accept-language"))
        return await run_in_threadpool(partial(_press, labs, secret, form, language, access_for))

    async def asset(request: Request) -> Response:
        file = _FILES.get(request.path_params["name"])
        if file is None:
            return _not_found()
        return _finished(Plain(200, [(b"content-type", file.content_type.encode())], file.content, kind="page"))

    async def home(_request: Request) -> Response:
        return _finished(Plain(303, [(b"location", PATH.encode())], kind="page"))

    routes = [
        Route("/", home),
        Route(PATH, show),
        Route(PATH, press, methods=["POST"]),
        Route(f"{PATH}/now", now),
        Route(f"{PATH}/assets/{{name}}", asset),
    ]
    return _Here(Starlette(routes=routes), [origin.removeprefix("http://").encode() for origin in origins])


class _Here:
    """Answers this machine alone."""

    def __init__(self, app: ASGIApp, hosts: list[bytes]) -> None:
        self._app, self._hosts = app, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or self._is_here(scope):
            await self._app(scope, receive, send)
        else:
            await _not_found()(scope, receive, send)

    def _is_here(self, scope: Scope) -> bool:
        headers: list[tuple[bytes, bytes]] = scope["headers"]
        client = scope.get("client")
        return (
            client is not None
            and client[0] in {"127.0.0.1", "::1"}
            and [value for name, value in headers if name == b"host"] in [[host] for host in self._hosts]
            and not any(name in _PROXIED for name, _ in headers)
        )


async def _form(request: Request) -> dict[str, str] | None:
    """Read a form, None if it is too long."""
    body = b""
    async for chunk in request.stream():
        body += chunk
        if len(body) > AT_MOST:
            return None
    return dict(parse_qsl(body.decode("latin-1"), max_num_fields=8))


def _press(labs: Labs, secret: str, form: Mapping[str, str], language: Language, access_for: str) -> Response:
    """Do what a button says, and lead back to the page."""
    deed, of = form.get("do", ""), form.get("of", "all")
    cookies: list[tuple[bytes, bytes]] = []
    if deed == "end":
        labs.end(secret)
        return _back("", [(b"set-cookie", f"{COOKIE}=; Path={PATH}; Max-Age=0".encode())])
    lab = labs.find(secret)
    try:
        if lab is None:
            if deed != "sign-in":  # the page of a lab that has ended: it begins anew
                return _back("")
            secret, lab = labs.open()
            cookies = [(b"set-cookie", f"{COOKIE}={secret}; Path={PATH}; HttpOnly; SameSite=Strict".encode())]
        with lab.lock:
            if not lab.has_ended:  # while this waited
                lab.do(deed, of)
    except Full:
        return _page(None, language, access_for, status=503, wrong=_FULL)
    except DutchdoorError as error:
        return _page(lab, language, access_for, status=409, wrong=error.message)
    return _back(of if of in BY_ID else "now", cookies)


def _back(part: str, cookies: list[tuple[bytes, bytes]] | None = None) -> Response:
    to = f"{PATH}#{part}" if part else PATH
    return _finished(Plain(303, [(b"location", to.encode()), *(cookies or [])], kind="page"))


def _page(lab: Lab | None, language: Language, access_for: str, *, status: int = 200, wrong: str = "") -> Response:
    if lab is None:
        values = view(None, language)
    else:
        with lab.lock:
            values = view(None if lab.has_ended else lab, language)
    values |= {"wrong": wrong, "access_for": read_duration(access_for), "path": PATH, "asset": _asset}
    body = environment(_HERE / "templates", language).get_template("lab.html").render(values)
    return _finished(Plain(status, [(b"content-type", b"text/html; charset=utf-8")], body.encode(), kind="page"))


def _asset(name: str) -> str:
    return f"{PATH}/assets/{name}?v={_FILES[name].version}"


def _now(lab: Lab, language: Language) -> Response:
    """What changes by itself: who is accepted, and what is still being measured."""
    with lab.lock:
        if lab.has_ended:
            return _finished(Plain(204))
        found = {name: {"state": cell.state, "text": language.text(cell.text)} for name, cell in cells(lab).items()}
        said = {str(name): language.text(text) for name, text in outcomes(lab, language).items()}
    return _finished(json_response(200, msgspec.to_builtins({"cells": found, "outcomes": said})))


def _not_found() -> Response:
    return _finished(Plain(404, [(b"content-type", b"text/plain; charset=utf-8")], b"Not found.\n"))


def _finished(plain: Plain) -> Response:
    answer = Response(plain.body, plain.status)
    answer.raw_headers = _HEADERS.finish(plain)
    return answer
