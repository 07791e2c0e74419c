"""deploy/nginx.conf in a real nginx in front of two nodes, also while these restart one after the other."""

from __future__ import annotations

import contextlib
import http.client
import http.server
import json
import re
import shutil
import signal
import socket
import ssl
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from tests.docs.deployment import DEPLOY, HOST, ROOT
from tests.ports import free_port
from tests.server.certificates import write_certificate
from tests.server.running import Running, clean_environment, command, eventually, running

from dutchdoor.server.settings import BY_NAME


class Site(NamedTuple):
    """nginx.conf at work: its TLS port, the nodes behind it, and what the application behind it was sent."""

    port: int
    nodes: list[Running]
    environment: dict[str, str]
    seen: list[dict[str, str]]
    folder: Path

    def ask(
        self, method: str, path: str, body: object = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        with contextlib.closing(self.connect()) as connection:
            return ask_on(connection, method, path, body, headers)

    def connect(self) -> http.client.HTTPSConnection:
        context = ssl.create_default_context(cafile=str(self.folder / "cert.pem"))
        connection = http.client.HTTPSConnection("127.0.0.1", self.port, timeout=60, context=context)
        # The certificate is for the public name, as the Host header is.
        connection.sock = context.wrap_socket(
            socket.create_connection(("127.0.0.1", self.port), 20), server_hostname=HOST
        )
        return connection


def ask_on(
    connection: http.client.HTTPConnection,
    method: str,
    path: str,
    body: object = None,
    headers: Mapping[str, str] | None = None,
) -> tuple[int, http.client.HTTPMessage, bytes]:
    sent = {"host": HOST, **(headers or {})}
    encoded = None if body is None else json.dumps(body)
    if encoded is not None:
        sent["content-type"] = "application/json"
    connection.request(method, path, encoded, sent)
    answer = connection.getresponse()
    return answer.status, answer.headers, answer.read()


class Application(http.server.BaseHTTPRequestHandler):
    """Something behind nginx that says what it was sent."""

    seen: list[dict[str, str]]

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers["content-length"] or 0))
        self.seen.append({name.lower(): value for name, value in self.headers.items()})
        self.send_response(200)
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    do_POST = do_GET  # noqa: N815 - the name that the base class looks for

    def log_message(self, *_: Any) -> None: ...


@contextlib.contextmanager
def application(seen: list[dict[str, str]]) -> Iterator[int]:
    handler = type("Seeing", (Application,), {"seen": seen})
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


def as_here(text: str, folder: Path, ports: list[int], tls: int, plain: int, app: int) -> str:
    """The shipped file with this machine's ports and paths, and nothing else changed."""
    for number in (1, 2, 3):
        line = f"    server node{number}:8000 max_fails=1 fail_timeout=1s;\n"
        assert text.count(line) == 2
        there = number <= len(ports)
        text = text.replace(line, line.replace(f"node{number}:8000", f"127.0.0.1:{ports[number - 1]}") if there else "")
    for old, new in {
        "listen 443": f"listen 127.0.0.1:{tls}",
        "listen 80": f"listen 127.0.0.1:{plain}",
        "/run/secrets/tls_cert.pem": str(folder / "cert.pem"),
        "/run/secrets/tls_key.pem": str(folder / "key.pem"),
        "/var/log/nginx/access.log": str(folder / "access.log"),
        "application:9000": f"127.0.0.1:{app}",
    }.items():
        assert old in text
        text = text.replace(old, new)
    if nginx_version() < (1, 25, 1):
        assert "\n    http2 on;\n" in text
        text = text.replace("    http2 on;\n", "").replace(f"{tls} ssl;", f"{tls} ssl http2;")
    return re.sub(r"^ *listen \[::\].*\n", "", text, flags=re.MULTILINE)


