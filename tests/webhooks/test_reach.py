"""Where a message goes, and where it never goes: over real sockets, with a double for names alone."""

from __future__ import annotations

import contextlib
import re
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.server.certificates import write_certificate
from tests.webhooks.receiver import Reply, receiving

from dutchdoor.errors import Misconfigured
from dutchdoor.webhooks import sender as sending
from dutchdoor.webhooks.reach import Reach
from dutchdoor.webhooks.sender import ANSWER_AT_MOST, Sender

LOOPBACK = Reach(["127.0.0.0/8", "::1/128"])
BODY = b'{"type": "test", "timestamp": "", "data": {}}'

PUBLIC = ("8.8.8.8", "2606:4700:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::")
PRIVATE = (
    "10.0.0.1", "172.16.0.1", "192.168.1.1", "127.0.0.1", "::1", "100.64.0.1", "192.0.0.1", "192.0.2.1", "198.18.0.1",
    "240.0.0.1", "255.255.255.255", "fd00::1", "fec0::1", "::7f00:1", "::ffff:127.0.0.1", "::ffff:10.0.0.1",
    "64:ff9b::a00:1", "64:ff9b::7f00:1", "64:ff9b:1::a00:1", "2002:7f00:1::", "2002:a00:1::", "2001:db8::1",
    "2001:0:4136:e378:8000:63bf:3fff:fdd2", "5f00::1", "100::1",
)  # fmt: skip
NEVER = (
    "169.254.169.254", "169.254.0.1", "fe80::1", "fe80::1%eth0", "0.0.0.0", "::", "224.0.0.1", "ff02::1",
    "::ffff:169.254.169.254", "64:ff9b::a9fe:a9fe", "2002:a9fe:a9fe::", "fd00:ec2::254", "fd20:ce::254",
    "100.100.100.200", "192.0.0.192", "168.63.129.16", "::ffff:168.63.129.16",
)  # fmt: skip


def test_what_is_public_is_allowed() -> None:
    """B28: the Internet, in each disguise of IPv6."""
    assert [Reach().refuses(address) for address in PUBLIC] == [""] * len(PUBLIC)


@pytest.mark.parametrize("address", PRIVATE)
def test_what_is_private_is_refused_unless_listed(address: str) -> None:
    """B28: by its own network alone, and http:// by that alone."""
    assert "private address" in Reach().refuses(address)
    everything = Reach(["0.0.0.0/0", "::/0"])
    assert not everything.refuses(address)
    assert not everything.refuses(address, plain=True)
    assert Reach(["10.9.0.0/16", "fd09::/16"]).refuses(address)


@pytest.mark.parametrize("address", NEVER)
def test_some_addresses_are_never_allowed(address: str) -> None:
    """B28: the metadata service of a cloud hands out credentials: no setting opens it."""
    assert "never allowed" in Reach(["0.0.0.0/0", "::/0"]).refuses(address)


def test_plain_http_needs_a_listed_network() -> None:
    """B28: a message over the Internet is encrypted."""
    assert "http://" in Reach(["10.0.0.0/8"]).refuses("8.8.8.8", plain=True)


def test_a_wrong_network_is_refused() -> None:
    """B28: with a sentence that has the setting in it."""
    with pytest.raises(Misconfigured, match="webhook_network"):
        Reach(["10.0.0.1/8"])


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "localhost", "2130706433", "0x7f.1", "127.1", "[::1]", "[::ffff:7f00:1]"]
)
async def test_no_spelling_of_this_machine_is_reached(host: str) -> None:
    """B28: what the resolver makes of a name is looked at, and not the name."""
    with receiving() as receiver:
        port = receiver.url.split(":")[2].split("/")[0]
        sender = Sender(f"https://{host}:{port}/", Reach())
        answer = await sender.post({}, BODY)
        assert "private address" in answer.failure or "no address" in answer.failure
        await sender.close()


async def test_a_name_that_rebinds_changes_nothing() -> None:
    """B28: the address that was looked at is the one that is connected to, however the name answers the next time."""
    asked = []

    async def rebinding(_host: str, _port: int) -> list[str]:
        asked.append(1)
        return ["127.0.0.2"] if len(asked) == 1 else ["127.0.0.1"]

    with receiving() as receiver:  # at 127.0.0.1
        port = receiver.url.split(":")[2].split("/")[0]
        sender = Sender(f"http://rebinding.example:{port}/", Reach(["127.0.0.2/32"]), resolve=rebinding)
        assert "connection failed" in (await sender.post({}, BODY)).failure
        assert "127.0.0.1 is in no network" in (await sender.post({}, BODY)).failure
        assert len(asked) == 2
        assert not receiver.messages
        await sender.close()


