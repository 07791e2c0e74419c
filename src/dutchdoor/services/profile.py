"""The profile: what an owner says about themselves."""

from __future__ import annotations

from msgspec.structs import replace

from dutchdoor.errors import NotAuthenticated
from dutchdoor.model.accounts import Account
from dutchdoor.model.audit_events import account_event
from dutchdoor.model.http_client import Client
from dutchdoor.model.rate_limits import bucket_of
from dutchdoor.model.unicode_text import check_name
from dutchdoor.services.part import Part
from dutchdoor.services.retry import RACES, retried
from dutchdoor.stores.base import Log, Swap

__all__ = ["Profile"]


class Profile(Part):
    """Changes the profile of an account over one authority."""

    async def change_name(self, subject: str, name: str, *, client: Client) -> Account:
        """Change the `name` of the account of a `subject`; "" for none. Nothing is written if it is the same already.
        `client` is the client that asks, for the audit event.

        Raises:
            InvalidInput: the name is too long, or has a line break, a control or an invisible character.
            NotAuthenticated: the account was disabled or removed meanwhile.
            RateLimited: the name was changed too often.
            Unavailable: the store is out of reach.
        """
        name = check_name(name)
        await self.attempts.take([bucket_of(self.attempts.limits.change_name_by_account, subject)])

        @retried(RACES, "changing the name")
        async def once() -> Account:
            account = await self.store.account(subject)
            if account is None or not account.active:
                raise NotAuthenticated("the account ended meanwhile")
            if account.name == name:
                return account
            renamed, now = replace(account, name=name), self.clock()
            # Without the name itself: the log outlives the account.
            await self.store.commit(Swap(renamed), Log(account_event("name_changed", account, client, now)))
            return renamed

        renamed = await once()
        self.authority.forget_remembered()  # no entry of the log reports this change
        return renamed
