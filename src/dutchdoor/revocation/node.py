"""A node: a server process that follows the log, lets verifiers follow it, and says when a revocation is fenced.

It does no I/O and reads no clock. Its owner reports each event to it: a poll came, the store answered, time passed, a
commit returned. After every call, the owner carries out `take_actions()`, and it calls `tick` at `next_at`. `now` is
always a reading of one elapsed-time clock that counts sleep.

A node with leases out has a row in the store. The row says up to which `seq` the node and all its followers have
acknowledged, and has a random stamp that every renewal changes. A node's own lease runs from the sending of a renewal
whose answer reached the head of the log, and no verifier's lease outlasts it. So another node that fences needs to know
nothing of those verifiers. It waits for one of three things: the row says enough, the row has stood still for so long
that the node has no lease, or the maximum wait (a lease plus the clock margin) has passed since the commit.

If the store knows the head of the log at once, the node compares it at every request and needs no lease for its own
use. It has no row, and writes nothing, until the first verifier polls. Then it writes the row first, reads the log
after that, and grants the lease last. When no verifier has followed it for a while, it deletes the row. A fence of a
node without a row still reads the rows of the others; if there are none, it has nothing to wait for.
"""

from __future__ import annotations

import heapq
import math
import random
import secrets
from collections.abc import Callable, Hashable, Sequence
from typing import Final, TypeAlias

from msgspec import Struct

from dutchdoor.revocation.fence import Fence
from dutchdoor.revocation.lease import Lease, Terms
from dutchdoor.revocation.lease_table import Holder, Holders
from dutchdoor.revocation.log import Named, RevocationLog
from dutchdoor.revocation.messages import Answer, Poll
from dutchdoor.revocation.node_messages import (
    FIRST_EPOCH,
    Forget,
    NodeRow,
    Question,
    ReadLog,
    ReadRows,
    Register,
    Renew,
    Renewed,
    Rows,
)
from dutchdoor.revocation.pages import Pages

__all__ = ["Action", "Answered", "Ask", "Node", "Settled"]

ON_DEMAND_FOR: Final = (1.0, 2.0)
"""Seconds of a lease for a verifier that cannot be woken: every fence waits until the lease runs out."""
SHORTEST_GRANT: Final = 0.05
CATCH_UP_FOR: Final = 0.25
"""Seconds that a poll waits at least if it knows more than this node, or finds it without a lease: until the node has
read the log, or got its row.
"""
_WATCH: Final = (0.005, 0.25)
"""Seconds between two reads of the other nodes' rows while a fence waits for them: at first, and doubled up to this."""


# --- what a node asks its owner to do ---------------------------------------------------------------------------------


class Ask(Struct, frozen=True):
    """Put a question to the store, and pass the answer to `answered` under this number."""

    number: int
    question: Question


class Answered(Struct, frozen=True):
    """Answer the poll that came under this key."""

    key: Hashable
    answer: Answer


class Settled(Struct, frozen=True):
    """A fence is no longer pending."""

    fence: Fence


Action: TypeAlias = Ask | Answered | Settled


class _Asked(Struct):
    number: int
    question: Question
    sent_at: float


class _Hanging(Struct):
    key: Hashable
    who: Holder
    poll: Poll
    received_at: float
    until: float


# --- the node ---------------------------------------------------------------------------------------------------------


