"""The log of revocations: which tokens an entry covers, and for how long it stays."""

from __future__ import annotations

import sys
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from tests.fence.rig import SALT, SOON, bearer, session

from dutchdoor.revocation.log import COALESCE_ABOVE, FOR_EVER, Entry, Named, Revocation, RevocationLog, coalesced


def named(**given: Any) -> Named:
    usual = {"subject": "ada", "epoch": 1, "session_id": "s", "token_id": "t", "client_id": "app", "key_id": "k"}
    return Named(**(usual | given))


COVERING = [
    (session("s"), "session"),
    (Revocation(kind="subject", id="ada", min_epoch=2, expires_at=SOON), "subject"),
    (Revocation(kind="token", id="t", expires_at=SOON), "token"),
    (Revocation(kind="client", id="app", min_epoch=1, expires_at=SOON), "client"),
    (Revocation(kind="key", id="k", expires_at=FOR_EVER), "key"),
]


@pytest.mark.parametrize(("entry", "kind"), COVERING)
def test_each_kind_covers_what_it_names(entry: Revocation, kind: str) -> None:
    """An entry covers a token that names it, by every way of asking, before and after it has travelled."""
    here, there = RevocationLog(SALT), RevocationLog(SALT)
    wire = msgspec.json.decode(msgspec.json.encode(here.apply([entry])), type=list[Entry])
    there.take(wire)
    for log in (here, there):
        assert log.covering(named()) == log.covering_token(bearer()) == kind
        assert log.covering_token(bearer()) == kind  # remembered
    other = "other"
    away = named(subject=other, session_id=other, token_id=other, client_id=other, key_id=other)
    assert not there.covers(away)
    assert RevocationLog(b"another").covering(named()) is None


def test_an_id_of_one_kind_is_no_id_of_another() -> None:
    """A session's entry covers no subject, token, client or key that happens to be called the same."""
    log = RevocationLog(SALT)
    log.apply([session("x")])
    assert not log.covers(named(subject="x", token_id="x", client_id="x", key_id="x"))


def test_names_tell_nothing_without_the_id() -> None:
    """What travels is 16 bytes that another deployment's salt would make others."""
    one, other = RevocationLog(SALT), RevocationLog(b"pepper")
    (mine,), (theirs,) = one.apply([session("s")]), other.apply([session("s")])
    assert len(mine.name) == 16
    assert mine.name != theirs.name
    assert b"s" * 2 not in msgspec.json.encode(mine)
    assert len(RevocationLog().salt) == 16


def test_nothing_is_un_revoked() -> None:
    """An entry that comes again, lower or sooner, changes nothing."""
    log = RevocationLog(SALT)
    high = Revocation(kind="subject", id="ada", min_epoch=5, expires_at=SOON)
    log.apply([high, replace(high, min_epoch=2, expires_at=1.0), session("s"), session("s", expires_at=1.0)])
    log.drop_expired(SOON - 1, 0)
    assert log.covers(named(epoch=4, session_id=None))
    assert log.covers(named(epoch=9))
    assert not log.covers(named(epoch=5, session_id="other"))


def test_a_token_with_the_jti_of_another_is_judged_by_its_own_names() -> None:
    """Names remembered for a token are not given to another that carries the same jti."""
    log = RevocationLog(SALT)
    log.apply([session("ended")])
    assert log.covering_token(bearer("living")) is None
    assert log.covering_token(bearer("ended")) == "session"


@given(
    st.lists(st.tuples(st.integers(0, 40), st.integers(1, 100)), max_size=60),
    st.lists(st.integers(0, 120), max_size=12),
    st.integers(1, 7),
)
def test_entries_go_when_they_have_expired_and_never_before(
    entries: list[tuple[int, int]], times: list[int], step: int
) -> None:
    """Dropping a few at a time loses nothing that lives, and leaves nothing that expired after enough calls."""
    log, lives = RevocationLog(SALT), dict[str, int]()
    for number, at in entries:
        log.apply([session(f"s{number}", expires_at=float(at))])
        lives[f"s{number}"] = max(lives.get(f"s{number}", 0), at)
    now = 0.0
    for now in sorted(map(float, times)):
        log.drop_expired(now, 5.0, look_at=step)
        assert all(log.covers(named(session_id=sid)) for sid, at in lives.items() if at > now - 5)
    for _ in range(2 * len(lives) // step + 2):
        log.drop_expired(now, 5.0, look_at=step)
    assert len(log) == sum(at > now - 5 for at in lives.values())


def test_memory_returns_when_entries_expire() -> None:
    """A flood leaves no more room behind than was there before it."""
    log = RevocationLog(SALT)
    log.apply([session(f"s{n}", expires_at=1.0 + n % 60) for n in range(20_000)])
    full = sum(sys.getsizeof(table) for table in log._tables)
    log.drop_expired(700.0, 600.0)
    assert len(log) == 0
    assert sum(sys.getsizeof(table) for table in log._tables) < full / 100


def test_a_key_is_revoked_for_ever() -> None:
    """No time comes at which a killed key is forgotten: its thief chooses exp."""
    log = RevocationLog(SALT)
    log.apply([Revocation(kind="key", id="k", expires_at=FOR_EVER)])
    log.drop_expired(1e15, 600.0)
    assert log.covers(named())


@pytest.mark.parametrize("kind", ["session", "token"])
def test_no_one_floods_the_log_with_their_own_log_outs(kind: Any) -> None:
    """The seventeenth live entry of a subject is one of the subject, which lasts as long as any of its tokens."""
    entry = Revocation(kind=kind, id="x", expires_at=10.0)
    few = coalesced(entry, subject="ada", epoch=7, live=COALESCE_ABOVE - 1, expires_at=99.0)
    many = coalesced(entry, subject="ada", epoch=7, live=COALESCE_ABOVE, expires_at=99.0)
    assert few is entry
    assert many == Revocation(kind="subject", id="ada", min_epoch=8, expires_at=99.0)
    log = RevocationLog(SALT)
    log.apply([many])
    assert log.covers(named(epoch=7))
    assert not log.covers(named(epoch=8))


def test_what_is_of_a_subject_or_a_key_stays_as_it_is() -> None:
    """Only sessions and tokens are folded together."""
    for entry, kind in COVERING:
        folded = coalesced(entry, subject="ada", epoch=1, live=1000, expires_at=SOON)
        assert (folded is entry) == (kind not in {"session", "token"})
