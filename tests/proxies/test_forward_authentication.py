"""Forward authentication behind real proxies, by the files of `deploy/`: one suite for nginx, Caddy and Traefik."""

from __future__ import annotations

import asyncio
import json
import subprocess
from typing import NamedTuple
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest
from tests.devicekey import DeviceKey, challenge_in
from tests.proxies.sites import ADA, NAMES, Site
from tests.server.running import clean_environment, command, eventually
from websockets.asyncio.client import connect
from websockets.typing import Origin

from dutchdoor import Verifier
from dutchdoor.client import SessionAuth
from dutchdoor.errors import InvalidToken
from dutchdoor.model.sessions import SessionToken
from dutchdoor.web.sign_in_page import next_path

pytestmark = [pytest.mark.long]

OPENS_A_PAGE = {"sec-fetch-mode": "navigate", "sec-fetch-dest": "document", "accept": "text/html,*/*;q=0.8"}


class Bound(NamedTuple):
    """A browser that has bound its session to its device."""

    client: httpx2.Client
    statuses: list[int]


@pytest.fixture(scope="module")
def bound(site: Site) -> Bound:
    """Made before all tests of a site: what follows a binding begins some seconds later, and no test waits for it."""
    client, key = site.browser(), DeviceKey()
    offered = client.post(f"{site.place.base}/auth/login", json={**ADA, "mode": "session"})
    proof = key.registration(challenge_in(offered.headers["secure-session-registration"]))
    ours = {"origin": site.origin, "sec-fetch-site": "same-origin"}
    register, refresh = (f"{site.place.base}/auth/device-binding{end}" for end in ("", "/refresh"))
    registered = client.post(register, headers={**ours, "secure-session-response": proof})
    ours["sec-secure-session-id"] = SessionToken.parse(client.cookies["__Host-dd_session"]).id
    asked = client.post(refresh, headers=ours)
    proof = key.proof(challenge_in(asked.headers["secure-session-challenge"]))
    refreshed = client.post(refresh, headers={**ours, "secure-session-response": proof})
    statuses = [answer.status_code for answer in (offered, registered, asked, refreshed)]
    return Bound(client, statuses)


@pytest.fixture(autouse=True)
def _nothing_seen(site: Site, bound: Bound) -> None:
    site.seen.clear()


@pytest.mark.parametrize("mode", ["session", "hybrid", "jwt"])
def test_f21_a_proof_lets_a_request_through_with_the_name_of_its_bearer(site: Site, mode: str) -> None:
    """A cookie and a token of each mode reach the application, with who it is; without a proof nothing does."""
    stranger = site.browser()
    for headers in ({}, {"authorization": "Bearer x"}, {"cookie": "__Host-dd_session=x"}):
        answer = stranger.get(f"{site.app}x", headers=headers)
        assert answer.status_code == 401, headers
        assert answer.headers["content-type"] == "application/problem+json"
    assert site.seen == []
    client, said = site.signed_in(mode)
    answer = client.get(f"{site.app}x?a=1&b=2")
    assert answer.status_code == 200, answer.text
    assert (answer.json()["page"], answer.json()["query"]) == (f"{site.app}x", "a=1&b=2")
    assert answer.json()["x-auth-subject"] == said["user"]["id"]


def test_d35_a_bound_client_gets_through_and_a_copy_of_its_token_does_not(site: Site) -> None:
    """A program whose sign-in is bound gets through each proxy, by each method, without a nonce at first. Its token
    alone does not, and neither does a proof of another path, whatever the client says of the path.
    """
    site.signed_in("session")
    auth = SessionAuth(
        site.issuer, login=ADA["email"], password=ADA["password"], bound=True, client=httpx2.Client(verify=site.tls)
    )
    with httpx2.Client(base_url=site.origin, verify=site.tls, auth=auth) as program:
        assert program.get(f"{site.app}x?a=1").json()["page"] == f"{site.app}x"
        auth.server.nonces._by_origin.clear()
        assert program.get(f"{site.app}x").status_code == 200
        assert program.post(f"{site.app}x").status_code == 200
        site.seen.clear()
        stranger = site.browser()
        token = auth.token()
        for headers in (
            {"authorization": f"Bearer {token}"},
            {"authorization": f"DPoP {token}"},
            auth.headers("GET", f"{site.origin}{site.app}y"),
            {**auth.headers("GET", f"{site.origin}{site.app}y"), "x-forwarded-uri": f"{site.app}y"},
            {**auth.headers("GET", f"{site.origin}{site.app}y"), "x-original-uri": f"{site.app}y"},
            auth.headers("POST", f"{site.origin}{site.app}x"),
        ):
            assert stranger.get(f"{site.app}x", headers=headers).status_code == 401, headers
        assert site.seen == []
    auth.close()


