"""An authority that is down, slow, broken, restarted, restored or another one; and TLS."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.ports import free_port
from tests.server.certificates import write_certificate
from tests.verifier.standin import (
    ASK,
    JWKS,
    POLL,
    Misbehaviour,
    Standin,
    drips,
    hangs,
    hangs_up,
    response,
    says,
    standing,
    until,
)

from dutchdoor import Verifier
from dutchdoor.errors import InvalidToken, Unavailable
from dutchdoor.model.ids import new_id
from dutchdoor.revocation.log import Revocation
from dutchdoor.stores.base import Revoke
from dutchdoor.verifier import poller as following_module

Make = Callable[..., Verifier]
Later = Callable[[float], None]


async def floods(_body: bytes, writer: asyncio.StreamWriter) -> None:
    """Answer for ever, in chunks."""
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        writer.write(b"10000\r\n" + b" " * 65536 + b"\r\n")
        await writer.drain()


async def floods_with_headers(_body: bytes, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n")
    while True:
        writer.write(b"X: " + b"x" * 60000 + b"\r\n")
        await writer.drain()


BROKEN: dict[str, Misbehaviour] = {
    "500": says(response(b"{}", 500)),
    "429": says(response(b"{}", 429, "Retry-After: 1")),
    "204": says(response(b"", 204)),
    "redirect": says(response(b"", 307, "Location: /elsewhere")),
    "garbage": says(b"\x16\x03\x01 what is this\r\n\r\n"),
    "not json": says(response(b"<html>")),
    "another type": says(response(b'{"log_epoch": "one", "keys": {}}')),
    "deep": says(response(b"[" * 100_000)),
    "declares too much": says(b"HTTP/1.1 200 OK\r\nContent-Length: 99999999999\r\n\r\n{"),
    "cut short": says(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\nConnection: close\r\n\r\n{"),
    "without a length": says(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n{}"),
    "endless": floods,
    "endless headers": floods_with_headers,
    "drips": drips,
    "hangs": hangs,
    "hangs up": hangs_up,
}


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A verifier that gives an answer up that does not come."""
    monkeypatch.setattr(following_module, "ANSWERED_WITHIN", 0.5)


SHORT = {"500", "redirect", "deep", "cut short", "endless headers", "hangs"}
"""One of each family in `make test`."""

EACH_BROKEN = pytest.mark.parametrize(
    "how", [each if each in SHORT else pytest.param(each, marks=pytest.mark.long) for each in BROKEN]
)


@EACH_BROKEN
@pytest.mark.usefixtures("impatient")
def test_a_poll_that_fails_costs_the_lease_and_nothing_else(authority: Standin, later: Later, how: str) -> None:
    """Whatever is answered to a poll: until the lease runs out tokens are checked, after that they are refused, and
    when it is over everything is as before. No other server is followed.
    """
    token = authority.token()
    with Verifier(authority.issuer, audience="api", stale="refuse") as verifier:
        until(lambda: is_accepted(verifier, token))
        authority.misbehave(POLL, BROKEN[how])
        assert verifier(token)
        later(authority.lease_for)
        polls = authority.asked[POLL]
        authority.cut()
        until(lambda: authority.asked[POLL] > polls + 1)  # one of them has failed since
        with pytest.raises(Unavailable):
            verifier(token)
        authority.misbehave(POLL, None)
        until(lambda: is_accepted(verifier, token))
        assert set(authority.asked) == {JWKS, POLL}


@EACH_BROKEN
@pytest.mark.usefixtures("impatient")
def test_keys_that_cannot_be_fetched_are_fetched_later(authority: Standin, following: Make, how: str) -> None:
    """Without keys nothing can be verified, so it is 503; and they are fetched as soon as they can be."""
    authority.misbehave(JWKS, BROKEN[how])
    verifier = following()
    with pytest.raises(Unavailable):
        verifier(authority.token())
    authority.misbehave(JWKS, None)
    until(lambda: is_accepted(verifier, authority.token()))
    assert set(authority.asked) == {JWKS, POLL}


@pytest.mark.usefixtures("impatient", "later")
def test_an_answer_that_never_ends_is_given_up(authority: Standin, following: Make) -> None:
    """A byte every now and then keeps no poll alive: the next one goes out while the lease still holds."""
    verifier = following(stale="refuse")
    verifier.start()
    authority.misbehave(POLL, drips)
    until(lambda: authority.asked[POLL] > 1)
    polls = authority.asked[POLL]
    until(lambda: authority.asked[POLL] > polls + 1)
    assert verifier(authority.token())


def is_accepted(verifier: Verifier, token: str) -> bool:
    try:
        return bool(verifier(token))
    except Unavailable:
        return False


@pytest.mark.parametrize("follow", ["background", "on demand"])
@pytest.mark.parametrize("stale", ["introspect", "refuse"])
def test_an_authority_that_is_down_at_the_start(tmp_path: Path, stale: str, follow: str) -> None:
    """A service starts without its authority, says 503, and works as soon as there is one."""
    port = free_port()
    with Verifier(f"http://127.0.0.1:{port}", audience="api", stale=stale, follow=follow) as verifier:  # type: ignore[arg-type]
        began = time.monotonic()
        with pytest.raises(Unavailable):
            verifier("a.b.c")
        assert time.monotonic() - began < 60
        with standing(tmp_path, port=port) as late:
            until(lambda: is_accepted(verifier, late.token()))