class Node:
    """One life of one server process. A process that starts again creates a new one.

    Args:
        terms: the terms of leases.
        first_epoch: the log epoch that the store begins with, in which it was never restored.
        new_id: creates ids and stamps: random, never the same twice.
        draw: returns a number between 0 and 1, for jitter.
    """

    def __init__(
        self,
        terms: Terms | None = None,
        *,
        first_epoch: int = FIRST_EPOCH,
        new_id: Callable[[], str] = lambda: secrets.token_urlsafe(16),
        draw: Callable[[], float] = random.random,
    ) -> None:
        self.terms = Terms() if terms is None else terms
        self.id = ""
        """The id of the row; empty without one."""
        self.log = RevocationLog()
        """What this process itself refuses, under `leased` or the head of the log."""
        self.log_epoch = 0
        """0 until the log was read for the first time."""
        self.applied_seq = 0
        self.keys_killed = 0
        """The number of applied entries about keys: the holder of a key set reads it again when this has grown."""
        self._first_epoch, self._new_id, self._draw = first_epoch, new_id, draw
        self._actions: list[Action] = []
        self._number = 0
        self._lease = Lease()
        self._holders = Holders(self.terms)
        self._hanging: dict[Holder, _Hanging] = {}
        self._by_key: dict[Hashable, _Hanging] = {}
        self._untils: list[tuple[float, int, _Hanging]] = []
        self._polls = 0
        self._fences: list[Fence] = []
        self._pages = Pages(self.log, self.terms.page)
        self.is_whole = False
        """Whether this log was read to its head since it began: before that, it would accept what a later page covers.
        """
        self._since = math.inf
        self._longest, self._longest_until = self.terms.lease_for, -math.inf
        self._judges = self._wants_row = self._registered = False
        self._stamp, self._former = "", ""
        self._stopping = False
        self._acked_seq, self._reported_seq = 0, -1
        self._changed, self._fence_at = False, math.inf
        self._asked: _Asked | None = None
        self._again = False
        self._renew_at, self._not_before = math.inf, -math.inf
        self._watched: _Asked | None = None
        self._watch_at, self._watch_every = math.inf, _WATCH[0]
        self._seen: dict[str, tuple[str, float]] = {}

    @property
    def _patience(self) -> float:
        """How long a question to the store may go unanswered before the node asks anew."""
        return self.terms.lease_for / 3

    # What its owner asks

    @property
    def has_row(self) -> bool:
        """Whether it has a row in the store, or is about to: then its owner must report at once when the log grows."""
        return self._wants_row

    def leased(self, now: float) -> bool:
        """Whether this process knows enough to accept a token or a remembered session. Ask this first, and `covers`
        after: entries that are applied in between can only refuse more.
        """
        return now < self._lease.until

    def lease_left(self, now: float) -> float:
        """Seconds left of this node's own lease; 0 without one."""
        return max(0.0, self._lease.left(now))

    def covers(self, named: Named) -> bool:
        """Return whether any entry covers what these names name."""
        return self.log.covers(named)

    @property
    def epochs_from(self) -> int:
        """Return the epoch that a new subject begins with. A restore may have lost an account and not its tokens, so
        after a restore the epoch is above any of theirs. A log epoch is the time at which it began, and no account's
        counter is that high before.
        """
        return 0 if self.log_epoch == self._first_epoch else self.log_epoch

    def take_actions(self) -> list[Action]:
        """Return the actions to carry out now, each once."""
        actions, self._actions = self._actions, []
        return actions

    @property
    def next_at(self) -> float:
        """When to call `tick`, if nothing happens before."""
        patience = self._patience
        return min(
            self._asked.sent_at + patience if self._asked else self._renew_at,
            self._watched.sent_at + patience if self._watched else self._watch_at if self._fences else math.inf,
            self._holders.next_end,
            self._untils[0][0] if self._untils else math.inf,
            self._fence_at,
        )

    def followers(self, now: float) -> list[tuple[Holder, int, float]]:
        """Return the followers here: what each has acknowledged (-1: nothing), and the seconds left of its lease."""
        return self._holders.shown(now)

    # What happens to it

    def want_lease(self, now: float) -> None:
        """From now on, this process judges requests under its own lease, because its store does not know the head of
        the log at once. The row stays until the node stops.
        """
        if not self._judges and not self._stopping:
            self._judges = True
            self._want_row(now)

    def stop(self, now: float) -> None:
        """Answer all polls here without a lease, and grant no more; `leased` is over.

        With no verifier's lease left, the row is forgotten, so that no fence waits for it. Otherwise it stays: the
        granted leases are valid. A later call checks again.
        """
        self._stopping, self._judges = True, False
        # Before the row is forgotten, not after: nothing may be accepted under a lease that no row stands for.
        self._lease.drop()
        for hanging in list(self._hanging.values()):
            self._answer(hanging, now)
        self._renew_at = math.inf
        self._leave(now)

    def tick(self, now: float) -> None:
        """Do what is due by now."""
        patience = self._patience
        if self._asked and now >= self._asked.sent_at + patience:
            self._gave_up()
            if self._needs_store():
                self._renew_at = min(self._renew_at, now)
        if self._watched and now >= self._watched.sent_at + patience:
            self._watched = None
        if now >= self._renew_at and not self._asked:
            self._ask(now)
        if self._fences and now >= self._watch_at and not self._watched:
            self._watched = self._question(ReadRows(), now)
        self._settle(now)
        while self._untils and self._untils[0][0] <= now:
            hanging = heapq.heappop(self._untils)[2]
            if self._hanging.get(hanging.who) is hanging:
                self._answer(hanging, now)
        self._leave(now)

    def woken(self, now: float) -> None:
        """The log may have grown. A call too many costs a look; a missing call costs time."""
        if self._stopping:
            return
        if self._asked:
            self._again = True
        elif now < self._not_before:
            self._renew_at = min(self._renew_at, self._not_before)
        else:
            self._ask(now)

    def polled(self, key: Hashable, poll: Poll, now: float, *, credential: str = "") -> None:
        """A poll arrived. It is answered once, under this key, unless `gone` is called first."""
        who = Holder(credential, poll.holder)
        before = self._hanging.get(who)
        if before:  # one process polls once at a time: it has given up its earlier poll
            self._answer(before, now, lease=False)
        if self._stopping or not self._holders.polled(who, now):
            self._answer(_Hanging(key, who, poll, now, now), now, lease=False)
            return
        if poll.log_epoch == self.log_epoch:
            self._holders.acknowledge(who, poll.applied_seq, now)
            self._settle(now)
        wait = min(poll.wait_ms / 1000, self.terms.hang_for)
        if self._is_behind(poll):
            self.woken(now)
        self._want_row(now)
        if self._is_behind(poll) or self._left(now) <= 0:
            wait = max(wait, CATCH_UP_FOR)
        hanging = _Hanging(key, who, poll, now, now + wait)
        self._hanging[who] = self._by_key[key] = hanging
        self._polls += 1
        heapq.heappush(self._untils, (hanging.until, self._polls, hanging))
        self._consider(hanging, now)

    def gone(self, key: Hashable) -> None:
        """The client of the poll under this key disconnected."""
        hanging = self._by_key.pop(key, None)
        if hanging is not None and self._hanging.get(hanging.who) is hanging:
            del self._hanging[hanging.who]

    def failed(self, number: int, now: float) -> None:
        """The store did not answer. It is asked again a few times in a lease, whatever happens meanwhile."""
        again_at = now + self.terms.renew_every / 4
        if self._asked and self._asked.number == number:
            self._gave_up()
            self._not_before = again_at
            # Without a row, and without a waiting fence, there is nothing to ask until a verifier polls.
            self._renew_at = again_at if self._needs_store() else math.inf
            self._leave(now)
        elif self._watched and self._watched.number == number:
            self._watched, self._watch_at = None, again_at

    def answered(self, number: int, answer: Renewed | Rows | None, now: float) -> None:
        """The store answered. The answer to an abandoned question is dropped: another question was asked since."""
        if self._asked and self._asked.number == number:
            asked, self._asked = self._asked, None
            if isinstance(asked.question, Register):
                self._registered, self._stamp = True, asked.question.row.stamp
                if self._stopping:
                    self._leave(now)
                else:
                    self._ask(now)
            elif isinstance(answer, Renewed):
                self._renewed(asked, answer, now)
        elif self._watched and self._watched.number == number:
            watched, self._watched = self._watched, None
            if isinstance(answer, Rows):
                self._look(watched, answer, now)

    def see_time_of_day(self, wall_now: float) -> None:
        """Learn the time of day, and by it whether the log began so long ago that no lease from before can be left.

        A log epoch is at least the milliseconds since 1970 at which the last lease from before it may have been
        granted, by a clock as accurate as this one: each may be off by half of the time that entries are kept.
        """
        if self.log_epoch and wall_now - self.log_epoch / 1000 > self.terms.kept_for + self._late():
            self._since = -math.inf

    def read(self, answer: Renewed, now: float) -> None:
        """Apply what a read of the log brought that this node did not ask for."""
        self._follow(answer, now)
        self._followed(now)

    def fence(
        self,
        seq: int,
        log_epoch: int,
        now: float,
        *,
        longest_lease: float = 0.0,
        alone: bool = False,
    ) -> Fence:
        """Begin the fence of what was committed: call it when the commit has returned.

        Args:
            seq: the entry, or the head of the log when nothing was left to revoke: a client that asks again because it
                lost the first answer must not get its answer sooner than the first.
            log_epoch: the log it was committed to.
            longest_lease: the longest in any row, read in the commit: a node with another setting counts too.
            alone: the commit saw that there was no row at all. A node that has a row since then has read the log after
                it.
        """
        if longest_lease >= self._longest:
            self._longest, self._longest_until = longest_lease, now + self.terms.guarded(longest_lease)
        fence = Fence(
            seq,
            log_epoch,
            deadline=now + self._late(),
            after_question=self._number,
            alone=alone,
        )
        self._fences.append(fence)
        self._changed = True
        if alone:
            self._settle(now)
        else:
            self._watch_every, self._watch_at = _WATCH[0], max(now, self._not_before)
        if fence.state == "pending":
            if self.log_epoch != log_epoch or self.applied_seq < seq:
                self.woken(now)
            self.tick(now)
        return fence

    def abandon(self, fence: Fence) -> None:
        """No caller waits for this fence any more."""
        if fence in self._fences:
            self._fences.remove(fence)
        if not self._fences:
            self._fence_at = math.inf  # or `next_at` would lie in the past for ever, once that deadline is over

    def drop_expired(self, wall_now: float, *, look_at: int | None = None) -> None:
        """Forget entries that no token can need. `wall_now` is the time of day; `look_at` bounds the work."""
        self.log.drop_expired(wall_now, self.terms.kept_for, look_at=look_at)
        self._pages.drop_expired(look_at)

    # The row and the log

    def _want_row(self, now: float) -> None:
        if not self._wants_row:
            self._wants_row, self.id = True, self._new_id()
            self.woken(now)

    def _join(self, now: float) -> None:
        """Become a new holder of the log. Never reuse an old id: fences must still wait for the followers under the old
        row.
        """
        self.id = self._new_id()
        self._registered, self._reported_seq = False, -1
        self._ask(now)

    def _leave(self, now: float) -> None:
        """Forget the row of a node that stops, unless a follower holds a lease from here."""
        if self._stopping and self._registered and not self._asked and not self._is_owed(now):
            self._registered = self._wants_row = False
            self._forget_row(now)

    def _needs_store(self) -> bool:
        return bool(self._wants_row or self._fences) and not self._stopping

    def _is_needed(self) -> bool:
        """Whether the row is in use: by this process itself, or by any follower within the last maximum wait."""
        return bool(self._judges or self._hanging or len(self._holders))

    def _is_owed(self, now: float) -> bool:
        """Whether the row of a node that stops stands for a holder with a lease."""
        return self._holders.level(now) < math.inf

    def _forget_row(self, now: float) -> None:
        self._question(Forget(self.id, self._stamp), now)
        self._former, self.id = self.id, ""

    def _ask(self, now: float) -> None:
        self._again = False
        question: Question
        if self._registered:
            question = Renew(self._row(), self.applied_seq)
        elif self._wants_row:
            question = Register(self._row())
        else:
            question = ReadLog(self.log_epoch, self.applied_seq)
        self._asked = self._question(question, now)
        self._renew_at = now + self.terms.renew_every if self._wants_row else math.inf

    def _gave_up(self) -> None:
        if self._asked and isinstance(self._asked.question, Register):
            self.id = self._new_id()  # the row may still exist, but belongs to no node
        self._asked = None

    def _question(self, question: Question, now: float) -> _Asked:
        self._number += 1
        self._actions.append(Ask(self._number, question))
        return _Asked(self._number, question, now)

    def _row(self) -> NodeRow:
        return NodeRow(
            id=self.id,
            stamp=self._new_id(),
            log_epoch=self.log_epoch,
            acked_seq=self._acked_seq if self._registered else 0,  # a new row has acknowledged nothing
            lease_for=self.terms.lease_for,
        )

    def _renewed(self, asked: _Asked, answer: Renewed, now: float) -> None:
        row = asked.question.row if isinstance(asked.question, Renew) else None
        if row is not None and not answer.there and not self._stopping:  # it was taken for dead, or lost in a restore
            self._join(now)
            return
        self._follow(answer, now)
        if answer.log_epoch == self.log_epoch:
            if answer.head > self.applied_seq:
                self._again = True
            elif row is not None and not self._stopping:  # a lease needs a row: no fence would wait for it
                self._lease.extend(asked.sent_at, self.terms.lease_for)
            if row is not None:
                if row.log_epoch == self.log_epoch:
                    self._reported_seq = row.acked_seq
                self._see(asked, answer.rows, now)
        if row is not None:
            self._stamp = row.stamp
        self._followed(now)
        if self._stopping:
            self._leave(now)
        elif self._again and not self._asked:
            self._ask(now)
        elif self._registered and not self._asked and not self._is_needed():
            self._forget_row(now)
            self._registered = self._wants_row = False
            self._lease.drop()
            self._reported_seq, self._renew_at = -1, math.inf

    def _followed(self, now: float) -> None:
        """Check what new entries mean for open polls and pending fences."""
        self._settle(now)
        for hanging in list(self._hanging.values()):
            self._consider(hanging, now)

    def _follow(self, answer: Renewed, now: float) -> None:
        """Apply the store's answer."""
        if answer.log_epoch < self.log_epoch:
            return
        if answer.log_epoch > self.log_epoch:
            self._begin(answer.log_epoch, answer.salt, now)
        if answer.after > self.applied_seq or answer.upto <= self.applied_seq:
            self.is_whole |= answer.head <= self.applied_seq
            return
        new = [entry for entry in answer.entries if entry.seq > self.applied_seq]
        entries = self.log.apply(new)
        self.keys_killed += sum(entry.of_a_key for entry in entries)
        self._pages.append(new, entries)
        self.applied_seq = answer.upto
        self.is_whole |= answer.head <= self.applied_seq

    def _begin(self, log_epoch: int, salt: bytes, now: float) -> None:
        """Another log: begin again. Grants, acknowledgements and promises of the old one do not count."""
        self._lease.drop()
        if salt != self.log.salt:
            self.log = RevocationLog(salt)
        self.is_whole = False
        self.log_epoch, self.applied_seq, self.log.applied_seq = log_epoch, 0, 0
        self._since, self._acked_seq, self._reported_seq, self._changed = now, 0, -1, True
        self._holders = Holders(self.terms)
        self._pages = Pages(self.log, self.terms.page)

    # Open polls

    def _is_behind(self, poll: Poll) -> bool:
        """Whether a holder knows more than this node, which then must catch up before it answers."""
        return poll.log_epoch > self.log_epoch or (
            poll.log_epoch == self.log_epoch and poll.applied_seq > self.applied_seq
        )

    def _consider(self, hanging: _Hanging, now: float) -> None:
        """Answer a poll if there is reason to."""
        poll = hanging.poll
        if now >= hanging.until:
            self._answer(hanging, now)
        elif not poll.wait_ms and self._left(now) <= 0:
            return  # a request at its owner waits for a lease: entries alone would not help it
        elif self.log_epoch and not self._is_behind(poll):
            news = poll.log_epoch != self.log_epoch or poll.applied_seq < self.applied_seq
            if news or (not self._holders.leased(hanging.who, now) and self._grantable(hanging, self.applied_seq, now)):
                self._answer(hanging, now)

    def _answer(self, hanging: _Hanging, now: float, *, lease: bool = True) -> None:
        """Answer a poll: entries, and a lease if one can be granted."""
        if self._hanging.get(hanging.who) is hanging:
            del self._hanging[hanging.who]
        self._by_key.pop(hanging.key, None)
        poll = hanging.poll
        after = poll.applied_seq if poll.log_epoch == self.log_epoch else 0
        entries, upto = ([], after) if self._is_behind(poll) else self._pages.after(after, self.applied_seq)
        grant = self._grantable(hanging, upto, now) if lease else 0.0
        if grant:
            # In the step that read the entries, and before the answer leaves: a fence that checks in between sees it.
            self._holders.grant(hanging.who, upto, hanging.received_at + self.terms.guarded(grant), now)
        self._actions.append(
            Answered(
                hanging.key,
                Answer(
                    log_epoch=self.log_epoch,
                    salt=self.log.salt,
                    after_seq=after,
                    upto_seq=upto,
                    entries=entries,
                    reaches_head=upto == self.applied_seq,
                    lease_ms=int(grant * 1000),
                ),
            )
        )

    def _left(self, now: float) -> float:
        return self._lease.left(now)

    def _grantable(self, hanging: _Hanging, upto: int, now: float) -> float:
        """Return how long a lease with an answer up to `upto` can be; 0 for none."""
        poll = hanging.poll
        # Without the whole log, the lease would cover half of the entries; a node that is behind knows no more.
        if upto != self.applied_seq or self._is_behind(poll) or self._stopping or not self.log_epoch:
            return 0.0
        if not self._holders.may_have(hanging.who, now):
            return 0.0
        lease = min(self.terms.lease_for, self._clipped(now))
        if poll.wait_ms == 0:
            shortest, longest = ON_DEMAND_FOR
            lease = min(lease, shortest + (longest - shortest) * self._draw())
        return lease if lease >= SHORTEST_GRANT else 0.0

    def _clipped(self, now: float) -> float:
        """What a holder may have of this node's own lease: the store and other nodes wait no longer than that."""
        return self._left(now) / self.terms.guard

    # Fences

    def _late(self) -> float:
        """How long until a fence is confirmed even if every follower is silent."""
        return self.terms.guarded(self._longest)

    def _settle(self, now: float) -> None:
        """Check which followers have acknowledged and whose leases are over, and settle the fences that waited for
        them.
        """
        acked = int(min(self.applied_seq, self._holders.level(now)))
        if acked != self._acked_seq:
            self._acked_seq, self._changed = acked, True
        if self._reported_seq < acked and self._registered and not self._asked and not self._stopping:
            self.woken(now)  # another node's fence may wait to read it
        if not self._fences or not (self._changed or now >= self._fence_at):
            return
        self._changed = False
        pending = []
        for fence in self._fences:
            if fence.log_epoch < self.log_epoch:
                fence.state = "lost"
            elif now >= fence.deadline:
                fence.state = "elapsed"
            elif self._is_acknowledged(fence, now):
                fence.state = "acknowledged"
            else:
                pending.append(fence)
                continue
            self._actions.append(Settled(fence))
        self._fences = pending
        self._fence_at = min((fence.deadline for fence in pending), default=math.inf)
        if pending and now < self._early_from:
            self._fence_at = min(self._fence_at, self._early_from)

    def _is_acknowledged(self, fence: Fence, now: float) -> bool:
        """Whether every lease carries an entry, or its holder has acknowledged the entry."""
        if fence.log_epoch != self.log_epoch or now < self._early_from:
            return False
        # Check first what this node applied itself: without followers here, any number would count as acknowledged, and
        # the next grant would lack the entry.
        return fence.alone or (self._acked_seq >= fence.seq and fence.rows_seen)

    @property
    def _early_from(self) -> float:
        """Elapsed time from which an early answer is right. A restore loses rows, and with them the holders to wait
        for; by this time, leases granted under those rows have run out. Before the first restore, each lease has its
        row. See also `see_time_of_day`.
        """
        return -math.inf if self.log_epoch == self._first_epoch else self._since + self._late()

    def _look(self, asked: _Asked, answer: Rows, now: float) -> None:
        if answer.log_epoch == self.log_epoch:
            self._see(asked, answer.rows, now)
        else:
            self.woken(now)
        self._settle(now)
        waiting = any(not fence.rows_seen and not fence.alone for fence in self._fences)
        self._watch_at = now + self._watch_every if waiting else math.inf
        self._watch_every = min(2 * self._watch_every, _WATCH[1])

    def _see(self, asked: _Asked, rows: Sequence[NodeRow], now: float) -> None:
        """Read the rows of the others: which nodes are dead, and which fences the rows let pass."""
        # A row that this process forgot, and whose deletion is under way, has no lease behind it.
        others = [row for row in rows if row.id not in (self.id, self._former)]
        longest = max((row.lease_for for row in others), default=0.0)
        longest = max(longest, self.terms.lease_for)
        if longest >= self._longest or now > self._longest_until:
            self._longest, self._longest_until = longest, now + self.terms.guarded(longest)
        for row in others:
            if self._is_dead(row, now):
                # Delete it only if it is unchanged since we read it. Until it is gone, it counts.
                self._question(Forget(row.id, row.stamp), now)
        self._seen = {row.id: self._seen[row.id] for row in others}
        for fence in self._fences:
            if not fence.rows_seen and asked.number > fence.after_question:
                fence.rows_seen = all(self._has_acknowledged(row, fence) for row in others)
                self._changed |= fence.rows_seen

    def _is_dead(self, row: NodeRow, now: float) -> bool:
        """Whether a row has stood still for the maximum wait, on the clock of this process."""
        stamp, since = self._seen.get(row.id, ("", now))
        if stamp != row.stamp:
            self._seen[row.id] = row.stamp, now
            return False
        return now - since > self.terms.guarded(row.lease_for)

    def _has_acknowledged(self, row: NodeRow, fence: Fence) -> bool:
        return row.log_epoch == fence.log_epoch and row.acked_seq >= fence.seq
