"""Ways to sign in that are set aside when a password is reset, until the owner says that they are theirs.

A thief who was inside may have added a passkey or linked a log-in, and a new password alone would not keep them out.
Only the owner knows which are theirs. So those of the last week sign no one in until the person who chose the password
has signed in and kept them; the older ones stay, or an owner who forgot the password would lose their passkey, too.

An app of the last week is not asked for meanwhile: a thief may have added it to lock the owner out, and a week ago the
mailbox alone opened the account. It stays where an older factor was replaced by it, and where the policy lets no mail
remove factors, such as an administrator's: the second step would be gone. Beside an older passkey it goes, and so do
recovery codes in any case: they stand in for a factor, which stays.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Final

from msgspec import Struct

from dutchdoor.credentials.passkey import PASSKEY, facts_of
from dutchdoor.credentials.recovery_code import RECOVERY_CODE
from dutchdoor.credentials.totp import TOTP
from dutchdoor.errors import NotFound, Refused
from dutchdoor.model.accounts import Account, Credential
from dutchdoor.model.audit_events import AuditSearch, EventName, account_event
from dutchdoor.model.http_client import Client
from dutchdoor.model.ids import encode
from dutchdoor.model.set_aside import PREPARED_FOR, SET_ASIDE, aside, put_back
from dutchdoor.services.factors import FACTORS
from dutchdoor.services.identities import IDENTITY, Identities
from dutchdoor.services.part import Part, Shared
from dutchdoor.services.retry import RACES, retried
from dutchdoor.stores.base import Add, Change, Expect, Log, Store, Take
from dutchdoor.texts import mark

__all__ = ["Aside", "SetAside", "had_factor", "prepared", "setting_aside"]

_PROVING = frozenset({*FACTORS, RECOVERY_CODE})
_ADDED_BY: Final[Mapping[str, EventName]] = {IDENTITY: "identity_linked", RECOVERY_CODE: "recovery_codes_created"}
_SAME = 5.0
"""Seconds between a credential and its audit event, or the recovery codes that came with it."""


class Aside(Struct, frozen=True, kw_only=True):
    """One that waits for its owner's answer, or is young enough to be looked at."""

    id: str
    """Names it among those of the account."""
    method: str
    """`passkey`, `identity`, `totp` or `recovery_code`: all codes are one."""
    title: str
    """The issuer of a linked log-in; "" for others."""
    name: str
    """What its owner calls a passkey, or the person's address at the issuer."""
    added_at: float
    device: str
    """The device that added it, such as `Firefox on Linux`; "" if the audit log does not say any more."""
    country: str


class SetAside(Part):
    """Keeps and removes what was set aside, over one authority. `client` is the client that asks. Every verb raises
    `Unavailable` when the store is out of reach.
    """

    def __init__(self, shared: Shared, identities: Identities) -> None:
        super().__init__(shared)
        self.identities = identities

    async def of(self, subject: str) -> list[Aside]:
        """Return what was set aside of a `subject`, and from where it was added, oldest first."""
        held = await self.store.select(Credential, subject=subject)
        aside = [put_back(each) for each in held if each.method == SET_ASIDE]
        if not any(each.method in FACTORS for each in (*held, *aside)):  # codes that stand in for nothing
            aside = [each for each in aside if each.method != RECOVERY_CODE]
        return await self._all_shown(aside)

    async def young(self, account: Account) -> list[Aside]:
        """Return what was added to an `account` within the last week and proves who its owner is, oldest first: what to
        look at for who has just changed the password, which leaves it as it is.
        """
        held = await self.store.select(Credential, subject=account.subject)
        return await self._all_shown(prepared(account, held, self.clock()))

    async def _all_shown(self, found: Sequence[Credential]) -> list[Aside]:
        factors = [each for each in found if each.method in FACTORS]
        alone = [e for e in found if e.method != RECOVERY_CODE or not any(_together(e, each) for each in factors)]
        return [await self._shown(each) for each in sorted(alone, key=lambda each: each.created_at)]

    async def _shown(self, held: Credential) -> Aside:
        title = name = ""
        if held.method == PASSKEY:
            name = facts_of(held).name
        elif held.method == IDENTITY:
            (linked,) = self.identities.among([held])
            title, name = linked.title, linked.shown
        event = _ADDED_BY.get(held.method, "factor_added")
        # Those about that instant alone: a thief who adds many others must not push theirs out of what is read.
        since, until = held.created_at - _SAME, held.created_at + _SAME
        wanted = AuditSearch(subject=held.subject, name=event, since=since, until=until)
        found, _ = await self.store.look_for_events(wanted)
        added = min(found, key=lambda each: abs(each.at - held.created_at), default=None)
        return Aside(
            id=_id_of(held),
            method=held.method,
            title=title,
            name=name,
            added_at=held.created_at,
            device="" if added is None else added.device,
            country="" if added is None else added.country,
        )

    @retried(RACES, "keeping what was set aside")
    async def keep(self, account: Account, id: str, *, client: Client) -> None:
        """Let something sign in again that was set aside, because it is the owner's. With a factor come the recovery
        codes that were made with it.

        Args:
            account: its owner, who has proved recently who they are.
            id: which one, as `of` returns it.

        Raises:
            NotFound: nothing of that id is set aside.
            Refused: another one has taken its place, another account has linked the log-in, or recovery codes would
                stand in for no second factor.
        """
        held, record = await self._record(account, id)
        kept = put_back(record)
        changes: list[Change] = [Expect(account.subject, account.epoch), Take(record)]
        taken = next((each for each in held if (each.method, each.handle) == (kept.method, kept.handle)), None)
        if kept.method == TOTP and taken is not None:
            raise Refused("another app", message=mark("Your account has another authenticator app. Remove this one."))
        if kept.method == RECOVERY_CODE and not any(each.method in FACTORS for each in held):
            raise Refused(
                "codes without a factor", message=mark("Say first that your passkey or authenticator app is yours.")
            )
        if taken is None:
            if kept.handle and await self.store.find(Credential, method=kept.method, handle=kept.handle) is not None:
                raise Refused("another account has it", message=mark("Another account uses it by now. Remove it here."))
            changes.append(Add(kept))
        for each in _with(kept, held):
            changes += [Take(each), Add(put_back(each))]
        changes.append(Log(account_event("way_kept", account, client, self.clock(), detail=kept.method)))
        await self.store.commit(*changes)

    @retried(RACES, "removing what was set aside")
    async def remove(self, account: Account, id: str, *, client: Client) -> None:
        """Remove something for good that was set aside, because it is not the owner's.

        Args:
            account: its owner, who has proved recently who they are.
            id: which one, as `of` returns it.

        Raises:
            NotFound: nothing of that id is set aside.
        """
        held, record = await self._record(account, id)
        gone, now = put_back(record), self.clock()
        changes: list[Change] = [Expect(account.subject, account.epoch), Take(record), *map(Take, _with(gone, held))]
        if gone.method == IDENTITY:
            (linked,) = self.identities.among([gone])
            changes.append(Log(account_event("identity_unlinked", account, client, now, detail=linked.issuer)))
        else:
            changes.append(Log(account_event("factor_removed", account, client, now, detail=gone.method)))
        await self.store.commit(*changes)

    async def _record(self, account: Account, id: str) -> tuple[Sequence[Credential], Credential]:
        held = await self.store.select(Credential, subject=account.subject)
        found = next((each for each in held if each.method == SET_ASIDE and _id_of(put_back(each)) == id), None)
        if found is None:
            raise NotFound("nothing of that id", message=mark("It is kept or removed already."))
        return held, found


