"""The real classes with one rule taken out of each: what shows that the simulator would notice.

A rule that the harness keeps (what the store, the clock or the authority around this code does) is taken out there,
where `World.on` is asked. `RULES` lists them all, with what the world looks like without.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from msgspec.structs import replace

from dutchdoor.revocation.follower import Follower, Verdict
from dutchdoor.revocation.lease_table import Holder, Holders
from dutchdoor.revocation.log import Bearer, RevocationLog
from dutchdoor.revocation.messages import Answer, Poll
from dutchdoor.revocation.node import Node
from dutchdoor.revocation.node_messages import NodeRow, Register, Renewed

RULES = {
    "lease": "a verifier goes on when its lease has run out",
    "lease_first": "a request looks at the entries first and at the lease after",
    "from_send": "a lease runs from the moment the answer came",
    "guard": "the grantor waits no longer than the lease",
    "sleep_clock": "the lease clock stands while the process is stopped",
    "record_first": "a grant is recorded some time after its answer has left",
    "apply_first": "the fencing node counts its holders, and applies the entry after",
    "apply_then_ack": "a verifier acknowledges what it has not applied yet",
    "primary": "the log is read from a replica that lags",
    "load_first": "a node has a lease before it has read the log to its head",
    "whole_page": "a page that does not reach the head comes with a lease",
    "commit_order": "numbers are given before the commit, and show in another order",
    "one_boot": "a node fences early from the moment it starts",
    "new_row": "a node that starts again takes its old row",
    "register": "a node reads the log first and registers after",
    "clip": "a node grants more than it has",
    "stamp": "a row's stamp is the same again after a renewal",
    "own_clock": "a row is judged by the store's wall clock",
    "not_behind": "a node that is behind answers, and sends the holder back",
    "fork": "a child goes on with its parent's lease and id",
    "wait_head": "a revoke that finds nothing to end is fenced at once",
    "exp_from_read": "exp counts from the signing",
    "keep": "entries go when they expire",
    "proof_epoch": "the epoch is read again when the token is signed",
    "cache_check": "a remembered session is forgotten when something is applied, and not checked",
    "cache_age": "a remembered session is remembered for ever",
    "log_epoch": "a restored store goes on with the old log epoch",
    "epoch_base": "after a restore the subjects' epochs repeat",
    "deadline": "grants made after an entry prolong its fence",
    "row_first": "a node grants on what it has read before its row is there",
    "row_kept": "a node forgets its row while a lease from it is out",
    "row_left": "a node that stops forgets its row while a lease from it is out",
    "stop_first": "a node that stops forgets its row, and judges on under its lease",
    "rows_looked_at": "a node without a row fences as if nobody had one",
    "rows_in_commit": "that nobody has a row was seen some time before the commit",
    "head": "a node without a lease judges by what it knows, and does not look at the head",
    "longest_lease": "a node that came back with a shorter setting forgets the leases of the longer one",
}


class Mutants:
    """Classes that take a rule out of the one they derive from, by the rule's name."""

    def __init__(self) -> None:
        self.by_rule: dict[str, type] = {}

    def of(self, rule: str) -> Callable[[type], type]:
        def add(mutant: type) -> type:
            assert rule in RULES
            self.by_rule[rule] = mutant
            return mutant

        return add

    def build(self, base: type, drop: frozenset[str]) -> type:
        bases = [self.by_rule[rule] for rule in sorted(drop) if rule in self.by_rule]
        return type("+".join(sorted(drop)), (*bases, base), {})


NODES, FOLLOWERS = Mutants(), Mutants()


# --- followers: `self.process` is the process of the simulator --------------------------------------------------------


@FOLLOWERS.of("lease")
class NoLease(Follower):
    def judge(self, token: Bearer, now: float) -> Verdict:
        return super().judge(token, -math.inf if self._known.until < 0 else self._known.until - 1)