def nginx_version() -> tuple[int, ...]:
    said = subprocess.run(["nginx", "-v"], capture_output=True, text=True, check=True).stderr
    found = re.search(r"nginx/([0-9.]+)", said)
    assert found, said
    return tuple(map(int, found[1].split(".")))


@contextlib.contextmanager
def nginx(folder: Path, text: str, tls: int) -> Iterator[None]:
    temporary = "".join(
        f"{kind}_temp_path {folder}/{kind};\n" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    file = folder / "nginx.conf"
    file.write_text(
        f"daemon off; pid {folder}/nginx.pid; error_log {folder}/error.log warn;\n"
        f"events {{ worker_connections 512; }}\nhttp {{\n{temporary}{text}\n}}\n"
    )
    log = folder / "nginx.out"
    with log.open("w") as out:
        process = subprocess.Popen(
            ["nginx", "-p", str(folder), "-c", str(file), "-e", str(folder / "error.log")], stdout=out, stderr=out
        )
        try:
            deadline = time.monotonic() + 60
            while True:
                assert process.poll() is None, log.read_text() + (folder / "error.log").read_text()
                with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", tls), 0.2):
                    break
                assert time.monotonic() < deadline
                time.sleep(0.02)
            yield
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait(20)


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    """Two nodes over one database, nginx as shipped in front of them, and an application."""
    if shutil.which("nginx") is None:
        pytest.skip("needs nginx")
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="dutchdoor-")))
        folder.chmod(0o755)  # nginx started by root works as another user
        write_certificate(folder, HOST)
        tls, plain = free_port(), free_port()
        environment = {
            # The public URL with its port, as people use it here; most tests ask as if the port were 443.
            "DUTCHDOOR_PUBLIC_URL": f"https://{HOST}:{tls}",
            "DUTCHDOOR_OTHER_HOST": HOST,
            "DUTCHDOOR_PROXY": "127.0.0.1",
            "DUTCHDOOR_DATABASE": f"sqlite:///{folder}/door.db",
            "DUTCHDOOR_MASTER_KEY_FILE": str(folder / "keys"),
            "DUTCHDOOR_ACCESS_LOG": "true",
        }
        nodes = [stack.enter_context(running(folder, environment=environment)) for _ in range(2)]
        seen: list[dict[str, str]] = []
        app = stack.enter_context(application(seen))
        shipped = (DEPLOY / "nginx.conf").read_text()
        text = as_here(shipped, folder, [node.port for node in nodes], tls, plain, app)
        stack.enter_context(nginx(folder, text, tls))
        yield Site(tls, nodes, environment, seen, folder)


POLL = "/auth/revocations/poll"
ACCOUNT = {"email": "ada@example.com", "password": "a quiet heron at dusk"}


@pytest.fixture(scope="module")
def token(site: Site) -> str:
    assert site.ask("POST", "/auth/register", ACCOUNT)[0] in {201, 202}
    status, _, body = site.ask("POST", "/auth/login", {**ACCOUNT, "mode": "hybrid", "transport": "body"})
    assert status == 200, body
    found: str = json.loads(body)["access_token"]
    return found


def test_nginx_names_the_client_and_no_client_names_itself(site: Site) -> None:
    """Behind nginx.conf the audit log has the connection's address; a client's own forwarding headers change nothing
    and are no error.
    """
    claims = {
        "x-forwarded-for": "203.0.113.9",
        "x-real-ip": "203.0.113.9",
        "forwarded": "for=203.0.113.9;proto=http",
        "x-forwarded-host": "evil.example",
        "x-forwarded-proto": "http",
    }
    account = {"email": "grace@example.com", "password": "a quiet heron at dawn"}
    assert site.ask("POST", "/auth/register", account)[0] in {201, 202}
    status, headers, body = site.ask("POST", "/auth/login", {**account, "mode": "session"}, claims)
    assert status == 200, body
    assert "__Host-dd_session=" in str(headers.get_all("set-cookie"))
    log = "".join(said for node in site.nodes for said in node.err)
    assert "203.0.113.9" not in log
    assert "address=127.0.0.1" in log


