"""Connections and heads as a real server takes them: whose place, which fields, which host."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import uvicorn
from tests.ports import free_port
from tests.server.running import Running, eventually, running
from uvicorn.server import ServerState

from dutchdoor.server.protocol import BoundedProtocol

HEAD = b"GET /livez HTTP/1.1\r\nHost: localhost\r\n"
LOGIN = json.dumps({"email": "ada@example.com", "password": "a wrong password of mine"}).encode()
PUBLIC = ("--public-url", "https://login.example.com", "--proxy", "127.0.0.1")
HAPROXY = shutil.which("haproxy") or shutil.which("haproxy", path="/usr/sbin:/usr/local/sbin")


def answers(port: int, sent: bytes, *, source: str = "127.0.0.1", count: int = 1) -> list[bytes]:
    """Send bytes from one address of this machine, and give the first answers."""
    with socket.create_connection(("127.0.0.1", port), timeout=60, source_address=(source, 0)) as connection:
        connection.sendall(sent)
        with contextlib.ExitStack() as stack:
            file = stack.enter_context(connection.makefile("rb"))
            return [_answer(file) for _ in range(count)]


def _answer(file: object) -> bytes:
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        line = file.readline()  # type: ignore[attr-defined]
        assert line, f"it closed after {head!r}"
        head += line
    length = re.search(rb"content-length: ([0-9]+)", head)
    return head + (file.read(int(length[1])) if length else b"")  # type: ignore[attr-defined]


def chunked(*trailers: bytes, host: bytes = b"login.example.com") -> bytes:
    """A log-in whose body is followed by fields."""
    return (
        b"POST /auth/login HTTP/1.1\r\nHost: " + host + b"\r\nContent-Type: application/json\r\n"
        b"Transfer-Encoding: chunked\r\n\r\n%x\r\n%b\r\n0\r\n"
        % (len(LOGIN), LOGIN)
        + b"".join(line + b"\r\n" for line in trailers)
        + b"\r\n"
    )


def addresses_of_refusals(server: Running) -> list[str]:
    return re.findall(r"event=login outcome=refused .*?address=(\S+)", server.said)


def test_s22_what_arrives_after_the_head_is_no_header(behind: Running) -> None:
    """S22: a field that follows the body is dropped, whatever its name: it chooses no address, no host, no caller, and
    is no second value that gets an honest request refused. The next request on the connection does not inherit it.
    """
    trailers = (
        b"X-Forwarded-For: 10.0.0.1",
        b"X-Real-IP: 10.0.0.2",
        b"Forwarded: for=10.0.0.3",
        b"Host: elsewhere.example",
        b"Content-Type: text/plain",
        b"Authorization: Bearer nothing",
        b"Sec-Fetch-Site: cross-site",
    )
    before = len(addresses_of_refusals(behind))
    plain = b"GET /auth/me HTTP/1.1\r\nHost: login.example.com\r\n\r\n"
    for sent in (chunked(trailer) for trailer in trailers):
        refused, after = answers(behind.port, sent + plain, count=2)
        assert refused.startswith(b"HTTP/1.1 401 "), refused
        assert b'"code":"not_authenticated"' in after, after
    eventually(lambda: addresses_of_refusals(behind)[before:] == ["127.0.0.1"] * len(trailers))


@contextlib.contextmanager
def haproxy(directory: Path, backend: int) -> Iterator[int]:
    """HAProxy with `option forwardfor`, which appends the address that it sees, in front of a port."""
    assert HAPROXY is not None
    port = free_port()
    (directory / "haproxy.cfg").write_text(
        "defaults\n  mode http\n  option forwardfor\n  timeout connect 5s\n  timeout client 20s\n  timeout server 20s\n"
        f"frontend front\n  bind 127.0.0.1:{port}\n  default_backend back\n"
        f"backend back\n  http-reuse always\n  server one 127.0.0.1:{backend}\n"
    )
    with subprocess.Popen([HAPROXY, "-db", "-q", "-f", str(directory / "haproxy.cfg")]) as process:
        try:
            end = time.monotonic() + 60
            while not _listens(port):
                assert process.poll() is None, "HAProxy ended"
                assert time.monotonic() < end, "HAProxy does not listen"
                time.sleep(0.02)
            yield port
        finally:
            process.terminate()


def _listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=60).close()
    except OSError:
        return False
    return True


@pytest.mark.skipif(HAPROXY is None, reason="HAProxy is not installed")
def test_s22_a_client_behind_haproxy_does_not_choose_its_address(tmp_path: Path) -> None:
    """S22: HAProxy appends the address of the client to the head, and passes trailers on. The guesses of one client
    are counted as its own, whatever address a trailer names.
    """
    with running(tmp_path, *PUBLIC) as server, haproxy(tmp_path, server.port) as port:
        for n in range(3):
            sent = chunked(b"X-Forwarded-For: 10.0.0.%d" % n)
            assert answers(port, sent, source="127.0.0.9")[0].startswith(b"HTTP/1.1 401 ")
        # The connection that HAProxy keeps open belongs to another client now.
        assert answers(port, chunked(), source="127.0.0.8")[0].startswith(b"HTTP/1.1 401 ")
    assert addresses_of_refusals(server) == ["127.0.0.9"] * 3 + ["127.0.0.8"]


def test_p21_white_space_around_a_value_is_no_part_of_it(tmp_path: Path) -> None:
    """P21: a space or tab before or after a field's value does not count, of any field (RFC 9110, 5.5)."""
    (tmp_path / "token").write_text("q1w2e3r4t5z6u7i8o9p0")
    with running(tmp_path, environment={"DUTCHDOOR_METRICS_TOKEN_FILE": "token"}) as server:
        for value in (b"localhost", b"localhost ", b" \t localhost\t ", b"localhost\t"):
            head = b"POST /auth/login HTTP/1.1\r\nHost:" + value + b"\r\n"
            spaced = b"Content-Type: application/json \t\r\nContent-Length: %d \r\n\r\n" % len(LOGIN)
            assert answers(server.port, head + spaced + LOGIN)[0].startswith(b"HTTP/1.1 401 ")
        for header in (b"Bearer q1w2e3r4t5z6u7i8o9p0", b"bearer   q1w2e3r4t5z6u7i8o9p0 \t"):
            asked = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\nAuthorization: " + header + b"\r\n\r\n"
            assert answers(server.port, asked)[0].startswith(b"HTTP/1.1 200 ")
        expecting = b"Host: localhost\r\nExpect: 100-continue \r\nContent-Type: application/json\r\nContent-Length: 2"
        assert answers(server.port, b"POST /auth/login HTTP/1.1\r\n" + expecting + b"\r\n\r\n")[0].startswith(
            b"HTTP/1.1 100 "
        )


