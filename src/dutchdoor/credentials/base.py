"""The protocol that each kind of credential in this package implements.

A new kind is one file here, and one line where the application is composed (`Directory(methods=...)`). It imports no
other kind and does no I/O: it takes the record, and returns what to store.
"""

from __future__ import annotations

from typing import Protocol

from msgspec import Struct

from dutchdoor.model.accounts import Credential

__all__ = ["Checked", "Method"]


class Checked(Struct, frozen=True):
    """The result of a right response."""

    spent: Credential | None = None
    """The record after this response was used (a raised counter, a code less), or None if it stays the same. The
    transaction that uses the proof swaps the record: of two uses of one response, only one succeeds.
    """
    amr: tuple[str, ...] = ()
    """What it proved (RFC 8176), where that depends on the response; else the method's own."""


class Method(Protocol):
    """One kind of credential. Its record is the `Credential` with this method and the handle that `handle_of`
    returns.
    """

    @property
    def name(self) -> str:
        """The method of its records, such as `password`."""
        ...

    @property
    def amr(self) -> str:
        """Its authentication method reference (RFC 8176), such as `pwd`."""
        ...

    @property
    def second(self) -> bool:
        """Whether an account with such a record must prove it after a first proof."""
        ...

    def handle_of(self, response: str) -> str:
        """Return the handle of the record that a response is for: empty if an account has at most one."""
        ...

    async def check(self, record: Credential | None, response: str, now: float) -> Checked | None:
        """Check a response; return None if it is wrong. Without a record, do the same work and return None: the time
        must not reveal which accounts have one.

        Raises:
            InvalidInput: the response is malformed, whatever the record.
            Unavailable: too many hashes are waiting; nothing was checked.
        """
        ...

    async def upgraded(self, record: Credential, response: str) -> Credential | None:
        """Return the record in a better form after a right response, or None if it needs no change. The caller tries to
        store it, and the sign-in succeeds even if that fails.
        """
        ...