def test_nginx_asks_before_the_application_sees_anything(site: Site, token: str) -> None:
    """An application behind auth_request sees requests with a proof only, with headers that the client cannot write."""
    assert site.ask("GET", "/app/x")[0] == 401
    assert site.seen == []
    spoofed = {"x-auth-subject": "root", "x-auth-roles": "admin", "x-auth-token": "t", "x-auth-session": "s"}
    assert site.ask("GET", "/app/x", None, spoofed)[0] == 401
    assert site.seen == []
    status, _, _ = site.ask("GET", "/app/x", None, {"authorization": f"Bearer {token}", **spoofed})
    assert status == 200
    (sent,) = site.seen
    assert sent["x-auth-token"].count(".") == 2
    assert "root" not in sent["x-auth-subject"]
    assert "admin" not in sent.get("x-auth-roles", "")
    assert site.ask("GET", "/_check")[0] == 404
    site.seen.clear()


def test_nginx_tells_the_check_the_method(site: Site) -> None:
    """A cookie alone lets no POST of another site through to the application."""
    account = {"email": "mary@example.com", "password": "a quiet heron at noon"}
    assert site.ask("POST", "/auth/register", account)[0] in {201, 202}
    _, headers, _ = site.ask("POST", "/auth/login", {**account, "mode": "session"})
    cookie = "; ".join(line.split(";")[0] for line in headers.get_all("set-cookie") or [])
    site.seen.clear()
    assert site.ask("GET", "/app/x", None, {"cookie": cookie})[0] == 200
    assert site.ask("POST", "/app/x", {}, {"cookie": cookie, "sec-fetch-site": "cross-site"})[0] == 403
    assert site.ask("POST", "/app/x", {}, {"cookie": cookie})[0] == 403
    assert len(site.seen) == 1
    assert site.ask("POST", "/app/x", {}, {"cookie": cookie, "sec-fetch-site": "same-origin"})[0] == 200
    site.seen.clear()


def test_nginx_lets_only_our_own_origin_open_a_websocket(site: Site) -> None:
    """A handshake by cookie reaches the application, with Upgrade and Connection, from our own origin alone."""
    account = {"email": "joan@example.com", "password": "a quiet heron at three"}
    assert site.ask("POST", "/auth/register", account)[0] in {201, 202}
    _, headers, _ = site.ask("POST", "/auth/login", {**account, "mode": "session"})
    cookie = "; ".join(line.split(";")[0] for line in headers.get_all("set-cookie") or [])
    site.seen.clear()
    handshake = {"cookie": cookie, "connection": "Upgrade", "upgrade": "websocket"}
    for origin in ({"origin": "https://forum.example.com"}, {"origin": "null"}, {}):
        assert site.ask("GET", "/app/socket", None, {**handshake, **origin})[0] == 403
    assert site.seen == []
    assert site.ask("GET", "/app/socket", None, {**handshake, "origin": f"https://{HOST}"})[0] == 200
    (sent,) = site.seen
    assert (sent["upgrade"], sent["connection"]) == ("websocket", "upgrade")
    site.seen.clear()


def test_nginx_passes_on_the_port_of_the_public_url(site: Site) -> None:
    """A site on another port than 443 is known by the host name with its port."""
    assert site.ask("GET", "/auth/me", None, {"host": f"{HOST}:{site.port}"})[0] == 401
    status, _, body = site.ask("GET", "/auth/me", None, {"host": f"{HOST}:1"})
    assert (status, json.loads(body)["code"]) == (400, "unknown_host")


