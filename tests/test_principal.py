"""`auth.principal`: what an application learns of a request to itself, and what no other site gets past it."""

from __future__ import annotations

import contextlib
import inspect
import json
from collections.abc import Iterable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send
from starlette.websockets import WebSocket
from tests.http.world import HOME, HOST, LISTED, OWN, PROXY, RECORDER, Answer, Browser, World, a_world
from tests.standins import Absent

import dutchdoor.asgi
from dutchdoor import Auth, Client, Verified
from dutchdoor.errors import Forbidden, NotAuthenticated, Unavailable
from dutchdoor.model.policy import Mode
from dutchdoor.model.principal import Principal
from dutchdoor.stores.memory import MemoryStore

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


async def test_s23_what_contradicts_itself_proves_no_one() -> None:
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


async def answer_of(app: ASGIApp, scope: dict[str, Any]) -> list[dict[str, Any]]:
    """What an application sends for a request without a body."""
    sent: list[dict[str, Any]] = []

    async def receive() -> Any:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    await app(scope, receive, send)
    return sent


async def test_p19_an_error_that_the_application_does_not_catch_has_its_own_status() -> None:
    """With the guard around it, an application that catches nothing answers 401, 403 and 503 with a problem document; a
    WebSocket is refused before it is accepted. An answer that has begun is not answered a second time.
    """
    store = Absent(MemoryStore())
    world = World(store=store)

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/begun":
            await send({"type": "http.response.start", "status": 200, "headers": []})
        if await world.auth.principal(scope) is None:
            raise NotAuthenticated
        await Response()(scope, receive, send)

    app: Any = dutchdoor.asgi.Auth(world.auth).around(application)

    async def status(scope: dict[str, Any]) -> tuple[int, str]:
        start, body = await answer_of(app, scope)
        return start["status"], json.loads(body["body"])["code"]

    start, body = await answer_of(app, scope_of("GET", []))
    assert (start["status"], json.loads(body["body"])["code"]) == (503, "unavailable")
    assert int(dict(start["headers"])[b"retry-after"]) >= 1
    assert dict(start["headers"])[b"cache-control"] == b"no-store"
    start, body = await answer_of(app, scope_of("HEAD", []))
    assert (start["status"], body["body"]) == (503, b"")
    store.absent = False
    browser = await by_session(world)
    cookie = ("cookie", browser.cookie() or "")
    assert await status(scope_of("GET", [])) == (401, "not_authenticated")
    assert await status(scope_of("GET", [("authorization", "Bearer x")])) == (401, "invalid_token")
    assert await status(scope_of("POST", [cookie])) == (403, "csrf_token")
    (start, *_) = await answer_of(app, scope_of("GET", [cookie]))
    assert start["status"] == 200
    sockets = scope_of("GET", [cookie, ("origin", SIBLING)], kind="websocket")
    (closed,) = await answer_of(app, sockets)
    assert (closed["type"], closed["code"]) == ("websocket.close", 4403)
    with pytest.raises(NotAuthenticated):
        await answer_of(app, {**scope_of("GET", []), "path": "/begun"})
    await world.auth.close()


@pytest.mark.parametrize("mode", ["session", "hybrid"])
async def test_s26_a_sign_in_of_the_application_is_in_the_cookie_that_this_api_reads(mode: Mode) -> None:
    """An application that checks passwords itself sets the cookie as this API does: it is recognised, refreshed and
    signed out by it, and the cookie of an earlier sign-in in another mode is cleared.
    """
    async with a_world() as world:
        account = await world.auth.authority.provide("user-42")
        proof = Verified(subject=account.subject, epoch=account.epoch, amr=("pwd",), at=world.clock())
        signed_in = await world.auth.authority.start(proof, mode=mode, client=Client())
        answer = Answer(200, [("set-cookie", value) for value in world.auth.set_cookies(signed_in)], b"")
        for line in answer.set_cookies():
            RECORDER._cookie(line, secure=True)
        names = {"session": "__Host-dd_session", "hybrid": "__Host-dd_refresh"}
        value = answer.cookie(names[mode])
        assert value == (signed_in.session_token if mode == "session" else signed_in.refresh_token)
        (other,) = set(names) - {mode}
        assert answer.cookie(names[other]) == ""
        cookie = f"{names[mode]}={value}"
        csrf = (await world.call("GET", "/auth/csrf", cookie=cookie)).json["csrf_token"]
        headers = [("x-csrf-token", csrf), ("origin", OWN)]
        if mode == "session":
            principal = await who(world, "POST", ("cookie", cookie), *headers)
            assert principal is not None
            assert principal.subject == "user-42"
        else:
            assert (await world.call("POST", "/auth/refresh", cookie=cookie, headers=headers)).status == 200
        out = await world.call("POST", "/auth/logout", cookie=cookie, headers=headers)
        assert out.json["ended"] == 1
        assert out.cookie(names[mode]) == ""


names = st.sampled_from([b"cookie", b"authorization", b"origin", b"host", b"x-csrf-token", b"upgrade", b"forwarded"])
known = [b"Bearer x", b"Bearer \xff\xfe", b"__Host-dd_session=x", b"__Host-dd_session=\xe4", OWN.encode()]
lines = st.lists(st.tuples(names, st.binary(max_size=40) | st.sampled_from(known)), max_size=6)


async def test_s23_no_request_raises_what_is_not_documented() -> None:
    """Whatever the headers hold, not ASCII included, the outcome is None or an exception that is documented."""
    tried: list[list[tuple[bytes, bytes]]] = []

    @settings(max_examples=3 * settings.default.max_examples, database=None)
    @given(lines)
    def collect(headers: list[tuple[bytes, bytes]]) -> None:
        tried.append(headers)

    collect()
    async with a_world() as world:
        for n, headers in enumerate(tried):
            scope = {**scope_of("POST", [], kind=("http", "websocket")[n % 2]), "headers": headers}
            with contextlib.suppress(NotAuthenticated, Forbidden, Unavailable):
                assert await world.auth.principal(scope) is None
