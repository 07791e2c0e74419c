"""`/auth/check`: what a proxy learns about a request it asks about, by itself and behind a real nginx."""

from __future__ import annotations

import http.client
import json
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from tests.http.test_tokens import unb64
from tests.http.world import LISTED, OWN, PASSWORD, PROXY, SESSION, Program, World, a_world, basic
from tests.ports import free_port
from tests.running import running_server

from dutchdoor.errors import InvalidToken, Misconfigured
from dutchdoor.jose.access_token import AccessTokenVerifier
from dutchdoor.jose.jwk import KeySet

SAID = ("x-auth-subject", "x-auth-session", "x-auth-roles", "x-auth-token")


async def signed_in(world: World, mode: str = "hybrid") -> Program:
    program = world.program()
    await program.login(mode=mode)
    return program


@pytest.mark.parametrize("mode", ["session", "hybrid", "jwt"])
async def test_a_good_proof_is_204_with_who_it_is(mode: str) -> None:
    """204 without a body, with subject, session and roles, and a token of a minute that says the same and is no proof
    of more.
    """
    async with a_world(proxies=[PROXY]) as world:
        user = await world.make_admin("ada@example.com")
        browser = world.browser()
        await browser.login(mode=mode)
        proof = {"cookie": browser.cookie()} if mode == "session" else {"bearer": browser.access}
        answer = await world.check("GET", **proof)
        assert (answer.status, answer.body) == (204, b"")
        subject, session, roles, token = (answer.header(name) for name in SAID)
        assert (subject, session, roles) == (user["id"], browser.session_id, "admin")
        claims = json.loads(unb64((token or "").split(".")[1]))
        assert (claims["sub"], claims["roles"]) == (user["id"], ["admin"])
        assert 0 < claims["exp"] - claims["iat"] <= 60
        assert claims.get("sid", "") == browser.session_id


PREFLIGHT = (("origin", "https://app.example.org"), ("access-control-request-method", "PUT"))


async def test_s25_a_preflight_passes_on_request_and_says_nothing() -> None:
    """S25: a browser sends a preflight without a proof, whatever the application behind the proxy. Where the operator
    asked for it, it passes and names no account, with a proof or without. All else needs a proof, as ever.
    """
    async with a_world(proxies=[PROXY], pass_preflights=True) as world:
        await world.register()
        program = await signed_in(world)
        for proof in ({}, {"bearer": "x"}, {"bearer": program.access}):
            answer = await world.check("OPTIONS", *PREFLIGHT, **proof)
            assert (answer.status, answer.body) == (204, b"")
            assert not [name for name, _ in answer.headers if name.startswith(("x-auth", "access-control"))]
        for method, headers in (("GET", PREFLIGHT), ("PUT", PREFLIGHT), ("OPTIONS", PREFLIGHT[:1]), ("OPTIONS", ())):
            assert (await world.check(method, *headers)).status == 401, (method, headers)
        both = (*PREFLIGHT, ("x-original-method", "DELETE"))
        assert (await world.check("OPTIONS", *both)).code == "forwarded_method"
        said = [*PREFLIGHT, ("x-forwarded-method", "OPTIONS")]
        assert (await world.call("GET", "/auth/check", headers=said)).status == 401, "not from a proxy"
        assert (await world.call("GET", "/auth/me", headers=said, peer=PROXY)).status == 401


async def test_s25_a_stranger_reads_the_same_refusal_with_and_without_preflights() -> None:
    """S25: what does not come from a configured proxy gets the same answer whether preflights pass or not, whatever it
    says of a method.
    """
    answers = []
    for passing in (True, False):
        async with a_world(proxies=[PROXY], pass_preflights=passing) as world:
            for said in ((), (("x-forwarded-method", "OPTIONS"),), (("x-original-method", "PUT"), PREFLIGHT[0])):
                for method in ("GET", "OPTIONS"):
                    answer = await world.call(method, "/auth/check", headers=[*PREFLIGHT, *said])
                    answers.append((passing, method, said, answer.sees()))
    assert [each[1:] for each in answers if each[0]] == [each[1:] for each in answers if not each[0]]


