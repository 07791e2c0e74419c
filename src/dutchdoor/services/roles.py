"""Roles: which there are, and that one account always has the role of administrators."""

from __future__ import annotations

import re
from collections.abc import Sequence

from dutchdoor.errors import InvalidInput, LastAdministrator, Refused
from dutchdoor.model.accounts import ADMIN, Account
from dutchdoor.stores.base import Change, ExpectRole, Store
from dutchdoor.texts import mark

__all__ = ["administers", "check_not_oneself", "check_roles", "keeping_an_administrator"]

_ROLE = re.compile(r"[A-Za-z0-9_.:-]{1,64}")


def check_roles(roles: Sequence[str]) -> tuple[str, ...]:
    """Return roles in order, each once. Raises `InvalidInput` for a role that is not a plain word: tokens and headers
    carry roles separated by spaces.
    """
    for role in roles:
        if not _ROLE.fullmatch(role):
            raise InvalidInput(mark("A role is 1 to 64 letters, digits, or - _ . :"), field="roles")
    if len(set(roles)) > 32:  # noqa: PLR2004 - every token carries them
        raise InvalidInput(mark("An account has at most 32 roles."), field="roles")
    return tuple(sorted(set(roles)))


def administers(account: Account) -> bool:
    """Return whether an account is that of an active administrator."""
    return account.active and account.administers


def check_not_oneself(subject: str, actor: str) -> None:
    """Raise `Refused` if administrators would take their own access: it is a slip, and they could not undo it."""
    if subject == actor:
        message = mark(
            "You cannot remove your own access. Another administrator can, or `dutchdoor user` on the server."
        )
        raise Refused("an administrator would remove their own access", message=message)


async def keeping_an_administrator(store: Store, account: Account, *, without: bool) -> list[Change]:
    """Return the change that fails when the last administrator would be removed. Raises `LastAdministrator`.

    `account` is the account before the change, and `without` whether it is no administrator after it.
    """
    if not (without and administers(account)):
        return []
    others = await store.accounts_with_role(ADMIN, limit=2)
    if all(other.subject == account.subject for other in others):
        raise LastAdministrator(f"{account.subject} is the last administrator")
    return [ExpectRole(ADMIN)]  # another transaction may remove the other administrators at the same moment