@FOLLOWERS.of("from_send")
class FromAnswer(Follower):
    def take(self, poll: Poll, answer: Answer, now: float, wall_now: float) -> bool:
        self._sent = self._sent and self._sent._replace(at=now)
        return super().take(poll, answer, now, wall_now)


@FOLLOWERS.of("apply_then_ack")
class AcksFirst(Follower):
    process: Any

    def _take_in(self, log: RevocationLog, answer: Answer) -> None:
        self.process.later(self.process.w.r.uniform(0, 0.2), lambda: log.take(answer.entries))


@FOLLOWERS.of("not_behind")
class GoesBack(Follower):
    def _apply(self, answer: Answer, sent_at: float) -> bool:
        if answer.log_epoch == self.log_epoch and answer.upto_seq < self.applied_seq and answer.lease_ms:
            self._known = self._known._replace(log=RevocationLog(answer.salt))
            self.applied_seq = 0
        return super()._apply(answer, sent_at)


@FOLLOWERS.of("whole_page")
class TakesPages(Follower):
    def _apply(self, answer: Answer, sent_at: float) -> bool:
        return super()._apply(replace(answer, reaches_head=True), sent_at)


# --- nodes: `self.server` is the process of the simulator -------------------------------------------------------------


class _Held:
    """Stands in for the holders while an answer is written, and treats its grant in another way."""

    def __init__(self, holders: Holders, grant: Callable[..., object]) -> None:
        self._holders, self.grant = holders, grant

    def __getattr__(self, name: str) -> Any:
        return getattr(self._holders, name)


@NODES.of("from_send")
class NodeFromAnswer(Node):
    def answered(self, number: int, answer: Any, now: float) -> None:
        if self._asked and self._asked.number == number:
            self._asked.sent_at = now
        super().answered(number, answer, now)


@NODES.of("record_first")
class RecordsLate(Node):
    server: Any

    def _answer(self, *args: Any, **named: Any) -> None:
        holders = self._holders

        def grant(who: Holder, *rest: Any) -> None:
            def record() -> None:
                if who in holders._by_id:
                    holders.grant(who, *rest)

            self.server.later(self.server.w.r.uniform(0, 2), record)

        self._holders = _Held(holders, grant)  # type: ignore[assignment]
        super()._answer(*args, **named)
        self._holders = holders


@NODES.of("apply_first")
class CountsFirst(Node):
    def fence(self, seq: int, *args: Any, **named: Any) -> Any:
        self._counted = getattr(self, "_counted", {})
        self._counted[seq] = [
            (who, max(until for _, until in held.grants))
            for who, held in self._holders._by_id.items()
            if held.grants and held.acked < seq
        ]
        return super().fence(seq, *args, **named)

    def _is_acknowledged(self, fence: Any, now: float) -> bool:
        held = self._holders._by_id
        left = [
            who
            for who, until in self._counted.get(fence.seq, ())
            if until > now and (who not in held or held[who].acked < fence.seq)
        ]
        return not left and fence.rows_seen and now >= self._early_from


@NODES.of("load_first")
class LeasesAtOnce(Node):
    def _renewed(self, asked: Any, answer: Renewed, now: float) -> None:
        super()._renewed(asked, answer, now)
        if answer.there and answer.log_epoch == self.log_epoch:
            self._lease.extend(asked.sent_at, self.terms.lease_for)


@NODES.of("whole_page")
class LeasesPages(Node):
    def _grantable(self, hanging: Any, upto: int, now: float) -> float:
        return super()._grantable(hanging, self.applied_seq, now)


@NODES.of("one_boot")
class EarlyAtOnce(Node):
    @property
    def _early_from(self) -> float:
        return -math.inf


class _Joins(Node):
    """Takes a row through `_join` alone, for those that do it in another way."""

    server: Any

    def _want_row(self, now: float) -> None:
        if not self._wants_row:
            self._wants_row = True
            self._join(now)


@NODES.of("new_row")
class OldRow(_Joins):
    def _join(self, now: float) -> None:
        self.id = self.server.first_id = self.server.first_id or self._new_id()
        self._registered, self._reported_seq = False, -1
        self.woken(now)