def test_an_outage_shorter_than_the_lease_is_not_noticed(authority: Standin, following: Make) -> None:
    """While the lease holds, an authority that is gone is not missed; started again, it is followed at once, and
    what it ended before is still ended.
    """
    verifier = following(stale="refuse")
    sid, other = new_id(), new_id()
    dead, token = authority.token(session_id=sid), authority.token(session_id=other)
    assert verifier(dead)
    assert authority.revoke("session", sid).fenced
    authority.stop()
    assert verifier(token)
    with pytest.raises(InvalidToken):
        verifier(dead)
    authority.start()
    until(lambda: verifier.lease_left > authority.lease_for * 3 / 4)
    assert verifier(token)
    authority.revoke("session", other, wait=0)  # the row of the life before stands for the maximum wait
    until(lambda: not is_still_good(verifier, token))
    with pytest.raises(InvalidToken):
        verifier(dead)


def test_a_restored_log_is_followed(authority: Standin, following: Make) -> None:
    """A restore begins a new log: nothing is accepted on the strength of the old one, and the new one is followed."""
    verifier = following()
    sid = new_id()
    token = authority.token(session_id=sid)
    authority.revoke("session", new_id())
    assert verifier(token)
    until(lambda: verifier.applied_seq == 1)
    authority.restore()
    epoch = authority.run(authority.store.read_log(0, 0)).log_epoch
    until(lambda: verifier._follower.log_epoch == epoch)
    assert not authority.revoke("session", sid, wait=0.0).fenced  # after a restore, early is too early
    until(lambda: not is_still_good(verifier, token))


def is_still_good(verifier: Verifier, token: str) -> bool:
    try:
        return bool(verifier(token))
    except InvalidToken:
        return False
    except Unavailable:  # it could not be asked about
        return True


@pytest.mark.usefixtures("later")
def test_another_database_is_another_log(tmp_path: Path) -> None:
    """An administrator deletes the database and starts anew under the same name: its numbers begin again, its names
    have another salt, and what it ends is refused all the same.
    """
    (tmp_path / "old").mkdir()
    (tmp_path / "new").mkdir()
    old = Standin(tmp_path / "old")
    old.start()
    with Verifier(old.issuer, audience="api") as verifier:
        for _ in range(5):
            old.revoke("session", new_id())
        until(lambda: verifier.applied_seq == 5)
        old.stop()
        first = verifier._follower
        with standing(tmp_path / "new", port=old.port) as new:
            sid = new_id()
            token = new.token(session_id=sid)
            until(lambda: verifier._follower is not first and is_still_there(verifier, token))
            assert new.revoke("session", sid).fenced
            with pytest.raises(InvalidToken):
                verifier(token)
            assert verifier.applied_seq == 1


def is_still_there(verifier: Verifier, token: str) -> bool:
    try:
        return bool(verifier(token)) and verifier.state == "fresh"
    except (InvalidToken, Unavailable):
        return False


def test_one_connection_is_kept(authority: Standin, following: Make) -> None:
    """Following takes one connection, however much is ended, and another only when it breaks."""
    verifier = following()
    verifier.start()
    for _ in range(10):
        authority.revoke("session", new_id())
    assert authority.accepted == 1
    authority.cut()
    assert authority.revoke("session", new_id()).fenced
    assert authority.accepted == 2


def test_a_long_log_is_read_to_its_end_first(authority: Standin, following: Make) -> None:
    """A verifier that starts reads page after page before it trusts any of it."""

    async def fill() -> None:
        for _ in range(0, 9000, 500):
            entries = [Revocation(kind="session", id=new_id(), expires_at=time.time() + 600) for _ in range(500)]
            await authority.store.commit(*map(Revoke, entries))

    authority.run(fill())
    sid = new_id()
    authority.revoke("session", sid)
    verifier = following()
    with pytest.raises(InvalidToken):
        verifier(authority.token(session_id=sid))
    assert verifier.entries == 9001
    assert authority.asked[ASK] == 0


def test_an_authority_that_is_not_there_is_said_in_words(caplog: pytest.LogCaptureFixture) -> None:
    """Who set the wrong port reads so in the log, and not a number."""
    verifier = Verifier(f"http://localhost:{free_port()}", stale="refuse")
    try:
        with pytest.raises(Unavailable):
            verifier("a.b.c")
        until(lambda: "Connection refused" in caplog.text)
    finally:
        verifier.close()


# --- TLS --------------------------------------------------------------------------------------------------------------


def test_certificates_are_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An authority whose certificate is not trusted is not listened to; one that the machine trusts is."""
    write_certificate(tmp_path, "localhost")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    with standing(tmp_path, tls=tls) as authority:
        with Verifier(authority.issuer, audience="api") as verifier, pytest.raises(Unavailable):
            verifier(authority.token())
        assert authority.asked == {}
        monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
        sid = new_id()
        token = authority.token(session_id=sid)
        with Verifier(authority.issuer, audience="api") as verifier:
            assert verifier(token)
            assert authority.revoke("session", sid).fenced
            with pytest.raises(InvalidToken):
                verifier(token)


def test_the_name_in_the_certificate_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A certificate for another name is none."""
    write_certificate(tmp_path, "elsewhere.example.com")
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "cert.pem"))
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(tmp_path / "cert.pem", tmp_path / "key.pem")
    with (
        standing(tmp_path, tls=tls) as authority,
        Verifier(authority.issuer, audience="api") as verifier,
        pytest.raises(Unavailable),
    ):
        verifier(authority.token())


def test_proxies_from_the_environment_are_not_used(
    authority: Standin, following: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who sets HTTP_PROXY for a program does not get its verifier key."""
    for name in ("http_proxy", "HTTP_PROXY", "https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    assert following()(authority.token())
