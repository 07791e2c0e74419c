"""Limits that one process keeps for itself: against wearing the server out, not against guessing.

A refresh that finds nothing to change writes nothing, so counting refreshes in the store would cost more than serving
them. What protects a secret is counted in the store, over all processes.
"""

from __future__ import annotations

from dutchdoor.errors import RateLimited
from dutchdoor.model.rate_limits import Limit, decide

__all__ = ["LocalBuckets"]

_AT_MOST = 100_000
"""Buckets, some 20 MB. Beyond it the oldest half is forgotten: an attacker with that many names is not stopped by
names.
"""


class LocalBuckets:
    """Buckets in memory. Not shared, not durable, bounded."""

    __slots__ = ("_tats",)

    def __init__(self) -> None:
        self._tats: dict[tuple[str, str], float] = {}

    def take(self, limit: Limit, key: str, now: float) -> None:
        """Count one attempt. Raises `RateLimited` when the bucket is empty."""
        name = limit.name, key
        decision = decide(self._tats.pop(name, None), limit, now)
        if len(self._tats) >= _AT_MOST:
            for old in list(self._tats)[: _AT_MOST // 2]:
                del self._tats[old]
        self._tats[name] = decision.tat
        if decision.retry_after > 0:
            raise RateLimited(limit.name, retry_after=decision.retry_after)
