"""Other sites' requests, and what the network may claim: every unsafe endpoint against every way to forge one."""

from __future__ import annotations

from typing import Any

import pytest
from tests.http.world import (
    AWAY,
    HOST,
    LISTED,
    OTHER_PASSWORD,
    OWN,
    PASSWORD,
    PROXY,
    RECORDER,
    Browser,
    Recorder,
    World,
    a_world,
)

from dutchdoor.model.rate_limits import DEFAULT_LIMITS
from dutchdoor.web.api import Route

ADA, BEN = "ada@example.com", "ben@example.com"

BODIES: dict[str, Any] = {
    "/auth/register": {"email": "new@example.com", "password": PASSWORD},
    "/auth/login": {"email": ADA, "password": PASSWORD, "mode": "session"},
    "/auth/password": {"current_password": PASSWORD, "new_password": OTHER_PASSWORD},
    "/auth/reauthenticate": {"password": PASSWORD},
    "/auth/reauthenticate/browser": {"challenge": "A" * 28, "signature": "A" * 86 + "=="},
    "/auth/devices": {"session": "others"},
    "/auth/password/strength": {"password": PASSWORD},
    "/auth/code": {"email": ADA},
    "/auth/set-aside/keep": {"id": "x"},
    "/auth/set-aside/remove": {"id": "x"},
    "/auth/factors/lost": {"token": "ddo1_" + "A" * 48},
    "/auth/factors/lost/keep": {"token": "ddo1_" + "A" * 48},
    "/auth/factors/lost/remove": {"token": "ddo1_" + "A" * 48},
    "/auth/login/code": {"token": "ddo1_" + "A" * 48, "code": "123456"},
    "/auth/login/step": {"token": "ddo1_" + "A" * 48, "method": "totp", "response": "123456"},
    "/auth/factors/remove": {"method": "totp"},
    "/auth/passkeys/login": {"response": {}},
    "/auth/passkeys/register": {"response": {}},
    "/auth/passkeys/rename": {"id": "AAAA", "name": "Laptop"},
    "/admin/api/accounts/{subject}/factors/remove": {"method": "totp"},
    "/auth/factors/totp/confirm": {"token": "ddo1_" + "A" * 48, "code": "123456"},
    "/auth/identities/link": {"issuer": "corp"},
    "/auth/identities/confirm": {"issuer": "corp"},
    "/auth/identities/unlink": {"id": "A" * 22},
    "/auth/password/forgot": {"email": ADA},
    "/auth/password/reset": {"token": "ddo1_" + "A" * 48, "new_password": OTHER_PASSWORD},
    "/auth/email/verify": {"token": "ddo1_" + "A" * 48},
    "/auth/setup": {"token": "ddo1_" + "A" * 48, "email": "x@example.com", "password": PASSWORD},
    "/auth/account/name": {"name": "Ada"},
    "/auth/account/keep": {"token": "ddo1_" + "A" * 48},
    "/auth/email/change": {"email": "new@example.com"},
    "/auth/email/confirm": {"token": "ddo1_" + "A" * 48},
    "/auth/email/restore": {"token": "ddo1_" + "A" * 48, "new_password": OTHER_PASSWORD},
    "/auth/join": {"token": "ddo1_" + "A" * 48, "password": PASSWORD},
    "/auth/join/look": {"token": "ddo1_" + "A" * 48},
    "/admin/api/invitations": {"email": "invited@example.com"},
    "/admin/api/clients": {"name": "orders"},
    "/admin/api/verifiers": {"name": "orders"},
    "/admin/api/webhooks": {"url": "https://example.com/hooks"},
    "/admin/api/webhooks/{id}/replay": {"since": "2026-01-01T00:00:00Z"},
    "/auth/revocations/poll": {"holder": "A" * 22},
    "/admin/api/accounts": {"email": "made@example.com"},
    "/admin/api/accounts/{subject}/roles": {"roles": ["admin"]},
}


def routes() -> list[Route]:
    """Every unsafe endpoint a browser can reach, from the table that serves them; /oauth2/ takes no cookie."""
    return [route for route in World().auth.api.routes if route.method != "GET" and route.own_origin]


