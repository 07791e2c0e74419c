"""A fence: the wait from a commit until nobody can accept what it revoked."""

from __future__ import annotations

import math
from typing import Literal

__all__ = ["Fence"]


class Fence:
    """One revocation's fence, as the node that reports it sees it.

    `state` is `pending`, then `acknowledged` (everybody said so) or `elapsed` (every lease without the entry has run
    out), both of which are fenced; or `lost`: another log began, and nothing is known of this revocation any more.
    """

    __slots__ = (
        "after_question", "alone", "deadline", "log_epoch", "rows_seen", "seq", "state",
    )  # fmt: skip

    def __init__(self, seq: int, log_epoch: int, *, deadline: float, after_question: int, alone: bool = False) -> None:
        self.seq, self.log_epoch = seq, log_epoch
        self.alone = alone
        """Whether no node had a row at the commit: then nobody had a lease."""
        self.after_question = after_question
        """The node's last question to the store when this began: rows that an earlier one read say nothing about it."""
        self.deadline = deadline
        """Elapsed time at which it is true whoever is silent."""
        self.rows_seen = False
        """Whether, after the commit, every other node was seen to have acknowledged it or to be gone."""
        self.state: Literal["pending", "acknowledged", "elapsed", "lost"] = "pending"

    @property
    def fenced(self) -> bool:
        return self.state in {"acknowledged", "elapsed"}

    def due_in(self, now: float) -> float:
        """Seconds until it holds at the latest. Infinite when it never will."""
        if self.state == "pending":
            return max(0.0, self.deadline - now)
        return math.inf if self.state == "lost" else 0.0

    def due_in_ms(self, now: float) -> int | None:
        """The same in milliseconds, rounded up: what an answer says as `fenced_in_ms`. None when it never will hold."""
        due_in = self.due_in(now)
        return math.ceil(due_in * 1000) if math.isfinite(due_in) else None
