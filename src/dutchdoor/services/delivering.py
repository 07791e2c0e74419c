"""Delivering: sends what the audit log says to the endpoints of webhooks.

One process at a time sends for a webhook: the one that holds its main lane. Every change of a webhook's lanes swaps the
main lane with it, so that a process that has lost it, or that has not seen a replay, commits nothing.

A round reads what is behind the main lane, and sends the events of several accounts at once, those of one account one
after the other. Then it commits how far the endpoint has got. A process that is killed in between has its events sent
again by the next one, under the same ids. An account whose event is not taken gets a lane of its own, and is tried
again later and later, while the others go on. With `LANES` of them it is the endpoint that fails, and the others wait.

An account leaves its own lane when a read of that lane to its end was all delivered. The main lane was read before, so
it has passed no event of the account that this read has not seen.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import secrets
import time
from collections.abc import Collection
from typing import TYPE_CHECKING, Final, NamedTuple

from msgspec.structs import replace

from dutchdoor.errors import Conflict, DutchdoorError, InvalidInput, Unavailable
from dutchdoor.model.acting import BY_SYSTEM
from dutchdoor.model.audit_events import AuditCursor, AuditEvent, EventName, event
from dutchdoor.model.ids import new_id
from dutchdoor.model.webhooks import KEEP_TRYING_FOR, MAIN, Lane, Webhook, back_off, open_secrets, payload, signed
from dutchdoor.services.hooks import notify
from dutchdoor.services.webhooks import Webhooks
from dutchdoor.stores.base import Add, Change, Log, Swap, Take

if TYPE_CHECKING:
    from dutchdoor.webhooks.sender import Answer, Sender

__all__ = ["LANES", "LEASE", "Courier", "Deliveries"]

LOOK_EVERY: Final = 3.0
"""Seconds between two looks for webhooks that were added, or whose process is gone."""
POLL_EVERY: Final = 1.0
"""Seconds between two looks at the log, for what other processes have written."""
PAGE, LANE_PAGE = 200, 20
"""Events that a round reads, and those of an account in its own lane."""
WIDTH: Final = 8
"""Messages that are under way to one endpoint at once."""
LANES: Final = 16
"""Accounts that may wait alone. With more of them it is the endpoint that fails."""
ROUND_FOR: Final = 5.0
"""Seconds after which a round begins no further message."""
LEASE, RENEWED_BELOW = 30.0, 21.0
"""Seconds for which a process holds the main lane; and how much of it a round needs, with the time-out of its last
message."""
HOLD_AT_MOST: Final = 3600.0
"""The longest Retry-After that is granted."""
MOVED_BACK: Final = 600.0
"""Seconds of events that are sent again after a move into another database."""
STOPS_WITHIN: Final = 2.0
GONE: Final = 410

_log = logging.getLogger("dutchdoor")


class _Placed(NamedTuple):
    place: AuditCursor
    event: AuditEvent


class _Run:
    """What a round sends of one account, one event after the other, and how far it came."""

    def __init__(self, events: list[_Placed], *, read_to: _Placed | None = None, to_the_end: bool = False) -> None:
        self.events, self.read_to, self.to_the_end = events, read_to, to_the_end
        self.delivered: list[_Placed] = []
        self.failed: _Placed | None = None
        self.answer: Answer | None = None

    @property
    def is_done(self) -> bool:
        return len(self.delivered) == len(self.events)


class _Round(NamedTuple):
    """What one round works on."""

    webhook: Webhook
    main: Lane
    lanes: dict[str, Lane]
    """The lanes of accounts, by their subjects."""
    start: AuditCursor
    """Where the main lane is."""
    page: list[_Placed]
    """What is behind it."""
    runs: dict[str, _Run]
    """By the subject."""

    @property
    def is_blocked(self) -> bool:
        return len(self.lanes) >= LANES


class Courier:
    """Sends for one webhook.

    Args:
        webhooks: the verbs, with the store and the clock.
        id: which webhook.
        name: which process this is.
    """

    def __init__(self, webhooks: Webhooks, id: str, name: str) -> None:
        self._webhooks, self.id, self._name = webhooks, id, name
        self._store, self._clock = webhooks.store, webhooks.clock
        self._sender: Sender | None = None
        self._url = ""
        self._done: set[str] = set()
        """Ids of events that were delivered, and that the main lane has not passed."""
        self._revision = -1
        """That of the main lane after the last commit."""
        self._at_end = "", 0.0
        """A place where the main lane was at the end of the log, and when."""
        self.holds = False
        """Whether this process sends."""
        self.behind_since, self.waiting = 0.0, 0
        """When the oldest event happened that was not delivered, 0.0 for none; and the accounts that wait alone."""

    async def round(self) -> float | None:
        """Send what is due, and commit how far the endpoint has got. Return the seconds to the next round: 0.0 if there
        is more to send, and None if there is no such active webhook.

        Raises:
            Conflict: another process sends, or a verb changed the lanes: begin again.
            Unavailable: the store is out of reach.
        """
        webhook = await self._store.get(Webhook, self.id)
        lanes = {lane.subject: lane for lane in await self._store.select(Lane, webhook=self.id)}
        main = lanes.pop(MAIN, None)
        if webhook is None or webhook.disabled or main is None:
            self.holds = False
            return None
        now = self._clock()
        if main.revision != self._revision:  # such as by a replay, which sends again what was delivered
            self._done.clear()
        if main.held_by != self._name:
            self.holds = False
            if main.held_until > now:
                return min(LOOK_EVERY, main.held_until - now)
        main = await self._hold(main, now)
        if main.next_at > now:  # the endpoint has asked for it
            return min(POLL_EVERY, main.next_at - now)
        found = await self._find(webhook, main, lanes, now)
        is_gone = await self._send(found)
        return await self._settle(found, is_gone=is_gone)

    async def _hold(self, main: Lane, now: float) -> Lane:
        """Return the main lane, held by this process for as long as a round takes."""
        self.holds = True
        if main.held_by == self._name and main.held_until - now > RENEWED_BELOW:
            return main
        place, at = self._at_end
        if place == main.cursor:
            main = replace(main, reached_at=max(at, main.reached_at))
        return await self._swap(replace(main, held_by=self._name, held_until=now + LEASE))

    async def _swap(self, main: Lane, *others: Change) -> Lane:
        await self._store.commit(Swap(main), *others)
        self._revision = main.revision + 1
        return replace(main, revision=self._revision)

    async def _find(self, webhook: Webhook, main: Lane, lanes: dict[str, Lane], now: float) -> _Round:
        """Read what is due. The main lane comes first: see the top of this file."""
        start, page = await self._read(main, limit=0 if len(lanes) >= LANES else PAGE)
        runs: dict[str, _Run] = {}
        for placed in page:
            subject = placed.event.subject
            if subject not in lanes and placed.event.id not in self._done and webhook.wants(placed.event):
                runs.setdefault(subject, _Run([])).events.append(placed)
        for lane in lanes.values():
            if lane.next_at <= now:
                _, read = await self._read(lane, limit=LANE_PAGE, subject=lane.subject)
                wanted = [placed for placed in read if webhook.wants(placed.event)]
                last = read[-1] if read else None
                runs[lane.subject] = _Run(wanted, read_to=last, to_the_end=len(read) < LANE_PAGE)
        return _Round(webhook, main, lanes, start, page, runs)

    async def _read(self, lane: Lane, *, limit: int, subject: str | None = None) -> tuple[AuditCursor, list[_Placed]]:
        """Return where a lane is in this log, and what is behind it."""
        cursor = AuditCursor.parse(lane.cursor)
        if not limit:
            return cursor, []
        try:
            found = await self._store.events_after(cursor, subject=subject, limit=limit)
        except InvalidInput:  # everything was moved into another database, which has another log
            cursor = await self._webhooks.place_at(lane.reached_at - MOVED_BACK)
            found = await self._store.events_after(cursor, subject=subject, limit=limit)
        return cursor, [_Placed(*each) for each in found]

    async def _send(self, found: _Round) -> bool:
        """Send what was found, and note in each run what became of it. Return whether the endpoint says that it is gone
        for good (410).
        """
        webhook, room = found.webhook, LANES - len(found.lanes)
        if self._sender is None or self._url != webhook.url:
            await self.close()
            self._sender, self._url = self._webhooks.sender(webhook.url), webhook.url
        sender, width, is_gone = self._sender, asyncio.Semaphore(WIDTH), False
        secrets = open_secrets(self._webhooks.authority.master, webhook)
        over_at = time.monotonic() + ROUND_FOR

        async def send(subject: str, run: _Run) -> None:
            nonlocal is_gone, room
            async with width:
                for placed in run.events:
                    if is_gone or time.monotonic() >= over_at or (room <= 0 and subject not in found.lanes):
                        return
                    body = payload(placed.event, with_client=webhook.with_client)
                    answer = await sender.post(signed(placed.event.id, body, secrets, self._clock()), body)
                    notify(self._webhooks.authority.hooks.delivered, answer.ok)
                    if not answer.ok:
                        run.failed, run.answer = placed, answer
                        is_gone = is_gone or answer.status == GONE
                        room -= subject not in found.lanes
                        return
                    run.delivered.append(placed)

        async with asyncio.TaskGroup() as group:
            for subject, run in found.runs.items():
                group.create_task(send(subject, run))
        return is_gone

    async def _settle(self, found: _Round, *, is_gone: bool) -> float | None:
        """Commit what became of a round, and return the seconds to the next one."""
        now, answers = self._clock(), [run.answer for run in found.runs.values() if run.answer is not None]
        delivered = [placed for run in found.runs.values() for placed in run.delivered]
        start = found.start.log_epoch, found.start.number
        self._done.update(each.event.id for each in delivered if (each.place.log_epoch, each.place.number) >= start)
        holds = max((answer.retry_after or 0.0 for answer in answers), default=0.0)
        delivered_at = now if delivered else found.main.delivered_at
        changes, apart, is_failing = self._lanes_after(found, delivered_at, now)
        if found.is_blocked and delivered:  # it works again: the others do not wait for their time
            resting = [lane for subject, lane in apart.items() if subject not in found.runs]
            changes += [Swap(replace(lane, next_at=now)) for lane in resting]
        passed = self._passed(found, {*found.lanes, *apart})
        is_at_end = passed == len(found.page) < PAGE and not found.is_blocked
        reached = found.page[passed - 1] if passed else None
        main = replace(
            found.main,
            cursor=(reached.place if reached else found.start).text(),
            reached_at=now if is_at_end else reached.event.at if reached else found.main.reached_at,
            delivered_at=delivered_at,
            next_at=now + min(holds, HOLD_AT_MOST) if holds else 0.0,
        )
        if is_gone or is_failing:
            changes += self._disabling(found.webhook, "gone" if is_gone else "failing", now)
        if changes or passed or delivered or main.next_at != found.main.next_at:
            await self._swap(main, *changes)
        self._done.difference_update(placed.event.id for placed in found.page[:passed])
        self._at_end = (main.cursor, now) if is_at_end else ("", 0.0)
        waits = [lane.reached_at for lane in apart.values()] + [each.event.at for each in found.page[passed:]][:1]
        self.behind_since, self.waiting = min(waits, default=0.0), len(apart)
        if is_gone or is_failing:
            return None
        return POLL_EVERY if is_at_end or not (delivered or passed) else 0.0

    def _lanes_after(
        self, found: _Round, delivered_at: float, now: float
    ) -> tuple[list[Change], dict[str, Lane], bool]:
        """Return what changes the lanes of accounts, the lanes as they are then, and whether the endpoint has taken
        nothing from anyone for too long.
        """
        changes: list[Change] = []
        apart, is_failing = dict(found.lanes), False
        for subject, run in found.runs.items():
            lane = found.lanes.get(subject)
            if lane is None:
                if run.failed is not None:
                    before = _place_before(run.failed, found).text()
                    lane = Lane(webhook=found.webhook.id, subject=subject, cursor=before, reached_at=0.0)
                    apart[subject] = _failed(lane, run, now)
                    changes.append(Add(apart[subject]))
                    _log.warning(
                        "webhook %s (%s) does not take event %s, trying again: %s",
                        *(found.webhook.id, found.webhook.host, run.failed.event.id, apart[subject].failure),
                    )
                continue
            if run.failed is None and run.is_done and run.to_the_end:
                del apart[subject]
                changes.append(Take(lane))
                continue
            after = _failed(_advanced(lane, run, now), run, now)
            if run.failed is not None and now - after.failing_since >= KEEP_TRYING_FOR:
                if delivered_at > after.failing_since:
                    after = _past(after, run.failed, now)
                    changes.append(self._giving_up(found.webhook, run.failed.event, now))
                else:
                    is_failing = True
            if after != lane:
                apart[subject] = after
                changes.append(Swap(after))
        return changes, apart, is_failing

    def _passed(self, found: _Round, apart: Collection[str]) -> int:
        """Return how many events of the page the main lane has passed: delivered, not wanted, or of another lane."""
        for number, (_, each) in enumerate(found.page):
            if found.webhook.wants(each) and each.subject not in apart and each.id not in self._done:
                return number
        return len(found.page)

    def _disabling(self, webhook: Webhook, why: str, now: float) -> list[Change]:
        _log.error("webhook %s (%s) is disabled: %s", webhook.id, webhook.host, why)
        detail = f"{webhook.id} {webhook.host}: {why}"
        return [Swap(replace(webhook, disabled=why)), _record("webhook_disabled", detail, now)]

    def _giving_up(self, webhook: Webhook, lost: AuditEvent, now: float) -> Log:
        _log.error("webhook %s (%s): event %s was given up", webhook.id, webhook.host, lost.id)
        # Without a subject: as an event of the account, it would be the next that the endpoint does not take.
        return _record("webhook_given_up", f"{webhook.id} event {lost.id} of {lost.subject or 'no account'}", now)

    async def release(self) -> None:
        """Let another process send at once."""
        main = await self._store.get(Lane, self.id, MAIN)
        if main is not None and main.held_by == self._name:
            await self._swap(replace(main, held_by="", held_until=0.0))

    async def close(self) -> None:
        """Close the connections."""
        if self._sender is not None:
            await self._sender.close()
            self._sender = None


def _place_before(placed: _Placed, found: _Round) -> AuditCursor:
    number = found.page.index(placed)
    return found.page[number - 1].place if number else found.start


def _advanced(lane: Lane, run: _Run, now: float) -> Lane:
    """Return a lane behind what was delivered."""
    last = run.read_to if run.is_done else run.delivered[-1] if run.delivered else None
    return lane if last is None else _past(lane, last, now)


def _past(lane: Lane, placed: _Placed, now: float) -> Lane:
    """Return a lane behind an event. The next one has all its attempts before it."""
    return replace(
        lane,
        cursor=placed.place.text(),
        reached_at=placed.event.at,
        tries=0,
        next_at=now,
        failing_since=0.0,
        failure="",
    )


def _failed(lane: Lane, run: _Run, now: float) -> Lane:
    """Return a lane after a failed attempt at its next event, if there was one."""
    if run.failed is None or run.answer is None:
        return lane
    return replace(
        lane,
        reached_at=run.failed.event.at,
        tries=lane.tries + 1,
        next_at=now + back_off(lane.tries + 1, secrets.randbelow(1000) / 1000),
        failing_since=lane.failing_since or now,
        failure=run.answer.failure,
    )


def _record(name: EventName, detail: str, now: float) -> Log:
    return Log(event(name, now=now, **BY_SYSTEM, detail=detail))


class Deliveries:
    """Sends for all webhooks, as far as no other process does.

    Args:
        webhooks: the verbs, over an authority that is open before `begin`.
    """

    def __init__(self, webhooks: Webhooks) -> None:
        self.webhooks, self._name = webhooks, new_id()
        self._couriers: dict[str, tuple[Courier, asyncio.Task[None]]] = {}
        self._woken: dict[str, asyncio.Event] = {}
        self._task: asyncio.Task[None] | None = None

    @property
    def couriers(self) -> list[Courier]:
        """Those that send, in this process."""
        return [courier for courier, _ in self._couriers.values() if courier.holds]

    def begin(self) -> None:
        """Send from now on."""
        self.webhooks.authority.hooks.logged.append(self.wake)
        self._task = asyncio.create_task(self._run())

    def wake(self) -> None:
        """An audit event was committed here: look at once."""
        for woken in self._woken.values():
            woken.set()

    async def close(self) -> None:
        """Stop, and let another process send at once. A message that is under way is sent again by that one."""
        if self._task is None:
            return
        self.webhooks.authority.hooks.logged.remove(self.wake)
        tasks = [self._task, *(task for _, task in self._couriers.values())]
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks, timeout=STOPS_WITHIN)
        for courier, _ in self._couriers.values():
            with contextlib.suppress(DutchdoorError):
                if courier.holds:
                    await courier.release()
            await courier.close()
        self._couriers, self._task = {}, None

    async def _run(self) -> None:
        """Look for webhooks, and begin to send for each. The store may be gone at any moment."""
        while True:
            await asyncio.sleep(LOOK_EVERY)
            try:
                there = [webhook.id for webhook in await self.webhooks.listed() if not webhook.disabled]
            except DutchdoorError as exc:
                _log.debug("cannot look for webhooks, trying again: %s", exc.reason)
                continue
            except Exception:  # noqa: BLE001 - the loop must go on: otherwise nothing would be sent again
                _log.exception("cannot look for webhooks, trying again")
                continue
            for name in there:
                if name not in self._couriers:
                    courier = Courier(self.webhooks, name, self._name)
                    self._woken[name] = asyncio.Event()
                    self._couriers[name] = courier, asyncio.create_task(self._work(courier))

    async def _work(self, courier: Courier) -> None:
        """Do one round after the other, until the webhook is removed or disabled."""
        woken = self._woken[courier.id]
        try:
            while True:
                woken.clear()
                wait = await self._round(courier)
                if wait is None:
                    break
                with contextlib.suppress(TimeoutError):
                    # Who does not send is not woken: each event would cost each process two look-ups.
                    await asyncio.wait_for(woken.wait() if courier.holds else asyncio.Event().wait(), wait)
        finally:
            await courier.close()
        del self._couriers[courier.id], self._woken[courier.id]

    async def _round(self, courier: Courier) -> float | None:
        try:
            return await courier.round()
        except Conflict:
            return 0.0
        except Unavailable as exc:
            _log.debug("webhook %s: the database is unavailable, trying again: %s", courier.id, exc.reason)
            return LOOK_EVERY
        except Exception:  # noqa: BLE001 - the loop must go on: otherwise this process would never send again
            _log.exception("webhook %s: a round failed", courier.id)
            return LOOK_EVERY