UNSAFE = routes()
ids = [f"{route.method}-{route.path}" for route in UNSAFE]
SAFE_WITHOUT_PROOF = {
    *("/auth/register", "/auth/login", "/auth/password/forgot", "/auth/password/reset", "/auth/email/verify"),
    *("/auth/code", "/auth/login/code", "/auth/login/lost"),
    *("/auth/factors/lost", "/auth/factors/lost/keep", "/auth/factors/lost/remove"),
    *("/auth/issuers/{name}/start", "/auth/setup", "/auth/login/step", "/auth/login/enrol", "/auth/password/strength"),
    *("/auth/passkeys/login/options", "/auth/passkeys/login", "/auth/passkeys/step/options"),
    "/auth/passkeys/enrol/options",
    *("/auth/account/keep", "/auth/email/confirm", "/auth/email/restore", "/auth/join", "/auth/join/look"),
}


async def admin(world: World, mode: str = "session") -> Browser:
    ada = await world.register(ADA)
    await world.make_admin()
    browser = world.browser()
    await browser.login("root@example.com", mode=mode)
    browser.somebody = ada["id"]  # type: ignore[attr-defined]
    return browser


def filled(route: Route, browser: Browser) -> str:
    path = route.path
    for name, value in (
        ("subject", browser.somebody),
        ("id", browser.session_id),
        ("kid", "unknown"),
        ("method", "totp"),
    ):  # type: ignore[attr-defined]
        path = path.replace("{" + name + "}", value)
    return path + ("?except=current" if route.query == ("except",) else "")


def cookies_for(route: Route) -> str:
    return "hybrid" if route.path == "/auth/refresh" else "session"


async def rows(world: World) -> object:
    return dict(await world.store.counts())


FORGED = {
    "cross-site": [("sec-fetch-site", "cross-site"), ("origin", "https://evil.example.net")],
    "cross-site without origin": [("sec-fetch-site", "cross-site")],
    "same-site": [("sec-fetch-site", "same-site"), ("origin", "https://other.example.com")],
    "null origin": [("origin", "null")],
    "null origin, cross-site": [("sec-fetch-site", "cross-site"), ("origin", "null")],
    "other origin": [("origin", "https://evil.example.net")],
    "our name over http": [("origin", f"http://{HOST}")],
    "our name as a prefix": [("origin", f"{OWN}.evil.example.net")],
    "our name, other port": [("origin", f"{OWN}:8443")],
    "unknown word": [("sec-fetch-site", "friendly")],
}


def test_s17_the_matrix_has_every_endpoint() -> None:
    """The table below is made of the routes that are served: nothing unsafe is missing from it."""
    assert len(UNSAFE) >= 18
    assert {route.path for route in UNSAFE if route.body is not None and not route.optional_body} == set(BODIES)


@pytest.mark.parametrize("route", UNSAFE, ids=ids)
async def test_s17_another_sites_request_is_refused(world: World, route: Route) -> None:
    """At every unsafe endpoint a request that a browser sent for another site is 403 and changes nothing, though it
    carries the cookie and even the right CSRF token.
    """
    browser = await admin(world, cookies_for(route))
    before = await rows(world)
    for name, forged in FORGED.items():
        answer = await world.call(
            route.method,
            filled(route, browser),
            json=BODIES.get(route.path),
            headers=[*forged, ("x-csrf-token", browser.csrf)],
            cookie=browser.cookie(),
        )
        assert (answer.status, answer.code, answer.set_cookies()) == (403, "cross_site", []), name
    assert await rows(world) == before
    assert (await browser.call("GET", "/auth/csrf")).status == 200, "still signed in"


