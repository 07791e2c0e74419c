"""The routes for browsers: the pages, their files, and the description of the API."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import msgspec
from msgspec.structs import replace

from dutchdoor.texts.languages import Language, Languages
from dutchdoor.web.api import Call, Handler, Page, Route
from dutchdoor.web.http import Response
from dutchdoor.web.openapi import document
from dutchdoor.web.pages import (
    activity,
    confirm,
    devices,
    forgot,
    issuers,
    join,
    landing,
    linked,
    mail_code,
    register,
    reload,
    reset,
    second_step,
    setup,
    sign_in,
    strength,
    verify,
)
from dutchdoor.web.pages.account import page as account
from dutchdoor.web.pages.branding import PLAIN, Look
from dutchdoor.web.pages.console import routes as console
from dutchdoor.web.pages.files import StaticFile
from dutchdoor.web.pages.rendering import render
from dutchdoor.web.pages.site import Pages

__all__ = ["routes", "with_pages"]

_HTML = (b"content-type", b"text/html; charset=utf-8")
_KEPT = (b"cache-control", b"public, max-age=3600")
_NEVER = re.compile(r"\s*q\s*=\s*0(\.0*)?\s*", re.IGNORECASE)
_FOR_EVER = (b"cache-control", b"public, max-age=31536000, immutable")


def routes(
    api: Sequence[Route],
    *,
    product: str,
    issuer: Callable[[], str],
    base_path: str,
    version: str,
    keyless: bool,
    cookie: str,
    docs: bool,
    languages: Languages,
    look: Look = PLAIN,
) -> tuple[Route, ...]:
    """Return the routes of the files of the pages, and of the description of an API with these routes. `issuer` is
    called when it is first shown. Without `docs`, the API is not described.
    """

    @cache
    def described() -> dict[str, Any]:
        return document(api, product=product, issuer=issuer(), version=version, cookie=cookie, keyless=keyless)

    @cache
    def reference(language: Language) -> bytes:
        return render("docs", language, base=base_path, product=product, look=look, document=described())

    async def show(call: Call) -> Response:
        language = languages.of(call.request.header_list(b"accept-language"))
        return Response(200, [_HTML], reference(language), kind="page")

    async def openapi(_call: Call) -> Response:
        return Response(
            200, [(b"content-type", b"application/json"), _KEPT], msgspec.json.encode(described()), kind="public"
        )

    described_at = (
        Route(method="GET", path="/docs", handler=show, summary="Show the page docs."),
        Route(method="GET", path="/openapi.json", handler=openapi, summary="Get this description as OpenAPI 3.1."),
    )
    return (
        *(
            Route(method="GET", path=path, handler=_file(file), query=("v",), summary="Get a file of the pages.")
            for path, file in look.served.items()
        ),
        *(described_at if docs else ()),
    )


def _file(file: StaticFile) -> Handler:
    """Return the handler of a file. Files are compressed, and pages are not: the length of a compressed page tells who
    chooses a part of it, such as a name, whether that is like its CSRF token (BREACH).
    """
    plain, gzipped = f'"{file.version}"'.encode(), f'"{file.version}-gzip"'.encode()

    async def give(call: Call) -> Response:
        asked = call.request
        # An address of another version must not be kept for ever: during an update it may get the content of this one.
        kept = _FOR_EVER if call.query.get("v") == file.version else _KEPT
        compressed = _accepts_gzip(asked.header_list(b"accept-encoding") or "")
        etag, content = (gzipped, file.gzipped) if compressed else (plain, file.content)
        headers = [(b"etag", etag), kept, (b"vary", b"accept-encoding")]
        if file.version in (asked.header_list(b"if-none-match") or ""):  # a proxy may have made it weak: W/"..."
            return Response(304, headers, kind="public")
        headers += [(b"content-type", file.content_type.encode())]
        if compressed:
            headers += [(b"content-encoding", b"gzip")]
        return Response(200, headers, content, kind="public")

    return give


def _accepts_gzip(header: str) -> bool:
    """Read the codings that a client lists (RFC 9110, 12.5.3)."""
    weights = {coding.strip(): weight for coding, _, weight in (each.partition(";") for each in header.split(","))}
    return not _NEVER.fullmatch(weights.get("gzip", "q=0"))


def with_pages(api: tuple[Route, ...], pages: Pages) -> tuple[Route, ...]:
    """Return the routes of the API with the pages of people: those that have a form post to endpoints of the API."""
    forms: dict[Handler, Page] = {}
    shown: list[Route] = []
    own = (register, forgot, reset, verify, linked, join, setup, confirm, account)
    for page in (sign_in, mail_code, issuers, second_step, *own):
        forms |= page.forms(pages)
        shown += page.routes(pages)
    for page in (landing, reload, strength, devices, activity, *((console,) if pages.console else ())):
        shown += page.routes(pages)
    kept = [route for route in shown if not (route.bundled and pages.own_users)]
    return (*(_with_form(route, forms.get(route.handler), pages) for route in api), *kept)


def _with_form(route: Route, form: Page | None, pages: Pages) -> Route:
    """Return a route of the API with its form. Who sends one without a session is sent to sign in, and back to it."""
    if form is None:
        return route
    if route.demands != "caller":
        return replace(route, page=form)
    return replace(route, page=form, by_refresh_cookie=True, unproven=pages.to_sign_in)