async def test_s25_no_preflight_passes_unless_it_is_asked_for(world: World) -> None:
    """S25: by default forward authentication lets nothing pass that carries no proof."""
    assert (await world.check("OPTIONS", *PREFLIGHT)).status == 401


async def test_no_proof_is_401_and_says_nothing(world: World) -> None:
    """Without proof, with a bad one, or with one that ended: 401 and not one X-Auth header."""
    await world.register()
    program = await signed_in(world)
    await program.call("POST", "/auth/logout")
    for proof in ({}, {"bearer": "x"}, {"bearer": program.access}, {"cookie": f"__Host-{SESSION}=dds1_{'A' * 48}"}):
        answer = await world.call("GET", "/auth/check", **proof)
        assert answer.status == 401
        assert not {name for name, _ in answer.headers} & set(SAID)


async def test_s17_a_cookie_alone_lets_no_other_sites_post_through() -> None:
    """A POST that the proxy asks about passes with our own page's Fetch Metadata or Origin; another site's, one from a
    sandboxed frame, and one that says nothing of where it comes from, are 403 though the cookie is good.
    """
    async with a_world(proxies=[PROXY], origins=[LISTED]) as world:
        await world.register()
        browser = world.browser()
        await browser.login(mode="session")
        for method in ("POST", "PUT", "DELETE", "PATCH", "post", "PROPFIND"):
            for headers in (
                [],
                [("sec-fetch-site", "cross-site")],
                [("sec-fetch-site", "same-site")],
                [("origin", "null")],
                [("origin", "https://evil.example.net")],
                [("sec-fetch-site", "cross-site"), ("origin", OWN)],
            ):
                answer = await world.check(method, *headers, cookie=browser.cookie())
                assert answer.status == 403, (method, headers)
                assert not {name for name, _ in answer.headers} & set(SAID)
            for headers in ([("sec-fetch-site", "same-origin")], [("origin", OWN)], [("origin", LISTED)]):
                assert (await world.check(method, *headers, cookie=browser.cookie())).status == 204, (method, headers)
        for headers in ([], [("sec-fetch-site", "cross-site")]):
            assert (await world.check("GET", *headers, cookie=browser.cookie())).status == 204, "a link from elsewhere"
        program = await signed_in(world)
        assert (await world.check("POST", bearer=program.access)).status == 204, "another site cannot add a token"


HANDSHAKES = [
    [("connection", "upgrade"), ("upgrade", "websocket")],
    [("upgrade", "h2c, WebSocket")],
    [("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="), ("sec-websocket-version", "13")],
    [("sec-websocket-protocol", "chat")],
    [("sec-websocket-extensions", "permessage-deflate")],
    [("sec-fetch-mode", "websocket"), ("sec-fetch-site", "same-origin")],
]


@pytest.mark.parametrize("handshake", HANDSHAKES, ids=str)
async def test_s17_another_sites_handshake_is_refused(handshake: list[tuple[str, str]]) -> None:
    """A WebSocket handshake by cookie passes from our own origin and from a listed one. One from a sibling origin, from
    a sandboxed frame, or without an origin is 403, whichever trace of a handshake the proxy left. A program with an
    access token needs no origin.
    """
    async with a_world(proxies=[PROXY], origins=[LISTED]) as world:
        await world.register()
        browser, program = world.browser(), await signed_in(world)
        await browser.login(mode="session")
        sibling = "https://forum.example.com"
        for method in ("GET", "HEAD"):
            for origin in (sibling, "https://evil.example.net", "null", "", f"{OWN}:444", OWN.replace("https", "http")):
                headers = [*handshake, ("origin", origin)]
                answer = await world.check(method, *headers, cookie=browser.cookie())
                assert (answer.status, answer.code) == (403, "cross_site"), origin
                assert not {name for name, _ in answer.headers} & set(SAID)
                assert (await world.check(method, *headers, bearer=program.access)).status == 403, origin
            assert (await world.check(method, *handshake, cookie=browser.cookie())).status == 403
            assert (await world.check(method, *handshake, bearer=program.access)).status == 204
            for origin in (OWN, LISTED):
                headers = [*handshake, ("origin", origin)]
                assert (await world.check(method, *headers, cookie=browser.cookie())).status == 204, origin