@pytest.mark.parametrize(
    "route",
    [r for r in UNSAFE if r.path not in SAFE_WITHOUT_PROOF and r.demands != "verifier"],
    ids=lambda r: f"{r.method}-{r.path}",
)
async def test_s17_a_cookie_needs_the_token_of_its_session(world: World, route: Route) -> None:
    """Where a cookie is the proof, a request without the CSRF token, with garbage, with another session's token, or
    from a browser too old to say where it comes from, is 403 and changes nothing.
    """
    browser = await admin(world, cookies_for(route))
    other = world.browser()
    await other.login(ADA, mode="session")
    before = await rows(world)
    for token in (None, "", "x" * 43, other.csrf, browser.csrf[:-1], browser.csrf + "=", "é"):
        for sent in ([("sec-fetch-site", "same-origin"), ("origin", OWN)], [("origin", OWN)], []):
            headers = [*sent, *([("x-csrf-token", token)] if token is not None else [])]
            answer = await world.call(
                route.method,
                filled(route, browser),
                json=BODIES.get(route.path),
                headers=headers,
                cookie=browser.cookie(),
            )
            assert (answer.status, answer.code, answer.set_cookies()) == (403, "csrf_token", []), token
    assert await rows(world) == before
    right = await browser.call(route.method, filled(route, browser), json=BODIES.get(route.path))
    unknown = right.status == 401 and right.code == "invalid_token"  # a one-time token that nobody was given
    # Who asks is the only administrator, or has a password, and needs no code by mail.
    refused = right.status == 403 and right.code in {"last_administrator", "refused"}
    assert right.status in {200, 201, 202, 204, 404} or unknown or refused, right


async def test_s18_log_in_and_register_are_protected_too(world: World) -> None:
    """Another site can neither sign a browser in to its own account, nor register there, refresh, or log out: 403 and
    no cookie, whichever mode it asks for.
    """
    await world.register(ADA)
    for forged in FORGED.values():
        for mode in ("session", "hybrid", "jwt"):
            body = {"email": ADA, "password": PASSWORD, "mode": mode}
            answer = await world.call("POST", "/auth/login", json=body, headers=forged)
            assert (answer.status, answer.set_cookies()) == (403, [])
        for path in ("/auth/register", "/auth/refresh", "/auth/logout"):
            assert (await world.call("POST", path, json=BODIES.get(path), headers=forged)).status == 403
    assert (await world.store.counts())["sessions"] == 0


async def test_s18_a_page_cannot_ask_for_the_token_its_cookie_hides() -> None:
    """A script in our own page that asks for the refresh token in the body is refused; a listed origin is not."""
    async with a_world(origins=[LISTED]) as world:
        await world.register(ADA)
        body = {"email": ADA, "password": PASSWORD, "mode": "hybrid", "transport": "body"}
        for own in ([("origin", OWN)], [("sec-fetch-site", "same-origin")], [("sec-fetch-site", "none")]):
            answer = await world.call("POST", "/auth/login", json=body, headers=own)
            assert (answer.status, answer.set_cookies()) == (403, [])
        listed = [("origin", LISTED), ("sec-fetch-site", "cross-site")]
        answer = await world.call("POST", "/auth/login", json=body, headers=listed)
        assert answer.status == 200
        token = {"refresh_token": answer.json["refresh_token"]}
        refused = await world.call("POST", "/auth/refresh", json=token, headers=[("sec-fetch-site", "same-origin")])
        assert refused.status == 403
        assert (await world.call("POST", "/auth/refresh", json=token, headers=listed)).status == 200


async def test_s18_a_listed_page_keeps_its_transport() -> None:
    """A listed origin that keeps its refresh token itself gets the new one itself, too, after a change of password or
    a step-up: in a cookie it could never be sent from there.
    """
    async with a_world(origins=[LISTED]) as world:
        await world.register(ADA)
        listed = [("origin", LISTED), ("sec-fetch-site", "cross-site")]
        body = {"email": ADA, "password": PASSWORD, "mode": "hybrid", "transport": "body"}
        page = (await world.call("POST", "/auth/login", json=body, headers=listed)).json
        for path, proof in (
            ("/auth/reauthenticate", {"password": PASSWORD}),
            ("/auth/password", {"current_password": PASSWORD, "new_password": OTHER_PASSWORD}),
        ):
            done = await world.call("POST", path, json=proof, headers=listed, bearer=page["access_token"])
            assert (done.status, done.cookie("__Host-dd_refresh")) == (200, None)
            page = done.json
            token = {"refresh_token": page["refresh_token"]}
            assert (await world.call("POST", "/auth/refresh", json=token, headers=listed)).status == 200


