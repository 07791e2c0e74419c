"""The bundled directory of accounts: who can sign in, and what proves it.

An application that brings its own users has accounts too, bare ones: a subject, an epoch and a status, without an
e-mail address. They are what a session's end and a ban hang on.
"""

from __future__ import annotations

import math
import re
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from dutchdoor.errors import InvalidInput
from dutchdoor.model.email_address import canonical, mailbox
from dutchdoor.model.ids import new_id

__all__ = ["Account", "Credential", "bare_account", "new_account", "renewed", "with_roles"]


class Account(Struct, frozen=True, kw_only=True):
    """A directory entry. `revision` is the store's: it rises by one at every write."""

    subject: str
    email: str | None
    """What it is found by (`canonical`), unique. None for an account whose directory is elsewhere."""
    address: str | None
    """Where mail goes (`mailbox`). It differs from `email` by ASCII case at most."""
    name: str
    roles: tuple[str, ...]
    status: Literal["active", "disabled"]
    email_verified_at: float | None
    epoch: int
    """Copied into every token; raising it kills all that carry a lower one."""
    created_at: float
    revision: int = 0

    @property
    def active(self) -> bool:
        return self.status == "active"


class Credential(Struct, frozen=True, kw_only=True):
    """An enrolled means of proof. `proof` is opaque to stores, so that a new kind needs no migration."""

    subject: str
    method: str
    handle: str
    """Tells two of one method apart: a passkey's id; empty for the one password."""
    proof: str
    created_at: float
    """When its owner chose it (`renewed`). A proof that is only hashed anew keeps it."""
    revision: int = 0

    def __repr__(self) -> str:
        return f"Credential(subject={self.subject!r}, method={self.method!r})"


def renewed(credential: Credential, proof: str, now: float) -> Credential:
    """Give a credential the proof that its owner chooses now. `created_at` rises whatever the clock says: it is what
    makes known-device cookies of the password before void.
    """
    return replace(credential, proof=proof, created_at=max(now, math.nextafter(credential.created_at, math.inf)))


def new_account(*, address: str, name: str, now: float, roles: tuple[str, ...] = (), verified: bool = False) -> Account:
    """Create an account for a mailbox. Raises `InvalidInput` for what is no address."""
    return Account(
        subject=new_id(),
        email=canonical(address),
        address=mailbox(address),
        name=name,
        roles=roles,
        status="active",
        email_verified_at=now if verified else None,
        epoch=0,
        created_at=now,
    )


# As OpenID Connect bounds a `sub`, and without spaces around it. Subjects are sent in a header: a line break in one
# would be a header of its own, of roles perhaps, and "admin " would arrive as "admin".
_SUBJECT = re.compile(r"[!-~](?:[ -~]{0,253}[!-~])?")


def bare_account(subject: str, now: float, *, epoch: int = 0) -> Account:
    """Make an account for a subject that somebody else named. Raises `InvalidInput` for what no header can carry.

    `epoch` is above any that was ever given out: the subject may have had an account before, which a restore lost.
    """
    if not _SUBJECT.fullmatch(subject):
        raise InvalidInput(
            "A subject is 1 to 255 printable ASCII characters, none at its ends a space.", field="subject"
        )
    return Account(
        subject=subject,
        email=None,
        address=None,
        name="",
        roles=(),
        status="active",
        email_verified_at=None,
        epoch=epoch,
        created_at=now,
    )


def with_roles(account: Account, roles: tuple[str, ...]) -> Account:
    """Give an account other roles. Its epoch rises: tokens that carry the old roles are stale, its sessions live on."""
    return replace(account, roles=tuple(sorted(set(roles))), epoch=account.epoch + 1)
