"""What an administrator did within a week that a new password leaves standing.

A thief in the session of an administrator gives a role to another account, adds a webhook or makes a key for a program,
and comes back by it. None of that is undone by itself: a service may rely on it by now, and the owner may have done it.
So it is listed for the owner, with the way to undo it. What is undone already is not listed.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final, NamedTuple

from msgspec import Struct

from dutchdoor.model.accounts import Account
from dutchdoor.model.acting import COMMAND
from dutchdoor.model.audit_events import AuditEvent, AuditSearch, EventName
from dutchdoor.model.one_time_tokens import OneTimeToken
from dutchdoor.model.service_credentials import RegisteredClient, VerifierKey
from dutchdoor.model.set_aside import PREPARED_FOR
from dutchdoor.model.webhooks import Webhook
from dutchdoor.services.invitations import invitation_of
from dutchdoor.services.part import Part
from dutchdoor.texts import mark

__all__ = ["Deed", "Deeds"]

_LISTED = 50
"""Deeds of each kind that are listed, the newest. The audit log has all."""
_MEANWHILE = 60.0
"""Seconds after a reset in which a request of the thief may still end that began before it."""


class _Kind(NamedTuple):
    text: str
    """What was done, for the owner."""
    undo: str
    """The command or the call that undoes it, with a place for the id."""


_KINDS: Final[Mapping[EventName, _Kind]] = {
    "account_created": _Kind(mark("An account with roles was created"), "dutchdoor user disable {}"),
    "roles_changed": _Kind(mark("An account was given roles"), "dutchdoor user role {} --none"),
    "invitation_sent": _Kind(mark("An invitation with roles was sent"), "DELETE /admin/api/invitations/{}"),
    "webhook_added": _Kind(mark("A webhook was added"), "dutchdoor webhook remove {}"),
    "webhook_secret_changed": _Kind(mark("A webhook got a new secret"), "dutchdoor webhook rotate {}"),
    "verifier_added": _Kind(mark("A verifier key was made"), "dutchdoor verifier remove {}"),
    "verifier_key_changed": _Kind(mark("A verifier got a new key"), "dutchdoor verifier rotate {}"),
    "client_added": _Kind(mark("A client was added"), "dutchdoor client remove {}"),
    "client_secret_changed": _Kind(mark("A client got a new secret"), "dutchdoor client rotate {}"),
}
_OF_ACCOUNTS: Final = frozenset({"account_created", "roles_changed"})
_BEFORE: Final[Mapping[EventName, float]] = {
    "password_changed": PREPARED_FOR,
    "password_removed": PREPARED_FOR,
    "password_reset": PREPARED_FOR,
    "email_restored": 2 * PREPARED_FOR,
}
"""How an owner keeps others out, and for how many seconds before a thief may have prepared the account. The link that
brings an address back is valid for a week.
"""


class Deed(Struct, frozen=True, kw_only=True):
    """One of them, which still stands."""

    name: EventName
    """Its audit event."""
    text: str
    """What was done; of the catalogues."""
    at: float
    id: str
    """The subject of the account, or the id of the invitation, the webhook or the client, or the name of the verifier.
    """
    shown: str
    """The same for people: an address, the host of the webhook, or a name. A thief may have chosen it."""
    roles: tuple[str, ...]
    """The roles that the account has now, or the invitation gives."""
    undo: str
    """The command or the call that undoes it."""
    device: str
    """The device of the administrator, such as `Firefox on Linux`; "" if unknown."""
    country: str


class Deeds(Part):
    """Finds what stands, over one authority. Every verb raises `Unavailable` when the store is out of reach."""

    async def lately(self, account: Account, *, since: float | None = None) -> list[Deed]:
        """Return what the owner of an `account` did as an administrator since an instant, the last week if not given:
        what to look at for the owner who chooses a password now, the newest first. Empty for an account that is no
        administrator's.
        """
        now = self.clock()
        return await self._found(account, now - PREPARED_FOR if since is None else since, now)

    async def of(self, account: Account) -> list[Deed]:
        """Return the same for the week before the owner of an `account` kept others out, by a new password for example,
        if that was within the last week. What is done later is not the thief's.
        """
        if not account.administers:
            return []
        spans: list[tuple[float, float]] = []
        for name, before in _BEFORE.items():
            wanted = AuditSearch(subject=account.subject, name=name, outcome="ok", since=self.clock() - PREPARED_FOR)
            events, _ = await self.store.look_for_events(wanted, limit=1)
            spans += [(each.at - before, each.at) for each in events]
        if not spans:
            return []
        return await self._found(account, min(since for since, _ in spans), max(at for _, at in spans))

    async def _found(self, account: Account, since: float, at: float) -> list[Deed]:
        if not account.administers:
            return []
        until, found = at + _MEANWHILE, list[Deed]()
        for name in _KINDS:
            wanted = AuditSearch(name=name, actor=account.subject, outcome="ok", since=since, until=until)
            events, _ = await self.store.look_for_events(wanted, limit=_LISTED)
            undone = await self._changed_again(name, account.subject, until) if events else frozenset()
            # The newest of each thing alone: roles may have been given in several steps.
            newest = {_of(event): event for event in reversed(events) if _of(event) not in undone}
            standing = [await self._standing(event) for event in newest.values()]
            found += [deed for deed in standing if deed is not None]
        return sorted(found, key=lambda deed: deed.at, reverse=True)

    async def _changed_again(self, name: EventName, subject: str, since: float) -> frozenset[str]:
        """Return which secrets the owner has changed since: only the audit log says so."""
        if not name.endswith("_secret_changed"):
            return frozenset()
        found, _ = await self.store.look_for_events(AuditSearch(name=name, since=since), limit=_LISTED)
        return frozenset(_of(event) for event in found if event.actor in {subject, COMMAND})

    async def _standing(self, event: AuditEvent) -> Deed | None:
        """Return what an event tells of, unless it is undone."""
        about = _of(event)
        roles: tuple[str, ...] = ()
        if event.name in _OF_ACCOUNTS:
            if about == event.actor:  # the way back of a thief is another account
                return None
            account = await self.store.account(about)
            if account is None or not (account.active and account.roles):
                return None
            name, roles = account.address or account.name or about, account.roles
        elif event.name == "invitation_sent":
            token = await self.store.get(OneTimeToken, about)
            if token is None or token.purpose != "invitation" or not (invited := invitation_of(token)).roles:
                return None
            name, roles = invited.address, invited.roles
        elif event.name.startswith("webhook"):
            webhook = await self.store.get(Webhook, about)
            if webhook is None:
                return None
            name = webhook.host
        elif event.name.startswith("verifier"):
            # A key that replaced it has another id.
            key = await self.store.get(VerifierKey, about)
            if key is None:
                return None
            about = name = key.name
        else:
            client = await self.store.get(RegisteredClient, about)
            if client is None:
                return None
            name = client.name
        text, undo = _KINDS[event.name]
        return Deed(
            name=event.name,
            text=text,
            at=event.at,
            id=about,
            shown=name,
            roles=roles,
            undo=undo.format(about),
            device=event.device,
            country=event.country,
        )


def _of(event: AuditEvent) -> str:
    """Return the id of what an event is about."""
    if event.name in _OF_ACCOUNTS:
        return event.subject
    return event.client_id or event.detail.partition(" ")[0]