def _with(factor: Credential, held: Sequence[Credential]) -> list[Credential]:
    """Return the record of the recovery codes that were made with a `factor`, if they are set aside and it is one."""
    aside = [each for each in held if each.method == SET_ASIDE and factor.method in FACTORS]
    return [e for e in aside if put_back(e).method == RECOVERY_CODE and _together(put_back(e), factor)]


def _together(codes: Credential, factor: Credential) -> bool:
    return abs(codes.created_at - factor.created_at) < _SAME


def prepared(account: Account, held: Sequence[Credential], now: float) -> list[Credential]:
    """Return what among the credentials `held` of an account a thief may have added within the last week."""
    # The log-in by which the account began is its owner's: they may choose a first password beside it.
    began = account.created_at + _SAME
    recent = [each for each in held if each.created_at >= now - PREPARED_FOR]
    return [e for e in recent if e.method in _PROVING or (e.method == IDENTITY and e.created_at > began)]


def setting_aside(
    account: Account, held: Sequence[Credential], client: Client, now: float, *, by_mail: bool
) -> list[Change]:
    """Return what sets aside the ways to sign in that were added shortly before the password of an account is reset.

    Args:
        account: the account.
        held: all its credentials.
        client: the client that resets it, for the audit event.
        by_mail: whether mail may remove the account's second factors: the policy lets it, and the account has had none
            until this week.
    """
    older = {each.method for each in held if each.created_at < now - PREPARED_FOR}
    app_goes = PASSKEY in older or (by_mail and RECOVERY_CODE not in older)
    going = [each for each in prepared(account, held, now) if each.method != TOTP or app_goes]
    if not going:
        return []
    before = {each.handle: each for each in held if each.method == SET_ASIDE}
    changes: list[Change] = []
    for each in going:
        record = aside(each, now, asked=not by_mail and each.method == PASSKEY)
        if record.handle in before:  # of an app that was set up again since
            changes.append(Take(before[record.handle]))
        changes += [Take(each), Add(record)]
    methods = ", ".join(sorted({each.method for each in going}))
    changes.append(Log(account_event("ways_set_aside", account, client, now, detail=methods)))
    return changes


async def had_factor(store: Store, subject: str, held: Sequence[Credential], now: float) -> bool:
    """Whether an account, whose credentials are `held`, has had a second factor until this week: more were removed than
    were added and are gone, or all were removed by mail. Otherwise, who reads the mail would get in after each change
    of the phone.
    """
    since = now - PREPARED_FOR
    if await store.events(subject=subject, name="factors_removed", since=since, limit=1):
        return True
    # All of the week are counted, or a thief who adds and removes one again and again would choose the answer.
    removed = await store.count_details("factor_removed", subject=subject, since=since)
    added = await store.count_details("factor_added", subject=subject, since=since)
    every = [put_back(each) if each.method == SET_ASIDE else each for each in held]
    for method in FACTORS:
        there = sum(each.method == method and each.created_at >= since for each in every)
        if removed.get(method, 0) > added.get(method, 0) - there:
            return True
    return False


def _id_of(credential: Credential) -> str:
    named = f"{credential.method} {credential.handle}"
    return encode(hashlib.blake2b(named.encode(), digest_size=16).digest())
