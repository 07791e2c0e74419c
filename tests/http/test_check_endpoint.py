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

import pytest
from tests.http.test_tokens import unb64
from tests.http.world import AWAY, LISTED, OWN, PASSWORD, SESSION, Answer, Program, World, a_world
from tests.running import free_port, running_server

PROXY = "10.0.0.5"
SAID = ("x-auth-subject", "x-auth-session", "x-auth-roles", "x-auth-token")


async def signed_in(world: World, mode: str = "hybrid") -> Program:
    program = world.program()
    await program.login(mode=mode)
    return program


async def ask(world: World, method: str, *headers: tuple[str, str], **more: object) -> Answer:
    forwarded = [("x-forwarded-method", method), ("x-forwarded-for", AWAY), ("x-forwarded-proto", "https")]
    return await world.call("GET", "/auth/check", headers=[*forwarded, *headers], peer=PROXY, **more)


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
        answer = await ask(world, "GET", **proof)
        assert (answer.status, answer.body) == (204, b"")
        subject, session, roles, token = (answer.header(name) for name in SAID)
        assert (subject, session, roles) == (user["id"], browser.session_id, "admin")
        claims = json.loads(unb64((token or "").split(".")[1]))
        assert (claims["sub"], claims["roles"]) == (user["id"], ["admin"])
        assert 0 < claims["exp"] - claims["iat"] <= 60
        assert claims.get("sid", "") == browser.session_id


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
                answer = await ask(world, method, *headers, cookie=browser.cookie())
                assert answer.status == 403, (method, headers)
                assert not {name for name, _ in answer.headers} & set(SAID)
            for headers in ([("sec-fetch-site", "same-origin")], [("origin", OWN)], [("origin", LISTED)]):
                assert (await ask(world, method, *headers, cookie=browser.cookie())).status == 204, (method, headers)
        for headers in ([], [("sec-fetch-site", "cross-site")]):
            assert (await ask(world, "GET", *headers, cookie=browser.cookie())).status == 204, "a link from elsewhere"
        program = await signed_in(world)
        assert (await ask(world, "POST", bearer=program.access)).status == 204, "another site cannot add a token"


async def test_s22_only_a_configured_proxy_names_the_method() -> None:
    """From anyone else X-Forwarded-Method is ignored; a proxy that names none, or two that differ, is 400."""
    async with a_world(proxies=[PROXY]) as world:
        await world.register()
        program = await signed_in(world)
        spoofed = [("x-forwarded-method", "GET"), ("x-original-method", "POST")]
        assert (await world.call("GET", "/auth/check", headers=spoofed, bearer=program.access)).status == 204
        for headers in ([], spoofed):
            answer = await world.call("GET", "/auth/check", headers=headers, bearer=program.access, peer=PROXY)
            assert (answer.status, answer.code) == (400, "forwarded_method")
        same = [("x-forwarded-method", "GET"), ("x-original-method", "GET")]
        assert (await world.call("GET", "/auth/check", headers=same, bearer=program.access, peer=PROXY)).status == 204


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
    """The locations of docs/http-api.md, as they stand there but for the ports and the scheme of this test."""
    text = (Path(__file__).parents[2] / "docs" / "http-api.md").read_text()
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
            for _ in range(200):
                try:
                    socket.create_connection(("127.0.0.1", port), timeout=1).close()
                    break
                except OSError:
                    assert process.poll() is None, (folder / "error.log").read_text()
                    time.sleep(0.02)
            yield port, check
        finally:
            process.terminate()
            process.wait(10)
            application.shutdown()
            application.server_close()


def send(
    port: int, method: str, path: str, body: object = None, raw: dict[str, str] | None = None, **headers: str
) -> tuple[int, dict[str, str], bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    content = json.dumps(body) if body is not None else None
    if content is not None:
        named["content-type"] = "application/json"
    connection.request(method, path, content, {"host": "login.example.com", **named, **(raw or {})})
    answer = connection.getresponse()
    told = dict(answer.getheaders())
    read = answer.read()
    connection.close()
    return answer.status, told, read


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
        told = json.loads(seen)["seen"]
        assert told["x-auth-subject"] == subject
        assert "forged" not in told.values(), spelled
    forged = {"X-Forwarded-Method": "GET", "X-Original-Method": "GET", "X-Real-IP": "127.0.0.1"}
    assert send(port, "POST", "/", {"x": 1}, cookie=cookie, raw=forged)[0] >= 400
    assert send(port, "POST", "/", {"x": 1}, cookie=cookie, x_forwarded_method="GET")[0] == 403
    assert send(port, "GET", "/_check", cookie=cookie)[0] == 404, "internal"

    done, _, _ = send(direct, "POST", "/auth/logout", cookie=cookie, x_csrf_token=csrf, **https)
    assert done == 200
    assert send(port, "GET", "/", cookie=cookie)[0] == 401
