"""Proofs of second factors: what a right one writes, and which of an account's can still prove something.

The steps of a sign-in use them, and what is proved again inside a session.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from dutchdoor.credentials.base import Method
from dutchdoor.credentials.passkey import PASSKEY
from dutchdoor.credentials.recovery_code import RECOVERY_CODE
from dutchdoor.errors import WrongCredentials
from dutchdoor.model.accounts import Account, Credential
from dutchdoor.model.audit_events import account_event
from dutchdoor.model.factor_removal import REMOVAL
from dutchdoor.model.http_client import Client
from dutchdoor.model.rate_limits import Standing
from dutchdoor.model.set_aside import SET_ASIDE, name_of, still_asked
from dutchdoor.services.factors import Factors
from dutchdoor.services.one_time import tokens_of
from dutchdoor.services.part import Part, Shared
from dutchdoor.services.passkeys import Ceremony, unknown_passkey
from dutchdoor.stores.base import Add, Change, Forgive, Log, Remove, Swap, Take
from dutchdoor.texts import mark

__all__ = ["SecondProofs"]

_WRONG_CODE = mark("This code is not right, or was used already.")


class SecondProofs(Part):
    """Checks second factors over one authority."""

    def __init__(self, shared: Shared, methods: Mapping[str, Method], factors: Factors) -> None:
        """`methods` are all authentication methods, by their names, and `factors` enrols second ones."""
        super().__init__(shared)
        self.methods, self.factors = methods, factors
        self.names = frozenset(name for name, method in methods.items() if method.second)

    def is_second(self, credential: Credential) -> bool:
        """Return whether a `credential` is a second factor, or stands in for one."""
        return credential.method in self.names

    def usable(self, held: Sequence[Credential]) -> frozenset[str]:
        """Return the methods of the second factors that can still prove something."""
        every = (*held, *still_asked(held))
        return self.names & {each.method for each in every if not self.factors.is_used_up(each)}

    async def spend(
        self,
        account: Account,
        way: Method,
        response: str,
        held: Sequence[Credential],
        client: Client,
        standing: Standing | None,
        place: str,
        signed: tuple[Ceremony, str, str],
    ) -> tuple[list[Change], tuple[str, ...]]:
        """Check the response to a second factor. Returns what its use writes, and what it proved (`amr`).

        `held` are all credentials of the account, and `standing` and `place` say where the response comes from: None
        inside the session of that id. `signed` is where a passkey has answered, and what its challenge was for. Raises
        `WrongCredentials`, `InvalidToken`, `RateLimited`.
        """
        now, guesses = self.clock(), self.attempts.second(account, way.name, standing, place)
        await self.attempts.take(guesses)
        if way.name == PASSKEY:
            every = (*held, *still_asked(held))
            proven = await self.factors.passkeys.proved(account, every, response, *signed, client=client)
            if proven is None:
                await self.attempts.refuse(account, client, "wrong passkey")
                raise unknown_passkey()
            # Its holder knows the new password, too: it is kept.
            record = next((e for e in held if e.method == SET_ASIDE and e.handle == name_of(proven.record)), None)
            if record is None:
                return [Forgive(forget=guesses), *proven.changes], proven.amr
            kept = Log(account_event("way_kept", account, client, now, detail=PASSKEY))
            back = [Add(each.record) if isinstance(each, Swap) else each for each in proven.changes]
            return [Forgive(forget=guesses), Take(record), *back, kept], proven.amr
        wanted = way.name, way.handle_of(response)
        record = next((each for each in held if (each.method, each.handle) == wanted), None)
        right = await way.check(record, response, now)
        if right is None:
            await self.attempts.refuse(account, client, f"wrong {way.name}")
            raise WrongCredentials("wrong second factor", message=_WRONG_CODE)
        spent: list[Change] = [Forgive(forget=guesses)]
        if right.spent is not None:
            spent.append(Swap(right.spent))
        if way.name == RECOVERY_CODE:
            spent.append(Log(account_event("recovery_code_used", account, client, now)))
        return spent, (way.amr,)

    @staticmethod
    def keeping(account: Account, held: Sequence[Credential], client: Client, now: float) -> list[Change]:
        """Return what ends the waiting time for a removal of lost factors: their owner has signed in. `held` are the
        credentials of the account.
        """
        found = [each for each in held if each.method == REMOVAL]
        if not found:
            return []
        return [
            *map(Remove, found),
            tokens_of(account.subject, "remove_factors"),
            tokens_of(account.subject, "keep_factors"),
            Log(account_event("factor_removal_cancelled", account, client, now)),
        ]
