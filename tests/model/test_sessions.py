"""Sessions as decisions: starting, living, being seen, the limit, and new secrets."""

from __future__ import annotations

import contextlib
from typing import Any, Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from tests.standins import HOME, MASTER, T0, THIEF

from dutchdoor.errors import InvalidToken, NotAuthenticated
from dutchdoor.model.accounts import Account, external_account
from dutchdoor.model.ids import decode, encode, new_id
from dutchdoor.model.policy import DAY, HIGH, STANDARD, Policy
from dutchdoor.model.principal import Verified
from dutchdoor.model.refresh_tokens import RefreshToken, mint
from dutchdoor.model.sessions import (
    Session,
    SessionToken,
    check_live,
    is_live,
    principal_of,
    renew,
    start,
    to_end_for,
    touched,
)

ALICE = external_account("alice", T0)
PROOF = Verified(subject="alice", epoch=3, amr=("pwd",), at=T0 - 5)


def begin(
    mode: Literal["session", "hybrid"] = "session", now: float = T0, policy: Policy = STANDARD
) -> tuple[Session, SessionToken | None]:
    return start(
        PROOF, mode=mode, client=HOME, client_id="app", scope="read", master_key_id=MASTER.current.id, now=now,
        policy=policy,
    )  # fmt: skip


def begun(**over: Any) -> Session:
    return replace(begin()[0], **over)


def test_what_a_proof_starts() -> None:
    """A session says who, since when, how proved and from where; its times follow from the policy."""
    session, _ = begin()
    assert (session.subject, session.epoch, session.amr, session.auth_time) == ("alice", 3, ("pwd",), T0 - 5)
    assert (session.created_at, session.last_seen_at) == (T0, T0)
    assert session.idle_expires_at == T0 + STANDARD.idle_for
    assert session.expires_at == T0 + STANDARD.absolute_for
    assert (session.fingerprint, session.address, session.country) == (HOME.fingerprint, HOME.address, HOME.country)
    assert session.ended_at is None


def test_ids_and_secrets_are_new_every_time() -> None:
    """S02, I-19: no two starts share an id, a secret or a salt, in the same instant either."""
    started = [begin(mode) for mode in ("session", "hybrid") for _ in range(500)]  # type: ignore[arg-type]
    assert len({session.id for session, _ in started}) == 1000
    assert len({session.salt for session, _ in started if session.salt}) == 500
    assert len({token.text() for _, token in started if token}) == 500


def test_no_row_holds_a_usable_secret() -> None:
    """S15: what is stored of a session's secret is a hash, and of a refresh token a salt that proves nothing alone."""
    session, token = begin("session")
    assert token is not None
    secret = decode(token.text()[5:])[16:]
    assert secret not in session.secret_hash
    assert encode(secret) not in repr(session) + repr(token)
    assert session.salt == b""
    hybrid, none = begin("hybrid")
    assert none is None
    assert hybrid.secret_hash == b""
    assert len(hybrid.salt) == 16


def test_an_id_and_a_secret_belong_together() -> None:
    """S03: a token is for one session: neither another's hash, nor another id with the same secret, is matched."""
    one, token = begin()
    other, other_token = begin()
    assert token is not None
    assert other_token is not None
    assert token.matches(one.secret_hash)
    assert not token.matches(other.secret_hash)
    raw = decode(token.text()[5:])
    moved = SessionToken.parse("dds1_" + encode(decode(other.id) + raw[16:]))
    assert not moved.matches(one.secret_hash)
    assert not moved.matches(other.secret_hash)
    assert not token.matches(b"")


def test_a_session_token_has_one_text() -> None:
    """No second text is read as a token: each bit matters, and "+" is no "-"."""
    for _ in range(20):
        session, token = begin()
        assert token is not None
        text = token.text()
        assert len(text) < 100
        others = [text.replace("-", "+"), text.replace("_", "/"), text + "=", text[:-1], text + "A", " " + text]
        others += [text.upper(), "ddo1_" + text[5:], text[5:]]
        others += [
            text[:at] + chr(ord(text[at]) ^ 1 << bit) + text[at + 1 :] for at in range(len(text)) for bit in range(7)
        ]
        for other in others:
            if other == text:
                continue
            with contextlib.suppress(InvalidToken):
                assert not SessionToken.parse(other).matches(session.secret_hash)


@given(st.one_of(st.text(), st.text().map(lambda t: "dds1_" + t), st.binary().map(lambda b: "dds1_" + encode(b))))
def test_garbage_is_an_invalid_token(text: str) -> None:
    """Whatever a cookie holds, reading it gives InvalidToken or a token that writes the very same text again."""
    with contextlib.suppress(InvalidToken):
        assert SessionToken.parse(text).text() == text


@pytest.mark.parametrize(
    ("over", "at", "lives"),
    [
        ({}, 0, True),
        ({}, STANDARD.idle_for - 0.001, True),
        ({}, STANDARD.idle_for, False),
        ({"idle_expires_at": T0 + 1e9}, STANDARD.absolute_for - 0.001, True),
        ({"idle_expires_at": T0 + 1e9}, STANDARD.absolute_for, False),
        ({"ended_at": T0 + 1, "end_reason": "logout"}, 2, False),
        ({"ended_at": T0 + 100, "end_reason": "logout"}, 2, False),
    ],
)
def test_both_expiries_and_an_end_are_enforced(over: dict[str, Any], at: float, lives: bool) -> None:
    """S04: alive until the idle or the absolute expiry, to the instant, and not one request after an end."""
    session = begun(**over)
    assert is_live(session, ALICE, T0 + at) is lives
    if lives:
        check_live(session, ALICE, T0 + at)
    else:
        with pytest.raises(NotAuthenticated):
            check_live(session, ALICE, T0 + at)


