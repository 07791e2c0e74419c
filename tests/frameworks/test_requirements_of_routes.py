"""What holds in every framework, asked over HTTP of a real server process."""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from typing import Any

import httpx2
import pytest
from tests.frameworks.conftest import App, signed_in
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

BODY = {"mode": "hybrid", "transport": "body"}
JWT = {"mode": "jwt"}


def bearer(body: dict[str, Any]) -> dict[str, str]:
    return {"authorization": f"Bearer {body['access_token']}"}


def test_the_applications_own_paths_are_its_own(app: App) -> None:
    """`/` and an unknown path are answered by the application, and those of the API by the engine."""
    with app.browser() as client:
        assert client.get("/").json() == {"index": "the application's"}
        assert client.get("/none").status_code == 404
        assert "problem" not in client.get("/none").headers["content-type"]
        assert client.get("/.well-known/jwks.json").json()["keys"]
        assert client.get("/auth/none").json()["code"] == "not_found"


@pytest.mark.parametrize("body", [{}, BODY, JWT], ids=["session", "hybrid", "jwt"])
def test_a_principal_and_a_user_are_the_same_by_each_proof(app: App, body: dict[str, str]) -> None:
    """A cookie and a token of either mode name the same account, and a sign-out ends each."""
    who = app.someone()
    client, answer = signed_in(app, who, **body)
    headers = bearer(answer) if body else {}
    hello = client.get("/hello", headers=headers).json()
    method = "access_token" if body else "session"
    subject = answer["user"]["id"]
    assert hello == {"email": who["email"], "id": subject, "subject": subject, "method": method}
    assert client.get("/who", headers=headers).json() == {"who": who["email"]}
    out = client.post("/auth/logout", headers=headers or {"x-csrf-token": answer["csrf_token"]})
    assert out.json()["fenced"] is True
    stale = {"authorization": headers["authorization"]} if headers else {"cookie": "dd_session=" + "x" * 53}
    for refused in (client.get("/hello", headers=headers), httpx2.get(f"{app.url}/hello", headers=stale)):
        assert refused.status_code == 401
        assert refused.headers["content-type"] == "application/problem+json"
        assert refused.headers["www-authenticate"].startswith("Bearer ")
        assert refused.headers["cache-control"] == "no-store"
    assert client.get("/who", headers=headers).json() == {"who": None}


def test_without_a_proof_only_public_routes_answer(app: App) -> None:
    """An anonymous client reads public routes, and gets 401 with a challenge from the others."""
    with app.browser() as client:
        assert client.get("/who").json() == {"who": None}
        for path in ("/hello", "/admin", "/scoped", "/fresh", "/factors"):
            refused = client.get(path)
            assert (refused.status_code, refused.json()["code"]) == (401, "not_authenticated")
            assert refused.headers["www-authenticate"] == 'Bearer realm="dutchdoor"'


def test_a_requirement_refuses_as_the_rfcs_say(app: App) -> None:
    """A missing role or scope is 403 insufficient_scope; an old proof or one factor is a step-up of RFC 9470."""
    client, _ = signed_in(app, app.someone())
    for path in ("/admin", "/scoped"):
        refused = client.get(path)
        assert (refused.status_code, refused.json()["code"]) == (403, "forbidden")
        assert 'error="insufficient_scope"' in refused.headers["www-authenticate"]
    refused = client.get("/factors")
    assert (refused.status_code, refused.json()["factors"]) == (401, 2)
    assert 'error="insufficient_user_authentication"' in refused.headers["www-authenticate"]
    until = time.monotonic() + 60
    while client.get("/fresh").status_code == 200:
        assert time.monotonic() < until
        time.sleep(0.1)
    refused = client.get("/fresh")
    assert (refused.status_code, refused.json()["max_age"]) == (401, 1)
    assert 'max_age="1"' in refused.headers["www-authenticate"]