async def test_an_upgrade_to_something_else_is_no_handshake(world: World) -> None:
    """A client that offers HTTP/2 by Upgrade, as Java's does, is judged as any other request."""
    await world.register()
    browser = world.browser()
    await browser.login(mode="session")
    assert (await world.check("GET", ("upgrade", "h2c"), cookie=browser.cookie())).status == 204


@pytest.mark.parametrize("options", [{}, {"proxies": ["10.0.0.6"]}, {"public_url": None}], ids=str)
async def test_s22_only_a_configured_proxy_may_ask(options: dict[str, Any]) -> None:
    """From any other sender the check is refused with the setting's name, whatever method it names: a proxy that is not
    configured may pass on what a client wrote, or name no method at all.
    """
    async with a_world(**options) as world:
        await world.register()
        browser, program = world.browser(), await signed_in(world)
        await browser.login(mode="session")
        forged = [("sec-fetch-site", "cross-site"), ("origin", "https://evil.example.net")]
        named: list[list[tuple[str, str]]] = [[], [("x-original-method", "GET")]]
        if world.secure:
            named += [[("x-forwarded-method", method)] for method in ("GET", "POST", "")]
        for method in named:
            for proof in ({"cookie": browser.cookie()}, {"bearer": program.access}):
                for more in ([], forged):
                    answer = await world.call("GET", "/auth/check", headers=[*method, *more], **proof)
                    assert (answer.status, answer.code) == (400, "proxy_not_configured")
                    assert "--proxy" in answer.json["detail"]
                    assert not {name for name, _ in answer.headers} & set(SAID)


async def test_s22_a_proxy_names_the_method_once(world: World) -> None:
    """A proxy that names no method, or two that differ, is 400."""
    await world.register()
    program = await signed_in(world)
    for headers in ([], [("x-forwarded-method", "GET"), ("x-original-method", "POST")]):
        answer = await world.call("GET", "/auth/check", headers=headers, bearer=program.access, peer=PROXY)
        assert (answer.status, answer.code) == (400, "forwarded_method")
    same = [("x-forwarded-method", "GET"), ("x-original-method", "GET")]
    assert (await world.call("GET", "/auth/check", headers=same, bearer=program.access, peer=PROXY)).status == 204


OPENED = [("sec-fetch-mode", "navigate"), ("x-forwarded-uri", "/app/x?a=1&b=%26")]
WAY = "/login?next=%2Fapp%2Fx%3Fa%3D1%26b%3D%2526"


async def test_f23_a_browser_that_opens_a_page_is_sent_to_sign_in() -> None:
    """With a sign-in page, a browser that opens a page without a valid proof is sent there. nginx names the page in
    X-Original-URI, and gets the way in a 401. A script, a form, and with "" every client, get 401.
    """
    async with a_world(proxies=[PROXY], sign_in_page="/login") as world:
        for proof in ({}, {"cookie": f"__Host-{SESSION}=dds1_x"}):
            answer = await world.check("GET", *OPENED, **proof)
            assert (answer.status, answer.header("location"), answer.body) == (303, WAY, b"")
        by_nginx = [(name.replace("x-forwarded", "x-original"), value) for name, value in OPENED]
        answer = await world.check("GET", *by_nginx)
        assert (answer.status, answer.code, answer.header("location")) == (401, "not_authenticated", WAY)
        old = await world.check("GET", OPENED[1], ("accept", "text/html, */*;q=0.8"))
        assert old.status == 303, "a browser before 2023"
        assert (await world.check("GET", *OPENED, bearer="x")).status == 401, "a program"
        for method, headers in (
            ("POST", OPENED),
            ("GET", [("sec-fetch-mode", "cors"), OPENED[1], ("accept", "text/html")]),
            ("GET", [OPENED[0]]),
            ("GET", [OPENED[0], ("x-forwarded-uri", "/login?next=/")]),
            ("GET", [OPENED[1]]),
        ):
            answer = await world.check(method, *headers)
            assert (answer.status, answer.header("location")) == (401, None), (method, headers)
        stranger = await world.call("GET", "/auth/check", headers=[*OPENED, ("x-forwarded-method", "GET")])
        assert (stranger.status, stranger.header("location")) == (401, None), "not from a proxy"
        await world.register()
        browser = world.browser()
        await browser.login(mode="session")
        assert (await world.check("GET", *OPENED, cookie=browser.cookie())).status == 204
    async with a_world(proxies=[PROXY], sign_in_page="") as world:
        assert (await world.check("GET", *OPENED)).status == 401
    async with a_world(proxies=[PROXY]) as world:
        assert (await world.check("GET", *OPENED)).header("location") == WAY.replace("/login", "/auth/login")