@pytest.mark.parametrize(
    ("target", "host", "status"),
    [
        (b"https://login.example.com/auth/me", b"login.example.com", b"401"),
        (b"HTTPS://LOGIN.example.com:443/auth/me", b"login.example.com", b"401"),
        (b"http://login.example.com/auth/me?x=1", b"login.example.com", b"422"),
        (b"https://login.example.com", b"login.example.com", b"200"),
        (b"https://login.example.com?x=1", b"login.example.com", b"422"),
        # The authority of the target decides, and a Host header that says otherwise is ignored.
        (b"https://login.example.com/auth/me", b"elsewhere.example", b"401"),
        (b"https://elsewhere.example/auth/me", b"login.example.com", b"400"),
        (b"https://login.example.com@elsewhere.example/auth/me", b"login.example.com", b"400"),
        (b"https://elsewhere.example@login.example.com/auth/me", b"login.example.com", b"400"),
        # The Host header has to be there, once, all the same.
        (b"https://login.example.com/auth/me", None, b"400"),
        (b"https://login.example.com/auth/me", b"login.example.com\r\nHost: login.example.com", b"400"),
        (b"ftp://login.example.com/auth/me", b"login.example.com", b"400"),
        (b"https:///auth/me", b"login.example.com", b"400"),
        (b"*", b"login.example.com", b"404"),
    ],
)
def test_p21_the_authority_of_an_absolute_target_decides_the_host(
    behind: Running, target: bytes, host: bytes | None, status: bytes
) -> None:
    """P21: of `GET https://host/path`, the host of the target is judged and not that of the Host header, as in proxies
    (RFC 9112, 3.2.2).
    """
    head = b"GET " + target + b" HTTP/1.1\r\n" + (b"" if host is None else b"Host: " + host + b"\r\n") + b"\r\n"
    assert answers(behind.port, head)[0].split()[1] == status