def test_a_disabled_account_has_no_live_session() -> None:
    """S07: disabling the account is enough; nothing of the session has to be written."""
    barred: Account = replace(ALICE, status="disabled")
    assert not is_live(begun(), barred, T0)
    with pytest.raises(NotAuthenticated):
        check_live(begun(), barred, T0)


@pytest.mark.parametrize(("after", "written"), [(0, False), (59.999, False), (60, True), (3600, True), (-3600, False)])
def test_being_seen_is_written_at_a_bounded_rate(after: float, written: bool) -> None:
    """A sighting is written once a minute at most, and never because the clock stepped back."""
    assert STANDARD.touch_every == 60
    assert (touched(begun(), T0 + after, STANDARD) is not None) is written


def test_being_seen_moves_the_idle_expiry_alone() -> None:
    """S04, O03: a sighting moves the idle expiry, never past the absolute one, and nothing else."""
    session = begun()
    seen = touched(session, T0 + 3600, STANDARD)
    assert seen == replace(session, last_seen_at=T0 + 3600, idle_expires_at=T0 + 3600 + STANDARD.idle_for)
    late = touched(session, T0 + 29 * DAY, STANDARD)
    assert late is not None
    assert late.idle_expires_at == late.expires_at == session.expires_at


def test_the_absolute_expiry_bounds_the_first_idle_one() -> None:
    """S05: under any policy the idle expiry of a new session is not after its absolute one."""
    for policy in (STANDARD, HIGH, replace(STANDARD, idle_for=DAY, absolute_for=DAY)):
        session, _ = begin(policy=policy)
        assert session.idle_expires_at <= session.expires_at == T0 + policy.absolute_for


seen_times = st.lists(st.integers(0, 10), max_size=8)


@given(seen_times, st.integers(1, 5))
def test_the_limit_ends_the_least_recently_used(seen: list[int], most: int) -> None:
    """S10: one more sign-in ends as many as are too many, those unused for longest, and leaves exactly the limit."""
    live = [begun(id=new_id(), last_seen_at=T0 + at) for at in seen]
    over = to_end_for(live, replace(STANDARD, max_sessions=most))
    assert over is not None
    kept = [session for session in live if session not in over]
    assert len(kept) + 1 == min(len(live) + 1, most)
    assert all(ended.last_seen_at <= other.last_seen_at for ended in over for other in kept)


@given(seen_times, st.integers(1, 5))
def test_the_limit_refuses(seen: list[int], most: int) -> None:
    """S10: where the rule is to refuse, a sign-in within the limit ends nothing and one beyond it is refused."""
    live = [begun(id=new_id(), last_seen_at=T0 + at) for at in seen]
    over = to_end_for(live, replace(STANDARD, max_sessions=most, at_limit="refuse"))
    assert over == ([] if len(live) < most else None)


def test_no_limit_ends_nothing() -> None:
    """S10: without a limit any number of sessions live."""
    assert to_end_for([begun(id=new_id()) for _ in range(100)], STANDARD) == []


def test_new_secrets_kill_the_old_ones() -> None:
    """S02: after a new proof the public id stays, and every token that was handed out before is worth nothing."""
    again = Verified(subject="alice", epoch=4, amr=("pwd", "otp"), at=T0 + 50)
    session, token = begin("session")
    fresh, fresh_token = renew(session, again, T0 + 50)
    assert token is not None
    assert fresh_token is not None
    assert fresh.id == session.id
    assert fresh_token.matches(fresh.secret_hash)
    assert not token.matches(fresh.secret_hash)
    assert (fresh.auth_time, fresh.amr, fresh.epoch) == (T0 + 50, ("pwd", "otp"), 4)
    assert (fresh.expires_at, fresh.idle_expires_at) == (session.expires_at, session.idle_expires_at)

    hybrid = replace(begin("hybrid")[0], generation=7, sibling=2, parent_sibling=1)
    renewed, none = renew(hybrid, again, T0 + 50)
    assert none is None
    assert (renewed.generation, renewed.sibling, renewed.parent_sibling) == (0, 0, -1)
    for generation in range(9):
        for sibling in range(4):
            old = RefreshToken.parse(mint(MASTER.current, hybrid, generation, sibling))
            assert not old.is_genuine(MASTER.current, renewed.salt, renewed.client_id)


def test_the_principal_is_what_the_session_and_the_account_say() -> None:
    """I-25: a principal takes its subject from the session, its roles and name from that session's account."""
    account = replace(ALICE, roles=("admin",), name="Alice", address="a@example.com")
    principal = principal_of(begun(), account, {"plan": "pro"})
    assert principal.claims == {"plan": "pro"}
    assert (principal.subject, principal.roles, principal.name) == ("alice", ("admin",), "Alice")
    assert principal.expires_at == T0 + STANDARD.idle_for
    assert principal.auth_time == T0 - 5
    assert THIEF.fingerprint != begun().fingerprint
