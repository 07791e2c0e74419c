"""A departure: an account that its owner has deleted, and that is erased when its time is over.

Until then the account is disabled, and a mailed link brings it back.
"""

from __future__ import annotations

from msgspec import Struct

__all__ = ["Departure"]


class Departure(Struct, frozen=True, kw_only=True):
    """It goes with the account, when that is erased, and without it, when the owner keeps the account."""

    subject: str
    asked_at: float
    due_at: float
    """From then on, the account is erased by the next process that looks."""
    is_final: bool = False
    """Whether an administrator deleted or disabled the account: then no link brings it back."""
    revision: int = 0
