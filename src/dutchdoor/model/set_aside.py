"""What was added to an account shortly before its password was reset, and does not sign in until its owner keeps it.

It is stored under a method of its own, so that nothing finds it by accident: no sign-in, and no list of ways in.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec
from msgspec import Struct

from dutchdoor.model.accounts import Credential
from dutchdoor.model.policy import DAY

__all__ = ["PREPARED_FOR", "SET_ASIDE", "aside", "name_of", "put_back", "still_asked"]

SET_ASIDE: Final = "set_aside"
"""The method of a record that holds another one."""
PREPARED_FOR: Final = 7 * DAY
"""Seconds before an account is taken back in which a thief may have prepared it: a passkey or another log-in that was
added then could sign them in again. People read their mail within a week.
"""


class Held(Struct, frozen=True, kw_only=True):
    """The payload of the record."""

    method: str
    handle: str
    proof: str
    created_at: float
    asked: bool
    """Whether it is still asked for as a second step: of an account whose factors are never removed by mail."""


def name_of(credential: Credential) -> str:
    """Return the handle under which a credential is set aside. The handle of some is empty, in each account."""
    return f"{credential.method} {credential.handle or credential.subject}"


def aside(credential: Credential, now: float, *, asked: bool) -> Credential:
    """Return the record that holds a credential that is set aside. `asked` says whether it stays a second step."""
    held = Held(
        method=credential.method,
        handle=credential.handle,
        proof=credential.proof,
        created_at=credential.created_at,
        asked=asked,
    )
    return Credential(
        subject=credential.subject,
        method=SET_ASIDE,
        handle=name_of(credential),
        proof=msgspec.json.encode(held).decode(),
        created_at=now,
    )


def put_back(record: Credential) -> Credential:
    """Return the credential that a record holds, as it was."""
    held = _read(record)
    return Credential(
        subject=record.subject,
        method=held.method,
        handle=held.handle,
        proof=held.proof,
        created_at=held.created_at,
    )


def still_asked(held: Iterable[Credential]) -> Sequence[Credential]:
    """Return the credentials of an account that are set aside and still asked for as a second step. `held` are all that
    it has.
    """
    return [put_back(each) for each in held if each.method == SET_ASIDE and _read(each).asked]


def _read(record: Credential) -> Held:
    return msgspec.json.decode(record.proof, type=Held)