ELSEWHERE = [
    *("//evil.example", "/\\evil.example", "\\evil.example", "https://evil.example/", "/\t/evil.example"),
    *("javascript:alert(1)", "evil.example", "", "/a b", "/\xe9", "/" + "a" * 2048),
]


@pytest.mark.parametrize("opened", ELSEWHERE)
async def test_f23_no_one_is_sent_to_another_host(opened: str) -> None:
    """A path that a browser could read as another host is not passed on as `next`."""
    async with a_world(proxies=[PROXY], sign_in_page="/login") as world:
        answer = await world.check("GET", OPENED[0], ("x-forwarded-uri", opened))
        assert (answer.status, answer.header("location")) == (303, "/login?next=%2F")


@pytest.mark.parametrize("page", ["login", "//evil.example", "/\\evil", "https://evil.example/", "/a b"])
def test_f23_a_sign_in_page_is_a_path(page: str) -> None:
    """A sign-in page on another host is refused: the cookie would not be there."""
    with pytest.raises(Misconfigured, match=r"is not a path of this host\. Use one such as /login"):
        World(sign_in_page=page)


async def test_f21_the_query_of_the_other_request_is_not_ours(world: World) -> None:
    """Caddy appends the query of the request that it asks about: no query is read, and none is refused."""
    await world.register()
    program = await signed_in(world)
    headers = [("x-forwarded-method", "GET")]
    for query in ("a=1", "a=1&a=2", "%zz", "except=current&" * 100):
        answer = await world.call("GET", f"/auth/check?{query}", headers=headers, bearer=program.access, peer=PROXY)
        assert answer.status == 204, query


@pytest.mark.parametrize("mode", ["session", "hybrid", "jwt"])
async def test_j11_the_forwarded_token_is_for_services_behind_the_proxy(world: World, mode: str) -> None:
    """X-Auth-Token has an audience of its own. No endpoint of ours takes it as a bearer, log-out included; a service
    that expects this audience accepts it, and introspection knows it.
    """
    await world.register()
    browser, service = world.browser(), await world.add_client()
    await browser.login(mode=mode)
    proof = {"cookie": browser.cookie()} if mode == "session" else {"bearer": browser.access}
    token = (await world.check(**proof)).header("x-auth-token") or ""
    for path in ("/auth/me", "/auth/sessions", "/auth/csrf", "/auth/check"):
        answer = await world.call("GET", path, bearer=token)
        assert (answer.status, answer.code) == (401, "invalid_token")
    assert (await world.check(bearer=token)).status == 401
    for path in ("/auth/logout", "/auth/logout/all"):
        assert (await world.call("POST", path, bearer=token)).status == 401
    assert (await world.check(**proof)).status == 204, "nothing was revoked"

    keys = KeySet.from_jwks((await world.call("GET", "/.well-known/jwks.json")).json)
    behind = AccessTokenVerifier(keys=keys, issuer=OWN, audience=f"{OWN}/auth/check")
    assert behind(token, now=world.clock()).sid == (browser.session_id or None)
    with pytest.raises(InvalidToken):
        AccessTokenVerifier(keys=keys, issuer=OWN, audience=OWN)(token, now=world.clock())
    asked = await world.call("POST", "/oauth2/introspect", form={"token": token}, headers=[basic(service)])
    assert (asked.json["active"], asked.json["aud"]) == (True, f"{OWN}/auth/check")


