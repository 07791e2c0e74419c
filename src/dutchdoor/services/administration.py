"""Administration: what administrators and commands do to accounts, and how the first administrator is created."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, TypeAlias, get_args

from msgspec.structs import replace

from dutchdoor.errors import InvalidInput, InvalidToken, NotFound, RegistrationClosed
from dutchdoor.model import one_time_tokens
from dutchdoor.model.accounts import ADMIN, Account, with_roles
from dutchdoor.model.acting import COMMAND, SYSTEM
from dutchdoor.model.audit_events import EventName, account_event, event
from dutchdoor.model.departures import Departure
from dutchdoor.model.email_address import canonical
from dutchdoor.model.http_client import Client
from dutchdoor.model.one_time_tokens import OneTimeSecret
from dutchdoor.model.unicode_text import check_name
from dutchdoor.services.one_time import tokens_of
from dutchdoor.services.part import Part, Shared
from dutchdoor.services.registration import Registration, taken
from dutchdoor.services.retry import RACES, retried
from dutchdoor.services.roles import administers, check_not_oneself, check_roles, keeping_an_administrator
from dutchdoor.stores.account_words import read_cursor, write_cursor
from dutchdoor.stores.base import AccountStatus, Add, Change, Log, Remove, Revoked, Swap, Take
from dutchdoor.texts import mark

__all__ = ["Administration", "ListedStatus"]


ListedStatus: TypeAlias = Literal[AccountStatus, "admin"]
"""Which accounts are listed."""


class Administration(Part):
    """Administers the accounts of one authority. For audit events, `client` is the client that asks, and `actor` is the
    subject that acts (or `cli`, or `system`). Every verb raises `Unavailable` when the store is out of reach.
    """

    def __init__(self, shared: Shared, registration: Registration) -> None:
        super().__init__(shared)
        self.registration = registration

    async def accounts(
        self, *, search: str = "", status: ListedStatus = "any", after: str = "", limit: int = 100
    ) -> tuple[list[Account], str | None]:
        """Return a page of accounts, and the `after` of the next page: None on the last one. What it costs depends on
        `limit` alone, however many accounts there are.

        Args:
            search: how a word in the address or the name begins, or a whole subject; "" lists all, the newest first.
            status: `active`, `disabled`, `unverified` (the address was not verified), `admin` (active administrators),
                or `any`, the only one for a search.
            limit: accounts on the page.

        Raises:
            InvalidInput: there is no such status, both a search and a status are given, or `after` is of no page.
        """
        if status not in get_args(ListedStatus):
            raise InvalidInput(mark("There is no such status."), field="status")
        if search:
            if status != "any":  # its cost would depend on how many accounts the search finds
                raise InvalidInput(mark("Give a search or a status, not both."), field="status")
            named = None if after else await self.store.account(search)
            if named is not None:
                return [named], None
            searched = await self.store.search_accounts(search, after=after, limit=limit + 1)
            page = [account for _, account in searched[:limit]]
            return page, searched[limit - 1][0] if len(searched) > limit else None
        place = read_cursor(after) if after else None
        if place is not None and not (type(place[0]) in {int, float} and isinstance(place[1], str)):
            raise InvalidInput(mark("This is no `after` of an earlier page."), field="after")
        if status == "admin":
            found = await self.store.accounts_with_role(ADMIN, after=place[1] if place else "", limit=limit + 1)
        else:
            found = await self.store.newest_accounts(status=status, before=place, limit=limit + 1)
        more = len(found) > limit
        return found[:limit], write_cursor(found[limit - 1].created_at, found[limit - 1].subject) if more else None

    async def look(self, email: str, *, name: str = "", roles: tuple[str, ...] = ()) -> None:
        """Check what `create` would refuse, apart from the password, and change nothing: a command looks first, and
        asks for the password then.

        Args:
            email: the address.
            name: the name people see; "" for none.
            roles: its roles, each a plain word.

        Raises:
            Taken: the address has an account.
            InvalidInput: the address, the name or a role is not acceptable.
        """
        check_name(name)
        check_roles(roles)
        found = await self.registration.holder(canonical(email))
        if found is not None:
            raise taken(found)

    async def create(
        self,
        email: str,
        *,
        client: Client,
        actor: str,
        name: str = "",
        roles: tuple[str, ...] = (),
        password: str | None = None,
    ) -> Account:
        """Create an account for another person. Its owner chooses the password by a mailed link, unless a command on
        the server's own machine, or the application's code, gives one (the network API never does).

        Args:
            email: the address, which counts as verified.
            name: the name people see; "" for none.
            roles: its roles, each a plain word.
            password: the password; None to mail the link.

        Raises:
            Taken: the address has an account.
            InvalidInput, WeakPassword: the address, a role or the password is not acceptable.
            RegistrationClosed: only commands and the application's own code create accounts here.
        """
        if self.policy.registration == "closed" and actor not in {COMMAND, SYSTEM}:
            raise RegistrationClosed(
                "accounts are made by command", message=mark("Accounts are made by `dutchdoor user create` alone.")
            )
        key = canonical(email)
        encoded = None
        if password is not None:
            encoded = await self.passwords.encoded(password, key, name)
        account = await self.registration.add(
            email, name, encoded, client=client, roles=check_roles(roles), verified=True, actor=actor
        )
        if encoded is None and account.address:
            # Not counted: the account is new, and a stranger must not be able to use up its budget for mail.
            lives_for = self.policy.unverified_for
            secret = await self.one_time.issue(
                "reset_password", account, lives_for, client, "password_reset_requested", actor
            )
            await self.post.send(
                self.post.letters.invitation, account.address, token=secret.text(), valid_for=lives_for
            )
        return account

    async def adopt(
        self,
        email: str,
        encoded: str | None,
        *,
        name: str = "",
        roles: tuple[str, ...] = (),
        verified: bool = False,
        disabled: bool = False,
        client: Client,
    ) -> Account:
        """Import an account with the password hash it had elsewhere; it is upgraded at its first log-in.

        Args:
            email: the address as the other system has it.
            encoded: the hash; None for an account whose owner chooses a password by a mailed link.
            name: the name people see; "" for none.
            roles: its roles, each a plain word.
            verified: whether the owner proved the address.
            disabled: whether the account may not sign in.

        Raises:
            Taken: the address has an account.
            InvalidInput: the address or a role is not acceptable, or the hash is of a kind that is refused (plain MD5,
                SHA-1) or unknown.
        """
        encoded = None if encoded is None else self.passwords.hasher.imported(encoded)
        return await self.registration.add(
            email,
            name,
            encoded,
            client=client,
            roles=check_roles(roles),
            verified=verified,
            disabled=disabled,
            actor=COMMAND,
            how="account_imported",
        )

    async def is_taken(self, email: str) -> bool:
        """Return whether the address `email` has an account that `create` and `adopt` do not replace.

        Raises:
            InvalidInput: `email` is not an address.
        """
        return await self.registration.holder(canonical(email)) is not None

    async def disable(self, subject: str, *, client: Client, actor: str) -> Revoked:
        """Disable the account of a `subject`: it cannot sign in, and all its sessions and tokens are revoked. If its
        owner has deleted it, no link keeps it any more.

        Raises:
            NotFound: there is no such account.
            LastAdministrator: it is the last active administrator.
            Refused: the account is that of the `actor`.
        """
        check_not_oneself(subject, actor)

        async def also(account: Account) -> list[Change]:
            record = event("account_disabled", now=self.clock(), client=client, subject=subject, actor=actor)
            departure = await self.store.get(Departure, subject)
            final: list[Change] = [] if departure is None else [Swap(replace(departure, is_final=True))]
            return [*final, Log(record), *await keeping_an_administrator(self.store, account, without=True)]

        return await self.authority.end_all(
            subject,
            client=client,
            actor=actor,
            reason="disabled",
            change=lambda account: replace(account, status="disabled"),
            also=also,
        )

    async def enable(self, subject: str, *, client: Client, actor: str) -> Account:
        """Let the account of a `subject` sign in again, and keep it if its owner has deleted it. What was revoked stays
        revoked.

        Raises:
            NotFound: there is no such account.
        """
        keeping: list[Change] = [
            Remove(Departure(subject=subject, asked_at=0.0, due_at=0.0)), tokens_of(subject, "keep_account")
        ]  # fmt: skip
        changed, _ = await self._alter(
            subject, lambda a: replace(a, status="active"), "account_enabled", client, actor, also=keeping
        )
        return changed

    async def set_roles(
        self, subject: str, roles: Sequence[str], *, client: Client, actor: str
    ) -> tuple[Account, Revoked]:
        """Give the account of a `subject` these `roles` and no others. Its sessions stay valid and have the new roles
        at their next request. Its access tokens are stale at once: the result that is returned beside the account is
        for that fence.

        Raises:
            NotFound: there is no such account.
            InvalidInput: a role is not a plain word, or there are more than 32.
            LastAdministrator: it would take the role `admin` from the last active administrator.
            Refused: it would take the role `admin` from the `actor`.
        """
        wanted = check_roles(roles)
        if ADMIN not in wanted:
            check_not_oneself(subject, actor)
        changed, done = await self._alter(
            subject,
            lambda a: with_roles(a, wanted),
            "roles_changed",
            client,
            actor,
            detail=" ".join(wanted),
            stale=True,
        )
        return changed, done

    @retried(RACES, "changing the account")
    async def _alter(
        self,
        subject: str,
        change: Callable[[Account], Account],
        name: EventName,
        client: Client,
        actor: str,
        *,
        detail: str = "",
        stale: bool = False,
        also: Sequence[Change] = (),
    ) -> tuple[Account, Revoked]:
        account = await self.store.account(subject)
        if account is None:
            raise NotFound("no such account")
        now = self.clock()
        changed = change(account)
        changes: list[Change] = [
            Swap(changed),
            *also,
            Log(account_event(name, account, client, now, actor=actor, detail=detail)),
        ]
        if stale:
            changes += self.authority.staling(changed, now)
        changes += await keeping_an_administrator(self.store, account, without=not administers(changed))
        if administers(changed):
            changes.append(tokens_of("", "setup"))
        done = await self.store.commit(*changes)
        return changed, done

    async def offer_setup(self) -> OneTimeSecret | None:
        """Create a one-time token for the first administrator, if there is none. Each node creates and prints one when
        it starts. Earlier tokens stay valid until they expire, or until there is an administrator.
        """
        if await self.store.accounts_with_role(ADMIN, limit=1):
            return None
        token, secret = one_time_tokens.issue(
            "setup", subject="", email="", now=self.clock(), lives_for=self.policy.setup_for
        )
        await self.store.commit(Add(token))
        return secret

    async def set_up(self, token: str, email: str, password: str, name: str, *, client: Client) -> Account:
        """Create the first administrator, by the one-time token of the set-up link.

        Args:
            token: the token in the link.
            email: the address, which counts as verified.
            password: the password that the account gets.
            name: the name people see; "" for none.

        Raises:
            InvalidToken: the token is not valid, or there is an administrator already.
            Taken: the address has an account.
            InvalidInput, WeakPassword: the address or the password is not acceptable.
            RateLimited: too many attempts from there.
        """
        stored = await self.one_time.redeem(token, "setup", client)
        if await self.store.accounts_with_role(ADMIN, limit=1):
            raise InvalidToken("there is an administrator already")
        key = canonical(email)
        encoded = await self.passwords.encoded(password, key, name)
        return await self.registration.add(
            email, name, encoded, client=client, roles=(ADMIN,), verified=True,
            # The other links are deleted too: when two people have a link each, only the first of them can use it.
            also=[Take(stored), tokens_of("", "setup")],
        )  # fmt: skip
