"""The waiting time after which second factors that are lost can be removed by mail."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, Self

from msgspec import Struct

from dutchdoor.model.accounts import Account, Credential

__all__ = ["REMOVAL", "Removal", "removable_at"]

REMOVAL: Final = "factor_removal"
"""The method of a record without a secret: the waiting time of an account. Every sign-in reads it, and removes it."""


class Removal(Struct, frozen=True, kw_only=True):
    """A waiting time that has begun."""

    due_at: float
    """When the factors can be removed."""
    until: float
    """When they can be removed no more."""
    epoch: int
    """Of the account when it began: a new password, or a sign-out everywhere, ends it."""

    def is_live(self, account: Account, now: float) -> bool:
        """Return whether it still runs, or is over and not used."""
        return account.epoch == self.epoch and now < self.until

    def record(self, subject: str, now: float) -> Credential:
        """Return the record that is stored of it."""
        proof = f"{self.due_at!r} {self.until!r} {self.epoch}"
        return Credential(subject=subject, method=REMOVAL, handle="", proof=proof, created_at=now)

    @classmethod
    def read(cls, record: Credential) -> Self:
        """Read what `record` wrote."""
        due_at, until, epoch = record.proof.split()
        return cls(due_at=float(due_at), until=float(until), epoch=int(epoch))


def removable_at(account: Account, held: Iterable[Credential], now: float) -> float | None:
    """Return the instant from which the factors of an account can be removed, by its credentials; None for never."""
    found = (Removal.read(each) for each in held if each.method == REMOVAL)
    return next((each.due_at for each in found if each.is_live(account, now)), None)
