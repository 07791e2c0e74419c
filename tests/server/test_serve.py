"""Real servers on loopback: ready, bounded, refused where unsafe, over TLS that is renewed under them."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import resource
import signal
import socket
import sqlite3
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from certificates import write_certificate
from cryptography import x509
from tests.ports import free_port
from tests.server.running import Running, clean_environment, command, eventually, running

from dutchdoor.auth import Auth
from dutchdoor.errors import Misconfigured
from dutchdoor.model.http_client import Client
from dutchdoor.server.cli import main
from dutchdoor.server.listening import bind
from dutchdoor.server.processes import One, Several
from dutchdoor.server.protocol import HEAD_AT_MOST
from dutchdoor.server.setup_link import offer_setup, remove_spent_setup

PASSWORD = "a quiet heron at dusk"
CANARY = "canary-5d0f7c"


def ask(
    server: Running,
    path: str,
    body: object = None,
    *,
    method: str = "",
    headers: dict[str, str] | None = None,
    port: int | None = None,
) -> tuple[int, dict[str, str], Any]:
    """Send one request, and give status, headers and the decoded body."""
    connection = http.client.HTTPConnection(server.host, port or server.port, timeout=60)
    sent = None if body is None else json.dumps(body)
    with_type = {**({"content-type": "application/json"} if sent else {}), **(headers or {})}
    connection.request(method or ("GET" if sent is None else "POST"), path, sent, with_type)
    answer = connection.getresponse()
    raw, found = answer.read(), {name.lower(): value for name, value in answer.getheaders()}
    connection.close()
    is_json = "json" in found.get("content-type", "")
    return answer.status, found, json.loads(raw) if is_json else raw.decode()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """One server with everything left at its default, but what is watched."""
    directory = tmp_path_factory.mktemp("one")
    (directory / "token").write_text("q1w2e3r4t5z6u7i8o9p0")
    environment = {"DUTCHDOOR_METRICS_TOKEN_FILE": "token", "DUTCHDOOR_REQUEST_FOR": "2s"}
    with running(directory, "--access-log", environment=environment) as found:
        yield found


Refused = Callable[..., str]


@pytest.fixture
def refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Refused:
    """Serve what must not be served, in this process; give what it says."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(One, "run_on", lambda *_: pytest.fail("it was about to be served"))
    monkeypatch.setattr(Several, "run_all", lambda *_: pytest.fail("it was about to be served"))

    def said(*arguments: str, environment: dict[str, str] | None = None) -> str:
        monkeypatch.setattr(os, "environ", clean_environment(environment))
        monkeypatch.setattr(sys, "argv", ["dutchdoor", "serve", "--port", "0", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        written = capsys.readouterr()
        assert (ended.value.code, written.out) == (2, "")
        assert "Traceback" not in written.err
        return written.err

    return said


ADA = {"email": "ada@example.com", "password": PASSWORD}


def log_in(server: Running) -> int:
    return ask(server, "/auth/login", {**ADA, "mode": "session"})[0]


def test_p15_a_disk_that_is_full_is_logged_counted_and_not_ready(tmp_path: Path) -> None:
    """On a disk where no file can grow log-ins are 503, the log has the reason, a counter counts them, and `/readyz`
    fails; with room again all is as before, without a restart.
    """
    port = free_port()
    with running(tmp_path, "--metrics-port", str(port)) as server:
        assert ask(server, "/auth/register", ADA)[0] == 201
        assert (log_in(server), ask(server, "/readyz")[0]) == (200, 200)
        full = (tmp_path / "dutchdoor.db-wal").stat().st_size
        _, hard = resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (full, resource.RLIM_INFINITY))
        assert [log_in(server) for _ in range(5)] == [503] * 5
        eventually(lambda: ask(server, "/readyz")[0] == 503)
        assert ask(server, "/livez")[0] == 200
        eventually(lambda: "requests are refused with 503: sqlite: " in server.said)
        counted = ask(server, "/metrics", port=port)[2]
        assert re.search(r'dutchdoor_unavailable_total{source="sqlite"} ([0-9.]+)', counted)
        resource.prlimit(server.process.pid, resource.RLIMIT_FSIZE, (hard, hard))
        eventually(lambda: ask(server, "/readyz")[0] == 200)
        assert log_in(server) == 200


def test_p15_a_database_that_another_process_locks_is_logged_and_not_ready(tmp_path: Path) -> None:
    """While another process holds the write lock `/readyz` fails, a log-in is 503, and the log says why."""
    with running(tmp_path) as server:
        assert ask(server, "/auth/register", ADA)[0] == 201
        with contextlib.closing(sqlite3.connect(tmp_path / "dutchdoor.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            eventually(lambda: ask(server, "/readyz")[0] == 503)
            assert log_in(server) == 503
            eventually(lambda: re.search("requests are refused with 503: sqlite: .*lock", server.said) is not None)
        eventually(lambda: ask(server, "/readyz")[0] == 200)
        assert log_in(server) == 200


def test_p17_serve_says_what_it_doubts(tmp_path: Path) -> None:
    """A server that starts with tokens of five seconds says so."""
    with running(tmp_path, "--access-for", "5") as server:
        eventually(lambda: "--access-for has no unit, so it counts 5 seconds" in server.said)


def test_p17_required_without_tls_is_said_once(tmp_path: Path) -> None:
    """`device_binding = "required"` binds no cookie without TLS. The server says so once, for however many workers, and
    what to do.
    """
    with running(tmp_path, "--device-binding", "required", "--workers", "2") as server:
        server.stop()
    (said,) = [line for line in server.err if "device_binding" in line]
    assert "Set an https public_url" in said


def test_one_line_when_ready(tmp_path: Path) -> None:
    """With no setting at all it serves this machine, says one line with its address, keeps its files to itself, and
    stops with 0 when asked.
    """
    with running(tmp_path) as server:
        assert re.fullmatch(r"dutchdoor is ready at http://localhost:[0-9]+\n", server.line)
        status, headers, _ = ask(server, "/readyz")
        assert status == 200
        assert "server" not in headers
        assert "strict-transport-security" not in headers
        for name in ("dutchdoor.db", "dutchdoor.keys"):
            assert (tmp_path / name).stat().st_mode & 0o077 == 0
        assert server.stop() == (0, "")


@pytest.mark.parametrize("workers", ["1", pytest.param("2", marks=pytest.mark.long)])
def test_c12_the_first_start_offers_a_set_up_once(tmp_path: Path, workers: str) -> None:
    """C12: no default credentials; a link at each start, one of which works once; none is offered any more once there
    is a person.
    """

    def offered(server: Running) -> str:
        file = tmp_path / "dutchdoor.setup"
        assert f"The link that creates one is in {file}" in server.said
        assert file.stat().st_mode & 0o777 == 0o600
        found = re.search(r"(http://localhost:[0-9]+)/auth/setup#(ddo1_\S+)", file.read_text())
        assert found, file.read_text()
        assert found[2] not in server.said, "a token is in no line of the log"
        assert ask(server, "/auth/setup")[0] == 200
        return found[2]

    with running(tmp_path) as server:
        first = offered(server)
    with running(tmp_path, "--workers", workers) as server:
        second = offered(server)
        assert server.said.count("there is no administrator yet") == 1
        draft = {"email": "ada@example.com", "password": PASSWORD, "name": "Ada"}
        status, _, made = ask(server, "/auth/setup", {**draft, "token": second})
        assert status in {200, 201}, made
        assert made["user"]["roles"] == ["admin"]
        for token in (first, second):
            refused = ask(server, "/auth/setup", {**draft, "email": "eve@example.com", "token": token})
            assert refused[0] in {400, 401, 403, 404, 409}
        eventually(lambda: not (tmp_path / "dutchdoor.setup").exists())
    with running(tmp_path) as server:
        assert "no administrator" not in server.said


async def test_c12_the_set_up_file_goes_when_its_link_has_no_use(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """C12: the file with the link is removed once there is an administrator, however that was created, and when the
    link has expired; not before.
    """
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "dutchdoor.setup"
    async with Auth("memory:") as auth:
        for role, age, stays in (("editor", 0, True), ("editor", 3700, False), ("admin", 0, False)):
            await auth.directory.admin.create(
                f"{role}{age}@example.com", roles=(role,), password=PASSWORD, client=Client(), actor="cli"
            )
            file.touch()
            os.utime(file, (time.time() - age,) * 2)
            await remove_spent_setup(auth)
            assert file.exists() is stays
        await remove_spent_setup(auth)


def test_c12_a_terminal_shows_the_set_up_link(tmp_path: Path) -> None:
    """C12: started on a terminal, the server shows the link there, and writes it to no file."""
    shown, terminal = os.openpty()
    process = subprocess.Popen(
        command("serve", "--port", "0"), cwd=tmp_path, env=clean_environment(), stdout=subprocess.PIPE, stderr=terminal
    )
    try:
        assert process.stdout is not None
        assert b"is ready" in process.stdout.readline()
        seen = b""
        while b"/auth/setup#ddo1_" not in seen:  # a terminal gives it in pieces
            seen += os.read(shown, 65536)
        assert not (tmp_path / "dutchdoor.setup").exists()
    finally:
        process.terminate()
        process.communicate(timeout=60)
        os.close(shown)
        os.close(terminal)


def test_c12_where_no_file_can_be_written_a_command_creates_the_administrator(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """C12: where the working directory is read-only, the log names the command that creates an administrator."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "dutchdoor.setup").mkdir()  # a file cannot take its place, not even root's
    offer_setup("http://localhost/auth/setup#ddo1_x", 900.0)
    assert "dutchdoor user create --role admin" in caplog.text
    assert "ddo1_x" not in caplog.text


def test_several_processes_serve_one_database(tmp_path: Path) -> None:
    """Two workers say once that they are ready, share accounts and sessions, survive the death of one, and stop."""
    with running(tmp_path, "--workers", "2") as server:
        draft = {"email": "ada@example.com", "password": PASSWORD}
        assert ask(server, "/auth/register", draft)[0] == 201
        status, headers, _ = ask(server, "/auth/login", {**draft, "mode": "session"})
        assert status == 200
        cookie = {"cookie": headers["set-cookie"].partition(";")[0]}
        assert all(ask(server, "/auth/me", headers=cookie)[0] == 200 for _ in range(20))
        children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children")
        if children.exists():
            named = [pid for pid in children.read_text().split() if b"spawn_main" in _command_line(pid)]
            assert len(named) == 2
            os.kill(int(named[0]), signal.SIGKILL)

            def replaced() -> bool:
                now = [pid for pid in children.read_text().split() if b"spawn_main" in _command_line(pid)]
                return len(now) == 2 and named[0] not in now

            eventually(replaced, 30)
            eventually(lambda: f"worker process {named[0]} was ended by SIGKILL; starting another" in server.said)
        assert ask(server, "/auth/me", headers=cookie)[0] == 200
        assert server.stop() == (0, "")


def test_no_process_outlives_the_one_that_watches_over_it(tmp_path: Path) -> None:
    """`kill -9` of the first process: its workers end too, and the port is free for the next server."""
    with running(tmp_path, "--workers", "2") as server:
        children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children")
        if not children.exists():
            pytest.skip("there is no list of a process's children here")
        watched = [pid for pid in children.read_text().split() if b"spawn_main" in _command_line(pid)]
        server.process.kill()
        server.process.wait()
        try:
            eventually(lambda: not any(b"spawn_main" in _command_line(pid) for pid in watched), 30)
        finally:
            for pid in watched:
                if b"spawn_main" in _command_line(pid):
                    os.kill(int(pid), signal.SIGKILL)


def _command_line(pid: str) -> bytes:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return b""


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--host", "0.0.0.0"), "--public-url"),
        (("--host", "::"), "--public-url"),
        (("--host", "a..b"), "--host: 'a..b' has no address: not a name of a machine. Use 127.0.0.1"),
        (("--host", "0.0.0.0", "--public-url", "https://auth.example.com"), "--proxy"),
        (("--public-url", "http://auth.example.com"), "https"),
        (("--tls-cert", "a.pem"), "--tls-key"),
        (("--tls-cert", "a.pem", "--tls-key", "b.pem"), "--public-url"),
        (("--tls-cert", "a.pem", "--tls-key", "b.pem", "--public-url", "https://a.example.com"), "a.pem"),
        (("--workers", "2", "--database", "memory:"), "--workers 1"),
        (("--database", "mysql://u@h/d"), "mysql"),
        (("--database", "mysql://u:canary-5d0f7c@h/d"), "DUTCHDOOR_DATABASE"),
        (("--proxy", "10.0.0.7"), "--public-url"),
        (("--alg", "HS256", "--audience", "a", "--audience", "b"), "HS256"),
    ],
)
def test_p09_what_is_unsafe_is_refused(refused: Refused, arguments: tuple[str, ...], says: str) -> None:
    """P09: plain HTTP off loopback and settings that contradict each other end with 2 and with what to do instead."""
    said = refused(*arguments)
    assert says in said
    assert CANARY not in said
    assert len(said.splitlines()) == 1


@pytest.mark.parametrize("key", ["changeme" * 8, "A" * 43, "secret", CANARY])
def test_p09_a_placeholder_master_key_is_refused(refused: Refused, tmp_path: Path, key: str) -> None:
    """P09, J14: a master key that is not random is refused, in the environment and in a file."""
    assert "dutchdoor key master" in (said := refused(environment={"DUTCHDOOR_MASTER_KEY": key}))
    assert key not in said.replace("a placeholder", "")
    (tmp_path / "held").write_text(key)
    (tmp_path / "held").chmod(0o600)
    assert "dutchdoor key master" in refused("--master-key-file", "held")


def test_a_key_file_that_others_can_read_is_refused(refused: Refused, tmp_path: Path) -> None:
    """The master key is for the server's user alone, and the message says how to close it."""
    (tmp_path / "held").write_text("x")
    (tmp_path / "held").chmod(0o644)
    assert "chmod 600" in refused("--master-key-file", "held")


def test_p17_an_address_that_is_not_ours_is_named() -> None:
    """A server listens on an address of its own machine. Another one is named, with its setting and with what fits."""
    with pytest.raises(Misconfigured, match=r"192\.0\.2\.1 \(DUTCHDOOR_HOST\).*does not have this address\. Use 127\."):
        bind("192.0.2.1", 0, lambda name: f"DUTCHDOOR_{name.upper()}")


def test_a_port_that_is_taken_is_named(tmp_path: Path, server: Running) -> None:
    """Two servers on one port: the second says so in one sentence, with the setting, and exits with 1."""
    ran = subprocess.run(
        command("serve", "--port", str(server.port)),
        cwd=tmp_path,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ran.returncode == 1
    assert f"port {server.port} (--port): another program listens there" in ran.stderr
    assert len(ran.stderr.splitlines()) == 1


@pytest.mark.parametrize("workers", ["1", pytest.param("2", marks=pytest.mark.long)])
def test_a_metrics_port_that_is_taken_is_named(tmp_path: Path, server: Running, workers: str) -> None:
    """A taken port for metrics ends the start with 1, and with one sentence that names the port and its setting."""
    ran = subprocess.run(
        command("serve", "--port", "0", "--metrics-port", str(server.port), "--workers", workers),
        cwd=tmp_path,
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ran.returncode, ran.stdout) == (1, "")
    assert f"port {server.port} for metrics" in ran.stderr
    assert "--metrics-port" in ran.stderr
    assert "Traceback" not in ran.stderr


# --- bounds ----------------------------------------------------------------------------------------------------------


def raw(server: Running, *pieces: bytes, wait: float = 60.0) -> bytes:
    """Send bytes as they are, and read until the server closes."""
    with socket.create_connection((server.host, server.port), timeout=wait) as connection:
        answer = b""
        try:
            for piece in pieces:
                connection.sendall(piece)
            while got := connection.recv(65536):
                answer += got
        except ConnectionError:
            pass
        return answer


HEAD = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n"


def test_a_head_without_end_is_cut_off(server: Running) -> None:
    """Headers that go on and on are refused with 431 at their bound, in one piece or in many, in a line or in lines."""
    line = b"X-Filler: " + b"a" * 1000 + b"\r\n"
    assert raw(server, HEAD, *[line] * 40).startswith(b"HTTP/1.1 431 ")
    assert raw(server, HEAD + line * 40 + b"\r\n").startswith(b"HTTP/1.1 431 ")
    assert raw(server, HEAD, b"X-Filler: " + b"a" * (HEAD_AT_MOST + 10)).startswith(b"HTTP/1.1 431 ")
    assert raw(server, b"GET /" + b"a" * (HEAD_AT_MOST + 10)).startswith(b"HTTP/1.1 431 ")
    fits = HEAD + line * 20 + b"Connection: close\r\n\r\n"
    assert raw(server, fits).startswith(b"HTTP/1.1 200 ")


def test_many_requests_in_one_piece_are_not_one_long_head(server: Running) -> None:
    """What counts is the size of each head: a hundred small requests sent at once are answered."""
    request = HEAD + b"X-Filler: " + b"a" * 900 + b"\r\n"
    answer = raw(server, (request + b"\r\n") * 60 + request + b"Connection: close\r\n\r\n")
    assert answer.count(b"HTTP/1.1 200 ") == 61


def test_a_client_that_takes_its_time_is_closed(server: Running) -> None:
    """A connection that sends nothing, half a head or half a body is closed after `request_for`; others are kept."""
    body = (
        HEAD.replace(b"GET /livez", b"POST /auth/login")
        + b"Content-Type: application/json\r\nContent-Length: 9\r\n\r\n{"
    )
    with socket.create_connection((server.host, server.port), timeout=60) as kept:
        assert alive(kept)
        for pieces in ((), (HEAD,), (body,)):
            started = time.monotonic()
            assert raw(server, *pieces, wait=60) == b""
            assert 1.5 < time.monotonic() - started < 45
        assert alive(kept)
        kept.sendall(HEAD)  # half of the next request, on a connection that was honest so far
        assert kept.recv(65536) == b""


def alive(connection: socket.socket) -> bool:
    """Ask on a connection that is open, and read the whole answer."""
    connection.sendall(HEAD + b"\r\n")
    answer = b""
    while not answer.endswith(b"alive\n") and (got := connection.recv(65536)):
        answer += got
    return answer.startswith(b"HTTP/1.1 200 ")


def test_requests_in_progress_are_answered_before_it_stops(tmp_path: Path) -> None:
    """Asked to stop in the middle of a request, the server takes the rest of it, answers, and ends with 0."""
    with running(tmp_path) as server:
        body = json.dumps({"email": "ada@example.com", "password": PASSWORD}).encode()
        head = b"POST /auth/register HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        with socket.create_connection((server.host, server.port), timeout=60) as connection:
            connection.sendall(head + b"Content-Length: %d\r\n\r\n" % len(body) + body[:10])
            eventually(lambda: ask(server, "/livez")[0] == 200)
            server.process.send_signal(signal.SIGTERM)
            eventually(lambda: not _accepts(server))
            connection.sendall(body[10:])
            assert connection.recv(65536).startswith(b"HTTP/1.1 201 ")
        assert server.stop()[0] == 0


@pytest.mark.parametrize("workers", ["1", "2"])
def test_p25_a_node_serves_until_the_proxy_noticed_that_it_stops(tmp_path: Path, workers: str) -> None:
    """After the start and after SIGTERM `/readyz` is 503 for `handover_for`, and requests are answered. After SIGTERM
    no connection is kept. A second signal ends the handover.
    """
    options = ("--public-url", "https://auth.example.com", "--proxy", "127.0.0.1", "--handover-for", "2m")
    host = {"host": "auth.example.com"}
    with running(tmp_path, *options, "--workers", workers) as server:
        status, headers, _ = ask(server, "/readyz")
        assert (status, headers["retry-after"]) == (503, "1")
        status, headers, _ = ask(server, "/auth/me", headers=host)
        assert status == 401
        assert "connection" not in headers
        server.process.send_signal(signal.SIGTERM)
        eventually(lambda: ask(server, "/auth/me", headers=host)[1].get("connection") == "close")
        assert ask(server, "/readyz")[0] == 503
        assert ask(server, "/auth/me", headers=host)[0] == 401
        assert " 503" not in server.said, "a handover is no outage; a time may end in 503"
        for pid in [server.process.pid, *map(int, _workers_of(server.process.pid))]:
            os.kill(pid, signal.SIGINT)
        assert server.process.wait(60) == 0
    assert "Traceback" not in server.said


def _workers_of(pid: int) -> list[str]:
    children = Path(f"/proc/{pid}/task/{pid}/children")
    return [each for each in children.read_text().split() if b"spawn_main" in _command_line(each)]


def _accepts(server: Running) -> bool:
    try:
        socket.create_connection((server.host, server.port), timeout=60).close()
    except OSError:
        return False
    return True


# --- who may speak plain HTTP, and TLS -------------------------------------------------------------------------------


def own_address() -> str:
    """An address of this machine that is not loopback, or ""."""
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect(("192.0.2.1", 9))  # sends nothing: it asks the routing table
            return str(probe.getsockname()[0])
    except OSError:
        return ""


def test_s22_plain_http_from_no_one_but_the_proxy(tmp_path: Path) -> None:
    """S22: behind a named proxy, a client that reaches the port without it is refused before anything is read. Only the
    probes answer, which say no more than that it is well.
    """
    address = own_address()
    if not address or address.startswith("127."):
        pytest.skip("this machine has no address besides loopback")
    behind = ("--host", "0.0.0.0", "--public-url", "https://auth.example.com")
    login = {"email": "ada@example.com", "password": PASSWORD}
    host = {"host": "auth.example.com"}
    with running(tmp_path, *behind, "--proxy", "192.0.2.7") as server:
        server.host = address
        status, headers, problem = ask(server, "/auth/login", login, headers=host)
        assert (status, problem["code"]) == (403, "plain_http")
        assert "set-cookie" not in headers
        for probe in ("/livez", "/readyz"):
            assert ask(server, probe)[0] == 200, "kubelets probe by address, over plain HTTP, from their own"
            assert ask(server, probe, method="HEAD")[0] == 200
            assert ask(server, probe, {}, headers=host)[0] == 403
    with running(tmp_path, *behind, "--proxy", address) as server:
        server.host = address
        forwarded = {**host, "x-forwarded-proto": "https", "x-forwarded-for": "198.51.100.9"}
        status, headers, _ = ask(server, "/livez", headers=forwarded)
        assert status == 200
        assert headers["strict-transport-security"].startswith("max-age=31536000")


def test_without_a_public_url_forwarding_headers_and_other_hosts_are_refused(server: Running) -> None:
    """S22: behind nginx on this machine each client is loopback, so a request through a proxy is refused by name."""
    for headers in ({"x-forwarded-for": "198.51.100.9"}, {"host": "evil.example"}):
        status, _, problem = ask(server, "/auth/me", headers=headers)
        assert status == 400
        assert "--public-url" in problem["detail"]


def serial(server: Running, context: ssl.SSLContext) -> int:
    with (
        socket.create_connection((server.host, server.port), timeout=60) as plain,
        context.wrap_socket(plain, server_hostname="auth.example.com") as secure,
    ):
        assert secure.version() in {"TLSv1.2", "TLSv1.3"}
        held = secure.getpeercert(binary_form=True)
        assert held is not None
        return x509.load_der_x509_certificate(held).serial_number


def test_p20_an_unfinished_handshake_is_closed(tmp_path: Path) -> None:
    """P20: a connection that sends no TLS handshake, or half of one, is closed as one that sends no request is."""
    write_certificate(tmp_path, "auth.example.com")
    arguments = ("--public-url", "https://auth.example.com", "--tls-cert", "cert.pem", "--tls-key", "key.pem")
    with running(tmp_path, *arguments, "--request-for", "1s") as server, contextlib.ExitStack() as stack:
        for sent in (b"", b"\x16\x03\x01\x02\x00\x01"):
            connection = socket.create_connection((server.host, server.port), timeout=40)
            stack.enter_context(connection).sendall(sent)
            assert connection.recv(1) == b"", "within 40 seconds, where uvloop's own time is 60"


@pytest.mark.parametrize("workers", ["1", pytest.param("2", marks=pytest.mark.long)])
def test_tls_is_renewed_without_dropping_anyone(tmp_path: Path, workers: str) -> None:
    """It speaks TLS itself with HSTS and Secure cookies; a new certificate is served as soon as its files are there,
    open connections go on, and files that do not fit together change nothing.
    """
    first = write_certificate(tmp_path, "auth.example.com")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    arguments = ("--public-url", "https://auth.example.com", "--tls-cert", "cert.pem", "--tls-key", "key.pem")
    with running(tmp_path, *arguments, "--workers", workers) as server:
        assert server.scheme == "https"
        connection = http.client.HTTPSConnection(server.host, server.port, context=context, timeout=60)
        host = {"host": "auth.example.com", "content-type": "application/json"}
        draft = json.dumps({"email": "ada@example.com", "password": PASSWORD, "mode": "session"})
        registered = json.dumps({"email": "ada@example.com", "password": PASSWORD})
        connection.request("POST", "/auth/register", registered, host)
        connection.getresponse().read()
        connection.request("POST", "/auth/login", draft, host)
        answer = connection.getresponse()
        answer.read()
        assert answer.status == 200
        assert "__Host-dd_session=" in answer.getheader("set-cookie", "")
        assert answer.getheader("strict-transport-security", "").startswith("max-age=")
        assert serial(server, context) == first

        second = write_certificate(tmp_path, "auth.example.com")
        eventually(lambda: server.said.count("certificate reloaded") == int(workers))
        assert {serial(server, context) for _ in range(8)} == {second}

        (tmp_path / "next").mkdir()
        third = write_certificate(tmp_path / "next", "auth.example.com")
        (tmp_path / "next" / "cert.pem").replace(tmp_path / "cert.pem")  # and not its key yet: half a renewal
        eventually(lambda: server.said.count("cannot be used yet") == int(workers))
        assert {serial(server, context) for _ in range(8)} == {second}
        (tmp_path / "next" / "key.pem").replace(tmp_path / "key.pem")
        eventually(lambda: {serial(server, context) for _ in range(8)} == {third})

        connection.request("GET", "/livez", headers={"host": "auth.example.com"})
        assert connection.getresponse().status == 200, "the connection from before both renewals"
        connection.close()
        assert raw(server, HEAD + b"\r\n") == b"", "plain HTTP on the TLS port"


# --- what it tells ---------------------------------------------------------------------------------------------------


def test_p01_a_line_for_each_transition_and_no_secret_in_any(server: Running) -> None:
    """P01, S13: what happened stands in the log, and no password, token, query string or header does."""
    email = f"{CANARY}@example.com"
    draft = {"email": email, "password": f"{CANARY} {PASSWORD}"}
    assert ask(server, f"/auth/register?x={CANARY}", draft)[0] == 422
    assert ask(server, "/auth/register", draft)[0] == 201
    assert ask(server, "/auth/login", {**draft, "password": CANARY})[0] == 401
    status, _, answer = ask(server, "/auth/login", {**draft, "mode": "hybrid", "transport": "body"})
    assert status == 200
    bearer = {"authorization": f"Bearer {answer['access_token']}"}
    assert ask(server, f"/auth/verify/{answer['refresh_token']}?token={CANARY}", headers=bearer)[0] == 404
    assert ask(server, "/auth/logout", {}, headers=bearer)[0] == 200
    eventually(lambda: "event=logout" in server.said)
    said = server.said
    for name in ("account_created", "login outcome=refused", "session_started", "logout"):
        assert f"event={name}" in said
    assert "route=/auth/login status=401" in said
    assert "route=(none) status=404" in said
    for secret in (CANARY, answer["access_token"], answer["refresh_token"], answer["access_token"].rpartition(".")[2]):
        assert secret not in said


def test_metrics_need_their_token(server: Running) -> None:
    """Counters are there for who has the token, by route and never by path, and hold no secret."""
    assert ask(server, "/metrics")[0] == 401
    assert ask(server, "/metrics", headers={"authorization": "Bearer wrong"})[0] == 401
    ask(server, f"/auth/{CANARY}")
    status, headers, text = ask(server, "/metrics", headers={"authorization": "Bearer q1w2e3r4t5z6u7i8o9p0"})
    assert status == 200
    assert headers["cache-control"] == "no-store"
    assert 'dutchdoor_http_answers_total{route="(none)",status="404"}' in text
    assert "dutchdoor_hashing_queue" in text
    assert CANARY not in text


POLL = "/auth/revocations/poll"


def polls(server: Running, hang: threading.Event, answers: list[tuple[float, Any]]) -> None:
    """Follow as a verifier does, over one connection: poll, and poll again with what the answer brought, until the
    server is gone.
    """
    place = {"log_epoch": 0, "applied_seq": 0}
    with contextlib.closing(http.client.HTTPConnection(server.host, server.port, timeout=60)) as connection:
        while True:
            body = json.dumps({"holder": "A" * 22, "wait_ms": 60_000, **place})
            try:
                connection.request("POST", POLL, body, {"content-type": "application/json"})
                answer = connection.getresponse()
                said = json.loads(answer.read())
            except OSError:
                return
            assert answer.status == 200, said
            answers.append((time.monotonic(), said))
            place = {"log_epoch": said["log_epoch"], "applied_seq": said["upto_seq"]}
            if said["lease_ms"]:
                hang.set()


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.long)])
def test_a_server_that_is_stopped_answers_who_hangs(tmp_path: Path, workers: int) -> None:
    """A verifier's poll that hangs when the server is asked to stop is answered at once, without a lease, and the
    server does not wait for it. Until then, every log-out is fenced early, whichever process it comes to.
    """
    hang, answers = threading.Event(), list[tuple[float, Any]]()
    with running(tmp_path, "--lease", "60s", "--workers", str(workers)) as server:
        ada = {"email": "ada@example.com", "password": PASSWORD}
        assert ask(server, "/auth/register", ada)[0] == 201
        follower = threading.Thread(target=polls, args=(server, hang, answers), daemon=True)
        follower.start()
        assert hang.wait(60)
        for _ in range(4 * workers):
            token = ask(server, "/auth/login", {**ada, "mode": "jwt"})[2]["access_token"]
            proof = {"authorization": f"Bearer {token}", "prefer": "wait=20"}
            started = time.monotonic()
            status, _, said = ask(server, "/auth/logout", {}, headers=proof)
            assert (status, said["fenced"]) == (200, True)
            assert time.monotonic() - started < 30, "half of its lease: everybody said so"
        # The poll that said so hangs now.
        started = time.monotonic()
        code, _ = server.stop()
        assert (code, server.said.count("Traceback")) == (0, 0)
        assert time.monotonic() - started < 15, "a poll hangs for 15 seconds"
        follower.join(60)
        at, last = answers[-1]
        assert (at >= started, last["lease_ms"]) == (True, 0)


def test_metrics_tell_who_follows(tmp_path: Path) -> None:
    """Who follows, by key, how far the slowest is behind, the longest lease, the log, and how long fences took. No
    label has the id of a process.
    """
    (tmp_path / "token").write_text("q1w2e3r4t5z6u7i8o9p0")
    hang, answers = threading.Event(), list[tuple[float, Any]]()
    with running(tmp_path, environment={"DUTCHDOOR_METRICS_TOKEN_FILE": "token"}) as server:
        ada = {"email": "ada@example.com", "password": PASSWORD}
        ask(server, "/auth/register", ada)
        threading.Thread(target=polls, args=(server, hang, answers), daemon=True).start()
        assert hang.wait(60)
        token = ask(server, "/auth/login", {**ada, "mode": "jwt"})[2]["access_token"]
        assert (
            ask(server, "/auth/logout", {}, headers={"authorization": f"Bearer {token}", "prefer": "wait=20"})[0] == 200
        )

        def scraped() -> str:
            return str(ask(server, "/metrics", headers={"authorization": "Bearer q1w2e3r4t5z6u7i8o9p0"})[2])

        eventually(lambda: "dutchdoor_revocation_seq 1.0" in scraped())
        text = scraped()
        assert 'dutchdoor_followers{credential=""} 1.0' in text
        assert 'dutchdoor_followers_behind{credential=""} 0.0' in text
        assert re.search(r'dutchdoor_followers_lease_seconds\{credential=""\} [1-9]', text)
        assert 'dutchdoor_fence_seconds_count{state="acknowledged"} 1.0' in text
        for line in ("revocation_entries 1.0", "revocation_seq 1.0", "fences_waiting 0.0", "stale 0.0"):
            assert f"dutchdoor_{line}" in text
        assert "A" * 22 not in text


ALL_COUNTED = re.compile(r'dutchdoor_http_answers_total\{route="/livez",status="200"\} 30\.0')
"""Some moments after the last answer: each is counted when it has been given."""


@pytest.mark.long
def test_metrics_add_up_over_processes(tmp_path: Path) -> None:
    """With several workers the port of its own tells of all of them, whichever answered."""
    port = free_port()
    with running(tmp_path, "--workers", "2", "--metrics-port", str(port)) as server:
        for _ in range(30):
            assert ask(server, "/livez")[0] == 200
        eventually(lambda: ALL_COUNTED.search(ask(server, "/metrics", port=port)[2]) is not None)
        assert ask(server, "/metrics")[0] == 404


@pytest.mark.long
def test_metrics_of_a_process_that_died_are_over(tmp_path: Path) -> None:
    """What a process reported of itself (how stale it is, how much it has read) is not reported any more once it is
    gone, or an alarm would never end. What it counted stays counted.
    """
    port = free_port()
    environment = {"TMPDIR": str(tmp_path)}
    with running(tmp_path, "--workers", "2", "--metrics-port", str(port), environment=environment) as server:
        children = Path(f"/proc/{server.process.pid}/task/{server.process.pid}/children")
        if not children.exists():
            pytest.skip("there is no list of a process's children here")
        for _ in range(30):
            assert ask(server, "/livez")[0] == 200
        eventually(lambda: ALL_COUNTED.search(ask(server, "/metrics", port=port)[2]) is not None)
        pids = {path.stem.rpartition("_")[2] for path in tmp_path.glob("dutchdoor-*/gauge_live*.db")}
        assert pids
        for pid in pids:
            os.kill(int(pid), signal.SIGKILL)
        eventually(lambda: not [path for pid in pids for path in tmp_path.glob(f"dutchdoor-*/gauge_live*_{pid}.db")])
        assert ALL_COUNTED.search(ask(server, "/metrics", port=port)[2])
