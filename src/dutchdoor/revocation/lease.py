"""Leases: for how long a holder may trust what it knows, without comparing clocks.

After Gray and Cheriton, "Leases: an efficient fault-tolerant mechanism for distributed file cache consistency" (1989).
A lease is a duration, never an instant, because an instant of one machine means nothing on another. Two clocks of
elapsed time may run at different rates: each within `DRIFT` of true time. So the holder counts a lease from the moment
it *sent* its request. The grantor counts `GUARD` times as long, from the moment it *received* the request. When the
grantor's count ends, the holder's lease has run out, even if the holder's clock is slow.

The clock must go on while the process is stopped and while the machine sleeps: CLOCK_BOOTTIME where it exists, never
the time of day, which steps.
"""

from __future__ import annotations

from typing import Final

from msgspec import Struct

from dutchdoor.errors import Misconfigured

__all__ = ["CLOCKS_APART", "DRIFT", "GUARD", "WAITS_FOR", "Lease", "Terms"]

DRIFT: Final = 0.1
"""How far the rate of an elapsed-time clock may be from true. Real clocks are a thousand times better, but not in a
virtual machine on a bad host. The cost of this margin is a fifth of a lease."""
GUARD: Final = (1 + DRIFT) / (1 - DRIFT)
CLOCKS_APART: Final = 300.0
"""Seconds by which any two wall clocks may differ, or one may step. It decides only how long entries are kept."""
WAITS_FOR: Final = 2.5
"""Seconds for which a verifier asks a node to hold a poll open until there is news."""

SHORTEST, LONGEST = 1.0, 300.0


class Terms(Struct, frozen=True, kw_only=True):
    """The terms of a lease. Raises `Misconfigured` for a length that is out of bounds."""

    lease_for: float = 10.0
    """Seconds. The longest a fence takes (times `GUARD`). See `survives` for the outage that checks survive."""
    guard: float = GUARD
    kept_for: float = 2 * CLOCKS_APART
    """Seconds an entry is kept after its `expires_at`: for a clock that is behind, and for the step that set it
    back.
    """
    page: int = 4096
    """Entries in one answer, about 50 bytes each."""
    leases: int = 4096
    """Processes that one verifier key may have as holders at a time."""

    def __post_init__(self) -> None:
        if not SHORTEST <= self.lease_for <= LONGEST:
            raise Misconfigured("A lease is 1 to 300 seconds; 10 is right for nearly everyone.")

    @property
    def hang_for(self) -> float:
        """The longest a poll waits for news."""
        return self.lease_for / 4

    @property
    def renew_every(self) -> float:
        return self.lease_for / 6

    @property
    def survives(self) -> tuple[float, float]:
        """Seconds for which a verifier continues when the authority stops while the log is quiet: at least, and at
        most.

        A verifier gets what is left of the node's own lease, divided by `guard`; the node renews its own `renew_every`.
        The verifier counts from the moment it sent a poll that was held open, and the next answer is due just as much
        later.
        """
        hangs = min(WAITS_FOR, self.hang_for)
        least = (self.lease_for - self.renew_every) / self.guard - 2 * hangs
        return least, self.lease_for / self.guard - hangs

    def guarded(self, lease_for: float) -> float:
        """How long a grantor waits until a lease has run out on every holder's clock."""
        return lease_for * self.guard


class Lease:
    """A lease as its holder counts it: on the holder's own clock, from the moment the request was sent."""

    __slots__ = ("until",)

    def __init__(self) -> None:
        self.until = -1.0

    def extend(self, sent_at: float, lease_for: float) -> None:
        """Take a grant. A late answer leaves that much less of the lease, and never shortens an earlier grant."""
        self.until = max(self.until, sent_at + lease_for)

    def left(self, now: float) -> float:
        return self.until - now

    def drop(self) -> None:
        """Trust nothing until the next grant."""
        self.until = -1.0
