"""A node of the fence, by itself: when a fence is confirmed, and when a lease is granted."""

from __future__ import annotations

import math
from typing import Any

from msgspec.structs import replace
from tests.fence.rig import LATE, SOON, Rig, a_poll, bearer, session

from dutchdoor.revocation.follower import Follower
from dutchdoor.revocation.lease import GUARD, Terms
from dutchdoor.revocation.log import FOR_EVER, Revocation
from dutchdoor.revocation.node import Ask
from dutchdoor.revocation.node_messages import NodeRow, ReadRows, Rows


def test_an_undisturbed_fence_takes_one_exchange() -> None:
    """With all verifiers there, a fence holds as soon as the last of them has acknowledged."""
    rig = Rig()
    rig.wait(LATE + 1)
    assert rig.poll(a_poll(epoch=0)).lease_ms > 0  # type: ignore[union-attr]
    assert rig.poll(a_poll()) is None  # hangs
    fence = rig.end("s")
    assert not fence.fenced
    assert 0 < fence.due_in(rig.now) <= LATE + 1e-9
    woken = rig.answers[-1].answer
    assert [entry.kind for entry in woken.entries] == [0]
    rig.poll(a_poll(applied=1))
    assert fence.state == "acknowledged"
    assert fence.due_in(rig.now) == 0.0


def test_a_silent_verifier_delays_a_fence_by_the_maximum_wait() -> None:
    """A holder that hangs up with a lease is waited for until that has run out on any clock, and no longer."""
    rig = Rig()
    rig.wait(LATE + 1)
    rig.poll(a_poll(epoch=0))
    fence = rig.end("s")
    rig.wait(5.0)
    assert not fence.fenced
    rig.wait(LATE - 5.0)
    assert fence.fenced


def test_a_fence_that_no_caller_waits_for_leaves_no_timer_behind() -> None:
    """A client that got its 202, or hung up, abandons its fence. When the time of that fence comes, the node must not
    be called again and again: one such log-out would keep a core busy until the next one.
    """
    rig = Rig()
    rig.wait(LATE + 1)
    rig.poll(a_poll(epoch=0))
    rig.node.abandon(rig.end("s"))
    for _ in range(3):
        rig.now += LATE + 1
        rig.node.tick(rig.now)
        rig.serve()
        assert rig.node.next_at > rig.now


def test_without_the_store_no_one_gets_a_lease() -> None:
    """A node cut off from its store answers, with what it knows, and grants nothing beyond its own lease."""
    rig = Rig()
    rig.now += 9.9
    first = rig.poll(a_poll(epoch=0))
    assert first is not None
    assert first.lease_ms < 200
    rig.now += 5
    rig.node.tick(rig.now)
    rig.sort()
    assert not rig.node.leased(rig.now)
    rig.keys += 1
    rig.node.polled(rig.keys, a_poll(), rig.now)
    rig.node.tick(rig.now + 2.6)
    rig.sort()
    assert rig.answers[-1].answer.lease_ms == 0


def test_a_store_that_is_down_is_asked_a_few_times_in_a_lease() -> None:
    """Polls, fences and notices cause no query to a store that refuses: neither a storm nor a busy loop comes of it."""
    rig, asked = Rig(), 0
    rig.wait(LATE + 1)
    rig.rows["other"] = NodeRow(id="other", stamp="1", log_epoch=1, acked_seq=0, lease_for=10.0)
    rig.wait(2)
    rig.node.fence(1, 1, rig.now)
    until = rig.now + 10
    while rig.now < until:
        rig.now = min(max(rig.now + 0.01, rig.node.next_at), rig.now + 0.05)
        rig.node.tick(rig.now)
        rig.node.woken(rig.now)
        rig.node.polled(object(), a_poll(applied=7), rig.now)
        for action in rig.node.take_actions():
            if isinstance(action, Ask):
                asked += 1
                rig.node.failed(action.number, rig.now)
    assert 10 < asked < 70
    rig.wait(2)
    assert rig.node.leased(rig.now)


def test_rows_read_before_the_commit_say_nothing_about_it() -> None:
    """A look at the other nodes that was under way when the commit returned does not settle its fence."""
    rig = Rig()
    rig.wait(LATE + 1)
    rig.log.append(session("a", seq=1))
    rig.node.fence(1, 1, rig.now)
    rig.sort()
    under_way = [ask for ask in rig.asked if isinstance(ask.question, ReadRows)]
    assert len(under_way) == 1
    empty = Rows(log_epoch=1, rows=[])
    rig.log.append(session("b", seq=2))
    second = rig.node.fence(2, 1, rig.now)
    rig.rows["new"] = NodeRow(id="new", stamp="1", log_epoch=1, acked_seq=0, lease_for=10.0)
    rig.node.answered(under_way[0].number, empty, rig.now)
    rig.asked = [ask for ask in rig.asked if ask not in under_way]
    rig.serve()
    assert not second.rows_seen
    assert not second.fenced


def test_the_longest_lease_of_any_row_counts() -> None:
    """A node with a short lease waits for what a node with a long one has granted."""
    rig = Rig(Terms(lease_for=2.0))
    rig.rows["long"] = NodeRow(id="long", stamp="1", log_epoch=1, acked_seq=0, lease_for=60.0)
    fence = rig.end("s")
    rig.wait(60)
    assert not fence.fenced
    rig.wait(61 * GUARD - 60)
    assert fence.fenced
    assert "long" in rig.rows  # this store forgets nothing


def test_a_stopping_node_grants_nothing_and_leaves_its_row() -> None:
    """Polls that hang are answered at once without a lease, and what was granted is still waited for by others."""
    rig = Rig()
    rig.poll(a_poll(epoch=0))
    assert rig.poll(a_poll()) is None
    rig.node.stop(rig.now)
    rig.serve()
    assert rig.answers[-1].answer.lease_ms == 0
    answer = rig.poll(a_poll("i" * 22, epoch=0))
    assert answer is None or answer.lease_ms == 0
    assert rig.node.id in rig.rows


