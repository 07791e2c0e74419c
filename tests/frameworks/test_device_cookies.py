"""A session that is bound to its browser, in every framework: its cookie alone is worth nothing, and a page that was
reached from another site comes back with the proof.
"""

from __future__ import annotations

import json
import re
import sys
import types
from pathlib import Path
from typing import Any

import httpx2
import pytest
from fastapi import FastAPI
from msgspec.structs import replace
from starlette.testclient import TestClient
from starlette.websockets import WebSocketDisconnect
from tests.frameworks.conftest import OF_DJANGO, App, serving, signed_in
from tests.standins import Clock
from websockets.exceptions import InvalidStatus
from websockets.sync.client import connect

from dutchdoor.auth import Auth
from dutchdoor.credentials.password import CHEAPEST, PasswordHasher
from dutchdoor.fastapi import Auth as FastapiAuth
from dutchdoor.model.bindings import Binding
from dutchdoor.model.device_binding import BOUND_FOR
from dutchdoor.model.sessions import SessionToken
from dutchdoor.stores.base import Swap

ROOT = Path(__file__).parents[2]
KEY = Binding("confirmed", "ES256", "t" * 43, '{"kty":"EC"}', 1)
FOREIGN_LINK = {"sec-fetch-mode": "navigate", "sec-fetch-site": "cross-site", "accept": "text/html"}
HOME, SYDNEY = ({"host": "localhost", "x-forwarded-for": at} for at in ("145.97.39.155", "1.128.0.1"))
RELOADED = {**FOREIGN_LINK, "sec-fetch-site": "same-origin"}


def engine_of(app: App) -> Auth:
    """The database of an application from outside, under its own URL: a bound cookie is good at one server."""
    return Auth(
        f"sqlite:///{app.folder}/app.db",
        local_url=app.url,
        master_key=app.folder / "dutchdoor.keys",
        hasher=PasswordHasher(CHEAPEST),
    )


async def bind(app: App, client: httpx2.Client) -> str:
    """Have the browser of a client bind its session, which it has just begun. Returns the bound cookie."""
    async with engine_of(app) as engine:
        found = await engine.store.session(SessionToken.parse(client.cookies["dd_session"]).id)
        assert found is not None
        await engine.store.commit(Swap(replace(found[0], binding=KEY.text())))
        return engine.api.bindings.stamps.made("cookie", found[0].id, engine.authority.clock())


async def age(app: App, token: str) -> None:
    """Let a session have begun an hour ago, which no node has read yet."""
    async with engine_of(app) as engine:
        found = await engine.store.session(SessionToken.parse(token).id)
        assert found is not None
        session = found[0]
        before = replace(session, created_at=session.created_at - 3600, auth_time=session.auth_time - 3600)
        await engine.store.commit(Swap(before))


async def bound(app: App) -> tuple[httpx2.Client, str, str]:
    """A copy of a bound session's cookie, the bound cookie, and the CSRF token."""
    client, answer = signed_in(app, app.someone())
    return client, await bind(app, client), answer["csrf_token"]


async def test_m01_a_copied_session_cookie_is_worth_nothing(app: App) -> None:
    """Without the bound cookie a guard refuses the session, and where a user is optional there is none. With it, all is
    as ever. That of another session does not help.
    """
    thief, cookie, csrf = await bound(app)
    refused = thief.get("/hello")
    assert (refused.status_code, refused.json()["code"]) == (401, "device_proof_required")
    assert thief.post("/order", headers={"x-csrf-token": csrf}).status_code in {401, 403}
    assert thief.get("/who").json()["who"] is None
    assert thief.get("/auth/me").json()["code"] == "device_proof_required"
    _, anothers, _ = await bound(app)
    thief.cookies["dd_bound"] = anothers
    assert thief.get("/hello").status_code == 401
    thief.cookies["dd_bound"] = cookie
    assert thief.get("/hello").json()["method"] == "session"
    assert thief.post("/order", headers={"x-csrf-token": csrf}).status_code == 200
    assert thief.get("/who").json()["who"] is not None
    assert thief.get("/auth/me").status_code == 200