@pytest.fixture(scope="module")
def behind(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server behind a proxy on this machine."""
    with running(tmp_path_factory.mktemp("behind"), *PUBLIC) as server:
        yield server


# --- places ----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def held(server: Running, source: str, count: int, *, sending: bytes = b"") -> Iterator[list[socket.socket]]:
    """Hold connections open from one address, each with so much of a request."""
    with contextlib.ExitStack() as stack:
        found = []
        for _ in range(count):
            connection = socket.create_connection((server.host, server.port), timeout=60, source_address=(source, 0))
            found.append(stack.enter_context(connection))
            connection.sendall(sending)
        yield found


IDLE, SLOW = b"", b"GET /livez HTTP/1.1\r\nHost: local"
BUSY = (
    b"POST /auth/login HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 9\r\n"
    b"Expect: 100-continue\r\n\r\n"
)
"""Its body never comes. The server asks for it, which shows that it knows of the request."""


def status(server: Running, source: str) -> int:
    """What a request from an address gets; 0: the connection is closed unanswered."""
    try:
        return int(answers(server.port, HEAD + b"\r\n", source=source)[0].split()[1])
    except (AssertionError, ConnectionError):
        return 0


@pytest.fixture(scope="module")
def fifty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """A server of fifty places."""
    with running(tmp_path_factory.mktemp("fifty"), "--max-connections", "50") as server:
        yield server


@pytest.mark.parametrize("sending", [IDLE, SLOW, HEAD + b"\r\n"], ids=["nothing", "half a head", "a request before"])
def test_p20_connections_that_wait_give_their_places_up(fifty: Running, sending: bytes) -> None:
    """P20: sixty connections of one address that ask nothing keep no one out of a server of fifty places: neither
    another address nor their own. The one that has waited longest is closed first.
    """
    with held(fifty, "127.0.0.2", 60, sending=sending) as idle:
        assert status(fifty, "127.0.0.3") == 200
        assert status(fifty, "127.0.0.2") == 200
        newest = idle[-1]
        newest.sendall(b"host\r\n\r\n" if sending == SLOW else HEAD + b"\r\n")
        with newest.makefile("rb") as file:
            for _ in range(2 if sending.endswith(b"\r\n\r\n") else 1):
                assert _answer(file).endswith(b"alive\n"), "the newest has its place still"
        first = idle[0]
        first.settimeout(60)
        with contextlib.suppress(ConnectionError):
            while first.recv(65536):
                pass


def wait_until_busy(connections: list[socket.socket]) -> None:
    for connection in connections:
        assert connection.recv(65536).startswith(b"HTTP/1.1 100 ")


def test_p20_one_network_has_a_share_of_the_places(tmp_path: Path) -> None:
    """P20: one address holds a quarter of the places, busy as it may be. Above its share a request gets 503, above
    twice its share a connection is closed, and other addresses are served all the while.
    """
    with (
        running(tmp_path, "--max-connections", "40") as server,
        held(server, "127.0.0.2", 10, sending=BUSY) as busy,
        contextlib.ExitStack() as more,
    ):
        wait_until_busy(busy)
        assert status(server, "127.0.0.2") == 503
        assert status(server, "127.0.0.3") == 200
        more.enter_context(held(server, "127.0.0.2", 10))
        assert status(server, "127.0.0.2") == 0
        assert status(server, "127.0.0.3") == 200


async def test_p20_an_ipv6_customer_has_a_share_of_the_places(monkeypatch: pytest.MonkeyPatch) -> None:
    """P20: an IPv6 /64 holds a quarter of the places, a /56 three eighths and a /48 half, busy as they may be."""
    monkeypatch.setattr(BoundedProtocol, "places", {})
    monkeypatch.setattr(BoundedProtocol, "max_connections", 64)
    never = asyncio.Event()

    async def app(_scope: object, _receive: object, send: Any) -> None:
        await never.wait()

    config = uvicorn.Config(app, lifespan="off", log_config=None)
    config.load()
    connections: list[BoundedProtocol] = []

    def place(address: str) -> bool:
        transport = Mock(asyncio.Transport)
        peer = Mock(socket.socket, **{"getpeername.return_value": (address, 4000, 0, 0)})
        transport.get_extra_info.side_effect = {"socket": peer}.get
        transport.is_closing.return_value = False
        connection = BoundedProtocol(config, ServerState(), {})
        connection.connection_made(transport)
        connection.data_received(BUSY)
        connections.append(connection)
        return connection._placed

    taken = [sum(place(f"2001:db8:0:{subnet}::{n:x}") for n in range(64)) for subnet in ("1", "2", "100", "200")]
    assert taken == [16, 8, 8, 0]
    assert place("2001:db8:1::1")
    for connection in connections:
        connection.connection_lost(None)
    assert BoundedProtocol.places == {}
    for connection in connections:
        for task in connection.tasks:
            task.cancel()


def test_p20_connections_are_bounded(tmp_path: Path) -> None:
    """P20: above `max_connections` busy ones a request gets 503, above twice as many a connection gets nothing, and
    below them all are served.
    """
    with running(tmp_path, "--max-connections", "16") as server, contextlib.ExitStack() as waiting:
        with contextlib.ExitStack() as stack:
            for source in ("127.0.0.2", "127.0.0.3"):
                wait_until_busy(stack.enter_context(held(server, source, 8, sending=BUSY)))
            refused = answers(server.port, HEAD + b"\r\n", source="127.0.0.4")[0]
            assert refused.startswith(b"HTTP/1.1 503 ")
            assert b"retry-after: 1" in refused
            for source in ("127.0.0.4", "127.0.0.5"):
                waiting.enter_context(held(server, source, 8))
            assert status(server, "127.0.0.6") == 0
        eventually(lambda: status(server, "127.0.0.6") == 200)


def test_p20_a_proxy_may_have_every_place(tmp_path: Path) -> None:
    """P20: a configured proxy speaks for many clients: it is held to no share, and to the number of all connections."""
    head = BUSY.replace(b"localhost", b"login.example.com")
    with running(tmp_path, *PUBLIC, "--max-connections", "16") as server:
        with held(server, "127.0.0.1", 16, sending=head) as busy:
            wait_until_busy(busy)
            assert status(server, "127.0.0.1") == 503
        with held(server, "127.0.0.1", 15, sending=head) as busy:
            wait_until_busy(busy)
            assert status(server, "127.0.0.1") == 200