async def test_j02_a_shared_secret_signs_no_forwarded_token() -> None:
    """With HS256 there is no X-Auth-Token: a service that could verify it could mint tokens for this API."""
    async with a_world(proxies=[PROXY], alg="HS256") as world:
        await world.register()
        program = await signed_in(world)
        answer = await world.check(bearer=program.access)
        assert answer.status == 204
        assert answer.header("x-auth-subject")
        assert answer.header("x-auth-token") is None


def test_j11_no_setting_makes_the_forwarded_token_a_bearer() -> None:
    """The audience of forwarded tokens cannot be one of the API's own."""
    with pytest.raises(Misconfigured, match="Choose another"):
        World(audience=[OWN, f"{OWN}/auth/check"])


# --- behind a real nginx ---------------------------------------------------------------------------------------------


class Application(BaseHTTPRequestHandler):
    """What stands behind the proxy: it says which headers it was given."""

    def do_GET(self) -> None:
        length = int(self.headers.get("content-length") or 0)
        self.rfile.read(length)
        seen = {name.lower(): value for name, value in self.headers.items() if "auth" in name.lower()}
        body = json.dumps({"method": self.command, "seen": seen}).encode()
        self.send_response(200)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_POST = do_GET  # noqa: N815 - the standard library's names

    def log_message(self, *args: object) -> None:
        pass


CONFIGURATION = """
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 64; }}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{port};
        server_name login.example.com;
{locations}
    }}
}}
"""


def documented(application: int, check: int) -> str:
    """The locations of docs/guides/nginx.md, but for the ports and the scheme of this test."""
    text = (Path(__file__).parents[2] / "docs" / "guides" / "nginx.md").read_text()
    block = text.split("```nginx\n")[1].split("```")[0]
    block = block.replace("http://application", f"http://127.0.0.1:{application}")
    block = block.replace("http://127.0.0.1:8000", f"http://127.0.0.1:{check}")
    assert "X-Forwarded-Method $request_method" in block
    # TLS ends in front of this nginx: it would say "http" of itself.
    return block.replace("X-Forwarded-Proto $scheme", "X-Forwarded-Proto https")


@pytest.fixture(scope="module")
def behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[int, int]]:
    """Ports of nginx and of the server behind it."""
    nginx = shutil.which("nginx") or shutil.which("/usr/sbin/nginx")
    if nginx is None:
        pytest.skip("needs nginx, which is not installed")
    folder = tmp_path_factory.mktemp("nginx")
    application = ThreadingHTTPServer(("127.0.0.1", 0), Application)
    threading.Thread(target=application.serve_forever, daemon=True).start()
    with running_server(folder, "--public-url", OWN, "--proxy", "127.0.0.1") as check:
        port = free_port()
        (folder / "nginx.conf").write_text(
            CONFIGURATION.format(folder=folder, port=port, locations=documented(application.server_address[1], check))
        )
        process = subprocess.Popen(
            [nginx, "-c", str(folder / "nginx.conf"), "-p", str(folder), "-e", str(folder / "error.log")],
            stderr=subprocess.DEVNULL,
        )
        try:
            for _ in range(3000):
                try:
                    socket.create_connection(("127.0.0.1", port), timeout=60).close()
                    break
                except OSError:
                    assert process.poll() is None, (folder / "error.log").read_text()
                    time.sleep(0.02)
            yield port, check
        finally:
            process.terminate()
            process.wait(60)
            application.shutdown()
            application.server_close()


def send(
    port: int, method: str, path: str, body: object = None, raw: dict[str, str] | None = None, **headers: str
) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    content = json.dumps(body) if body is not None else None
    if content is not None:
        named["content-type"] = "application/json"
    connection.request(method, path, content, {"host": "login.example.com", **named, **(raw or {})})
    answer = connection.getresponse()
    received = dict(answer.getheaders())
    read = answer.read()
    connection.close()
    return answer.status, received, read


