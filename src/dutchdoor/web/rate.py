"""Limits that one process keeps for itself: against wearing the server out, not against guessing.

A refresh that finds nothing to change writes nothing, so counting refreshes in the store would cost more than serving
them. What protects a secret is counted in the store, over all processes.
"""

from __future__ import annotations

from collections.abc import Sequence

from dutchdoor.errors import RateLimited
from dutchdoor.model.rate_limits import Bucket, decide_all

__all__ = ["LocalBuckets"]

_AT_MOST = 100_000
"""Buckets, some 20 MB. Beyond it the oldest half is forgotten: an attacker with that many names is not stopped by
names.
"""


class LocalBuckets:
    """Buckets in memory. Not shared, not durable, bounded."""

    __slots__ = ("_tats",)

    def __init__(self) -> None:
        self._tats: dict[str, float] = {}

    def take(self, buckets: Sequence[Bucket], now: float) -> None:
        """Count one attempt. Raises `RateLimited` when a bucket is empty, and charges none of them then."""
        verdict = decide_all([self._tats.get(bucket.key) for bucket in buckets], buckets, now)
        if len(self._tats) >= _AT_MOST:
            for old in list(self._tats)[: _AT_MOST // 2]:
                del self._tats[old]
        for bucket, tat in zip(buckets, verdict.tats, strict=True):
            if tat is not None:
                self._tats.pop(bucket.key, None)  # to the end: the oldest are forgotten first
                self._tats[bucket.key] = tat
        if verdict.retry_after > 0:
            raise RateLimited(verdict.refused_by, retry_after=verdict.retry_after)