def test_nginx_bounds_our_bodies_and_not_the_applications(site: Site, token: str) -> None:
    """A megabyte reaches the application behind the check, and no byte of it does without a proof; for dutchdoor's own
    endpoints nginx refuses it.
    """
    large = {"text": "x" * 1_000_000}
    proof = {"authorization": f"Bearer {token}"}
    assert site.ask("POST", "/app/upload", large, proof)[0] == 200
    assert site.seen.pop()["content-length"] == str(len(json.dumps(large)))
    assert site.ask("POST", "/app/upload", large)[0] == 401
    assert site.seen == []
    assert site.ask("POST", "/auth/login", large)[0] == 413


def test_nginx_gives_each_request_an_id(site: Site) -> None:
    """The id that nginx makes is in its log, in the response and in the node's log; a client's own is not used."""
    own = "client-1234567890"
    _, headers, _ = site.ask("GET", "/auth/me", None, {"x-request-id": own})
    given = str(headers["x-request-id"])
    assert re.fullmatch(r"[0-9a-f]{32}", given)
    eventually(lambda: any(f"request_id={given}" in node.said for node in site.nodes))
    eventually(lambda: given in (site.folder / "access.log").read_text())
    assert not any(own in node.said for node in site.nodes)


def test_nginx_says_503_where_no_node_answers(site: Site, token: str) -> None:
    """With no node up, the application is not asked, and the caller is asked to come back and not sent away."""
    folder, tls = site.folder / "alone", free_port()
    folder.mkdir()
    write_certificate(folder, HOST)
    text = as_here((DEPLOY / "nginx.conf").read_text(), folder, [free_port()], tls, free_port(), free_port())
    without = re.sub(
        r" *# --- an application behind it.*# --- the end of the application -+\n", "", text, flags=re.DOTALL
    )
    without = re.sub(r"\nupstream application \{.*?\n\}", "", without, flags=re.DOTALL)
    with nginx(folder, without, tls):  # as the guide says to cut it
        assert "application" not in re.sub("#.*|application/problem", "", without)
        status, headers, _ = site._replace(port=tls, folder=folder).ask("GET", "/app/x")
        assert (status, headers["retry-after"]) == (503, "1")
    with nginx(folder, text, tls):
        alone = site._replace(port=tls, folder=folder)
        for method, path in (("GET", "/app/x"), ("GET", "/auth/me"), ("POST", "/auth/refresh"), ("POST", POLL)):
            status, headers, body = alone.ask(method, path, None, {"authorization": f"Bearer {token}"})
            assert (status, headers["retry-after"]) == (503, "1"), path
            assert json.loads(body)["code"] == "unavailable"
            assert headers.get_all("set-cookie") is None


def test_a_poll_hangs_through_nginx_and_keeps_to_one_node(site: Site, token: str) -> None:
    """A follower's polls reach one node as long as its connection lives, hang there, and are answered the moment that
    a person logs out at any node.
    """
    made = subprocess.run(
        command("verifier", "add", "orders", "--json"),
        cwd=site.folder,
        env=clean_environment(site.environment),
        capture_output=True,
        text=True,
        check=True,
    )
    proof = {"authorization": f"Bearer {json.loads(made.stdout)['key']}"}
    poll = {"holder": "a" * 22, "log_epoch": 0, "applied_seq": 0, "wait_ms": 0}
    before = [polls_at(node) for node in site.nodes]
    with contextlib.closing(site.connect()) as connection:
        for _ in range(4):
            status, headers, body = ask_on(connection, "POST", "/auth/revocations/poll", poll, proof)
            assert status == 200, body
            assert headers["cache-control"] == "no-store"
            answer = json.loads(body)
            poll |= {"log_epoch": answer["log_epoch"], "applied_seq": answer["upto_seq"]}
        answers: list[tuple[float, dict[str, Any]]] = []

        def hang() -> None:
            found = json.loads(
                ask_on(connection, "POST", "/auth/revocations/poll", {**poll, "wait_ms": 2500}, proof)[2]
            )
            answers.append((time.monotonic(), found))

        hanging = threading.Thread(target=hang)
        hanging.start()
        for _ in range(2):  # at one node and at the other, whichever comes first
            _, _, body = site.ask("POST", "/auth/login", {**ACCOUNT, "mode": "hybrid", "transport": "body"})
            ended = {"authorization": f"Bearer {json.loads(body)['access_token']}"}
            assert site.ask("POST", "/auth/logout", None, {**ended, "prefer": "wait=0"})[0] in {200, 202}
        hanging.join(20)
    ((_, held),) = answers
    assert held["entries"]
    deadline = time.monotonic() + 60
    while sum(reached := [polls_at(node) - was for node, was in zip(site.nodes, before, strict=True)]) < 5:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert sorted(reached) == [0, 5]