def test_behind_nginx_as_documented(behind: tuple[int, int]) -> None:
    """With the documented configuration nginx lets a good cookie and a good token through with the subject's name, and
    refuses no proof, a bad one, another site's POST, one whose origin is unknown, and an ended session.
    """
    port, direct = behind
    https = {"x_forwarded_proto": "https", "x_forwarded_for": "192.0.2.7"}
    person = {"email": "ada@example.com", "password": PASSWORD}
    status, _, made = send(direct, "POST", "/auth/register", person, **https)
    assert status == 201, made
    subject = json.loads(made)["user"]["id"]
    status, headers, said = send(direct, "POST", "/auth/login", {**person, "mode": "session"}, **https)
    assert status == 200, said
    csrf = json.loads(said)["csrf_token"]
    cookie = next(part for part in headers["set-cookie"].split(", ") if part.startswith("__Host-dd_session"))
    cookie = cookie.partition(";")[0] if cookie else ""
    _, _, tokens = send(direct, "POST", "/auth/login", {**person, "mode": "hybrid"}, **https)
    bearer = "Bearer " + json.loads(tokens)["access_token"]

    assert send(port, "GET", "/")[0] == 401
    assert send(port, "GET", "/", authorization="Bearer x")[0] == 401
    for proof in ({"cookie": cookie}, {"authorization": bearer}):
        status, _, seen = send(port, "GET", "/page?a=1", **proof)
        assert status == 200
        assert json.loads(seen)["seen"]["x-auth-subject"] == subject
    assert send(port, "POST", "/", {"x": 1}, authorization=bearer)[0] == 200
    assert send(port, "POST", "/", {"x": 1}, cookie=cookie, origin=OWN)[0] == 200
    for other in ({"origin": "https://evil.example.net"}, {"sec_fetch_site": "cross-site"}, {"origin": "null"}, {}):
        assert send(port, "POST", "/", {"x": 1}, cookie=cookie, **other)[0] == 403, other

    # A client that writes the headers of the proxy itself.
    names = ("Subject", "Session", "Roles", "Token", "Email")
    for spelled in ("X-Auth-{}", "X_Auth_{}", "X-Auth_{}", "x-AUTH-{}"):
        forged = {spelled.format(name): "forged" for name in names[:4]}
        status, _, seen = send(port, "GET", "/", authorization=bearer, raw=forged)
        assert status == 200
        passed_on = json.loads(seen)["seen"]
        assert passed_on["x-auth-subject"] == subject
        assert "forged" not in passed_on.values(), spelled
    handshake = {"upgrade": "websocket", "connection": "upgrade", "sec_websocket_version": "13", "cookie": cookie}
    for other in ({"origin": "https://forum.example.com"}, {"origin": "null"}, {}):
        assert send(port, "GET", "/", **handshake, **other)[0] == 403, other
    assert send(port, "GET", "/", **handshake, origin=OWN)[0] == 200
    bare = {"upgrade": "websocket", "connection": "upgrade", "cookie": cookie, "origin": "https://forum.example.com"}
    assert send(port, "GET", "/", **bare)[0] == 403, "by Upgrade alone"

    forged = {"X-Forwarded-Method": "GET", "X-Original-Method": "GET", "X-Real-IP": "127.0.0.1"}
    assert send(port, "POST", "/", {"x": 1}, cookie=cookie, raw=forged)[0] >= 400
    assert send(port, "POST", "/", {"x": 1}, cookie=cookie, x_forwarded_method="GET")[0] == 403
    assert send(port, "GET", "/_check", cookie=cookie)[0] == 404, "internal"

    done, _, _ = send(direct, "POST", "/auth/logout", cookie=cookie, x_csrf_token=csrf, **https)
    assert done == 200
    assert send(port, "GET", "/", cookie=cookie)[0] == 401
