"""Leases: for how long a holder may trust what it knows, by clocks that nobody compares.

After Gray and Cheriton, "Leases: an efficient fault-tolerant mechanism for distributed file cache consistency" (1989).
A lease is a duration, never an instant, because an instant of one machine means nothing on another. Two clocks of
elapsed time may run at different rates: each within `DRIFT` of true time. So the holder counts a lease from the moment
it *sent* its request, and the grantor counts it longer by `GUARD`, from the moment the request was *received*: by then
the holder's has run out, whoever's clock is slow.

The clock must run on while the process is stopped and while the machine sleeps: CLOCK_BOOTTIME where there is one, and
never the time of day, which steps.
"""

from __future__ import annotations

from typing import Final

from msgspec import Struct

from dutchdoor.errors import Misconfigured

__all__ = ["CLOCKS_APART", "DRIFT", "GUARD", "WAITS_FOR", "Lease", "Terms"]

DRIFT: Final = 0.1
"""How far the rate of an elapsed-time clock may be from true. Real ones are a thousand times better; a virtual machine
under a bad host is not, and the price is a fifth of a lease."""
GUARD: Final = (1 + DRIFT) / (1 - DRIFT)
CLOCKS_APART: Final = 300.0
"""Seconds by which any two wall clocks may differ, or one may step. Decides only how long entries are kept."""
WAITS_FOR: Final = 2.5
"""Seconds for which a verifier asks a node to hold a poll back until there is news."""

SHORTEST, LONGEST = 1.0, 300.0


class Terms(Struct, frozen=True, kw_only=True):
    """What leases are granted on. Raises `Misconfigured` for a lease that is none."""

    lease_for: float = 10.0
    """Seconds. The longest a fence takes (times `GUARD`). Of the outage that checks survive see `survives`."""
    guard: float = GUARD
    kept_for: float = 2 * CLOCKS_APART
    """Seconds an entry outlives its `expires_at`: a clock that is behind, and the step that put it there."""
    page: int = 4096
    """Entries in one answer, about 50 bytes each."""
    leases: int = 4096
    """Holders that one credential may have at a time."""

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
        """Seconds for which a verifier goes on when the authority stops while the log is quiet: at least, and at most.

        It is granted what is left of the node's own lease, over `guard`, and the node's is renewed `renew_every`. It
        counts that from the sending of a poll that hung, and the next answer is due as much later.
        """
        hangs = min(WAITS_FOR, self.hang_for)
        least = (self.lease_for - self.renew_every) / self.guard - 2 * hangs
        return least, self.lease_for / self.guard - hangs

    def guarded(self, lease_for: float) -> float:
        """How long a grantor waits until a lease has run out on any holder's clock."""
        return lease_for * self.guard


class Lease:
    """A lease as its holder counts it: on its own clock, from the moment the request was sent."""

    __slots__ = ("until",)

    def __init__(self) -> None:
        self.until = -1.0

    def extend(self, sent_at: float, lease_for: float) -> None:
        """Take a grant. An answer that comes late is shorter by as much, and never shortens another."""
        self.until = max(self.until, sent_at + lease_for)

    def left(self, now: float) -> float:
        return self.until - now

    def drop(self) -> None:
        """Trust nothing until the next grant."""
        self.until = -1.0
