"""Webhooks: adding, changing and removing endpoints that are sent audit events.

The command line, the admin API and the console call these verbs. Each writes an audit event with the change it records.
A secret is returned once, by the verb that makes it, and stored sealed: it signs, so a hash would not do.
`delivering` sends.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from importlib import import_module
from ipaddress import ip_address
from typing import TYPE_CHECKING, Final, NamedTuple, get_args
from urllib.parse import urlsplit

from msgspec.structs import replace

from dutchdoor.errors import InvalidInput, NotFound
from dutchdoor.model.audit_events import AuditCursor, EventName, event
from dutchdoor.model.http_client import Client
from dutchdoor.model.ids import new_id, ordered_from
from dutchdoor.model.webhooks import (
    MAIN,
    Lane,
    Secret,
    Webhook,
    check_names,
    check_url,
    message,
    new_secret,
    open_secrets,
    seal_secrets,
    signed,
)
from dutchdoor.services.retry import RACES, retried
from dutchdoor.services.sessions import Authority
from dutchdoor.stores.base import Add, Change, Discard, Log, Remove, Swap, Take
from dutchdoor.texts import mark
from dutchdoor.webhooks.reach import Reach

if TYPE_CHECKING:
    from dutchdoor.webhooks.sender import Answer, Sender

__all__ = ["AT_MOST", "OLD_SECRET_FOR", "NewWebhook", "Standing", "Webhooks"]

AT_MOST: Final = 50
"""Webhooks of one database. Each costs a look at the log every second."""
OLD_SECRET_FOR: Final = 24 * 3600.0
"""Seconds for which a replaced secret signs beside the new one."""
SECRETS_AT_MOST: Final = 4
LOOKED_AT: Final = 1000


class NewWebhook(NamedTuple):
    """A webhook, and its newest secret as text."""

    webhook: Webhook
    secret: str

    def __repr__(self) -> str:
        return f"NewWebhook({self.webhook!r})"


class Standing(NamedTuple):
    """How one webhook stands."""

    webhook: Webhook
    main: Lane
    waiting: tuple[Lane, ...]
    """The accounts whose events the endpoint does not take at the moment, the longest first."""
    behind_since: float
    """When the oldest event happened that was not delivered; 0.0 if there is none."""

    @property
    def is_failing(self) -> bool:
        return bool(self.webhook.disabled or self.waiting)


class Webhooks:
    """The webhooks of one authority. For audit events, `client` is the client that asks, and `actor` the subject that
    acts, or `cli`. Every verb raises `Unavailable` when the store is out of reach.

    Args:
        authority: whose store keeps them.
        networks: the networks besides the Internet that endpoints may be in.
    """

    def __init__(self, authority: Authority, networks: Sequence[str] = ()) -> None:
        self.authority, self.store, self.clock = authority, authority.store, authority.clock
        self.reach = Reach(networks)

    def sender(self, url: str) -> Sender:
        """Return what sends to an endpoint. Raises `ImportError` where httpx2 is not installed."""
        # Imported now: most servers have no webhook, and an HTTP client takes memory in every process.
        sender: Sender = import_module("dutchdoor.webhooks.sender").Sender(url, self.reach)
        return sender

    async def add(
        self, url: str, *, events: Sequence[str] = (), with_client: bool = False, client: Client, actor: str
    ) -> NewWebhook:
        """Add an endpoint. It is sent what happens from now on.

        Args:
            url: where it is: https, or http in the networks that are allowed.
            events: the names of the audit events that it gets; all of them if empty.
            with_client: whether it gets the address, country and device of clients, too.

        Raises:
            InvalidInput: the URL or an event is not acceptable, or there are too many webhooks.
        """
        url = check_url(url, plain=self.reach.has_networks)
        self._check_host(url)
        names = check_names(tuple(events), get_args(EventName))
        if len(await self.store.select(Webhook)) >= AT_MOST:
            raise InvalidInput(mark("There are %(most)s webhooks already. Remove one first.", most=AT_MOST))
        now, name, text = self.clock(), new_id(), new_secret()
        webhook = Webhook(
            id=name,
            url=url,
            events=names,
            with_client=with_client,
            sealed=seal_secrets(self.authority.master, name, [Secret(text)]),
            created_at=now,
        )
        lane = Lane(webhook=name, subject=MAIN, cursor=(await self.store.audit_end()).text(), reached_at=now)
        await self.store.commit(Add(webhook), Add(lane), self._log("webhook_added", webhook, client, actor))
        return NewWebhook(webhook, text)

    def _check_host(self, url: str) -> None:
        """Refuse an address that no message would reach. A name may be at another one each time, so each message is
        checked; this only says it early.
        """
        parts = urlsplit(url)
        with suppress(ValueError):
            address = str(ip_address(parts.hostname or ""))
            if refused := self.reach.refuses(address, plain=parts.scheme == "http"):
                text = mark("No message is sent there: %(why)s.", why=refused)
                raise InvalidInput(text, field="url")

    async def listed(self) -> list[Webhook]:
        return await self.store.select(Webhook)

    async def found(self, id: str) -> Webhook:
        """Raises `NotFound`."""
        webhook = await self.store.get(Webhook, id)
        if webhook is None:
            text = mark("There is no webhook %(webhook)s.", webhook=ascii(id[:64]))
            raise NotFound(text, message=text)
        return webhook

    async def standing(self, webhook: Webhook) -> Standing:
        """Return how far a webhook has got."""
        lanes = await self.store.select(Lane, webhook=webhook.id)
        main = next((lane for lane in lanes if lane.subject == MAIN), None)
        if main is None:  # it was removed at this moment
            raise NotFound("no such webhook")
        waiting = sorted((lane for lane in lanes if lane is not main), key=lambda lane: lane.failing_since)
        theirs = {lane.subject for lane in waiting}
        behind = [lane.reached_at for lane in waiting]
        try:
            page = await self.store.events_after(AuditCursor.parse(main.cursor), limit=LOOKED_AT)
        except InvalidInput:  # everything was moved, and the next sender finds its place
            page = []
        behind += [each.at for _, each in page if webhook.wants(each) and each.subject not in theirs][:1]
        return Standing(webhook, main, tuple(waiting), min(behind, default=0.0))

    @retried(RACES, "changing the secret of the webhook")
    async def rotate(self, id: str, *, client: Client, actor: str) -> NewWebhook:
        """Give a webhook a new secret. Messages carry a signature by each secret, the old one too, for a day: give the
        new one to the receiver meanwhile, and no message is refused.

        Raises:
            NotFound: there is no such webhook.
            InvalidInput: it has had several new secrets in one day.
        """
        webhook, now, text = await self.found(id), self.clock(), new_secret()
        before = [
            each for each in open_secrets(self.authority.master, webhook) if each.until is None or each.until > now
        ]
        if len(before) >= SECRETS_AT_MOST:
            raise InvalidInput(mark("This webhook had several new secrets today. Wait until an old one has expired."))
        listed = [Secret(text), *(Secret(each.text, each.until or now + OLD_SECRET_FOR) for each in before)]
        changed = replace(webhook, sealed=seal_secrets(self.authority.master, id, listed))
        await self.store.commit(Swap(changed), self._log("webhook_secret_changed", webhook, client, actor))
        return NewWebhook(changed, text)

    async def remove(self, id: str, *, client: Client, actor: str) -> Webhook:
        """Remove a webhook. What was not delivered is not sent any more.

        Raises:
            NotFound: there is no such webhook.
        """
        webhook = await self.found(id)
        await self.store.commit(
            Remove(webhook), Discard(Lane, {"webhook": id}), self._log("webhook_removed", webhook, client, actor)
        )
        return webhook

    @retried(RACES, "enabling the webhook")
    async def enable(self, id: str, *, client: Client, actor: str) -> Webhook:
        """Send to a disabled webhook again. It gets what happened meanwhile, as far as the audit log is kept. To an
        active one, what waits is sent at once.

        Raises:
            NotFound: there is no such webhook.
        """
        webhook = await self.found(id)
        lanes = await self.store.select(Lane, webhook=id)
        changes: list[Change] = [
            Swap(replace(lane, tries=0, next_at=0.0, failing_since=self.clock() if lane.failing_since else 0.0))
            for lane in lanes
        ]
        if webhook.disabled:
            webhook = replace(webhook, disabled="")
            changes += [Swap(webhook), self._log("webhook_enabled", webhook, client, actor)]
        await self.store.commit(*changes)
        return webhook

    @retried(RACES, "sending again")
    async def replay(self, id: str, since: float, *, subject: str = "", client: Client, actor: str) -> Webhook:
        """Send again, in order, what happened from an instant on: with the same ids, so that a receiver knows what it
        has had.

        Args:
            since: the instant, in seconds since 1970.
            subject: the account whose events are sent; "" for all.

        Raises:
            NotFound: there is no such webhook.
            InvalidInput: it is disabled.
        """
        webhook = await self.found(id)
        if webhook.disabled:
            raise InvalidInput(mark("This webhook is disabled. Enable it first."))
        place = await self.place_at(since)
        lanes = {lane.subject: lane for lane in await self.store.select(Lane, webhook=id)}
        name, main = subject or MAIN, lanes[MAIN]
        back = Lane(webhook=id, subject=name, cursor=place.text(), reached_at=min(since, self.clock()))
        changes: list[Change] = []
        if name in lanes:
            kept = {"revision": lanes[name].revision, "delivered_at": main.delivered_at}
            changes.append(Swap(replace(back, **kept, held_by=lanes[name].held_by, held_until=lanes[name].held_until)))
        else:
            changes.append(Add(back))
        if subject:  # every change of lanes swaps the main one: the process that sends begins again
            changes.append(Swap(main))
        else:  # the main lane has all accounts again
            changes += [Take(lane) for each, lane in lanes.items() if each != MAIN]
        await self.store.commit(*changes, self._log("webhook_replayed", webhook, client, actor))
        return webhook

    async def place_at(self, since: float) -> AuditCursor:
        """Return a place in the audit log that each event of an instant or later comes after."""
        first = await self.store.events_after(None, since=since, limit=1)
        if not first:
            return await self.store.audit_end()
        ((place, _),) = first
        # What a move has brought has no numbers, and is in the order of ids, which begin with the time.
        return AuditCursor(place.log, place.log_epoch, place.number, "" if place.number else ordered_from(since))

    async def test(self, id: str) -> Answer:
        """Send a message of the type `test` now, and return what the endpoint answered.

        Raises:
            NotFound: there is no such webhook.
        """
        webhook, now = await self.found(id), self.clock()
        body = message("test", now, {})
        headers = signed(f"test_{new_id()}", body, open_secrets(self.authority.master, webhook), now)
        sender = self.sender(webhook.url)
        try:
            return await sender.post(headers, body)
        finally:
            await sender.close()

    def _log(self, name: EventName, webhook: Webhook, client: Client, actor: str) -> Log:
        # The host alone: a path or a query may hold a secret of the receiver.
        return Log(event(name, now=self.clock(), client=client, actor=actor, detail=f"{webhook.id} {webhook.host}"))