@NODES.of("register")
class ReadsFirst(_Joins):
    def _join(self, now: float) -> None:
        self.id = self._new_id()
        row, store = self._row(), self.server.w.store
        self._registered, self._reported_seq = True, -1
        self.server.later(1.0, lambda: self.server.w.rpc(self.server, lambda: store.ask(Register(row)), lambda _: None))
        self.woken(now)

    def _renewed(self, asked: Any, answer: Renewed, now: float) -> None:
        super()._renewed(asked, replace(answer, there=True), now)


@NODES.of("clip")
class GrantsAll(Node):
    def _clipped(self, now: float) -> float:
        return self.terms.lease_for


@NODES.of("stamp")
class OneStamp(Node):
    def _row(self) -> NodeRow:
        return replace(super()._row(), stamp="always the same")


@NODES.of("own_clock")
class AsksTheStore(Node):
    server: Any

    def _has_acknowledged(self, row: NodeRow, fence: Any) -> bool:
        store = self.server.w.store
        return super()._has_acknowledged(row, fence) or store.until.get(row.id, 0.0) < store.wall()


@NODES.of("not_behind")
class SendsBack(Node):
    def _is_behind(self, poll: Poll) -> bool:
        return poll.log_epoch > self.log_epoch

    def _consider(self, hanging: Any, now: float) -> None:
        if hanging.poll.log_epoch == self.log_epoch and hanging.poll.applied_seq > self.applied_seq:
            self._answer(hanging, now)
        else:
            super()._consider(hanging, now)

    def _answer(self, hanging: Any, now: float, **named: Any) -> None:
        if hanging.poll.log_epoch == self.log_epoch and hanging.poll.applied_seq > self.applied_seq:
            if self._hanging.get(hanging.who) is hanging:
                del self._hanging[hanging.who]
            hanging.poll = replace(hanging.poll, applied_seq=0)
        super()._answer(hanging, now, **named)


@NODES.of("deadline")
class Prolongs(Node):
    def _answer(self, *args: Any, **named: Any) -> None:
        holders = self._holders

        def grant(who: Holder, head: int, *rest: Any) -> None:
            held = holders._by_id[who]
            held.grants = [(held.acked, until) for _, until in held.grants]
            holders.grant(who, held.acked, *rest)

        self._holders = _Held(holders, grant)  # type: ignore[assignment]
        super()._answer(*args, **named)
        self._holders = holders

    def fence(self, *args: Any, **named: Any) -> Any:
        late, self._late = self._late, lambda: 1e6  # type: ignore[method-assign]
        fence = super().fence(*args, **named)
        self._late = late  # type: ignore[method-assign]
        return fence


@NODES.of("row_first")
class GrantsFirst(Node):
    def _renewed(self, asked: Any, answer: Renewed, now: float) -> None:
        super()._renewed(asked, answer, now)
        if answer.log_epoch == self.log_epoch and answer.head <= self.applied_seq:
            self._lease.extend(asked.sent_at, self.terms.lease_for)


@NODES.of("row_kept")
class ForgetsRow(Node):
    def _is_needed(self) -> bool:
        return bool(self._judges or self._hanging)


@NODES.of("row_left")
class ForgetsRowAtStop(Node):
    def _is_owed(self, now: float) -> bool:
        return False


@NODES.of("stop_first")
class JudgesOn(Node):
    def stop(self, now: float) -> None:
        until = self._lease.until
        super().stop(now)
        self._lease.until = until


@NODES.of("rows_looked_at")
class Alone(Node):
    def fence(self, seq: int, log_epoch: int, now: float, **named: Any) -> Any:
        fence = super().fence(seq, log_epoch, now, **named)
        if not self._registered:
            fence.rows_seen = self._changed = True
            self._settle(now)
        return fence


@NODES.of("longest_lease")
class ForgetsLonger(Node):
    def _late(self) -> float:
        return self.terms.guarded(self.terms.lease_for)
