"""A follower of the log, by itself: what it takes from an answer, and when it accepts nothing."""

from __future__ import annotations

from collections.abc import Iterable

import pytest
from tests.fence.rig import SALT, SOON, bearer, session

from dutchdoor.revocation.follower import Follower
from dutchdoor.revocation.log import FOR_EVER, Entry, Revocation, RevocationLog
from dutchdoor.revocation.messages import Answer


def an_answer(
    *entries: Entry, after: int = 0, upto: int = 0, epoch: int = 1, lease_ms: int = 8000, salt: bytes = SALT
) -> Answer:
    return Answer(
        log_epoch=epoch, salt=salt, after_seq=after, upto_seq=upto, entries=list(entries), reaches_head=True,
        lease_ms=lease_ms,
    )  # fmt: skip


def travelled(*entries: Revocation, salt: bytes = SALT) -> Iterable[Entry]:
    return RevocationLog(salt).apply(entries)


def taking(follower: Follower, answer: Answer, now: float = 0.0) -> bool:
    return follower.take(follower.poll(now), answer, now, 1000.0)


def test_without_a_lease_a_follower_accepts_nothing() -> None:
    """Before the first answer, and when its lease is over, a verifier says stale; what it knows as ended stays so."""
    follower = Follower()
    assert follower.judge(bearer(), 0.0) == "stale"
    taking(follower, an_answer(*travelled(session("s")), upto=1))
    assert follower.judge(bearer("other", jti="2"), 7.9) == "accepted"
    assert follower.judge(bearer("other", jti="2"), 8.0) == "stale"
    assert follower.judge(bearer(), 0.0) == follower.judge(bearer(), 100.0) == "revoked"


def test_changed_claims_are_not_taken_for_an_ended_session() -> None:
    """An entry of the subject makes tokens outdated, so that a client knows to refresh; an ended session is revoked."""
    follower = Follower()
    staled = Revocation(kind="subject", id="ada", min_epoch=2, expires_at=SOON)
    taking(follower, an_answer(*travelled(staled, session("s")), upto=2))
    assert follower.judge(bearer("other", jti="2"), 1.0) == "outdated"
    assert follower.judge(bearer("other", jti="3", epoch=2), 1.0) == "accepted"
    assert follower.judge(bearer(epoch=2), 1.0) == "revoked"


def test_an_answer_with_a_gap_changes_nothing() -> None:
    """Entries after what was applied are not taken for the ones before, and bring no lease."""
    follower = Follower()
    taking(follower, an_answer(after=3, upto=9))
    assert (follower.applied_seq, follower.leased_for(0.0)) == (0, 0.0)


def test_an_answer_to_a_poll_given_up_is_dropped() -> None:
    """Only the last poll has an answer; a late one would begin its lease at the wrong sending."""
    follower = Follower()
    first = follower.poll(0.0)
    second = follower.poll(5.0)
    follower.take(first, an_answer(upto=1), 6.0, 1000.0)
    assert follower.leased_for(6.0) == 0
    follower.take(second, an_answer(upto=1), 6.0, 1000.0)
    assert follower.leased_for(6.0) == pytest.approx(7.0)
    follower.take(second, an_answer(upto=1, lease_ms=9000), 6.0, 1000.0)
    assert follower.leased_for(6.0) == pytest.approx(7.0)


def test_a_restore_takes_the_lease_and_no_entry() -> None:
    """When another log begins, nothing is trusted until it has been read, and nothing known as ended comes to life."""
    follower = Follower()
    taking(follower, an_answer(*travelled(session("s")), upto=5))
    taking(follower, an_answer(epoch=2, upto=1, lease_ms=0))
    assert follower.leased_for(0.0) == 0
    assert follower.applied_seq == 1
    assert follower.judge(bearer(), 0.0) == "revoked"
    taking(follower, an_answer(epoch=1, upto=9))  # from a node that has not heard of it
    assert (follower.log_epoch, follower.leased_for(0.0)) == (2, 0.0)


def test_entries_under_another_salt_begin_anew() -> None:
    """A deployment that lost its salt is read from the start; the lease and the entries change in one step."""
    follower = Follower()
    taking(follower, an_answer(*travelled(session("s")), upto=5))
    seen = follower._known
    taking(follower, an_answer(*travelled(session("z"), salt=b"new"), epoch=2, upto=1, salt=b"new"))
    assert follower.judge(bearer("z"), 1.0) == "revoked"
    assert seen.log.covering_token(bearer()) == "session"  # a request in between has a pair that belongs together


def test_a_child_of_a_fork_is_another_holder_without_a_lease() -> None:
    """After fork the child has no lease and a new id; the answer its parent waits for is not the child's."""
    follower = Follower()
    taking(follower, an_answer(upto=5))
    poll, before = follower.poll(1.0), follower.holder
    follower.forked()
    assert follower.holder != before
    assert follower.judge(bearer(), 1.0) == "stale"
    follower.take(poll, an_answer(upto=5), 1.0, 1000.0)
    assert follower.judge(bearer(), 1.0) == "stale"


def test_a_killed_key_is_reported() -> None:
    """An answer that kills a key says so, and only that one."""
    follower = Follower()
    assert not taking(follower, an_answer(*travelled(session("s")), upto=1))
    assert taking(
        follower,
        an_answer(*travelled(Revocation(kind="key", id="k", expires_at=FOR_EVER)), after=1, upto=2),
    )
    assert follower.judge(bearer("other", jti="9"), 1.0) == "revoked"


def test_an_authority_that_is_down_is_asked_ever_more_seldom() -> None:
    """Polls that fail are spread over time: at most one in about two seconds, and at once again after a good one."""
    follower, now, sent = Follower(), 0.0, 0
    while now < 60:
        if now >= follower.poll_at:
            follower.failed(follower.poll(now), now)
            sent += 1
        now += 0.01
    assert 20 < sent < 70
    taking(follower, an_answer(upto=1), now)
    assert follower.poll_at <= now
