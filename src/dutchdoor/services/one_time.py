"""The one-time tokens of mailed links: issued for an account, redeemed once."""

from __future__ import annotations

from dutchdoor.errors import InvalidToken
from dutchdoor.model import one_time_tokens
from dutchdoor.model.accounts import Account
from dutchdoor.model.audit_events import EventName, event
from dutchdoor.model.http_client import Client
from dutchdoor.model.one_time_tokens import OneTimeSecret, OneTimeToken, Purpose
from dutchdoor.model.rate_limits import by_address
from dutchdoor.services.attempts import Attempts
from dutchdoor.stores.base import Add, Discard, Expect, Log

__all__ = ["OneTimeTokens", "tokens_of"]


class OneTimeTokens:
    """One-time tokens in the store of one authority."""

    def __init__(self, attempts: Attempts) -> None:
        self.store, self.clock, self.attempts = attempts.store, attempts.clock, attempts

    async def issue(
        self,
        purpose: Purpose,
        account: Account,
        lives_for: float,
        client: Client,
        name: EventName,
        actor: str,
        payload: bytes = b"",
    ) -> OneTimeSecret:
        now = self.clock()
        token, secret = one_time_tokens.issue(
            purpose,
            subject=account.subject,
            email=account.email or "",
            now=now,
            lives_for=lives_for,
            payload=payload,
        )
        record = event(name, now=now, client=client, subject=account.subject, actor=actor)
        # Verification links stay valid beside each other. Otherwise a stranger could register an address again and so
        # void the link that its owner is about to open.
        older = [] if purpose == "verify_email" else [tokens_of(account.subject, purpose)]
        await self.store.commit(Expect(account.subject, account.epoch), *older, Add(token), Log(record))
        return secret

    async def redeem(self, text: str, purpose: Purpose, client: Client) -> OneTimeToken:
        """Return the stored half of a mailed token. Only refused tokens count against the client address. So the
        owner's link opens even when others at the address have used up its bucket, and guessing stays hopeless. Raises
        `InvalidToken`, `RateLimited`.
        """
        try:
            secret = OneTimeSecret.parse(text)
            return one_time_tokens.check(await self.store.get(OneTimeToken, secret.id), secret, purpose, self.clock())
        except InvalidToken:
            await self.attempts.take(by_address(self.attempts.limits.one_time_by_address, client.networks))
            raise

    async def owner_of(self, token: OneTimeToken) -> Account:
        account = await self.store.account(token.subject)
        # A token mailed to an address proves nothing about an account that has another address by now.
        if account is None or not account.active or (account.email or "") != token.email:
            raise InvalidToken("the account of the one-time token changed")
        return account


def tokens_of(subject: str, purpose: Purpose) -> Discard:
    """Delete every one-time token of a subject for a purpose."""
    return Discard(OneTimeToken, {"subject": subject, "purpose": purpose})
