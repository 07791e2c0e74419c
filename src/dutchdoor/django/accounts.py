"""The engine's accounts of Django's users, named by the primary key. This runs in the engine's thread.

An account remembers the *stamp* of its user: Django's session hash, which changes with the password. A request whose
user has another stamp than the account ends everything that the user had, and so does a user that is inactive or gone.
Signals do the same at once; this is for changes that send none, such as an `update()` of a query.
"""

from __future__ import annotations

import hmac
from contextlib import suppress
from typing import Final

from msgspec.structs import replace

from dutchdoor.errors import Conflict, NotFound
from dutchdoor.guard.attached import engine_of
from dutchdoor.guard.threads import SyncGate
from dutchdoor.model.accounts import Account, Credential, renewed, with_roles
from dutchdoor.model.acting import BY_SYSTEM, NO_CLIENT, SYSTEM
from dutchdoor.model.audit_events import account_event
from dutchdoor.model.unicode_text import NAME_AT_MOST, shown
from dutchdoor.services.sessions import Authority
from dutchdoor.stores.base import Add, Change, Log, Swap

__all__ = ["FENCE_FOR", "agree", "end_of"]

METHOD: Final = "django"
"""The method of the credential whose proof is the stamp."""
FENCE_FOR: Final = 0.25
"""Seconds that a change of a user waits for verifiers elsewhere."""


async def agree(
    gate: SyncGate,
    subject: str,
    stamps: tuple[str, ...],
    roles: tuple[str, ...] | None = None,
    name: str | None = None,
) -> bool:
    """Make the account of a user agree with the user's row. Returns False if the password has changed: then everything
    is ended that the account had.

    Raises:
        Unavailable: the store is out of reach.
    """
    authority = engine_of(gate.gate).authority
    account = await authority.store.account(subject)
    if account is None:
        return True  # the user has never signed in
    named = account if name is None else replace(account, name=shown(name)[:NAME_AT_MOST])
    if roles is not None and roles != account.roles:
        await _set_roles(authority, named, roles)
    elif named != account:
        with suppress(Conflict):  # the next sign-in sets it
            await authority.store.commit(Swap(named))
    record = await authority.store.get(Credential, subject, METHOD, "")
    if record is not None and _same(record.proof, stamps[0]):
        return True
    now = authority.clock()
    if record is None:
        change: Change = Add(Credential(subject=subject, method=METHOD, handle="", proof=stamps[0], created_at=now))
    else:
        change = Swap(renewed(record, stamps[0], now))
    if record is None or any(_same(record.proof, earlier) for earlier in stamps[1:]):
        with suppress(Conflict):  # another request did the same
            await authority.store.commit(change)
        return True

    async def also(_account: Account) -> list[Change]:
        return [change]

    done = await authority.end_all(subject, **BY_SYSTEM, reason="password_changed", also=also)
    await authority.fencing.fence(done, wait=FENCE_FOR)
    return False


async def _set_roles(authority: Authority, account: Account, roles: tuple[str, ...]) -> None:
    changed, now = with_roles(account, roles), authority.clock()
    record = account_event("roles_changed", account, NO_CLIENT, now, actor=SYSTEM, detail=" ".join(roles))
    with suppress(Conflict):  # the next log-in sets them
        await authority.store.commit(Swap(changed), *authority.staling(changed, now), Log(record))


async def end_of(gate: SyncGate, subject: str, reason: str) -> None:
    """End everything that a user has, and wait a moment for the fence."""
    authority = engine_of(gate.gate).authority
    with suppress(NotFound):
        done = await authority.end_all(subject, **BY_SYSTEM, reason=reason)
        await authority.fencing.fence(done, wait=FENCE_FOR)


def _same(one: str, other: str) -> bool:
    return hmac.compare_digest(one.encode(), other.encode())