def polls_at(node: Running) -> int:
    return sum("route=/auth/revocations/poll" in line for line in list(node.err))


ROLLS = pytest.mark.parametrize(
    "rolls", [pytest.param(1, marks=pytest.mark.long), pytest.param(10, marks=pytest.mark.soak)], ids=str
)


@ROLLS
@pytest.mark.timeout(600)
def test_p25_a_rolling_restart_loses_no_request(site: Site, token: str, rolls: int) -> None:
    """Stop a node, start it, wait for `/readyz`, go on with the other: behind nginx reads are answered at the first
    try, and writes at the first or after `Retry-After`.
    """
    folder, tls, ports = site.folder / f"rolling{rolls}", free_port(), [free_port(), free_port()]
    folder.mkdir()
    write_certificate(folder, HOST)
    text = as_here((DEPLOY / "nginx.conf").read_text(), folder, ports, tls, free_port(), free_port())
    outcomes = rolled(site, site._replace(port=tls, folder=folder), nginx(folder, text, tls), ports, token, rolls)
    assert [tries for method, tries in outcomes if method == "GET" and tries != [200]] == []
    assert [tries for method, tries in outcomes if method == "POST" and tries not in ([200], [503, 200])] == []
    assert {method for method, _ in outcomes} == {"GET", "POST"}


@ROLLS
@pytest.mark.timeout(600)
def test_p25_behind_a_proxy_that_asks_readyz_no_request_needs_a_second_try(site: Site, token: str, rolls: int) -> None:
    """Behind HAProxy, as the page sets it up, each read and each write of a rolling restart is answered at the first
    try.
    """
    if shutil.which("haproxy") is None:
        pytest.skip("needs haproxy")
    folder, tls, ports = site.folder / f"haproxy{rolls}", free_port(), [free_port(), free_port()]
    folder.mkdir()
    write_certificate(folder, HOST)
    (folder / "both.pem").write_text((folder / "cert.pem").read_text() + (folder / "key.pem").read_text())
    page = (ROOT / "docs" / "guides" / "nodes.md").read_text()
    (text,) = re.findall(r"```haproxy\n(.*?)```", page, re.DOTALL)
    for old, new in {
        ":443": f"127.0.0.1:{tls}",
        "/etc/haproxy/auth.example.com.pem": str(folder / "both.pem"),
        "10.0.0.11:8000": f"127.0.0.1:{ports[0]}",
        "10.0.0.12:8000": f"127.0.0.1:{ports[1]}",
    }.items():
        assert old in text
        text = text.replace(old, new)
    outcomes = rolled(site, site._replace(port=tls, folder=folder), haproxy(folder, text, tls), ports, token, rolls)
    assert [(method, tries) for method, tries in outcomes if tries != [200]] == []
    assert {method for method, _ in outcomes} == {"GET", "POST"}


@contextlib.contextmanager
def haproxy(folder: Path, text: str, tls: int) -> Iterator[None]:
    file = folder / "haproxy.cfg"
    file.write_text(
        "defaults\n    mode http\n    timeout connect 1s\n    timeout client 90s\n    timeout server 90s\n" + text
    )
    process = subprocess.Popen(["haproxy", "-q", "-db", "-f", str(file)])
    try:
        eventually(lambda: process.poll() is None and not refuses(tls))
        yield
    finally:
        process.terminate()
        process.wait(20)


