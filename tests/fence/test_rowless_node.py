"""A node that has no row yet, or any more: it is waited for by no one, and waits for others."""

from __future__ import annotations

import math

from msgspec.structs import replace
from tests.fence.rig import LATE, TERMS, Rig, a_poll, session

from dutchdoor.revocation.node_messages import Forget, NodeRow, Renew


class Rowless(Rig):
    """A node whose store tells its head: no verifier has asked it for a lease yet."""

    def begin(self) -> None:
        self.node.woken(self.now)


def test_no_row_before_the_first_poll_and_no_lease_before_the_row() -> None:
    """A node that no verifier follows writes nothing and sets no timer; the first poll brings the row, then the log,
    then a lease.
    """
    rig = Rowless()
    assert (rig.rows, rig.node.next_at, rig.node.has_row) == ({}, math.inf, False)
    asked = list[str]()
    answer = rig.answer
    rig.answer = lambda question: (asked.append(type(question).__name__), answer(question))[1]  # type: ignore[method-assign,assignment,return-value]
    first = rig.poll(a_poll())
    assert first is not None
    assert first.lease_ms > 0
    assert asked[:2] == ["Register", "Renew"]
    assert len(rig.rows) == 1


def test_a_fence_of_a_node_without_a_row_looks_at_the_rows_of_others() -> None:
    """Without a row of its own it waits for those who have one, and for none when the commit saw none."""
    rig = Rowless()
    rig.log.append(session("a", seq=1))
    alone = rig.node.fence(1, 1, rig.now, alone=True)
    assert alone.state == "acknowledged"
    rig.sort()
    assert rig.asked == []
    rig.rows["other"] = NodeRow(id="other", stamp="1", log_epoch=1, acked_seq=0, lease_for=10.0)
    rig.log.append(session("b", seq=2))
    fence = rig.node.fence(2, 1, rig.now, longest_lease=10.0)
    rig.wait(1.0)
    assert not fence.fenced
    rig.rows["other"] = replace(rig.rows["other"], stamp="2", acked_seq=2)
    rig.wait(0.5)
    assert fence.state == "acknowledged"
    assert len(rig.rows) == 1


def test_in_a_later_epoch_even_a_fence_alone_waits_once() -> None:
    """After a restore no node knows which rows were lost: that there is none says nothing for the maximum wait."""
    rig = Rowless(log_epoch=7)
    rig.log.append(session("a", seq=1))
    fence = rig.node.fence(1, 7, rig.now, alone=True)
    rig.wait(LATE - 0.1)
    assert not fence.fenced
    rig.wait(0.2)
    assert fence.fenced
    assert rig.node.fence(1, 7, rig.now, alone=True).state == "acknowledged"


def test_a_log_that_began_long_ago_has_outlived_every_lease_from_before() -> None:
    """A node that starts in a later epoch waits for nothing when its number, a time of day, says that it began long
    ago; by clocks that may differ, and by no less.
    """
    began, kept_for = 1_795_000_000, TERMS.kept_for
    rig = Rowless(log_epoch=began * 1000)
    rig.node.see_time_of_day(began + kept_for + LATE - 1)
    assert rig.node.fence(0, began * 1000, rig.now, alone=True).state == "pending"
    rig.node.see_time_of_day(began + kept_for + LATE + 1)
    assert rig.node.fence(0, began * 1000, rig.now, alone=True).state == "acknowledged"


def test_a_question_that_is_never_answered_keeps_no_one_from_a_lease() -> None:
    """When a poll comes while the log is read, and that reading is lost, the row is asked for all the same."""
    rig = Rowless()
    rig.node.woken(rig.now)
    rig.node.take_actions()  # lost on the way
    rig.keys += 1
    rig.node.polled(rig.keys, a_poll(epoch=0), rig.now)
    rig.wait(TERMS.lease_for / 3 + 0.1)
    assert len(rig.rows) == 1
    assert rig.node.leased(rig.now)


def test_a_store_that_is_away_is_not_asked_by_a_node_no_one_needs() -> None:
    """A reading that failed is not tried again before a request comes."""
    rig = Rowless()
    rig.node.woken(rig.now)
    rig.sort()
    (ask,) = rig.asked
    rig.node.failed(ask.number, rig.now)
    assert rig.node.next_at == math.inf
    rig.node.polled(1, a_poll(epoch=0), rig.now)
    assert rig.node.next_at < rig.now + 1


def test_who_follows_on_demand_gets_a_lease_with_the_first_poll() -> None:
    """A request waits for it: it is not answered without a lease while the row is on its way."""
    rig = Rowless()
    answer = rig.poll(a_poll(wait_ms=0, epoch=0))
    assert answer is not None
    assert answer.lease_ms > 0
    away = Rowless()
    away.node.polled(1, a_poll(wait_ms=0, epoch=0), away.now)
    away.node.take_actions()
    away.node.tick(away.now + 0.3)
    away.sort()
    assert [answered.answer.lease_ms for answered in away.answers] == [0]


def test_a_node_that_stops_forgets_the_row_as_it_was_written_last() -> None:
    """A renewal that is under way when a node stops is waited for: forgotten before it, the row would be there again
    with another stamp, and stand for no node.
    """
    rig = Rig()
    rig.node.woken(rig.now)
    rig.sort()
    (renewal,) = [ask for ask in rig.asked if isinstance(ask.question, Renew)]
    rig.asked.clear()
    rig.node.stop(rig.now)
    assert not rig.node.leased(rig.now)
    rig.sort()
    assert rig.asked == []
    rig.node.answered(renewal.number, rig.answer(renewal.question), rig.now)  # type: ignore[arg-type]
    rig.sort()
    (forget,) = [ask.question for ask in rig.asked if isinstance(ask.question, Forget)]
    assert isinstance(renewal.question, Renew)
    assert (forget.id, forget.stamp) == (renewal.question.row.id, renewal.question.row.stamp)


def test_a_node_that_stops_slowly_forgets_its_row_when_the_last_lease_is_over() -> None:
    """While requests are finished the leases from here run out; then no fence has to wait for it."""
    rig = Rig()
    rig.poll(a_poll(epoch=0))
    rig.node.stop(rig.now)
    rig.sort()
    assert not any(isinstance(ask.question, Forget) for ask in rig.asked)
    rig.wait(LATE + 0.1)
    rig.node.tick(rig.now)
    rig.sort()
    assert not rig.node.has_row