@pytest.mark.parametrize(
    "kind",
    [
        *("text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x", "text/json", ""),
        *("application/json; charset=utf-16", "application/jsonp", "application/json, text/plain", "application/xml"),
    ],
)
async def test_s19_only_json_is_read(world: World, kind: str) -> None:
    """What a form of another site can send is 415 at every endpoint that reads a body, before anything is parsed.
    Where a page of ours has a form, only our own origin may send one (`tests/web/test_form_pages.py`), read strictly.
    """
    browser, verifier = await admin(world), await world.add_verifier()
    typed = [("content-type", kind)] if kind else []
    for route in UNSAFE:
        if route.body is None:
            continue
        bearer = verifier if route.demands == "verifier" else None
        answer = await browser.call(
            route.method, filled(route, browser), body=b'{"email": ', headers=typed, bearer=bearer
        )
        by_a_page = route.page is not None and kind == "application/x-www-form-urlencoded"
        assert answer.status == (400 if by_a_page else 415), (route.path, answer)


ORIGINS = [
    *("https://evil.example.net", "null", f"{LISTED}.evil.net", "https://evil-app.example.org", f"{LISTED}:444"),
    *(
        "http://app.example.org",
        "https://APP.example.org",
        f"{LISTED}/",
        f"{LISTED}, {LISTED}",
        "https://app.example.org%60.net",
    ),
    "https://sub.app.example.org",
]


async def test_s20_cors_is_an_exact_list() -> None:
    """A listed origin reads answers with credentials; prefixes, suffixes, `null`, another port, scheme or case get no
    CORS header on any endpoint, and no preflight succeeds. Administration and check are never opened.
    """
    async with a_world(origins=[LISTED]) as world:
        await world.register(ADA)
        for path in ("/auth/me", "/auth/login", "/auth/check", "/admin/api/accounts", "/oauth2/token", "/docs"):
            for origin in ORIGINS:
                asked = [("origin", origin), ("access-control-request-method", "POST")]
                for method in ("GET", "OPTIONS"):
                    answer = await world.call(method, path, headers=asked)
                    assert answer.header("access-control-allow-origin") is None
                    assert answer.header("access-control-allow-credentials") is None
                    assert answer.header("vary") == "origin"
                    assert method == "GET" or answer.status in {403, 405}
        asked = [("origin", LISTED), ("access-control-request-method", "POST")]
        answer = await world.call("GET", "/auth/me", headers=asked)
        assert answer.header("access-control-allow-origin") == LISTED
        assert answer.header("access-control-allow-credentials") == "true"
        assert (await world.call("OPTIONS", "/auth/login", headers=asked)).status == 204
        for path in ("/auth/check", "/admin/api/accounts"):
            assert (await world.call("GET", path, headers=asked)).header("access-control-allow-origin") is None


async def test_s20_by_default_no_one_is_listed(world: World) -> None:
    """Without a list there is no CORS header at all, whichever client asks."""
    for origin in (*ORIGINS, LISTED, OWN):
        answer = await world.call("GET", "/auth/me", headers=[("origin", origin)])
        assert not [name for name, _ in answer.headers if name.startswith("access-control")]


PAGES = ("/", "/docs", "/auth/setup", "/auth/verify", "/auth/reset", "/auth/me", "/nowhere", "/openapi.json", "/livez")


async def test_s21_every_answer_has_its_security_headers(world: World) -> None:
    """Pages, answers, refusals, documents and 404s carry HSTS of a year, nosniff, a policy without frames, base or
    objects, and a Referrer-Policy. The recorder holds that for this whole suite.
    """
    before = RECORDER.seen["answers"]
    for path in PAGES:
        for method in ("GET", "HEAD", "POST", "OPTIONS", "PUT"):
            await world.call(method, path)
    assert RECORDER.seen["answers"] - before == len(PAGES) * 5


@pytest.mark.parametrize(
    "missing",
    [
        "x-content-type-options",
        "strict-transport-security",
        "content-security-policy",
        "referrer-policy",
        "cache-control",
    ],
)
async def test_s21_the_recorder_misses_none(world: World, missing: str) -> None:
    """The recorder itself fails a test when one of these headers is not there."""
    answer = await world.call("GET", "/auth/me")
    weaker = answer._replace(headers=[(name, value) for name, value in answer.headers if name != missing])
    with pytest.raises(AssertionError):
        Recorder().judge(weaker, "/auth/me", secure=True, listed=())