def refuses(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), 0.2).close()
    except OSError:
        return True
    return False


def rolled(
    site: Site,
    here: Site,
    proxy: contextlib.AbstractContextManager[None],
    ports: list[int],
    token: str,
    rolls: int,
) -> list[tuple[str, list[int]]]:
    """Restart two nodes in turn, so many times, while clients ask; give the statuses of each request's tries."""
    environment = {**site.environment, "DUTCHDOOR_HANDOVER_FOR": f"{BY_NAME['handover_for'].default}s"}
    outcomes: list[tuple[str, list[int]]] = []
    done = threading.Event()

    def reading() -> None:
        while not done.is_set():
            outcomes.append(("GET", [here.ask("GET", "/auth/me", None, {"authorization": f"Bearer {token}"})[0]]))

    def writing() -> None:
        first = {**ACCOUNT, "mode": "hybrid", "transport": "body"}
        held = [json.loads(site.ask("POST", "/auth/login", first)[2])["refresh_token"] for _ in range(8)]
        while not done.is_set():
            tries: list[int] = []
            while not tries or (tries[-1] == 503 and len(tries) < 3):
                status, headers, body = here.ask("POST", "/auth/refresh", {"refresh_token": held[0]})
                tries.append(status)
                # One session may be refreshed once a second.
                time.sleep(float(headers["retry-after"] or 0) if status == 503 else 0.15)
            outcomes.append(("POST", tries))
            held = [*held[1:], json.loads(body).get("refresh_token", held[0]) if body[:1] == b"{" else held[0]]

    def started(stack: contextlib.ExitStack, port: int) -> Running:
        node = stack.enter_context(running(site.folder, "--port", str(port), environment=environment))
        eventually(lambda: is_ready(port))
        return node

    with contextlib.ExitStack() as stack:
        nodes = [started(stack, port) for port in ports]
        stack.enter_context(proxy)
        eventually(lambda: here.ask("GET", "/auth/me")[0] == 401)
        threads = [threading.Thread(target=asking) for asking in (reading, reading, writing)]
        for thread in threads:
            thread.start()
        try:
            for _ in range(rolls):
                for index, port in enumerate(ports):
                    assert nodes[index].stop()[0] == 0
                    nodes[index] = started(stack, port)
        finally:
            done.set()
            for thread in threads:
                thread.join(30)
    return outcomes


def is_ready(port: int) -> bool:
    with contextlib.closing(http.client.HTTPConnection("127.0.0.1", port, timeout=60)) as connection:
        return ask_on(connection, "GET", "/readyz")[0] == 200


def test_nginx_shows_no_probe_and_logs_no_query(site: Site) -> None:
    """Probes and metrics stay inside, and a query string is not in the log of requests, that of plain HTTP neither."""
    for path in ("/livez", "/readyz", "/metrics"):
        assert site.ask("GET", path)[0] == 404
    site.ask("GET", "/auth/me?token=canary-1f2e")
    deadline = time.monotonic() + 60
    while "/auth/me" not in (log := (site.folder / "access.log").read_text()):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert "canary" not in log
    servers = (DEPLOY / "nginx.conf").read_text().split("\nserver {")[1:]
    assert len(servers) == 2
    assert all("\n    access_log " in server for server in servers), "nginx's own form has the query"


def test_every_setting_of_the_nodes_fits_what_nginx_expects() -> None:
    """The proxy gives up its idle connections before the nodes do, and waits for answers as long as they may take."""
    text = (DEPLOY / "nginx.conf").read_text()
    kept = float(str(BY_NAME["keep_alive_for"].default))
    assert all(float(seconds) < kept for seconds in re.findall(r"keepalive_timeout (\d+)s", text))