def test_a_cookie_needs_the_token_of_its_page(app: App) -> None:
    """Cross-site request forgery: an unsafe request by cookie passes with the session's token in a header or in a form,
    and not without, with another's, or from another site's page.
    """
    if app.is_django:
        return  # its views have Django's own check: see below
    client, answer = signed_in(app, app.someone())
    field = re.search(r'name="csrf_token" value="([\w-]+)"', client.get("/form").text)
    assert field is not None
    token = field[1]
    assert token == answer["csrf_token"]
    by, form = answer["user"]["id"], {"what": "tea"}
    assert client.post("/order", headers={"x-csrf-token": token}).json() == {"by": by, "what": None}
    assert client.post("/order", data={**form, "csrf_token": token}).json() == {"by": by, "what": "tea"}
    files = {"file": ("big.bin", b"x" * 300_000)}
    assert client.post("/order", data={"csrf_token": token, **form}, files=files).json() == {"by": by, "what": "tea"}
    _, its = signed_in(app, app.someone())
    evil = {"x-csrf-token": token, "origin": "https://evil.example"}
    for refused in (
        client.post("/order"),
        client.post("/order", data=form),
        client.post("/order", data={**form, "csrf_token": its["csrf_token"]}),
        client.post("/order", data={**form, "csrf_token": token + "A"}),
        client.post("/order", headers={"x-csrf-token": its["csrf_token"]}, data={"csrf_token": token}),
        client.post("/order", content=b"csrf_token=" + token.encode(), headers={"content-type": "text/plain"}),
        client.post("/order", headers=evil),
        client.post("/order", data={"csrf_token": token}, headers={"origin": "https://evil.example"}),
        client.post("/order", data={"csrf_token": token}, headers={"sec-fetch-site": "cross-site"}),
    ):
        assert refused.status_code == 403, refused.text
        assert refused.json()["code"] in {"csrf_token", "cross_site"}


def test_a_view_of_django_keeps_djangos_check(app: App) -> None:
    """Cross-site request forgery: an unsafe request by cookie to a view of Django passes with the token of Django's
    form, or with the session's own in its header, and not without or from another site's page.
    """
    if not app.is_django:
        return
    client, answer = signed_in(app, app.someone())
    field = re.search(r'name="csrfmiddlewaretoken" value="(\w+)"', client.get("/form").text)
    assert field is not None
    by, form = answer["user"]["id"], {"what": "tea"}
    assert client.post("/order", data={**form, "csrfmiddlewaretoken": field[1]}).json() == {"by": by, "what": "tea"}
    ours = {"x-csrf-token": answer["csrf_token"]}
    assert client.post("/order", headers=ours, data=form).json() == {"by": by, "what": "tea"}
    _, its = signed_in(app, app.someone())
    evil = {"origin": "https://evil.example"}
    for refused in (
        client.post("/order", data=form),
        client.post("/order", data={**form, "csrfmiddlewaretoken": field[1][:-1]}),
        client.post("/order", headers={"x-csrf-token": its["csrf_token"]}),
        client.post("/order", headers={**ours, **evil}),
        client.post("/order", headers={**ours, "sec-fetch-site": "cross-site"}),
        client.post("/order", headers=evil, data={"csrfmiddlewaretoken": field[1]}),
    ):
        assert refused.status_code == 403, refused.text


@pytest.mark.parametrize("is_signed_in", [True, False], ids=["session", "visitor"])
def test_session_data_of_django_loses_nothing(app: App, is_signed_in: bool) -> None:
    """Requests that arrive together and change different keys are all kept, whichever process they meet; a log-in takes
    them along, and a log-out leaves none.
    """
    if not app.is_django:
        return
    who = app.someone()
    client = signed_in(app, who)[0] if is_signed_in else app.browser()
    client.get("/keep", params={"key0": "0"})

    async def crowd() -> list[httpx2.Response]:
        async with httpx2.AsyncClient(base_url=app.url, cookies=dict(client.cookies), timeout=60) as many:
            return await asyncio.gather(*(many.get("/keep", params={f"key{n}": f"{n}"}) for n in range(1, 17)))

    assert {answer.status_code for answer in asyncio.run(crowd())} == {200}
    wanted = {f"key{n}": f"{n}" for n in range(17)}
    assert client.get("/keep").json() == wanted
    before = client.cookies["sessionid"]
    csrf = client.post("/auth/login", json={**who, "mode": "session"}).json()["csrf_token"]
    assert (client.get("/keep").json(), client.cookies["sessionid"] == before) == (wanted, False)
    held = client.cookies["sessionid"]
    client.post("/auth/logout", headers={"x-csrf-token": csrf})
    for key in (before, held):
        assert httpx2.get(f"{app.url}/keep", headers={"cookie": f"sessionid={key}"}).json() == {}


