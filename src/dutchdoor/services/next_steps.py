"""What comes after a proof: another one, a step of the application's, or a session.

The policy decides (`next_step` in `model/sign_in.py`). This file reads what it decides by: the second factors that the
account has, the browsers that need not prove one, and since when the account should have one.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial

from dutchdoor.credentials.base import Method
from dutchdoor.errors import Conflict
from dutchdoor.model import rate_limits
from dutchdoor.model.accounts import Account, Credential, renewed
from dutchdoor.model.ids import new_id
from dutchdoor.model.sign_in import Ask, Pending, Proof, Refuse, Start, needs_second, next_step
from dutchdoor.services.factors import Factors
from dutchdoor.services.own_steps import OwnSteps
from dutchdoor.services.part import Part, Shared
from dutchdoor.services.second_proofs import SecondProofs
from dutchdoor.stores.base import Add, Change, Swap

__all__ = ["NextSteps"]

FORGOTTEN = "devices_forgotten"
"""The method of a record without a secret: when an account was last signed out everywhere."""
DUE = "second_factor_due"
"""The method of a record without a secret: from when on an account should have had a second factor."""


class NextSteps(Part):
    """Decides over one authority what a sign-in still needs."""

    def __init__(self, shared: Shared, methods: Mapping[str, Method], factors: Factors, steps: OwnSteps) -> None:
        """`methods` are the authentication methods, by their names, `factors` enrols second ones, and `steps` are the
        application's.
        """
        super().__init__(shared)
        self.methods, self.factors, self.steps = methods, factors, steps
        self.second = SecondProofs(shared, methods, factors)
        self._remember_key = self.authority.master.current.derive("remembered device")

    async def next_of(
        self,
        account: Account,
        proofs: Sequence[Proof],
        held: Sequence[Credential],
        remembered: str,
        digest: str,
    ) -> Start | Ask | Refuse:
        """Decide what comes after these `proofs` of an `account`. `held` are all its credentials, `remembered` is what
        the remembered-device cookie holds, and `digest` is the account's name in it.
        """
        factors = self.second.usable(held)
        ends = math.inf
        if not factors and account.active and needs_second(account, self.policy):
            ends = await self._grace_ends(account, held)
        mark = rate_limits.find_mark(self._remember_key, remembered, account=digest, now=self.clock())
        decide = partial(
            next_step,
            account,
            proofs,
            self.policy,
            factors=factors,
            offered=self.factors.offered,
            grace_ends=ends,
            remembered=mark is not None
            and self.clock() - mark.at < self.policy.remember_device_for
            and mark.is_of(self._remember_key, self._holds_since(held)),
        )
        step = decide()
        # The application is asked about its own steps once the account is proved.
        own = (
            await self.steps.asked(account.subject, {each.method for each in proofs}) if isinstance(step, Start) else ""
        )
        return decide(own=own) if own else step

    async def _grace_ends(self, account: Account, held: Sequence[Credential]) -> float:
        """Return when an account that needs a second factor must have one: some time after its first sign-in."""
        grace = self.policy.second_factor_grace
        if not grace:
            return -math.inf  # whatever the clock has done since the proof
        due = next((each for each in held if each.method == DUE), None)
        if due is None:
            due = Credential(subject=account.subject, method=DUE, handle="", proof="", created_at=self.clock())
            with suppress(Conflict):  # another sign-in did it at the same moment
                await self.store.commit(Add(due))
        return due.created_at + grace

    def recovers_by_mail(self, account: Account) -> bool:
        """Return whether the policy lets the owner of an `account` have lost factors removed by mail."""
        return self.factors.removable_by_mail(account)

    # Browsers that skip the second factor

    def _remembered(self, remembered: str, pending: Pending, held: Sequence[Credential]) -> str:
        """Return the remembered-device cookie with this account in it; "" if the policy remembers none."""
        if not self.policy.remember_device_for:
            return ""
        fresh = rate_limits.mint_mark(
            self._remember_key,
            account=pending.digest,
            device=pending.device or new_id(),
            chosen_at=self._holds_since(held),
            now=self.clock(),
        )
        return rate_limits.with_mark(remembered, fresh)

    async def forgetting_devices(self, account: Account) -> Sequence[Change]:
        """Return what makes every browser that an `account` remembers ask for the second factor again."""
        held = await self.store.select(Credential, subject=account.subject)
        if not self.second.usable(held):
            return []
        before = next((each for each in held if each.method == FORGOTTEN), None)
        now = self.clock()
        if before is not None:
            return [Swap(renewed(before, "", now))]
        return [Add(Credential(subject=account.subject, method=FORGOTTEN, handle="", proof="", created_at=now))]

    def _holds_since(self, held: Sequence[Credential]) -> float:
        """Return when the password or a second factor of an account was chosen last, or its owner signed out
        everywhere: what a browser was remembered for before that is void.
        """
        counting = {*self.methods, FORGOTTEN}
        return max((each.created_at for each in held if each.method in counting), default=0.0)