async def test_m02_a_link_of_another_site_is_loaded_again(app: App) -> None:
    """A page that was opened from elsewhere, and so without the bound cookie, leads to a page that loads it again. The
    browser holds that request. If it still comes without the cookie, people sign in: nothing goes round.
    """
    browser, cookie, _ = await bound(app)
    came = browser.get("/hello?page=2", headers=FOREIGN_LINK)
    assert (came.status_code, came.headers["location"]) == (303, "/auth/device-binding?next=%2Fhello%3Fpage%3D2")
    assert came.headers["cache-control"] == "no-store"
    page = browser.get(came.headers["location"], headers=FOREIGN_LINK)
    assert (page.status_code, page.headers["refresh"]) == (200, "0;url=/hello?page=2")
    assert 'href="/hello?page=2"' in page.text
    for public in ("/who", "/"):  # they would not know who it is
        assert browser.get(public, headers=FOREIGN_LINK).headers["location"].startswith("/auth/device-binding?next=")
        assert browser.get(public, headers=RELOADED).status_code == 200
    again = browser.get("/hello?page=2", headers=RELOADED)
    assert again.status_code in {303, 401}
    assert "device-binding" not in again.headers.get("location", "")
    silent = browser.get("/hello", headers={"accept": "text/html"})
    assert "device-binding" not in silent.headers.get("location", ""), "it could go on for ever"
    browser.cookies["dd_bound"] = cookie
    assert browser.get("/hello?page=2", headers=RELOADED).status_code == 200


async def test_m03_session_data_needs_the_bound_cookie(app: App) -> None:
    """What a session has stored is not read with a copy of its cookie, nor with Django's own beside it, or alone."""
    who, client = app.someone(), app.browser()
    if app.is_django:
        client.get("/keep", params={"tea": "green"})
        client.get("/sign-in", params={"email": who["email"]})
        read, kept = "/keep", {"tea": "green"}
    else:
        client.post("/basket/tea", content="green", headers={"content-type": "text/plain"})
        client.post("/auth/login", json={**who, "mode": "session"})
        read, kept = "/basket", {"tea": ["green"]}
    cookie = await bind(app, client)
    thief = app.browser()
    thief.cookies.update({name: value for name, value in client.cookies.items() if name != "dd_session"})
    for copy in (client, thief):
        assert copy.get(read).json() == {}
        assert copy.get("/who").json()["who"] is None
    client.cookies["dd_bound"] = cookie
    assert client.get(read).json() == kept
    assert client.get("/who").json()["who"] == who["email"]


async def test_m04_a_websocket_needs_the_bound_cookie(app: App) -> None:
    """The handshake is refused without it, and served with it."""
    if not app.streams:
        pytest.skip("serves no WebSockets")
    client, cookie, _ = await bound(app)
    address, session = f"{app.url.replace('http', 'ws', 1)}/ws", client.cookies["dd_session"]
    origin: Any = app.url
    with pytest.raises(InvalidStatus):
        connect(address, additional_headers={"cookie": f"dd_session={session}"}, origin=origin)
    with connect(
        address, additional_headers={"cookie": f"dd_session={session}; dd_bound={cookie}"}, origin=origin
    ) as socket:
        socket.send("hello")
        assert "hello" in socket.recv(timeout=60)