async def test_one_refused_address_refuses_the_name() -> None:
    """B28: a name with a public and a private address sends nothing anywhere."""

    async def mixed(_host: str, _port: int) -> list[str]:
        return ["127.0.0.1", "10.0.0.1"]

    with receiving() as receiver:
        sender = Sender(receiver.url.replace("127.0.0.1", "mixed.example"), LOOPBACK, resolve=mixed)
        assert "10.0.0.1" in (await sender.post({}, BODY)).failure
        assert not receiver.messages
        await sender.close()


async def test_the_next_address_is_tried() -> None:
    """B28: one dead address of several costs a moment; the Host header has the name."""

    async def several(_host: str, _port: int) -> list[str]:
        return ["127.0.0.3", "127.0.0.1"]

    with receiving() as receiver:
        url = receiver.url.replace("127.0.0.1", "several.example")
        sender = Sender(url, LOOPBACK, resolve=several)
        assert (await sender.post({}, BODY)).ok
        assert receiver.messages[0].headers["host"] == url.split("/")[2]
        await sender.close()


@pytest.mark.parametrize("to", ["http://169.254.169.254/latest/meta-data/", "/elsewhere"])
async def test_a_redirect_is_not_followed(to: str) -> None:
    """B28: it is an answer like any other that is not 2xx."""
    with receiving() as receiver:
        receiver.answers = lambda _message: Reply(307, (("location", to),))
        sender = Sender(receiver.url, LOOPBACK)
        answer = await sender.post({}, BODY)
        assert (answer.ok, answer.status) == (False, 307)
        assert "not followed" in answer.failure
        assert len(receiver.messages) == 1
        await sender.close()


async def test_no_proxy_of_the_environment_is_used(monkeypatch: pytest.MonkeyPatch) -> None:
    """B28: a proxy would resolve the name by itself."""
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    with receiving() as receiver:
        sender = Sender(receiver.url, LOOPBACK)
        assert (await sender.post({}, BODY)).ok
        await sender.close()


async def test_an_endless_answer_is_cut_off() -> None:
    """B28: an endpoint cannot fill the memory of the server, nor keep it reading."""
    written = []

    def pour(handler: object) -> bool:
        handler.send_response(200)  # type: ignore[attr-defined]
        handler.end_headers()  # type: ignore[attr-defined]
        with contextlib.suppress(OSError):
            while len(written) < 10_000:
                written.append(handler.wfile.write(b"x" * 65536))  # type: ignore[attr-defined]
        return True

    with receiving() as receiver:
        receiver.sent = pour
        sender = Sender(receiver.url, LOOPBACK)
        begun = time.monotonic()
        assert (await sender.post({}, BODY)).ok
        assert time.monotonic() - begun < 60
        await sender.close()
    assert sum(written) < 10_000 * 65536
    assert ANSWER_AT_MOST < 65536