def test_another_log_loses_every_pending_fence() -> None:
    """After a restore a pending fence says false, and nothing that was acknowledged before counts."""
    rig = Rig()
    rig.wait(LATE + 1)
    rig.poll(a_poll(epoch=0))
    fence = rig.end("s")
    rig.log_epoch, rig.log = 2, []
    rig.wait(2)
    assert fence.state == "lost"
    assert not fence.fenced
    assert fence.due_in(rig.now) == math.inf
    assert len(rig.node.followers(rig.now)) == 0


def test_one_process_polls_once_at_a_time() -> None:
    """A second poll of one holder answers the first without a lease: a flood of polls hangs once."""
    rig = Rig()
    rig.poll(a_poll(epoch=0))
    for _ in range(100):
        rig.poll(a_poll())
    assert len(rig.node._hanging) == 1
    assert len(rig.answers) == 100
    assert all(answer.answer.lease_ms == 0 for answer in rig.answers[1:])
    rig.node.gone(rig.keys)
    assert len(rig.node._hanging) == 0


def test_no_lease_for_more_holders_than_a_credential_may_have() -> None:
    """Ids beyond a credential's share are answered at once and get nothing, and those of no other credential do."""
    rig = Rig(Terms(leases=5))
    given = [rig.poll(a_poll(f"{n:022d}", epoch=0)) for n in range(20)]
    assert sum(answer is not None and answer.lease_ms > 0 for answer in given) == 5
    assert rig.poll(a_poll(epoch=0), credential="other").lease_ms > 0  # type: ignore[union-attr]


def test_who_cannot_be_woken_gets_a_short_lease() -> None:
    """A follower on demand is answered at once, with one to two seconds."""
    rig = Rig()
    for n in range(20):
        answer = rig.poll(a_poll(f"{n:022d}", wait_ms=0, epoch=0))
        assert answer is not None
        assert 1000 <= answer.lease_ms <= 2000


def test_a_node_forgets_expired_entries_and_keeps_the_rest() -> None:
    """What is handed out shrinks as entries expire, in steps, and a newcomer still reaches the head."""
    rig = Rig(Terms(page=100))
    rig.log = [session(f"s{n}", seq=n + 1, expires_at=10.0 if n % 3 else SOON) for n in range(90)]
    rig.log.append(Revocation(kind="key", id="k", expires_at=FOR_EVER, seq=91))
    rig.wait(2)
    for _ in range(40):
        rig.node.drop_expired(1000.0, look_at=7)
    answer = rig.poll(a_poll(epoch=0))
    assert answer is not None
    assert (answer.upto_seq, answer.reaches_head, len(answer.entries)) == (91, True, 31)
    assert len(rig.node._pages) == 31


def test_endless_log_outs_fill_no_memory() -> None:
    """Of the entries of one subject, which never expire while he goes on, a node keeps and hands out the newest."""
    rig = Rig(Terms(page=100))
    rig.log = [session("other", seq=1)]
    rig.log += [Revocation(kind="subject", id="ada", min_epoch=n, expires_at=SOON + n, seq=n) for n in range(2, 302)]
    rig.log.insert(150, Revocation(kind="subject", id="bob", min_epoch=1, expires_at=SOON))
    rig.log = [replace(entry, seq=seq) for seq, entry in enumerate(rig.log, 1)]
    rig.wait(2)
    for _ in range(200):
        rig.node.drop_expired(1000.0, look_at=7)
    for _ in range(3):
        rig.node.drop_expired(1000.0, look_at=100)
    answer = rig.poll(a_poll(epoch=0))
    assert answer is not None
    assert (answer.upto_seq, answer.reaches_head, len(answer.entries)) == (302, True, 3)
    assert max(entry.min_epoch for entry in answer.entries) == 301
    assert len(rig.node._pages) == 3
    # Who had read some of it gets the rest.
    behind = rig.poll(a_poll(f"{2:022d}", epoch=1, applied=200))
    assert behind is not None
    assert [entry.min_epoch for entry in behind.entries] == [301]


def test_the_log_comes_in_pages_and_only_the_last_brings_a_lease() -> None:
    """A newcomer has no lease until it has read to the head."""
    rig = Rig(Terms(page=10))
    rig.log = [session(f"s{n}", seq=n + 1) for n in range(25)]
    rig.wait(2)
    follower, leases = Follower(), []
    while not follower.leased_for(rig.now):
        poll = follower.poll(rig.now)
        answer = rig.poll(poll)
        assert answer is not None
        leases.append(answer.lease_ms > 0)
        follower.take(poll, answer, rig.now, 1000.0)
    assert leases == [False, False, True]
    assert all(follower.judge(bearer(f"s{n}", jti=str(n)), rig.now) == "revoked" for n in range(25))


def test_a_row_that_stands_still_is_deleted_where_it_stood() -> None:
    """Another node's row is asked to be forgotten after the maximum wait of its own, with the stamp that was seen."""
    rig, forgets = Rig(), []
    rig.rows["dead"] = NodeRow(id="dead", stamp="last", log_epoch=1, acked_seq=0, lease_for=10.0)
    answer = rig.answer

    def spy(question: Any) -> Any:
        if type(question).__name__ == "Forget":
            forgets.append((question.id, question.stamp, rig.now))
        return answer(question)

    rig.answer = spy  # type: ignore[method-assign]
    began = rig.now
    rig.wait(20)
    assert {forgotten[:2] for forgotten in forgets} == {("dead", "last")}
    assert forgets[0][2] - began > LATE