def test_m04_a_socket_as_in_the_guide_does_not_outlive_a_copied_cookie() -> None:
    """The recipe of the guide: a socket and a stream that were opened with both cookies end after a while. When the
    bound cookie has run out, a copy opens neither again, and the browser does, with a fresh one.
    """
    clock, guide = Clock(), (ROOT / "docs/guides/device-binding.md").read_text()
    (recipe,) = re.findall(r"^```python\n(import asyncio\n.*?)^```", guide, re.MULTILINE | re.DOTALL)
    host = "https://app.example.com"
    module = types.ModuleType("recipe")
    app = module.__dict__["app"] = FastAPI()
    auth = FastapiAuth(app, "memory:", public_url=host, clock=clock, hasher=PasswordHasher(CHEAPEST))
    sys.modules["recipe"] = module
    try:
        shorter = recipe.replace("OPEN_FOR = 600.0", "OPEN_FOR = 0.1").replace("sleep(1)", "sleep(0.01)")
        exec(shorter, module.__dict__)
    finally:
        del sys.modules["recipe"]
    bindings, who = auth.engine.api.bindings, {"email": "ada@example.com", "password": "a door in two halves"}
    with TestClient(app, base_url=host) as client:
        assert client.post("/auth/register", json=who).status_code == 201
        assert client.post("/auth/login", json=who).status_code == 200
        session_id = SessionToken.parse(client.cookies["__Host-dd_session"]).id

        async def bind() -> None:
            found = await auth.engine.store.session(session_id)
            assert found is not None
            await auth.engine.store.commit(Swap(replace(found[0], binding=KEY.text())))
            auth.engine.authority.look_up_again(session_id)

        def fresh() -> None:
            client.cookies.delete("__Host-dd_bound")
            client.cookies.set("__Host-dd_bound", bindings.stamps.made("cookie", session_id, clock()))

        def closed_with() -> int:
            try:
                with client.websocket_connect("wss://app.example.com/clock", headers={"origin": host}) as socket:
                    while True:
                        assert "T" in socket.receive_text()
            except WebSocketDisconnect as closed:
                return closed.code

        assert client.portal is not None
        client.portal.call(bind)
        fresh()
        assert (closed_with(), client.get("/news").text[:6]) == (1012, "data: ")
        clock.forward(BOUND_FOR)
        assert (closed_with(), client.get("/news").status_code) == (4401, 401)
        fresh()
        assert (closed_with(), client.get("/news").status_code) == (1012, 200)


@pytest.mark.long
@pytest.mark.parametrize("name", OF_DJANGO)
def test_m11_the_login_of_django_asks_the_browser_for_a_key(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What `login()` answers sets the session cookie, and asks to bind it."""
    monkeypatch.setenv("PUBLIC_URL", "https://localhost")
    with serving(name, tmp_path) as app:
        answer = app.browser().get("/sign-in", params={"email": app.someone()["email"]})
        assert answer.status_code == 200
        assert "__Host-dd_session" in answer.headers["set-cookie"]
        assert '(ES256 RS256);path="/auth/device-binding"' in answer.headers["secure-session-registration"]
        for client in app.clients:
            client.close()


@pytest.mark.long
@pytest.mark.parametrize("name", OF_DJANGO)
async def test_m14_a_cookie_of_django_alone_must_be_bound_and_is_watched(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A copy of Django's cookie alone gets past neither the policy that each session is bound, nor the watch over the
    places where it is used.
    """
    monkeypatch.setenv("PUBLIC_URL", "https://localhost")
    monkeypatch.setenv("PROXIES", "127.0.0.1")
    monkeypatch.setenv("POLICY", json.dumps({"device_binding": "required", "suspicion": "standard"}))
    with serving(name, tmp_path) as app:
        for has_aged in (True, False):
            who, owner, thief = app.someone(), app.browser(), app.browser()
            owner.get("/keep", params={"tea": "green"}, headers=HOME)
            owner.get("/sign-in", params={"email": who["email"]}, headers=HOME)
            if has_aged:
                await age(app, owner.cookies["__Host-dd_session"])
            thief.cookies["sessionid"] = owner.cookies["sessionid"]
            alone = thief.get("/hello", headers=HOME)
            if has_aged:
                assert alone.status_code == 401
                assert thief.get("/who", headers=HOME).json()["who"] is None
                assert thief.get("/keep", headers=HOME).json() == {}
            else:
                assert alone.status_code == 200, "the minute that a browser has"
                assert thief.get("/hello", headers=SYDNEY).json()["code"] == "step_up_required"
                assert thief.get("/who", headers=SYDNEY).json()["who"] is None
        for client in app.clients:
            client.close()