def test_f22_a_service_behind_verifies_the_token_until_the_log_out_is_fenced(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A service checks X-Auth-Token by itself, following the log through the proxy. When a log-out answers `fenced`,
    the proxy lets nothing more through, by cookie or by token, and the service refuses the token that was passed on.
    """
    made = subprocess.run(
        command("verifier", "add", "orders", "--json"), cwd=site.place.folder, check=True,
        env=clean_environment(site.environment), capture_output=True, text=True,
    )  # fmt: skip
    key = json.loads(made.stdout)["key"]
    monkeypatch.setenv("SSL_CERT_FILE", str(site.place.folder / "cert.pem"))
    with Verifier(site.issuer, audience=f"{site.issuer}/auth/check", key=key) as verify:
        eventually(lambda: verify.state == "fresh")
        for mode in ("session", "hybrid"):
            client, said = site.signed_in(mode)
            passed = client.get(f"{site.app}x").json()
            principal = verify(passed["x-auth-token"])
            assert (principal.subject, principal.session_id) == (said["user"]["id"], passed["x-auth-session"])
            assert (passed["x-auth-subject"], passed["x-auth-roles"] or "") == (principal.subject, "")
            proof = {"cookie": "; ".join(f"{name}={value}" for name, value in client.cookies.items())}
            assert site.log_out(client, said, wait=20)["fenced"] is True
            again = client.get(f"{site.app}x", headers=proof if mode == "session" else {})
            assert again.status_code == 401
            with pytest.raises(InvalidToken):
                verify(passed["x-auth-token"])
        assert len(site.seen) == 2


def test_f23_a_browser_is_sent_to_sign_in_and_back(site: Site) -> None:
    """A browser that opens a page is sent to the sign-in page, and comes back to the page with its query. A script, a
    form and a program get 401.
    """
    client, said = site.signed_in()
    site.log_out(client, said, wait=0)
    opened = f"{site.app}orders/7?sort=a%20b&next=/x&c=%26"
    answer = client.get(opened, headers=OPENS_A_PAGE)
    assert answer.status_code == 303
    way = urlsplit(answer.headers["location"])
    assert (way.scheme, way.netloc, way.path) == ("", "", "/login")
    page = client.get(answer.headers["location"])
    assert (page.status_code, page.json()["page"], page.json()["x-auth-subject"]) == (200, "/login", None)
    (back,) = parse_qs(page.json()["query"])["next"]
    assert back == opened
    assert next_path(back, "")
    site.sign_in(client)
    there = client.get(back, headers=OPENS_A_PAGE)
    assert there.status_code == 200
    assert there.json()["query"] == opened.partition("?")[2]
    stranger = site.browser()
    for method, headers in (
        ("GET", {"sec-fetch-mode": "cors", "accept": "text/html"}),
        ("GET", {"accept": "application/json"}),
        ("POST", OPENS_A_PAGE),
    ):
        assert stranger.request(method, opened, headers=headers).status_code == 401, (method, headers)
    assert stranger.get(opened, headers={"accept": "text/html"}).status_code == 303, "a browser before 2023"


@pytest.mark.parametrize(
    "path", ["//evil.example/x", "/\\evil.example", "/%5Cevil.example", "/a//evil.example", "/%2f/x"]
)
def test_f23_no_one_is_sent_elsewhere(site: Site, path: str) -> None:
    """Whatever path is opened, and whichever header names another one, the browser stays on this host: `next` is a path
    that no browser reads as a URL, or it is not there.
    """
    stranger = site.browser()
    opened = site.app.rstrip("/") + path
    forged = {
        "x-forwarded-uri": "https://evil.example/",
        "x-original-uri": "//evil.example/",
        "x-forwarded-host": "evil",
    }
    for headers in (OPENS_A_PAGE, {**OPENS_A_PAGE, **forged}):
        head = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        site.raw(
            f"GET {opened} HTTP/1.1\r\nhost: localhost:{site.place.tls}\r\nconnection: close\r\n{head}\r\n".encode()
        )
        answer = stranger.get(opened, headers=headers)
        assert answer.status_code in {303, 400, 401, 404, 308, 301}, answer.text
        way = urlsplit(answer.headers.get("location", "/"))
        assert way.netloc in {"", f"localhost:{site.place.tls}"}
        for back in parse_qs(way.query).get("next", []):
            assert next_path(back, "")
            assert "evil" not in back or headers is OPENS_A_PAGE or back.startswith(site.app)


HANDSHAKE = {
    "connection": "Upgrade",
    "upgrade": "websocket",
    "sec-websocket-key": "dGhlIHNhbXBsZSBub25jZQ==",
    "sec-websocket-version": "13",
}


def test_f24_a_websocket_opens_from_our_own_page_alone(site: Site) -> None:
    """By cookie, a handshake passes from our own origin, and from no other one and without one it does not reach the
    application. A program with a token needs no origin.
    """
    client, said = site.signed_in()
    cookie = {"Cookie": "; ".join(f"{name}={value}" for name, value in client.cookies.items())}
    url = f"wss://localhost:{site.place.tls}{site.app}socket"
    for origin in ("https://forum.example.com", "https://localhost", "null", None):
        for one in (HANDSHAKE, {name: value for name, value in HANDSHAKE.items() if "-" not in name}):
            sent = {**one, **({"origin": origin} if origin else {})}
            # Traefik refuses half of a handshake by itself.
            assert client.get(f"{site.app}socket", headers=sent).status_code in {403, 400 if one != HANDSHAKE else 403}
    assert site.browser().get(f"{site.app}socket", headers={**HANDSHAKE, "origin": site.origin}).status_code == 401
    assert site.seen == []
    token = site.sign_in(site.browser(), "hybrid")
    for headers, origin in ((cookie, site.origin), ({"Authorization": f"Bearer {token['access_token']}"}, None)):
        asyncio.run(_talks(url, site, headers, origin, said["user"]["id"]))


async def _talks(url: str, site: Site, headers: dict[str, str], origin: str | None, subject: str) -> None:
    # Not by the client for threads: it reads and writes at once on one TLS socket, and Python 3.11 has no lock around
    # OpenSSL, so that one request in twenty was lost.
    async with connect(
        url, ssl=site.tls, additional_headers=headers, origin=Origin(origin) if origin else None, open_timeout=60
    ) as socket:
        assert await socket.recv() == subject
        await socket.send("hello")
        assert await socket.recv() == "hello"


SPELLED = ("X-Auth-{}", "x-auth-{}", "X_Auth_{}", "X-Auth_{}", "X_Auth-{}", "x_auth_{}", "X-AUTH-{}", "X_AUTH_{}")


@pytest.mark.parametrize("spelled", SPELLED)
def test_f25_a_client_names_no_one(site: Site, spelled: str) -> None:
    """What a client writes into the headers of the check reaches the application in no spelling, once or twice, with a
    proof, or at the page that needs none.
    """
    client, said = site.signed_in("hybrid")
    forged = [(spelled.format(name), "root") for name in ("Subject", "Session", "Roles", "Token")]
    for headers in (forged, [*forged, *forged]):
        for path in (f"{site.app}x", "/login"):
            assert client.get(path, headers=headers).status_code == 200
            assert site.browser().get(path, headers=headers).status_code == (200 if path == "/login" else 401)
    assert len(site.seen) == 6
    for seen in site.seen:
        named = [seen.said(name) for name in NAMES]
        assert "root" not in str(named)
        if seen.path != "/login":
            assert named[0] == [said["user"]["id"]]
            assert len(named[1]) == len(named[3]) == 1


CHUNKED = "Transfer-Encoding: chunked"
END = "0\r\n\r\n"
SMUGGLED = {
    "space before the colon": ("GET", "X-Auth-Subject : root", ""),
    "tab before the colon": ("GET", "X-Auth-Subject\t: root", ""),
    "folded": ("GET", "X-Other: a\r\n X-Auth-Subject: root", ""),
    "folded before": ("GET", "X-Other:\r\n\tb\r\nX-Auth-Subject: root", ""),
    "a bare line feed": ("GET", "X-Other: a\nX-Auth-Subject: root", ""),
    "a bare return": ("GET", "X-Other: a\rX-Auth-Subject: root", ""),
    "a zero": ("GET", "X-Auth-Subject\0: root", ""),
    "as a hop": ("GET", "X-Auth-Subject: root\r\nConnection: X-Auth-Subject, X-Auth-Token", ""),
    "the method as a hop": ("POST", "Connection: X-Forwarded-Method, X-Forwarded-Proto\r\nContent-Length: 0", ""),
    "in a trailer": ("POST", f"Trailer: X-Auth-Subject\r\n{CHUNKED}", "0\r\nX-Auth-Subject: root\r\n\r\n"),
    "length and chunks": ("POST", f"Content-Length: 5\r\n{CHUNKED}", END + "{inner}"),
    "chunks, spelled wrong": ("POST", "Content-Length: {length}\r\nTransfer-Encoding: xchunked", END + "{inner}"),
    "chunks, spaced": ("POST", "Content-Length: {length}\r\nTransfer-Encoding : chunked", END + "{inner}"),
    "two lengths": ("POST", "Content-Length: 0\r\nContent-Length: {length}", END + "{inner}"),
    "a body of a GET": ("GET", "Content-Length: {length}", END + "{inner}"),
    "a body without a proof": ("POST", "Authorization: none\r\nContent-Length: {length}", END + "{inner}"),
    "chunks without a proof": ("POST", f"Authorization: none\r\n{CHUNKED}", END + "{inner}"),
}
"""A method, header lines and a body. `inner` is a request with a name of its own, `length` that of the whole body."""


@pytest.mark.parametrize("how", SMUGGLED)
def test_f25_a_client_smuggles_no_name(site: Site, how: str) -> None:
    """A request that proxy and application could read in two ways carries no name to the application, and hides no
    second request from the check.
    """
    client, said = site.signed_in("hybrid")
    host = f"Host: localhost:{site.place.tls}\r\n"
    proof = f"Authorization: {client.headers['authorization']}\r\n"
    inner = f"GET {site.app}hidden HTTP/1.1\r\n{host}X-Auth-Subject: root\r\nX_Auth_Subject: root\r\n\r\n"
    method, lines, body = SMUGGLED[how]
    head = f"{method} {site.app}x HTTP/1.1\r\n{host}{'' if lines.startswith('Authorization') else proof}"
    text = f"{head}{lines}\r\n\r\n{body}".replace("{inner}", inner).replace("{length}", str(len(END + inner)))
    last = f"GET /login HTTP/1.1\r\n{host}Connection: close\r\n\r\n"
    assert site.raw((text + last).encode())
    for seen in site.seen:
        assert seen.path in {f"{site.app}x", "/login"}, "a request without a proof"
        assert "root" not in str([seen.said(name) for name in NAMES])
        assert seen.said(NAMES[0]) in ([said["user"]["id"]], [], [""]), "no name is no one"


@pytest.mark.parametrize(
    "path",
    [
        *("/app/../login/../app/x", "/login/../app/x", "//app/x", "/./app/x", "/%61pp/x", "/app%2fx", "/login/x"),
        *("/app/%2e%2e/app/x", "/login;/app/x", "/login%2f..%2fapp%2fx", "/login/..%2fapp/x", "/id/../app/x"),
    ],
)
def test_f25_no_spelling_of_a_path_goes_past_the_check(site: Site, path: str) -> None:
    """Without a proof no path reaches the application but that of the sign-in page."""
    site.raw(f"GET {path} HTTP/1.1\r\nHost: localhost:{site.place.tls}\r\nConnection: close\r\n\r\n".encode())
    assert {seen.path for seen in site.seen} <= {"/login"}


def test_f26_another_sites_post_is_refused(site: Site) -> None:
    """By cookie alone no POST of another site passes, whatever method the client says the proxy saw."""
    client, _ = site.signed_in()
    for headers in (
        {"sec-fetch-site": "cross-site"},
        {"origin": "https://evil.example.net"},
        {"origin": "null"},
        {},
    ):
        for forged in ({}, {"x-forwarded-method": "GET"}, {"x-original-method": "GET"}):
            assert client.post(f"{site.app}x", headers={**headers, **forged}).status_code == 403, (headers, forged)
    assert site.seen == []
    assert client.post(f"{site.app}x", headers={"origin": site.origin}).status_code == 200
    assert client.post(f"{site.app}x", headers={"sec-fetch-site": "same-origin"}).status_code == 200


def test_f27_a_large_body_is_the_applications_alone(site: Site) -> None:
    """Five megabytes reach the application, with their length or in chunks, where the check would refuse them. Without
    a proof they reach no one, and dutchdoor's own endpoints have their bound.
    """
    client, _ = site.signed_in("hybrid")
    large = b"x" * 5_000_000
    assert client.post(f"{site.app}upload", content=large).status_code == 200
    assert client.post(f"{site.app}upload", content=iter([large[:2_500_000]] * 2)).status_code == 200
    assert [seen.body for seen in site.seen] == [len(large)] * 2
    site.seen.clear()
    assert site.browser().post(f"{site.app}upload", content=b"x" * 100_000).status_code == 401
    assert site.seen == []
    body = {"email": "x" * 1_000_000}
    assert site.browser().post(f"{site.place.base}/auth/login", json=body).status_code == 413


def test_f28_a_preflight_passes_where_it_is_asked_for(site: Site) -> None:
    """A CORS preflight carries no proof: it is 401, and with `pass_preflights` the application answers it, and sees no
    name. A request that only looks like one is 401.
    """
    passes = "DUTCHDOOR_PASS_PREFLIGHTS" in site.environment
    stranger = site.browser()
    preflight = {"origin": "https://app.example.org", "access-control-request-method": "PUT"}
    answer = stranger.options(f"{site.app}x", headers={**preflight, "x-auth-subject": "root"})
    assert answer.status_code == (204 if passes else 401)
    assert [seen.method for seen in site.seen] == (["OPTIONS"] if passes else [])
    assert all(seen.said(name) in ([], [""]) for seen in site.seen for name in NAMES)
    site.seen.clear()
    assert stranger.options(f"{site.app}x", headers={"origin": "https://app.example.org"}).status_code == 401
    assert stranger.put(f"{site.app}x", headers=preflight).status_code == 401
    assert site.seen == []


def test_f29_probes_stay_inside(site: Site) -> None:
    """Monitoring asks the node itself: through the proxy there are no probes and no metrics."""
    for path in ("/livez", "/readyz", "/metrics"):
        answer = site.browser().get(f"{site.place.base}{path}")
        assert answer.status_code == 404, path


def test_m05_a_browser_binds_its_session_and_comes_back_from_other_sites(site: Site, bound: Bound) -> None:
    """The headers by which a browser binds its session pass each proxy. A link of another site leads to the page that
    loads it again, and with the proof the application answers. The copied cookie reaches nothing.
    """
    client = bound.client
    assert bound.statuses == [200, 200, 403, 200], "a sign-in, a registration, a question for a proof, and the proof"
    assert client.get(f"{site.app}x").status_code == 200
    cookie = client.cookies.pop("__Host-dd_bound")
    # Requests that left before the browser had its first cookie are served for some seconds.
    eventually(lambda: client.get(f"{site.app}x").status_code == 401)
    site.seen.clear()
    link = {**OPENS_A_PAGE, "sec-fetch-site": "cross-site"}
    came = client.get(f"{site.app}orders?page=2", headers=link)
    assert came.status_code == 303
    way = urlsplit(came.headers["location"])
    assert way.path.endswith("/auth/device-binding") and not way.netloc
    page = client.get(came.headers["location"], headers=link)
    assert (page.status_code, page.headers["refresh"]) == (200, f"0;url={site.app}orders?page=2")
    again = client.get(f"{site.app}orders?page=2", headers={**link, "sec-fetch-site": "same-origin"})
    assert urlsplit(again.headers["location"]).path == "/login", "it does not go round"
    assert site.seen == []
    client.cookies["__Host-dd_bound"] = cookie
    assert client.get(f"{site.app}orders?page=2", headers={**link, "sec-fetch-site": "same-origin"}).status_code == 200
