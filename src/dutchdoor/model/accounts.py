"""The bundled directory of accounts: who can sign in, and with which credentials.

An application with its own user directory has external accounts: a subject, an epoch and a status, without an e-mail
address. Sessions are revoked and subjects disabled through them.
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

__all__ = ["ADMIN", "Account", "Credential", "external_account", "new_account", "renewed", "with_roles"]

ADMIN = "admin"
"""The role of administrators."""


class Account(Struct, frozen=True, kw_only=True):
    """A directory entry. The store raises `revision` by one at every write."""

    subject: str
    email: str | None
    """The unique address the account is found by (`canonical`). None for an external account."""
    address: str | None
    """The address for mail (`mailbox`). It differs from `email` by ASCII case at most."""
    name: str
    roles: tuple[str, ...]
    status: Literal["active", "disabled"]
    email_verified_at: float | None
    epoch: int
    """Copied into every token. Raising it revokes all tokens with a lower epoch."""
    created_at: float
    revision: int = 0

    @property
    def active(self) -> bool:
        return self.status == "active"

    @property
    def administers(self) -> bool:
        """Whether it has the role of administrators."""
        return ADMIN in self.roles


class Credential(Struct, frozen=True, kw_only=True):
    """An enrolled credential. `proof` is opaque to stores, so that a new kind needs no migration."""

    subject: str
    method: str
    handle: str
    """Distinguishes two credentials of one method: a passkey's id; empty for the password."""
    proof: str
    created_at: float
    """When the owner chose the proof (`renewed`). A new hash of the same proof keeps this time."""
    revision: int = 0

    def __repr__(self) -> str:
        return f"Credential(subject={self.subject!r}, method={self.method!r})"


def renewed(credential: Credential, proof: str, now: float) -> Credential:
    """Return a credential with the proof that its owner chooses now. `created_at` always rises, even if the clock steps
    back: this makes known-device cookies of the previous password void.
    """
    return replace(credential, proof=proof, created_at=max(now, math.nextafter(credential.created_at, math.inf)))


def new_account(*, address: str, name: str, now: float, roles: tuple[str, ...] = (), verified: bool = False) -> Account:
    """Create an account for a mailbox. Raises `InvalidInput` for text that is not an address."""
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


# The bounds of OpenID Connect for a `sub`, and no spaces around it. Subjects are sent in a header: a line break would
# add another header, perhaps of roles, and "admin " would arrive as "admin".
_SUBJECT = re.compile(r"[!-~](?:[ -~]{0,253}[!-~])?")


def external_account(subject: str, now: float, *, epoch: int = 0) -> Account:
    """Create an external account for the application's subject. Raises `InvalidInput` for text that a header cannot
    carry.

    `epoch` must be above any issued before: the subject may have had an account that a restore lost.
    """
    if not _SUBJECT.fullmatch(subject):
        raise InvalidInput(
            "A subject is 1 to 255 printable ASCII characters, without spaces around them.", field="subject"
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
    """Return an account with other roles. Its epoch rises: tokens with the old roles are stale, its sessions
    stay live.
    """
    return replace(account, roles=tuple(sorted(set(roles))), epoch=account.epoch + 1)
