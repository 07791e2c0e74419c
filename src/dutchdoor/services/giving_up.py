"""Giving up the password of an account that has other ways in: a password that does not exist cannot be stolen.

It takes two other ways, or a passkey with recovery codes: who loses the only one would be locked out. The mailbox stays
the way back, as for an account that never had a password. It leads to a new password, and a second factor of the
account, such as a passkey or a recovery code, is asked for beside that.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from msgspec.structs import replace

from dutchdoor.credentials.passkey import PASSKEY
from dutchdoor.credentials.password import PASSWORD
from dutchdoor.credentials.recovery_code import RECOVERY_CODE
from dutchdoor.errors import NotAuthenticated, NotFound, Refused
from dutchdoor.mail.letters import Notice
from dutchdoor.model.accounts import Account, Credential
from dutchdoor.model.audit_events import account_event
from dutchdoor.services.identities import Identities, ways_in
from dutchdoor.services.one_time import tokens_of
from dutchdoor.services.ongoing import Ongoing, as_now
from dutchdoor.services.part import Part, Shared
from dutchdoor.services.presenting import SignedIn
from dutchdoor.services.retry import RACES, retried
from dutchdoor.services.sign_in import SignIn
from dutchdoor.stores.base import Change, Log, Swap, Take
from dutchdoor.texts import mark

__all__ = ["GivingUp"]

ENOUGH: Final = 2
"""Other ways in."""


class GivingUp(Part):
    """Gives up passwords over one authority. Every verb raises `Unavailable` when the store is out of reach."""

    def __init__(self, shared: Shared, sign_in: SignIn, identities: Identities) -> None:
        super().__init__(shared)
        self.sign_in, self.identities = sign_in, identities

    async def is_possible(self, account: Account) -> bool:
        """Return whether an account has a password, and ways in beside it that are enough."""
        held = await self.store.select(Credential, subject=account.subject)
        return any(each.method == PASSWORD for each in held) and bool(self._others(held))

    def _others(self, held: Sequence[Credential]) -> list[Credential]:
        """Return the ways in of an account beside its password, or none if they are not enough. `held` are its
        credentials.
        """
        found = [each for each in ways_in(held, self.identities.issuers) if each.method != PASSWORD]
        codes = RECOVERY_CODE in self.sign_in.second.usable(held)
        enough = len(found) >= ENOUGH or (codes and any(each.method == PASSKEY for each in found))
        return found if enough else []

    @retried(RACES, "giving up the password")
    async def give_up(self, ongoing: Ongoing) -> SignedIn:
        """Remove the password of the caller's account and revoke every other session in one transaction, and issue
        fresh tokens for this one. The caller has proved recently who they are.

        Raises:
            NotFound: the account has no password.
            Refused: its other ways in are not enough.
            NotAuthenticated: the session or the account was revoked meanwhile.
        """
        now, client, epoch = self.clock(), ongoing.client, ongoing.account.epoch
        ongoing = await as_now(self.store, ongoing)
        account, session = ongoing.account, ongoing.session
        if account.epoch != epoch:
            raise NotAuthenticated("the account changed meanwhile")
        held = await self.store.select(Credential, subject=account.subject)
        password = next((each for each in held if each.method == PASSWORD), None)
        if password is None:
            raise NotFound("no password", message=mark("Your account has no password."))
        others = self._others(held)
        if not others:
            raise Refused(
                "too few other ways in",
                message=mark(
                    "To give up the password, have two other ways to sign in: two passkeys, say, or a passkey and "
                    "recovery codes."
                ),
            )
        raised = replace(account, epoch=account.epoch + 1)
        changes: list[Change] = [
            Take(password),
            *map(Swap, others),  # one that is removed at the same moment would leave none
            Swap(raised),
            *self.authority.ending_all(raised, "password_removed", now, session.id if session else None),
            tokens_of(account.subject, "reset_password"),
            *await self.sign_in.forgetting_devices(account),
            Log(account_event("password_removed", account, client, now)),
        ]
        signed_in = await self.authority.renew(ongoing, raised=raised, changes=changes, amr=ongoing.held, now=now)
        self.post.notify(Notice.PASSWORD_REMOVED, account, client, now)
        return signed_in
