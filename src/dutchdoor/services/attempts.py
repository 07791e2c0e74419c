"""Attempts: what is counted before any work is done, and how a known browser is recognised."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from dutchdoor.credentials.passkey import PASSKEY
from dutchdoor.credentials.password import PASSWORD
from dutchdoor.credentials.recovery_code import RECOVERY_CODE
from dutchdoor.errors import RateLimited
from dutchdoor.model import rate_limits
from dutchdoor.model.accounts import Account, Credential
from dutchdoor.model.audit_events import event
from dutchdoor.model.http_client import Client, network_of
from dutchdoor.model.ids import new_id
from dutchdoor.model.rate_limits import Bucket, Limits, Mark, Standing, bucket_of, by_address
from dutchdoor.model.sessions import Session
from dutchdoor.services.sessions import Authority
from dutchdoor.stores.base import Forgive, Log

__all__ = ["RECENT", "Attempts", "Place", "chosen_at"]

RECENT = 4
"""Sign-ins whose networks count as the owner's."""

UNGUESSABLE = frozenset({RECOVERY_CODE, PASSKEY})
"""Methods with so many answers that guessing is hopeless: they cannot be locked."""


class Place(NamedTuple):
    """Where a client signs in from."""

    device: str
    """What its browser is known as; "" if it is not."""
    standing: Standing
    familiar: bool
    """Whether the account signed in from here before, or never signed in at all."""


class Attempts:
    """The limits of one authority's accounts."""

    def __init__(self, authority: Authority, limits: Limits) -> None:
        self.store, self.clock, self.limits = authority.store, authority.clock, limits
        self._mark_key = authority.master.current.derive("device mark")
        self._digest_key = authority.master.current.derive("account digest")

    async def take(self, wanted: Sequence[Bucket]) -> None:
        """Count an attempt before any work is done. Raises `RateLimited`."""
        wait, by = await self.store.hit(wanted, self.clock())
        if wait > 0:
            raise RateLimited(by, retry_after=wait)

    async def give_back(self, charged: Sequence[Bucket], client: Client) -> None:
        """Give the address its attempt back if the account's bucket refused the sign-in, a bounded number of times."""
        if charged:
            wait, _ = await self.store.hit(by_address(self.limits.refused_by_address, client.networks), self.clock())
            if wait <= 0:
                await self.store.commit(Forgive(give_back=tuple(charged)))

    def digest(self, key: str) -> str:
        """Return a name for an address in the keys of limits: the keys must not contain addresses."""
        return hashlib.blake2b(key.encode(), key=self._digest_key, digest_size=15).hexdigest()

    async def refuse(self, account: Account | None, client: Client, why: str) -> None:
        """Record a proof that failed."""
        # The typed address is not recorded: people type their password there by mistake.
        record = event(
            "login",
            now=self.clock(),
            client=client,
            subject=account.subject if account else "",
            outcome="refused",
            detail=why,
        )
        await self.store.commit(Log(record))

    def forgiving(self, account: Account) -> Forgive:
        """Return the change that deletes an account's counted failures once its owner has proved something."""
        ceilings = rate_limits.sign_in_ceilings(self.limits, self.digest(account.email)) if account.email else ()
        return Forgive(forget=ceilings)

    def inside(self, account: Account, session: Session | None) -> list[Bucket]:
        """Return the buckets that a password guess by a signed-in caller takes from. The guess counts among the
        account's consecutive failures, as one from a known device does. Otherwise an attacker with a copied session
        could guess for as long as the session lives.
        """
        wanted = [bucket_of(self.limits.password_by_session, session.id if session else account.subject)]
        if account.email:
            wanted.append(bucket_of(self.limits.devices_in_a_row, self.digest(account.email)))
        return wanted

    def second(
        self, account: Account, method: str, standing: Standing | None = None, place: str = ""
    ) -> tuple[Bucket, ...]:
        """Return the buckets that a response to a second factor takes from: `rate_limits.second_factor_buckets`."""
        return rate_limits.second_factor_buckets(
            self.limits,
            account=self.digest(account.subject),
            method=method,
            standing=standing,
            place=place,
            guessable=method not in UNGUESSABLE,
        )

    def forgiving_second(self, account: Account, methods: Iterable[str]) -> Forgive:
        """Return the change that deletes the failures in a row at an account's second factors, by these methods."""
        digest = self.digest(account.subject)
        return Forgive(forget=rate_limits.second_factor_ceilings(self.limits, account=digest, methods=methods))

    def find_mark(self, marks: str, digest: str, now: float) -> Mark | None:
        """Return what the browser's known-device cookie proves for the account of a digest."""
        return rate_limits.find_mark(self._mark_key, marks, account=digest, now=now)

    def is_of(self, mark: Mark, chosen_at: float) -> bool:
        """Return whether a known-device mark was issued for the password that was chosen at this instant."""
        return mark.is_of(self._mark_key, chosen_at)

    def device_of(self, marks: str, digest: str, chosen_at: float) -> str:
        """Return what a browser is known as, by its `marks`, to the account of a digest; "" if it is not."""
        mark = self.find_mark(marks, digest, self.clock())
        return mark.device if mark is not None and self.is_of(mark, chosen_at) else ""

    def place_of(self, device: str, client: Client, recent: Sequence[tuple[float, str]]) -> Place:
        """Return where a client signs in from. `recent` says when and from which addresses its account did lately."""
        now = self.clock()
        networks = {network_of(address) for at, address in recent if now - at <= rate_limits.NETWORK_FOR}
        standing = rate_limits.standing_of(device=device, network=client.network, recent_networks=networks)
        return Place(device, standing, standing is not Standing.STRANGER or not networks)

    def marked(self, marks: str, digest: str, device: str, chosen_at: float) -> str:
        """Return the browser's known-device marks, with a new one for this account and its password."""
        device = device or new_id()
        fresh = rate_limits.mint_mark(
            self._mark_key, account=digest, device=device, chosen_at=chosen_at, now=self.clock()
        )
        return rate_limits.with_mark(marks, fresh)


def chosen_at(held: Sequence[Credential]) -> float:
    """Return when the password among these credentials was chosen, which a known-device mark names; 0.0 without one."""
    return next((each.created_at for each in held if each.method == PASSWORD), 0.0)