def test_a_bearer_token_needs_no_csrf_token(app: App) -> None:
    """A page of another site cannot add a token, so a request that carries one needs no other proof of its origin."""
    who = app.someone()
    client, answer = signed_in(app, who, **BODY)
    assert client.post("/order", headers=bearer(answer), data={"what": "tea"}).json()["what"] == "tea"


@pytest.mark.parametrize(
    "cookie",
    ["dd_session=dds1_{0}; dd_session=dds1_{0}", "dd_session={1}", 'dd_session="{0}"', "=dd_session=x; dd_session=y"],
)
def test_a_malformed_cookie_proves_no_one(app: App, cookie: str) -> None:
    """A cookie that is repeated, quoted or not ours is 401 at a guard, and no one's at a public route."""
    headers = {"cookie": cookie.format("A" * 48, "B" * 600)}
    refused = httpx2.get(f"{app.url}/hello", headers=headers)
    assert (refused.status_code, "problem" in refused.headers["content-type"]) == (401, True)
    assert httpx2.get(f"{app.url}/who", headers=headers).json() == {"who": None}


async def test_a_change_of_roles_makes_tokens_stale(app: App) -> None:
    """A session has its new role at once; a token from before is refused as `token_stale`, and a fresh one has it."""
    who = app.someone()
    by_cookie, answer = signed_in(app, who)
    by_token, held = signed_in(app, who, **BODY)
    await app.make_admin(answer["user"]["id"])
    assert by_cookie.get("/admin").json() == {"admin": True}
    refused = by_token.get("/admin", headers=bearer(held))
    assert (refused.status_code, refused.json()["code"]) == (401, "token_stale")
    fresh = by_token.post("/auth/refresh", json={"refresh_token": held["refresh_token"]}).json()
    assert by_token.get("/admin", headers=bearer(fresh)).json() == {"admin": True}


def test_guesses_are_limited(app: App) -> None:
    """Wrong passwords for one account are refused with 429 and a time after some attempts."""
    who = app.someone()
    with app.browser() as client:
        answers = [client.post("/auth/login", json={**who, "password": f"a wrong one {n}"}) for n in range(30)]
    assert answers[-1].status_code == 429
    assert int(answers[-1].headers["retry-after"]) >= 1


def test_many_first_requests_at_once_are_all_answered(app: App) -> None:
    """Requests that arrive together are answered, whichever thread or process they meet."""
    who = app.someone()
    client, _ = signed_in(app, who)

    async def crowd() -> list[httpx2.Response]:
        async with httpx2.AsyncClient(base_url=app.url, cookies=dict(client.cookies), timeout=60) as many:
            return await asyncio.gather(*(many.get("/hello") for _ in range(40)))

    answers = asyncio.run(crowd())
    assert {answer.json().get("email") for answer in answers} == {who["email"]}


# --- connections that stay open --------------------------------------------------------------------------------------


def cookies_of(client: httpx2.Client) -> dict[str, str]:
    return {"cookie": "; ".join(f"{name}={value}" for name, value in client.cookies.items())}