@contextlib.contextmanager
def silent() -> Iterator[int]:
    """A server that takes the connection and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        kept: list[socket.socket] = []

        def take() -> None:
            with contextlib.suppress(OSError):
                while True:
                    kept.append(server.accept()[0])

        threading.Thread(target=take, daemon=True).start()
        yield server.getsockname()[1]
        server.shutdown(socket.SHUT_RDWR)
        for each in kept:
            each.close()


async def test_an_endpoint_that_hangs_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    """B28: one time is for everything, so a trickle of bytes does not extend it."""
    monkeypatch.setattr(sending, "SENDS_FOR", 0.2)

    def trickle(handler: object) -> bool:
        handler.wfile.write(b"HTTP/1.1 200 OK\r\n")  # type: ignore[attr-defined]
        with contextlib.suppress(OSError):
            for _ in range(2000):
                handler.wfile.write(b"x: y\r\n")  # type: ignore[attr-defined]
                time.sleep(0.05)
        return True

    with silent() as port, receiving() as receiver:
        receiver.sent = trickle
        for url in (f"http://127.0.0.1:{port}/", receiver.url):
            sender, begun = Sender(url, LOOPBACK), time.monotonic()
            assert "no answer" in (await sender.post({}, BODY)).failure
            assert time.monotonic() - begun < 60
            await sender.close()


@contextlib.contextmanager
def over_tls(folder: Path) -> Iterator[tuple[int, list[str | None]]]:
    """A server with a certificate for hooks.example, and the names that clients asked for (SNI)."""
    write_certificate(folder, "hooks.example")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    asked: list[str | None] = []
    context.sni_callback = lambda _socket, name, _context: asked.append(name)
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            while True:
                try:
                    plain, _ = server.accept()
                except OSError:
                    return
                with plain, contextlib.suppress(OSError), context.wrap_socket(plain, server_side=True) as tls:
                    received = b""
                    while BODY not in received and (part := tls.recv(65536)):  # what is not read resets the connection
                        received += part
                    tls.sendall(b"HTTP/1.1 204 No Content\r\nconnection: close\r\n\r\n")

        threading.Thread(target=serve, daemon=True).start()
        yield server.getsockname()[1], asked
        server.shutdown(socket.SHUT_RDWR)


async def test_the_certificate_is_for_the_name(tmp_path: Path) -> None:
    """B28: the name is in SNI and in the certificate, although the connection goes to an address; another name, and an
    authority that is not known, are refused.
    """

    async def here(_host: str, _port: int) -> list[str]:
        return ["127.0.0.1"]

    with over_tls(tmp_path) as (port, asked):
        known = ssl.create_default_context(cafile=str(tmp_path / "cert.pem"))
        results = {}
        for name, tls in (("hooks.example", known), ("other.example", known), ("hooks.example", None)):
            sender = Sender(f"https://{name}:{port}/", LOOPBACK, resolve=here, tls=tls)
            results[name, tls is None] = await sender.post({}, BODY)
            await sender.close()
        assert results["hooks.example", False].ok
        assert "certificate was refused: Hostname mismatch" in results["other.example", False].failure
        assert "certificate was refused" in results["hooks.example", True].failure
        assert asked[:2] == ["hooks.example", "other.example"]


async def test_failures_say_what_is_wrong_and_no_url() -> None:
    """B23: an operator reads the cause; the path and the query of a URL may be secret."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

    async def unknown(_host: str, _port: int) -> list[str]:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    for sender, words in (
        (Sender(f"http://127.0.0.1:{port}/secret-path", LOOPBACK), "connection failed"),
        (Sender("https://unknown.example/secret-path", LOOPBACK, resolve=unknown), "no address: Name or service"),
    ):
        failure = (await sender.post({}, BODY)).failure
        assert words in failure
        assert "secret-path" not in failure
        await sender.close()


@pytest.mark.parametrize(("text", "seconds"), [("7", 7.0), ("", None), ("soon", None), ("-1", None), ("9" * 20, None)])
async def test_retry_after_is_read(text: str, seconds: float | None) -> None:
    """B23: seconds or a date; anything else is not there."""
    with receiving() as receiver:
        receiver.answers = lambda _message: Reply(503, (("retry-after", text),))
        sender = Sender(receiver.url, LOOPBACK)
        assert (await sender.post({}, BODY)).retry_after == seconds
        receiver.answers = lambda _message: Reply(503, (("retry-after", "Fri, 31 Dec 1999 23:59:59 GMT"),))
        assert (await sender.post({}, BODY)).retry_after == 0.0
        await sender.close()


async def test_a_connection_is_used_again() -> None:
    """B29: each message does not pay for a connection of its own."""
    ports = set()

    def note(handler: object) -> bool:
        ports.add(handler.client_address[1])  # type: ignore[attr-defined]
        return False

    with receiving() as receiver:
        receiver.sent = note
        receiver.answers = lambda _message: Reply(200, (), b"thank you")
        sender = Sender(receiver.url, LOOPBACK)
        for _ in range(5):
            assert (await sender.post({}, BODY)).ok
        assert len(ports) == 1
        await sender.close()


def test_the_reach_names_the_setting() -> None:
    """B28: the text of a refusal says which setting allows it."""
    assert re.search("webhook_network", Reach().refuses("10.0.0.1"))
