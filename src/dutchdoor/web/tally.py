"""What this process has done in the last hour, day and month, for the console: refreshes, and how long fences took.

An ordinary refresh writes no audit event, and neither does a fence. So no other process knows of them, and a restart
forgets them. The counts of the three spans are kept apart, 84 in all, however much happens.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

from msgspec import Struct

from dutchdoor.services.hooks import Hooks

__all__ = ["SPANS", "Counts", "Tally"]

SPANS: Final = {"1h": (120, 30), "24h": (3600, 24), "30d": (86_400, 30)}
"""By name: the seconds of one step, and the number of steps."""


class Counts(Struct):
    """What happened in one step."""

    number: int
    """Of the step, since 1970."""
    refreshed: int = 0
    refused: int = 0
    fences: int = 0
    waited: float = 0.0
    """Seconds, of all fences."""
    slowest: float = 0.0


class Tally:
    """Counts what happens in this process from now on."""

    def __init__(self, hooks: Hooks, clock: Callable[[], float]) -> None:
        self.began, self._clock = clock(), clock
        self._kept: dict[str, deque[Counts]] = {name: deque(maxlen=steps) for name, (_, steps) in SPANS.items()}
        hooks.refreshed.append(self._refreshed)
        hooks.fence_waited.append(self._fenced)

    def _now(self) -> list[Counts]:
        """Return the counts of the present step of each span."""
        now, found = self._clock(), []
        for name, (step, _) in SPANS.items():
            kept, number = self._kept[name], int(now // step)
            if not kept or kept[-1].number < number:  # a clock that steps back goes on with the newest
                kept.append(Counts(number))
            found.append(kept[-1])
        return found

    def _refreshed(self, was_accepted: bool) -> None:  # noqa: FBT001 - as the hook calls it
        for counts in self._now():
            counts.refreshed += was_accepted
            counts.refused += not was_accepted

    def _fenced(self, _state: str, took: float) -> None:
        for counts in self._now():
            counts.fences += 1
            counts.waited += took
            counts.slowest = max(counts.slowest, took)

    def steps(self, span: str, first: int) -> list[Counts]:
        """Return the counts of each step of a span, from the one with the number `first`."""
        by_number = {counts.number: counts for counts in self._kept[span]}
        return [by_number.get(number, Counts(number)) for number in range(first, first + SPANS[span][1])]
