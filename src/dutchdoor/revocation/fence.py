"""A fence: the wait from a commit until no verifier can accept what the commit revoked."""

from __future__ import annotations

import math
from typing import Literal, TypeAlias

__all__ = ["Fence", "FenceState"]

FenceState: TypeAlias = Literal["pending", "acknowledged", "elapsed", "lost"]


class Fence:
    """One revocation's fence, as the node that reports it sees it.

    `state` is `pending`, then `acknowledged` (every holder of a lease acknowledged the entry) or `elapsed` (every lease
    without the entry has run out), both of which are fenced; or `lost`: another log began, and the state of this
    revocation is unknown.
    """

    __slots__ = (
        "after_question", "alone", "deadline", "log_epoch", "rows_seen", "seq", "state",
    )  # fmt: skip

    def __init__(self, seq: int, log_epoch: int, *, deadline: float, after_question: int, alone: bool = False) -> None:
        self.seq, self.log_epoch = seq, log_epoch
        self.alone = alone
        """Whether no node had a row at the commit: then no verifier had a lease."""
        self.after_question = after_question
        """The node's last read of the store when the fence began: rows from an earlier read say nothing about it."""
        self.deadline = deadline
        """Elapsed time at which the revocation is fenced even if some holders are silent."""
        self.rows_seen = False
        """Whether a read after the commit showed that every other node has acknowledged the entry or is gone."""
        self.state: FenceState = "pending"

    @property
    def fenced(self) -> bool:
        return self.state in {"acknowledged", "elapsed"}

    def due_in(self, now: float) -> float:
        """Seconds until the revocation is fenced at the latest. Infinite if it never will be."""
        if self.state == "pending":
            return max(0.0, self.deadline - now)
        return math.inf if self.state == "lost" else 0.0

    def due_in_ms(self, now: float) -> int | None:
        """The same in milliseconds, rounded up: the `fenced_in_ms` of an answer. None if it never will be fenced."""
        due_in = self.due_in(now)
        return math.ceil(due_in * 1000) if math.isfinite(due_in) else None
