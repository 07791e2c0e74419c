"""`auth.principal`: what an application learns of a request to itself, and what no other site gets past it."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.requests import Request
from starlette.websockets import WebSocket
from tests.http.world import HOME, HOST, LISTED, OWN, PROXY, Browser, World, a_world

from dutchdoor import Auth
from dutchdoor.errors import Forbidden, NotAuthenticated, Unavailable
from dutchdoor.model.principal import Principal

SIBLING = "https://forum.example.com"
Headers = Iterable[tuple[str, str]]


def scope_of(method: str, headers: Headers, *, kind: str = "http", host: str = HOST, **more: Any) -> dict[str, Any]:
    sent = [("host", host), *headers]
    scope = {
        "type": kind,
        "path": "/orders",
        "query_string": b"",
        "scheme": "ws" if kind == "websocket" else "http",
        "headers": [(name.encode(), value.encode("utf-8")) for name, value in sent],
        "client": (HOME, 50000),
        **more,
    }
    return scope if kind == "websocket" else {**scope, "method": method}


async def who(world: World, method: str, *headers: tuple[str, str], **more: Any) -> Principal | None:
    return await world.auth.principal(scope_of(method, headers, **more))


async def by_session(world: World) -> Browser:
    await world.register()
    browser = world.browser()
    await browser.login(mode="session")
    return browser


async def test_s23_there_is_nothing_to_forget() -> None:
    """The request is all that is given, so no application can leave out the method and the protection with it."""
    assert list(inspect.signature(Auth.principal).parameters) == ["self", "request"]
    async with a_world() as world:
        browser = await by_session(world)
        scope = scope_of("POST", [("cookie", browser.cookie() or ""), ("origin", OWN)])
        for request in (scope, Request(scope)):
            with pytest.raises(Forbidden):
                await world.auth.principal(request)
        with pytest.raises(TypeError):
            await world.auth.principal(Request(scope).headers)  # type: ignore[arg-type]


async def test_s23_a_cookie_needs_our_own_page() -> None:
    """By cookie, an unsafe request passes with its session's CSRF token from a page of this origin or a listed one.
    Without the token, or from another site, it is refused; a safe one and one by access token need neither.
    """
    async with a_world(origins=[LISTED]) as world:
        browser = await by_session(world)
        program = world.program()
        await program.login(mode="hybrid")
        cookie, csrf = ("cookie", browser.cookie() or ""), ("x-csrf-token", browser.csrf)
        ours = [[("origin", OWN)], [("sec-fetch-site", "same-origin")], [("origin", LISTED)], []]
        theirs = [[("origin", SIBLING)], [("sec-fetch-site", "cross-site")], [("sec-fetch-site", "same-site")]]
        for method in ("POST", "PUT", "PATCH", "DELETE", "post", "PROPFIND"):
            for origin in ours:
                found = await who(world, method, cookie, csrf, *origin)
                assert found is not None
                with pytest.raises(Forbidden):
                    await who(world, method, cookie, *origin)
            for origin in theirs:
                with pytest.raises(Forbidden):
                    await who(world, method, cookie, csrf, *origin)
            assert await who(world, method, ("authorization", f"Bearer {program.access}"), *theirs[0])
        for origin in (*ours, *theirs):
            assert await who(world, "GET", cookie, *origin), "a link from elsewhere"


@pytest.mark.parametrize("kind", ["websocket", "http"])
async def test_s23_a_handshake_is_judged_by_its_origin(kind: str) -> None:
    """A WebSocket handshake by cookie is refused unless its Origin is ours or listed, also behind a TLS proxy and
    where a server hands it over as a GET. An access token needs no origin.
    """
    async with a_world(origins=[LISTED], proxies=[PROXY]) as world:
        browser = await by_session(world)
        program = world.program()
        await program.login(mode="hybrid")
        cookie, version = ("cookie", browser.cookie() or ""), ("sec-websocket-version", "13")
        proxied = {"client": (PROXY, 1)}
        for more in ({"kind": kind}, {"kind": kind, **proxied}):
            for origin in (OWN, LISTED):
                assert await who(world, "GET", cookie, version, ("origin", origin), **more)
            for refused in ([("origin", SIBLING)], [("origin", "null")], [("origin", f"http://{HOST}")], []):
                with pytest.raises(Forbidden):
                    await who(world, "GET", cookie, version, *refused, **more)
            assert await who(world, "GET", ("authorization", f"Bearer {program.access}"), version, **more)
        if kind == "websocket":
            scope = scope_of("GET", [cookie, ("origin", SIBLING)], kind=kind)
            with pytest.raises(Forbidden):
                await world.auth.principal(WebSocket(scope, None, None))  # type: ignore[arg-type]


async def test_s23_in_development_the_origin_is_this_machine() -> None:
    """Without a public URL our own origin is the loopback host of the request; a name that points here is not."""
    async with a_world(public_url=None) as world:
        browser = await by_session(world)
        cookie = ("cookie", browser.cookie() or "")
        local = {"kind": "websocket", "host": "localhost:8000", "client": ("127.0.0.1", 1)}
        assert await who(world, "GET", cookie, ("origin", "http://localhost:8000"), **local)
        with pytest.raises(Forbidden):
            await who(world, "GET", cookie, ("origin", "http://localhost:3000"), **local)
        rebound = {**local, "host": "evil.example.net:8000"}
        with pytest.raises(NotAuthenticated):
            await who(world, "GET", cookie, ("origin", "http://evil.example.net:8000"), **rebound)


async def test_s23_what_contradicts_itself_proves_nobody() -> None:
    """Two Authorization headers, and a cookie and a token of two people, are `NotAuthenticated`; so is an unsafe
    request by cookie to a host that is not ours.
    """
    async with a_world() as world:
        browser = await by_session(world)
        await world.register("ben@example.com")
        ben = world.program()
        await ben.login("ben@example.com", mode="hybrid")
        cookie, bearer = ("cookie", browser.cookie() or ""), ("authorization", f"Bearer {ben.access}")
        with pytest.raises(NotAuthenticated, match="more than once"):
            await who(world, "GET", bearer, bearer)
        with pytest.raises(NotAuthenticated, match="different sign-ins"):
            await who(world, "GET", cookie, bearer)
        with pytest.raises(NotAuthenticated, match="does not accept the host"):
            await who(world, "POST", cookie, ("x-csrf-token", browser.csrf), host="elsewhere.example.com")


names = st.sampled_from([b"cookie", b"authorization", b"origin", b"host", b"x-csrf-token", b"upgrade", b"forwarded"])
known = [b"Bearer x", b"Bearer \xff\xfe", b"__Host-dd_session=x", b"__Host-dd_session=\xe4", OWN.encode()]
lines = st.lists(st.tuples(names, st.binary(max_size=40) | st.sampled_from(known)), max_size=6)


async def test_s23_no_request_raises_what_is_not_documented() -> None:
    """Whatever the headers hold, not ASCII included, the outcome is nobody or an exception that is documented."""
    tried: list[list[tuple[bytes, bytes]]] = []

    @settings(max_examples=300, deadline=None, database=None)
    @given(lines)
    def collect(headers: list[tuple[bytes, bytes]]) -> None:
        tried.append(headers)

    collect()
    async with a_world() as world:
        for n, headers in enumerate(tried):
            scope = {**scope_of("POST", [], kind=("http", "websocket")[n % 2]), "headers": headers}
            with contextlib.suppress(NotAuthenticated, Forbidden, Unavailable):
                assert await world.auth.principal(scope) is None
