"""Rate limits of a single process: against overload (denial of service), not against guessing.

A refresh that changes nothing does not write, so counting refreshes in the store would cost more than answering them.
Limits that protect a secret are counted in the store, over all processes.
"""

from __future__ import annotations

from collections.abc import Sequence

from dutchdoor.errors import RateLimited
from dutchdoor.model.rate_limits import Bucket, decide_all

__all__ = ["LocalBuckets"]

_AT_MOST = 100_000
"""Number of buckets, about 20 MB. Above it, the oldest half is dropped: limits by name cannot stop an attacker with
that many names.
"""


class LocalBuckets:
    """Buckets in memory: limited in number, not shared, and not durable."""

    __slots__ = ("_tats",)

    def __init__(self) -> None:
        self._tats: dict[str, float] = {}

    def take(self, buckets: Sequence[Bucket], now: float) -> None:
        """Count one attempt. If a bucket is empty, charge none of them and raise `RateLimited`."""
        verdict = decide_all([self._tats.get(bucket.key) for bucket in buckets], buckets, now)
        if len(self._tats) >= _AT_MOST:
            for old in list(self._tats)[: _AT_MOST // 2]:
                del self._tats[old]
        for bucket, tat in zip(buckets, verdict.tats, strict=True):
            if tat is not None:
                self._tats.pop(bucket.key, None)  # move to the end: the oldest are dropped first
                self._tats[bucket.key] = tat
        if verdict.retry_after > 0:
            raise RateLimited(verdict.refused_by, retry_after=verdict.retry_after)
