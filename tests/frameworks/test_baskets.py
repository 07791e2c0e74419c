"""Session data in every framework, asked over HTTP of a real server process."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import httpx2
import pytest
from tests.frameworks.conftest import ASYNC, OF_DJANGO, SYNC, App, among, signed_in
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

VISITOR = "dd_visitor"
FRAMEWORKS = [name for name in (*ASYNC, *SYNC) if name not in OF_DJANGO]
"""Django has a cookie and rules of its own for session data: see `test_django.py`."""
TEXT = {"content-type": "text/plain"}


@pytest.fixture(scope="module", params=among(*FRAMEWORKS))
def served(request: pytest.FixtureRequest, running: Callable[[str], App]) -> App:
    return running(request.param)


def add(client: httpx2.Client, key: str, item: str, **headers: str) -> httpx2.Response:
    return client.post(f"/basket/{key}", content=item, headers={**TEXT, **headers})


def basket(client: httpx2.Client, **headers: str) -> Any:
    answer = client.get("/basket", headers=headers)
    assert answer.status_code == 200, answer.text
    return answer.json()


async def kept_for(app: App, token: str) -> dict[str, Any]:
    """What is stored under a visitor's cookie."""
    async with app.engine() as engine:
        return dict(await engine.authority.data.of_visitor(token))


async def rows(app: App) -> int:
    async with app.engine() as engine:
        return (await engine.store.counts())["session_data"]


def test_a_reader_gets_no_cookie(app: App) -> None:
    """Only who stores something gets a cookie, once; what is nested may be changed in place, and what is emptied is
    gone, with its cookie.
    """
    with app.browser() as client:
        read = client.get("/basket")
        assert (read.json(), "set-cookie" in read.headers, read.headers["vary"]) == ({}, False, "Cookie")
        assert "set-cookie" not in client.post("/empty").headers
        assert "vary" not in client.get("/").headers, "a request that does not touch it"
        first = add(client, "basket", "tea")
        assert first.json() == {"basket": ["tea"]}
        name, _, rest = first.headers["set-cookie"].partition("=")
        assert (name, rest.partition("; ")[2]) == (VISITOR, "Path=/; HttpOnly; SameSite=Lax; Max-Age=1209600")
        second = add(client, "basket", "milk")
        assert (second.json(), "set-cookie" in second.headers) == ({"basket": ["tea", "milk"]}, False)
        assert basket(client) == {"basket": ["tea", "milk"]}
        assert client.post("/empty").json() == {}
        assert (basket(client), VISITOR in client.cookies) == ({}, False)


@pytest.mark.parametrize("body", [{}, {"mode": "hybrid", "transport": "body"}], ids=["session", "hybrid"])
async def test_a_basket_survives_the_sign_in_and_ends_with_the_session(app: App, body: dict[str, str]) -> None:
    """It moves to the session, its cookie is cleared, what it held finds nothing; after the log-out nothing is left."""
    who, client = app.someone(), app.browser()
    add(client, "basket", "tea")
    visitor = client.cookies[VISITOR]
    answer = client.post("/auth/login", json={**who, "mode": "session", **body}).json()
    assert VISITOR not in client.cookies
    headers = {"authorization": f"Bearer {answer['access_token']}"} if body else {}
    assert basket(client, **headers) == {"basket": ["tea"]}
    assert await kept_for(app, visitor) == {}
    assert httpx2.get(f"{app.url}/basket", headers={"cookie": f"{VISITOR}={visitor}"}).json() == {}
    proof = headers or {"x-csrf-token": answer["csrf_token"]}
    assert add(client, "basket", "milk", **proof).json() == {"basket": ["tea", "milk"]}
    if not body:
        assert add(client, "basket", "planted").status_code == 403, "a form of another page"
    other, its = signed_in(app, who)
    assert (basket(other), basket(client, **headers)) == ({}, {"basket": ["tea", "milk"]}), "another session"
    add(other, "basket", "coffee", **{"x-csrf-token": its["csrf_token"]})
    old = {"cookie": "; ".join(f"{name}={value}" for name, value in client.cookies.items()), **headers}
    before = await rows(app)
    client.post("/auth/logout", headers=proof)
    assert (httpx2.get(f"{app.url}/basket", headers=old).json(), await rows(app)) == ({}, before - 1)
    assert basket(other) == {"basket": ["coffee"]}
    other.post("/auth/logout/all", headers={"x-csrf-token": its["csrf_token"]})
    assert await rows(app) == before - 2


