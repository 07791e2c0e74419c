"""The accounts that stand for users of the application's own.

Each user has an external account: a subject, a name, roles, a status and an epoch, without an address. It is created
at the first sign-in. From then on it follows the user: at each sign-in, refresh and look-up of a session, and whenever
a route asks for the user.
"""

from __future__ import annotations

from typing import Any, Final
from uuid import UUID

from msgspec.structs import replace

from dutchdoor.errors import InvalidInput, Misconfigured, NotAuthenticated, Unavailable
from dutchdoor.model.accounts import Account, with_roles
from dutchdoor.model.acting import BY_SYSTEM, NO_CLIENT, SYSTEM
from dutchdoor.model.audit_events import account_event
from dutchdoor.model.principal import Principal
from dutchdoor.model.unicode_text import NAME_AT_MOST, shown
from dutchdoor.services.calling import Calling, asking, is_coroutine_function
from dutchdoor.services.external_users import ExternalUsers
from dutchdoor.services.retry import RACES, retried
from dutchdoor.services.roles import check_roles
from dutchdoor.services.sessions import Authority
from dutchdoor.stores.base import Log, Swap

__all__ = ["ExternalAccounts"]

THREADS: Final = 8
"""Threads for plain functions. Each may wait for the application's database, or compute a hash."""
WAITING: Final = 64
"""Sign-ins that wait for `authenticate` at once. With more of them, a flood of attempts would delay everyone."""
GONE: Final = "user_gone"
"""Why a session is revoked: `load` returned None."""


class ExternalAccounts:
    """The external accounts of one authority, which follow the users of the application."""

    def __init__(self, authority: Authority, users: ExternalUsers[Any]) -> None:
        self.authority, self.store, self.users = authority, authority.store, users
        self.calling = Calling(THREADS, in_request=True)
        self._is_plain = not is_coroutine_function(users.load)
        self._checking = 0
        authority.hooks.current = self.current

    async def authenticate(self, login: str, password: str) -> str | None:
        """Return the subject of a login and a password, or None.

        Raises:
            Unavailable: the application's function failed, or too many of its calls are under way.
            Misconfigured: it returned what is no id.
        """
        if self._checking >= WAITING:
            raise Unavailable("too many sign-ins wait for the application")
        self._checking += 1
        try:
            with asking("users: authenticate"):
                found = await self.calling(self.users.authenticate, login, password)
        finally:
            self._checking -= 1
        if found is None:
            return None
        if isinstance(found, bool) or not isinstance(found, str | int | UUID):
            # `True` would be one account for all users.
            raise Misconfigured(f"authenticate returned {type(found).__name__}. Return the user's id, or None.")
        return str(found)

    async def load(self, subject: str) -> Any:
        """Return the user of a subject, or None. Raises `Unavailable`: the application's function failed."""
        with asking("users: load"):
            return await self.calling(self.users.load, subject)

    async def user_of(self, principal: Principal) -> Any:
        """Return the user behind a proof, as the application has it now.

        Raises:
            NotAuthenticated: there is none any more. Their sessions and tokens are revoked.
            Unavailable: the application's function failed, or the store is out of reach.
        """
        user = await self.load(principal.subject)
        if self._agrees(user, principal.roles):
            return user
        account = await self.store.account(principal.subject)
        if account is None or await self.updated(account, user) is None:
            raise NotAuthenticated("the application has no such user any more")
        return user

    def user_at_once(self, principal: Principal) -> Any:
        """Do what `user_of` does in the caller's own thread, with its own database session; None if the event loop must
        do it.
        """
        if not self._is_plain:
            return None
        with asking("users: load"):
            user = self.users.load(principal.subject)
        return user if self._agrees(user, principal.roles) else None

    def _agrees(self, user: Any, roles: tuple[str, ...]) -> bool:
        return user is not None and (self.users.roles is None or self._roles_of(user) == roles)

    def _is_as(self, user: Any, account: Account) -> bool:
        return self._agrees(user, account.roles) and self._name_of(user, account) == account.name

    def _name_of(self, user: Any, account: Account) -> str:
        if self.users.name is None:
            return account.name
        with asking("users: name"):
            found = self.users.name(user)
        if not isinstance(found, str):
            raise Misconfigured(f"name returned {type(found).__name__}. Return text.")
        return shown(found)[:NAME_AT_MOST]

    def _roles_of(self, user: Any) -> tuple[str, ...]:
        if self.users.roles is None:
            return ()
        with asking("users: roles"):
            found = self.users.roles(user)
        if isinstance(found, str):  # each letter would be a role
            raise Misconfigured(f"roles returned {found!r}. Return a list of roles.")
        try:
            return check_roles(tuple(found))
        except InvalidInput as exc:
            raise Misconfigured(f"roles returned what is no role. {exc}") from None

    # The accounts

    async def current(self, account: Account) -> Account | None:
        """Return an account as its user is now; None if there is no user any more, and its sessions are revoked."""
        return await self.updated(account, await self.load(account.subject))

    async def updated(self, account: Account, user: Any) -> Account | None:
        """Let an account follow its user, who was loaded a moment ago. Returns it, or None if the user is None."""
        if user is None:
            await self.authority.end_all(account.subject, **BY_SYSTEM, reason=GONE)
            return None
        if self._is_as(user, account):
            return account

        @retried(RACES, "following a user")
        async def once() -> Account | None:
            read = await self.store.account(account.subject)
            return read if read is None or self._is_as(user, read) else await self._follow(read, user)

        return await once()

    async def admitted(self, account: Account) -> Account | None:
        """Return the account of someone who signs in, with the roles and the name of its user; None if there is no
        user.

        Raises:
            Conflict: the account changed since it was read.
        """
        user = await self.load(account.subject)
        if user is None:
            return None
        return account if self._is_as(user, account) else await self._follow(account, user)

    async def _follow(self, account: Account, user: Any) -> Account:
        """Give an account, as it was read, the name and the roles of its user. Its sessions stay; with other roles, its
        tokens are stale. Raises `Conflict`.
        """
        named = replace(account, name=self._name_of(user, account))
        if self._agrees(user, account.roles):
            await self.store.commit(Swap(named))
            return replace(named, revision=named.revision + 1)
        now, roles = self.authority.clock(), self._roles_of(user)
        changed = with_roles(named, roles)
        record = account_event("roles_changed", account, NO_CLIENT, now, actor=SYSTEM, detail=" ".join(roles))
        await self.store.commit(Swap(changed), *self.authority.staling(changed, now), Log(record))
        return replace(changed, revision=changed.revision + 1)

    async def provide(self, subject: str) -> Account:
        """Return the account of a subject, and create it at the first time. Raises `Misconfigured` for what is no
        subject.
        """
        try:
            return await self.authority.provide(subject)
        except InvalidInput as exc:
            raise Misconfigured(f"authenticate returned what is no id. {exc}") from None

    def close(self) -> None:
        self.calling.close()
