"""What a way to prove who one is has to offer: the protocol that each file of this folder implements.

A new way is one file here, and one line where the application is put together (`Directory(methods=...)`). It imports no
other way, reads nothing and writes nothing: the record comes in, and what has to be stored goes out.
"""

from __future__ import annotations

from typing import Protocol

from msgspec import Struct

from dutchdoor.model.accounts import Credential

__all__ = ["Checked", "Method"]


class Checked(Struct, frozen=True):
    """A response that was right."""

    spent: Credential | None = None
    """The record as it must stand once this response was used (a counter, a code less), or None if it stays as it is.
    It is swapped in the transaction that uses the proof: of two uses of one response, one succeeds.
    """


class Method(Protocol):
    """One way to prove who one is. Its record is the `Credential` with this method and the handle that it names."""

    @property
    def name(self) -> str:
        """The method of its records: `password`."""
        ...

    @property
    def amr(self) -> str:
        """Its authentication method reference (RFC 8176): `pwd`."""
        ...

    @property
    def second(self) -> bool:
        """Whether it is asked for after a first proof, of each account that has such a record."""
        ...

    def handle_of(self, response: str) -> str:
        """Give the handle of the record that a response is for: empty where an account has one at most."""
        ...

    async def check(self, record: Credential | None, response: str, now: float) -> Checked | None:
        """Check a response, or give None where it is wrong. Without a record, do the same work and give None: the time
        must not tell which accounts have one.

        Raises:
            InvalidInput: the response cannot be one, whatever the record.
            Unavailable: too much is waiting; nothing was checked.
        """
        ...

    async def upgraded(self, record: Credential, response: str) -> Credential | None:
        """Give a record in a better form for a response that was right, or None if it is as good as can be. It is
        stored when that can be done, and the sign-in goes on without.
        """
        ...
