"""Which holders have a lease from this node, and which entries each holder has acknowledged.

A fence needs one number: up to which `seq` does no lease lack an entry? A lease granted after an entry was applied
includes the entry. So only older leases delay a fence, each until it runs out or its holder acknowledges the entry.
Hence a silent holder delays a fence by one lease plus clock margin at most, however often it polls. A holder that polls
for ever and never acknowledges soon gets no lease.

Two heaps, which may contain stale items, keep every call at O(log n) in the number of holders.
"""

from __future__ import annotations

import heapq
import math
from typing import Final, NamedTuple

from dutchdoor.revocation.lease import Terms

__all__ = ["Holder", "Holders"]

_GRANTS_APART: Final = 8
_OWED_FOR: Final = 2
"""Leases a verifier may let run out with unacknowledged entries before it gets no more."""


class Holder(NamedTuple):
    """A process that polls. Its id is bound to its credential: no client can acknowledge in another's name."""

    credential: str
    id: str


class _Held:
    __slots__ = ("acked", "due", "grants", "level", "owes", "owes_since", "polled_at")

    def __init__(self) -> None:
        self.acked = -1
        self.grants: list[tuple[int, float]] = []
        """What each lease included, and when it runs out."""
        self.level: float = math.inf
        self.due = 0.0
        self.polled_at = 0.0
        self.owes = -1
        """The first granted `seq` that the holder has not acknowledged, or -1."""
        self.owes_since = 0.0


class Holders:
    """The leases of one node, in one log epoch."""

    __slots__ = ("_by_id", "_ends", "_levels", "_per_credential", "_terms")

    def __init__(self, terms: Terms) -> None:
        self._terms = terms
        self._by_id: dict[Holder, _Held] = {}
        self._ends: list[tuple[float, Holder]] = []
        self._levels: list[tuple[float, Holder]] = []
        self._per_credential: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._by_id)

    def polled(self, who: Holder, now: float) -> bool:
        """Record a poll. Returns False when the credential has its maximum of holders: this holder gets no lease."""
        held = self._by_id.get(who)
        if held is None:
            count = self._per_credential.get(who.credential, 0)
            if count >= self._terms.leases:
                return False
            self._per_credential[who.credential] = count + 1
            held = self._by_id[who] = _Held()
            held.due = now + self._forgotten_in
            heapq.heappush(self._ends, (held.due, who))
        held.polled_at = now
        return True

    def acknowledge(self, who: Holder, seq: int, now: float) -> None:
        """Record that every thread of a holder sees all entries up to `seq`."""
        held = self._by_id.get(who)
        if held is None or seq <= held.acked:
            return
        held.acked = seq
        if held.owes != -1 and seq >= held.owes:
            held.owes = -1
        old = [until for head, until in held.grants if head <= seq]
        if old:
            held.grants = [(seq, max(old)), *(grant for grant in held.grants if grant[0] > seq)]
        self._weigh(who, held, now)

    def may_have(self, who: Holder, now: float) -> bool:
        """Whether a holder may get a lease: it is known, and has not let two run out with unacknowledged entries."""
        held = self._by_id.get(who)
        if held is None:
            return False
        return held.owes == -1 or now - held.owes_since <= _OWED_FOR * self._terms.lease_for

    def grant(self, who: Holder, head: int, until: float, now: float) -> None:
        """Record a lease that includes every entry up to `head`, before the answer is sent."""
        held = self._by_id[who]
        grants = held.grants
        if grants and grants[-1][0] == head:
            grants[-1] = head, max(grants[-1][1], until)
        else:
            grants.append((head, until))
        if len(grants) > _GRANTS_APART:
            # Treated as one lease with the lower `seq` and the later end: a fence may then take longer, but is never
            # early.
            grants[:2] = [(grants[0][0], max(grants[0][1], grants[1][1]))]
        if held.acked < head and held.owes == -1:
            held.owes, held.owes_since = head, now
        self._weigh(who, held, now)

    def leased(self, who: Holder, now: float) -> bool:
        """Whether a holder has a lease from this node that has not run out."""
        held = self._by_id.get(who)
        return held is not None and any(until > now for _, until in held.grants)

    def level(self, now: float) -> float:
        """Return the highest `seq` up to which no lease lacks an entry; infinity when there is no lease."""
        while self._ends and self._ends[0][0] <= now:
            due, who = heapq.heappop(self._ends)
            held = self._by_id.get(who)
            if held is not None and held.due == due:
                self._weigh(who, held, now)
        while self._levels:
            level, who = self._levels[0]
            held = self._by_id.get(who)
            if held is not None and held.level == level:
                return level
            heapq.heappop(self._levels)
        return math.inf

    @property
    def next_end(self) -> float:
        """When to check `level` again although no holder has polled."""
        return self._ends[0][0] if self._ends else math.inf

    def shown(self, now: float) -> list[tuple[Holder, int, float]]:
        """Return every holder, what it has acknowledged (-1: nothing), and the seconds left of its lease."""
        return [
            (who, held.acked, max(0.0, max((until for _, until in held.grants), default=0.0) - now))
            for who, held in self._by_id.items()
        ]

    @property
    def _forgotten_in(self) -> float:
        return self._terms.guarded(self._terms.lease_for)

    def _weigh(self, who: Holder, held: _Held, now: float) -> None:
        """Find the `seq` up to which a holder's live leases lack no entry, and when that changes by itself."""
        held.grants = [grant for grant in held.grants if grant[1] > now]
        level: float = max(held.acked, min(head for head, _ in held.grants)) if held.grants else math.inf
        if level != held.level:
            held.level = level
            if held.grants:
                heapq.heappush(self._levels, (level, who))
                if len(self._levels) > 64 + 4 * len(self._by_id):
                    self._levels = [(held.level, who) for who, held in self._by_id.items() if held.grants]
                    heapq.heapify(self._levels)
        due = min((until for _, until in held.grants), default=held.polled_at + self._forgotten_in)
        if due <= now and not held.grants:
            # Its unacknowledged entries are remembered for as long as it polls.
            self._forget(who)
            return
        if due != held.due:
            held.due = due
            heapq.heappush(self._ends, (due, who))

    def _forget(self, who: Holder) -> None:
        del self._by_id[who]
        left = self._per_credential[who.credential] - 1
        if left:
            self._per_credential[who.credential] = left
        else:
            del self._per_credential[who.credential]