def test_a_socket_ends_with_its_session(app: App) -> None:
    """After a fenced log-out a WebSocket delivers no message in either direction, and closes with 4401; one without
    messages closes, too.
    """
    if not app.streams:
        return  # WSGI has no WebSockets
    who = app.someone()
    client, answer = signed_in(app, who)
    url = f"{app.url.replace('http', 'ws', 1)}/ws"
    with (
        connect(url, additional_headers=cookies_of(client), origin=app.url) as busy,  # type: ignore[arg-type]
        connect(url, additional_headers=cookies_of(client), origin=app.url) as quiet,  # type: ignore[arg-type]
    ):
        busy.send("one")
        assert busy.recv() == f"{who['email']}: one"
        quiet.send("one")
        quiet.recv()
        out = client.post("/auth/logout", headers={"x-csrf-token": answer["csrf_token"]}).json()
        assert out["fenced"]
        with contextlib.suppress(ConnectionClosed):
            busy.send("two")
        with pytest.raises(ConnectionClosed) as closed:
            busy.recv(timeout=60)
        assert closed.value.rcvd is not None and closed.value.rcvd.code == 4401
        with pytest.raises(ConnectionClosed) as closed:
            quiet.recv(timeout=60)
        assert closed.value.rcvd is not None and closed.value.rcvd.code == 4401


def test_a_socket_needs_a_page_of_ours(app: App) -> None:
    """Cross-site WebSocket hijacking: a handshake by cookie from another site's page, or without an Origin, fails."""
    if not app.streams:
        return  # WSGI has no WebSockets
    client, _ = signed_in(app, app.someone())
    url = f"{app.url.replace('http', 'ws', 1)}/ws"
    for origin in ("https://evil.example", None):
        with (
            pytest.raises(InvalidStatus) as refused,
            connect(url, additional_headers=cookies_of(client), origin=origin),
        ):  # type: ignore[arg-type]
            pass
        assert refused.value.response.status_code == 403
    with pytest.raises(InvalidStatus) as refused, connect(url):
        pass
    assert refused.value.response.status_code == 403


def test_a_stream_ends_with_its_session(app: App) -> None:
    """After a fenced log-out, a response that is still being sent ends."""
    client, answer = signed_in(app, app.someone())
    with app.browser() as other, client.stream("GET", "/stream") as response:
        lines = response.iter_lines()
        assert next(lines) == "0"
        out = other.post("/auth/logout", headers={**cookies_of(client), "x-csrf-token": answer["csrf_token"]})
        assert out.json()["fenced"], out.text
        left = list(lines)
    assert len(left) < 5000


# --- browsers ---------------------------------------------------------------------------------------------------------

_PAGE = {"accept": "text/html,application/xhtml+xml", "sec-fetch-mode": "navigate", "sec-fetch-site": "none"}


@pytest.mark.parametrize("headers", [_PAGE, {"accept": "text/html"}], ids=["now", "an old browser"])
def test_a_browser_is_sent_to_sign_in_and_back(app: App, headers: dict[str, str]) -> None:
    """A browser that opens a page without a session is sent to the sign-in page, with the way back to what it asked."""
    answer = app.browser().get("/hello?page=2&q=a%2Fb", headers=headers)
    assert answer.status_code == 303
    assert answer.headers["location"] == "/login?next=%2Fhello%3Fpage%3D2%26q%3Da%252Fb"
    assert answer.headers["cache-control"] == "no-store"


def test_a_browser_with_an_old_proof_is_sent_to_prove_it_again(app: App) -> None:
    """Where the proof is too old or too weak, the page learns that a session is not enough."""
    client, _ = signed_in(app, app.someone())
    assert client.get("/factors", headers=_PAGE).headers["location"] == "/login?next=%2Ffactors&again=1&factors=2"


def test_only_a_page_is_redirected(app: App) -> None:
    """A script, a program with a token and a form get the problem document: after a redirect a script would take the
    page for its data, and what the form would do would be lost. A missing role is no reason to sign in.
    """
    for headers in (
        {"accept": "*/*"},
        {"accept": "text/html", "sec-fetch-mode": "cors"},
        {"accept": "text/html", "authorization": "Bearer x"},
    ):
        assert app.browser().get("/hello", headers=headers).status_code == 401
    sent = app.browser().post("/order", headers=_PAGE, data={"what": "tea"})
    assert sent.status_code == (403 if app.is_django else 401)  # Django looks for its token first
    client, _ = signed_in(app, app.someone())
    assert client.get("/admin", headers=_PAGE).status_code == 403