async def test_a_stateless_sign_in_keeps_the_visitors_data(app: App) -> None:
    """A stateless token has no session: its client keeps the visitor's cookie, until the log-out."""
    who, client = app.someone(), app.browser()
    add(client, "basket", "tea")
    token = client.post("/auth/login", json={**who, "mode": "jwt"}).json()["access_token"]
    headers = {"authorization": f"Bearer {token}"}
    add(client, "basket", "milk", **headers)
    visitor = client.cookies[VISITOR]
    assert basket(client, **headers) == {"basket": ["tea", "milk"]}
    client.post("/auth/logout", headers=headers)
    assert (VISITOR in client.cookies, await kept_for(app, visitor)) == (False, {})


@pytest.mark.parametrize("is_signed_in", [True, False], ids=["session", "visitor"])
def test_requests_at_once_lose_nothing(app: App, is_signed_in: bool) -> None:
    """Requests that arrive together and change different keys are all kept, whichever thread or process they meet."""
    if is_signed_in:
        client, answer = signed_in(app, app.someone())
        headers = {**TEXT, "x-csrf-token": answer["csrf_token"]}
    else:
        client, headers = app.browser(), TEXT
        add(client, "key0", "0")

    async def crowd() -> list[httpx2.Response]:
        async with httpx2.AsyncClient(base_url=app.url, cookies=dict(client.cookies), timeout=60) as many:
            return await asyncio.gather(
                *(many.post(f"/basket/key{n}", content=f"{n}", headers=headers) for n in range(1, 17))
            )

    assert {answer.status_code for answer in asyncio.run(crowd())} == {200}
    wanted = {f"key{n}": [f"{n}"] for n in range(int(is_signed_in), 17)}
    assert basket(client) == wanted


def test_a_page_of_another_site_stores_nothing_for_a_visitor(app: App) -> None:
    """Such a form arrives without the visitor's cookie, and the answer would replace it."""
    with app.browser() as client:
        for headers in ({"origin": "https://evil.example"}, {"sec-fetch-site": "cross-site"}):
            refused = add(client, "basket", "planted", **headers)
            assert (refused.status_code, refused.json()["code"]) == (403, "cross_site")
            assert "set-cookie" not in refused.headers
        assert add(client, "basket", "tea", **{"sec-fetch-site": "same-origin"}).status_code == 200


def test_a_made_up_cookie_is_not_adopted(app: App) -> None:
    """Session fixation: what is stored gets an id of the server's own."""
    for made_up in ("ddv1_" + "A" * 48, "x", "ddv1_" + "A" * 600):
        cookie = {"cookie": f"{VISITOR}={made_up}"}
        answer = httpx2.post(f"{app.url}/basket/key", content=b"tea", headers={**TEXT, **cookie})
        assert answer.cookies[VISITOR] != made_up
        assert httpx2.get(f"{app.url}/basket", headers=cookie).json() == {}


def test_too_much_is_refused_and_not_stored(app: App) -> None:
    """What would be larger than the limit is 422 with a problem document, and the data stays as it was."""
    with app.browser() as client:
        add(client, "one", "x" * 40_000)
        for size in (40_000, 70_000):
            refused = add(client, "two", "x" * size)
            assert (refused.status_code, refused.json()["code"]) == (422, "too_much_data")
            assert refused.headers["content-type"] == "application/problem+json"
        assert list(basket(client)) == ["one"]


def test_a_dead_session_leaves_a_visitor(app: App) -> None:
    """A public route stays public with the cookie of a session that has ended: its caller is a visitor."""
    dead = {"cookie": "dd_session=dds1_" + "A" * 48}
    assert httpx2.get(f"{app.url}/basket", headers=dead).json() == {}


def test_a_websocket_reads_and_stores(app: App) -> None:
    """What its handler changes is stored when the handshake is answered, and when the handler ends."""
    if not app.streams:
        return  # WSGI has no WebSockets
    client, answer = signed_in(app, app.someone())
    add(client, "basket", "tea", **{"x-csrf-token": answer["csrf_token"]})
    cookies = {"cookie": "; ".join(f"{name}={value}" for name, value in client.cookies.items())}
    url = f"{app.url.replace('http', 'ws', 1)}/ws-basket"
    with connect(url, additional_headers=cookies, origin=app.url) as socket:  # type: ignore[arg-type]
        assert basket(client) == {"basket": ["tea"], "before": True}
        add(client, "basket", "milk", **{"x-csrf-token": answer["csrf_token"]})
        socket.send("hello")
        with pytest.raises(ConnectionClosed):
            socket.recv()
    assert basket(client) == {"basket": ["tea", "milk"], "before": True, "said": "hello"}