SPOOFED = [
    ("x-forwarded-for", "127.0.0.1"),
    ("x-real-ip", "127.0.0.1"),
    ("x-forwarded-host", "evil.example.net"),
    ("x-forwarded-proto", "http"),
    ("forwarded", "for=127.0.0.1;host=evil.example.net;proto=http"),
    ("x-client-ip", "127.0.0.1"),
    ("true-client-ip", "127.0.0.1"),
    ("x-forwarded-method", "GET"),
    ("x-original-url", "/admin/api/accounts"),
    ("x-http-method-override", "DELETE"),
]


async def test_s22_spoofed_headers_change_nothing() -> None:
    """From anyone but a configured proxy, forwarding headers change neither the address that is recorded and limited,
    nor the host of a mailed link, the scheme, the cookies, or the method.
    """
    async with a_world(limits=DEFAULT_LIMITS, proxies=[PROXY]) as world:
        await world.register(ADA)
        body = {"email": ADA, "password": PASSWORD, "mode": "session"}
        answer = await world.call("POST", "/auth/login", json=body, headers=SPOOFED, peer=AWAY)
        assert answer.json["session"]["address"] == AWAY
        assert answer.cookie("__Host-dd_session")
        await world.call("POST", "/auth/password/forgot", json={"email": ADA}, headers=SPOOFED, peer=AWAY)
        await world.posted()
        text = world.mailbox.mails[-1].text
        assert f"{OWN}/auth/reset#" in text
        assert "evil" not in text
        assert {event.address for event in await world.events() if event.name in {"login", "session_started"}} == {AWAY}
        wrong = {"email": "nobody@example.com", "password": "wrong"}
        statuses = [
            (
                await world.call(
                    "POST",
                    "/auth/login",
                    json={**wrong, "email": f"{n}@example.com"},
                    headers=[("x-forwarded-for", f"203.0.113.{n}"), ("x-real-ip", f"203.0.113.{n}")],
                    peer="192.0.2.50",
                )
            ).status
            for n in range(35)
        ]
        assert statuses.count(429) == 35 - DEFAULT_LIMITS.sign_in_by_address.burst


async def test_s22_a_configured_proxy_is_believed_and_no_further() -> None:
    """Through the proxy, the client is the right-most address that is not a proxy: what the client wrote left of it
    moves nothing; a host that is not listed is refused in any header.
    """
    async with a_world(proxies=[PROXY]) as world:
        await world.register(ADA)
        body = {"email": ADA, "password": PASSWORD, "mode": "session"}
        through = [("x-forwarded-for", f"127.0.0.1, {AWAY}"), ("x-forwarded-proto", "https")]
        answer = await world.call("POST", "/auth/login", json=body, headers=through, peer=PROXY)
        assert answer.json["session"]["address"] == AWAY
        for headers, host in (
            ([("x-forwarded-host", "evil.example.net")], None),
            ([], "evil.example.net"),
            ([("forwarded", "host=evil.example.net")], None),
        ):
            refused = await world.call("GET", "/auth/me", headers=headers, host=host, peer=PROXY)
            assert (refused.status, refused.code) == (400, "unknown_host")
        plain = await world.call("GET", "/auth/me", headers=[("x-forwarded-proto", "http")], peer=PROXY)
        assert plain.status == 400


async def test_s22_without_a_public_url_a_proxy_is_refused_by_name() -> None:
    """In the development setting every forwarding header, every other host and every other machine is 400."""
    async with a_world(public_url=None) as world:
        assert (await world.call("GET", "/auth/me")).status == 401
        for header in SPOOFED[:7]:
            answer = await world.call("GET", "/auth/me", headers=[header])
            assert (answer.status, answer.code) == (400, "proxy_not_configured")
            assert "--public-url" in answer.json["detail"]
        assert (await world.call("GET", "/auth/me", peer=AWAY)).status == 400
        for host in ("evil.example.net", "localhost.evil.net", "127.0.0.1.nip.io", "0.0.0.0"):
            assert (await world.call("GET", "/auth/me", host=host)).code == "unknown_host"
