"""What webhooks promise: signed, at least once, in order for each account, and no account waits for another."""

from __future__ import annotations

import asyncio
import itertools
import logging
import re
import threading
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import NamedTuple

import pytest
from msgspec.structs import replace
from tests.standins import HOME, PASSWORD, Clock, Mailbox, authority, directory, opened
from tests.webhooks.receiver import Message, Receiver, Reply, receiving

from dutchdoor.auth import Auth
from dutchdoor.errors import Conflict, InvalidInput, NotFound
from dutchdoor.model.audit_events import AuditEvent, event
from dutchdoor.model.http_client import Client
from dutchdoor.model.webhooks import KEEP_TRYING_FOR, MAIN, Lane, Webhook, back_off, open_secrets
from dutchdoor.server.commands.migrate import move
from dutchdoor.server.metrics import Counters
from dutchdoor.services import delivering
from dutchdoor.services.delivering import LANE_PAGE, LANES, LEASE, Courier, Deliveries
from dutchdoor.services.sessions import Authority
from dutchdoor.services.webhooks import OLD_SECRET_FOR, Webhooks
from dutchdoor.stores.base import Log
from dutchdoor.stores.sqlite import SqliteStore

LOOPBACK = ("127.0.0.0/8",)
WHO = {"client": HOME, "actor": "cli"}


class Site(NamedTuple):
    """One endpoint, and the authority that sends to it, with time that a test moves."""

    over: Authority
    webhooks: Webhooks
    receiver: Receiver
    clock: Clock
    webhook: Webhook
    secret: str
    couriers: list[Courier]

    def courier(self, name: str = "first", webhook: str = "") -> Courier:
        self.couriers.append(Courier(self.webhooks, webhook or self.webhook.id, name))
        return self.couriers[-1]

    async def happens(self, subject: str, name: str = "session_started", count: int = 1) -> list[str]:
        """Log events, and return their ids."""
        made = [event(name, now=self.clock(), client=HOME, subject=subject) for _ in range(count)]  # type: ignore[arg-type]
        for each in made:
            await self.over.store.commit(Log(each))
        return [each.id for each in made]

    async def lanes(self) -> dict[str, Lane]:
        return {lane.subject: lane for lane in await self.over.store.select(Lane, webhook=self.webhook.id)}

    async def work(self, courier: Courier, rounds: int = 50) -> float | None:
        """Do rounds until there is nothing to do at this moment."""
        for _ in range(rounds):
            wait = await courier.round()
            if wait is None or wait > 0:
                return wait
        raise AssertionError("it never rests")

    async def logged(self, name: str) -> list[AuditEvent]:
        return await self.over.store.events(name=name)


@asynccontextmanager
async def site(
    tmp_path: Path, *, store: str = "memory", events: tuple[str, ...] = ("session_started", "login", "account_erased")
) -> AsyncIterator[Site]:
    clock = Clock(time.time())
    with receiving() as receiver:
        async with opened(store, tmp_path, clock) as over:
            webhooks = Webhooks(over, LOOPBACK)
            made = await webhooks.add(receiver.url, events=events, client=HOME, actor="cli")
            receiver.secrets.append(made.secret)
            one = Site(over, webhooks, receiver, clock, made.webhook, made.secret, [])
            try:
                yield one
            finally:
                for courier in one.couriers:
                    await courier.close()


def refusing(subject: str, status: int = 500) -> Callable[[Message], Reply]:
    return lambda message: Reply(status) if message.subject == subject else Reply()


@pytest.mark.parametrize("store", ["memory", "sqlite"])
async def test_a_message_is_signed_and_holds_no_place(tmp_path: Path, store: str) -> None:
    """B20: the library of Standard Webhooks accepts each message, and only what was asked for is in it."""
    async with site(tmp_path, store=store) as one:
        (made,) = await one.happens("ann")
        await one.happens("ann", "password_changed")  # not asked for
        courier = one.courier()
        await one.work(courier)
        (message,) = one.receiver.messages
        assert message.verified
        assert (message.id, message.type, message.headers["content-type"]) == (
            made,
            "session_started",
            "application/json",
        )
        assert message.body["data"] == {
            "outcome": "ok", "subject": "ann", "actor": "", "session_id": "", "client_id": "", "detail": "",
        }  # fmt: skip
        assert message.body["timestamp"].endswith("Z")


async def test_the_place_of_a_client_only_if_asked(tmp_path: Path) -> None:
    """B20: address, country and device are in a message of a webhook that was added with them."""
    async with site(tmp_path) as one:
        made = await one.webhooks.add(one.receiver.url, events=["login"], with_client=True, client=HOME, actor="cli")
        one.receiver.secrets.append(made.secret)
        await one.happens("ann", "login")
        courier = one.courier(webhook=made.webhook.id)
        await one.work(courier)
        assert one.receiver.messages[0].body["data"]["address"] == HOME.address


async def test_in_order_for_each_account_and_several_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """B21: events of one account come one after the other; those of eight accounts at once."""
    monkeypatch.setattr(delivering, "ROUND_FOR", 600.0)  # what is under way when a round ends would wait for no others
    async with site(tmp_path) as one:
        together, under_way = threading.Barrier(8, timeout=60), []
        made = {subject: await one.happens(subject, count=4) for subject in "abcdefgh"}

        def answer(message: Message) -> Reply:
            under_way.append(message.subject)
            assert under_way.count(message.subject) == 1
            together.wait()  # until one of each account is under way
            under_way.remove(message.subject)
            return Reply()

        one.receiver.answers = answer
        await one.work(one.courier())
        assert {subject: one.receiver.first(subject) for subject in made} == made
        assert len(one.receiver.messages) == 32


@pytest.mark.parametrize("store", ["memory", "sqlite"])
async def test_an_account_that_waits_holds_up_no_other(tmp_path: Path, store: str) -> None:
    """B22: what the endpoint refuses of one account is tried again later and later, in order, while others go on."""
    async with site(tmp_path, store=store) as one:
        one.receiver.answers = refusing("bob")
        bobs = await one.happens("bob", count=LANE_PAGE + 5)
        anns = await one.happens("ann", count=3)
        courier = one.courier()
        await one.work(courier)
        assert one.receiver.first() == anns
        waits = []
        for _ in range(6):
            lane = (await one.lanes())["bob"]
            waits.append(lane.next_at - one.clock())
            assert lane.failure == "status 500"
            one.clock.forward(waits[-1] + 0.1)
            anns += await one.happens("ann")
            await one.work(courier)
        assert waits == sorted(waits)
        assert [2.5 * 3**n <= wait <= 5 * 3**n for n, wait in enumerate(waits)] == [True] * 6
        assert one.receiver.first("ann") == anns
        assert [each.id for each in one.receiver.messages if each.subject == "bob"] == [bobs[0]] * 7
        bobs += await one.happens("bob")
        one.receiver.answers = lambda _message: Reply()
        one.clock.forward(3600)
        await one.work(courier)
        bobs += await one.happens("bob")
        await one.work(courier)
        assert one.receiver.first("bob") == bobs
        assert set(await one.lanes()) == {MAIN}
        assert len({each.id for each in one.receiver.taken}) == len(one.receiver.taken)


async def test_events_without_an_account_wait_alone_too(tmp_path: Path) -> None:
    """B22: an event of the server itself that is refused holds up no account."""
    async with site(tmp_path, events=()) as one:
        one.receiver.answers = lambda message: Reply(500) if not message.subject else Reply()
        await one.happens("", "key_created")
        anns = await one.happens("ann")
        courier = one.courier()
        await one.work(courier)
        assert one.receiver.first() == anns
        one.receiver.answers = lambda _message: Reply()
        one.clock.forward(60)
        await one.work(courier)
        assert [each.type for each in one.receiver.taken if not each.subject][-1:] == ["key_created"]
        assert set(await one.lanes()) == {MAIN}


async def test_an_endpoint_that_is_away_loses_nothing(tmp_path: Path) -> None:
    """B22: while it takes nothing, few accounts are tried; when it is back, all comes, in order for each account."""
    async with site(tmp_path) as one:
        one.receiver.answers = lambda _message: Reply(503)
        made = {f"user {n}": await one.happens(f"user {n}", count=2) for n in range(40)}
        courier = one.courier()
        await one.work(courier)
        assert LANES <= courier.waiting < LANES + 10
        tried = len(one.receiver.messages)
        one.clock.forward(3600)
        await one.work(courier)
        assert len(one.receiver.messages) - tried <= LANES + 10
        one.receiver.answers = lambda _message: Reply()
        one.clock.forward(3600)
        for _ in range(20):
            await one.work(courier)
            one.clock.forward(1)
        assert {subject: one.receiver.first(subject) for subject in made} == made
        assert courier.behind_since == 0.0


async def test_what_no_attempt_delivers_is_given_up_and_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """B23: after three days the event that is refused is passed, with an audit event; the next one comes."""
    async with site(tmp_path) as one:
        one.receiver.answers = refusing("bob")
        (lost,) = await one.happens("bob")
        courier = one.courier()
        await one.work(courier)
        until = one.clock() + KEEP_TRYING_FOR + 7200
        attempts = 0
        while one.clock() < until and not await one.logged("webhook_given_up"):
            await one.happens("ann")
            one.clock.forward(1800)
            await one.work(courier)
            attempts += 1
        (said,) = await one.logged("webhook_given_up")
        assert lost in said.detail
        assert one.webhook.id in said.detail
        assert attempts > 100
        assert "was given up" in caplog.text
        one.receiver.answers = lambda _message: Reply()
        (later,) = await one.happens("bob")
        await one.work(courier)
        assert one.receiver.first("bob") == [later]


async def test_an_endpoint_that_takes_nothing_for_days_is_disabled(tmp_path: Path) -> None:
    """B23: nothing is given up: once it is enabled, all of it comes."""
    async with site(tmp_path) as one:
        one.receiver.answers = lambda _message: Reply(500)
        anns = await one.happens("ann", count=2)
        courier = one.courier()
        while await one.work(courier) is not None:
            one.clock.forward(3600)
        assert (await one.webhooks.found(one.webhook.id)).disabled == "failing"
        assert len(await one.logged("webhook_disabled")) == 1
        with pytest.raises(InvalidInput):
            await one.webhooks.replay(one.webhook.id, 0.0, **WHO)  # type: ignore[arg-type]
        one.receiver.answers = lambda _message: Reply()
        await one.webhooks.enable(one.webhook.id, **WHO)  # type: ignore[arg-type]
        await one.work(courier)
        assert one.receiver.first() == anns


async def test_410_disables_and_retry_after_is_honoured(tmp_path: Path) -> None:
    """B23: an endpoint that asks for a pause gets nothing meanwhile; one that is gone gets nothing more."""
    async with site(tmp_path) as one:
        one.receiver.answers = lambda _message: Reply(429, (("retry-after", "120"),))
        await one.happens("ann")
        courier = one.courier()
        await one.work(courier)
        tried = len(one.receiver.messages)
        one.receiver.answers = lambda _message: Reply(410)
        one.clock.forward(119)
        await one.happens("bob")
        await one.work(courier)
        assert len(one.receiver.messages) == tried
        one.clock.forward(2)
        assert await one.work(courier) is None
        assert (await one.webhooks.found(one.webhook.id)).disabled == "gone"


async def test_one_process_sends_at_a_time(tmp_path: Path) -> None:
    """B24: a second process sends nothing until the first is gone for the time of its lease, or has let go."""
    async with site(tmp_path) as one:
        first, second = one.courier(), one.courier("second")
        await one.work(first)
        (made,) = await one.happens("ann")
        assert (await second.round() or 0) > 0
        assert not one.receiver.messages
        one.clock.forward(LEASE + 1)
        await one.work(second)
        assert one.receiver.first() == [made]
        await first.round()
        assert len(one.receiver.messages) == 1
        await second.release()
        await one.work(first)
        assert first.holds


async def test_what_was_not_committed_is_sent_again_under_its_id(tmp_path: Path) -> None:
    """B24: a process that loses its lease while it sends commits nothing; the other sends it again."""
    async with site(tmp_path) as one:
        ids = await one.happens("ann", count=2)
        first, second = one.courier(), one.courier("second")

        async def taken_over() -> None:
            """Another process takes the lane while the first message is under way."""
            main = (await one.lanes())[MAIN]
            await one.over.store.commit(
                delivering.Swap(replace(main, held_by="second", held_until=one.clock() + LEASE))
            )

        loop = asyncio.get_running_loop()

        def answer(message: Message) -> Reply:
            if message.id == ids[0] and len(one.receiver.messages) == 0:
                asyncio.run_coroutine_threadsafe(taken_over(), loop).result(60)
            return Reply()

        one.receiver.answers = answer
        with pytest.raises(Conflict):
            await first.round()
        await one.work(second)
        assert [each.id for each in one.receiver.messages] == ids + ids


async def test_a_secret_is_rotated_without_a_gap(tmp_path: Path) -> None:
    """B25: a receiver that knows the old secret alone, or the new one alone, verifies each message for a day."""
    async with site(tmp_path) as one:
        old, courier = one.secret, one.courier()
        made = await one.webhooks.rotate(one.webhook.id, **WHO)  # type: ignore[arg-type]
        for secret, wait, verified in ((old, 0.0, True), (made.secret, 0.0, True), (old, OLD_SECRET_FOR, False)):
            one.receiver.secrets[:] = [secret]
            one.clock.forward(wait)
            await one.happens("ann")
            await one.work(courier)
            message = one.receiver.messages[-1]
            assert len(message.headers["webhook-signature"].split()) == (1 if wait else 2)
            if not wait:  # the library knows no other clock than the machine's
                assert message.verified is verified
        assert old not in [each.text for each in open_secrets(one.over.master, made.webhook) if each.until is None]
        for _ in range(3):
            await one.webhooks.rotate(one.webhook.id, **WHO)  # type: ignore[arg-type]
        with pytest.raises(InvalidInput):
            await one.webhooks.rotate(one.webhook.id, **WHO)  # type: ignore[arg-type]


async def test_a_secret_is_rotated_under_load(tmp_path: Path) -> None:
    """B25: while messages come, the secret is replaced, and a moment later the receiver has the new one alone: it
    verifies each message.
    """
    async with site(tmp_path) as one:
        loop, made, come = asyncio.get_running_loop(), list[str](), itertools.count()

        def answer(_message: Message) -> Reply:
            came = next(come)
            if came == 30:
                rotating = one.webhooks.rotate(one.webhook.id, **WHO)  # type: ignore[arg-type]
                made.append(asyncio.run_coroutine_threadsafe(rotating, loop).result(60).secret)
            if came == 400:  # a round or more later
                one.receiver.secrets[:] = made
            return Reply()

        one.receiver.answers = answer
        for number in range(500):
            await one.happens(f"user {number % 5}")
        await one.work(one.courier())
        assert len(one.receiver.messages) == 500
        assert one.receiver.secrets == made
        assert all(each.verified for each in one.receiver.messages)


async def test_no_secret_is_readable_in_the_store(tmp_path: Path) -> None:
    """B25: a database, and a repr in a log, show no secret and no query of a URL."""
    async with site(tmp_path, store="sqlite") as one:
        (row,) = await one.over.store.select(Webhook)
        key = one.secret.removeprefix("whsec_").encode()
        assert key not in row.sealed
        assert "of-the-receiver" not in repr(row)
        events = await one.over.store.events()
        assert not [each for each in events if "of-the-receiver" in each.detail or one.secret in each.detail]
        await one.over.close()
        files = b"".join(file.read_bytes() for file in tmp_path.iterdir() if file.is_file())
        assert key not in files
        await one.over.open()


async def test_replay_sends_again_in_order(tmp_path: Path) -> None:
    """B26: all accounts or one, from an instant on, under the same ids."""
    async with site(tmp_path) as one:
        before = await one.happens("ann")
        one.clock.forward(100)
        since = one.clock()
        anns, bobs = await one.happens("ann", count=2), await one.happens("bob")
        courier = one.courier()
        await one.work(courier)
        assert one.receiver.first() == before + anns + bobs or one.receiver.first("ann") == before + anns
        one.receiver.messages.clear()
        await one.webhooks.replay(one.webhook.id, since, subject="ann", **WHO)  # type: ignore[arg-type]
        await one.work(courier)
        assert [each.id for each in one.receiver.messages] == anns
        one.receiver.messages.clear()
        await one.webhooks.replay(one.webhook.id, since, **WHO)  # type: ignore[arg-type]
        await one.work(courier)
        assert sorted(each.id for each in one.receiver.messages) == sorted(anns + bobs)
        assert one.receiver.first("ann") == anns
        assert set(await one.lanes()) == {MAIN}


async def test_replay_sends_what_a_round_got_ahead_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """B26: what was delivered behind an event that waits is sent again, too."""
    now = [0.0]
    monkeypatch.setattr(delivering, "time", SimpleNamespace(monotonic=lambda: now[0]))
    async with site(tmp_path) as one:
        since = one.clock()
        made = [(await one.happens(subject))[0] for subject in ("ann", "bob", "ann", "bob")]
        others_came = threading.Event()

        def answer(message: Message) -> Reply:
            if message.id == made[0]:
                others_came.wait(60)
                now[0] = delivering.ROUND_FOR  # the round is over
            if message.id == made[3]:
                others_came.set()
            return Reply()

        one.receiver.answers = answer
        courier = one.courier()
        await courier.round()
        assert {each.id for each in one.receiver.messages} == {made[0], made[1], made[3]}
        one.receiver.messages.clear()
        await one.webhooks.replay(one.webhook.id, since, **WHO)  # type: ignore[arg-type]
        await one.work(courier)
        assert sorted(each.id for each in one.receiver.messages) == sorted(made)


async def test_a_removed_webhook_gets_nothing(tmp_path: Path) -> None:
    """B26: its lanes go with it, and each verb says that there is none."""
    async with site(tmp_path) as one:
        courier = one.courier()
        await one.work(courier)
        await one.webhooks.remove(one.webhook.id, **WHO)  # type: ignore[arg-type]
        await one.happens("ann")
        assert await courier.round() is None
        assert not one.receiver.messages
        assert await one.lanes() == {}
        with pytest.raises(NotFound):
            await one.webhooks.found(one.webhook.id)


async def test_the_log_is_kept_until_it_is_delivered(tmp_path: Path) -> None:
    """B27: a purge deletes no event that waits, and no longer than some days over its age; then it is purged."""
    async with site(tmp_path, store="sqlite") as one:
        one.over.policy = replace(one.over.policy, max_audit_for=86_400.0)
        one.receiver.answers = refusing("bob")
        bobs, courier = await one.happens("bob", count=2), one.courier()
        await one.work(courier)
        for _ in range(2):
            one.clock.forward(86_400)
            await one.happens("ann")
            await one.work(courier)
            await one.over.tidy()
        one.receiver.answers = lambda _message: Reply()
        one.clock.forward(3600)
        await one.work(courier)
        assert one.receiver.first("bob") == bobs
        one.clock.forward(3 * 86_400)
        await one.work(courier)
        await one.over.tidy()
        assert await one.over.store.events(subject="bob") == []
        # With no process that sends, the log does not grow for ever.
        await one.happens("bob")
        one.clock.forward(6 * 86_400)
        await one.over.tidy()
        assert await one.over.store.events(subject="bob") == []


async def test_the_loop_finds_webhooks_and_is_woken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """B24: a process begins by itself, an event of its own is sent at once, and it ends without a trace."""
    monkeypatch.setattr(delivering, "LOOK_EVERY", 0.01)
    monkeypatch.setattr(delivering, "POLL_EVERY", 30.0)
    async with site(tmp_path) as one:
        deliveries = Deliveries(one.webhooks)
        deliveries.begin()
        while not deliveries.couriers:
            await asyncio.sleep(0.01)
        ids = await one.happens("ann")
        await asyncio.to_thread(one.receiver.wait, lambda: one.receiver.first() == ids)
        await deliveries.close()
        assert (await one.lanes())[MAIN].held_by == ""


async def test_an_outage_of_the_store_ends_no_loop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """B24: whatever fails in a round, the next one sends."""
    monkeypatch.setattr(delivering, "LOOK_EVERY", 0.01)
    caplog.set_level(logging.DEBUG)
    async with site(tmp_path) as one:
        deliveries, real = Deliveries(one.webhooks), one.over.store.events_after
        failures = iter([delivering.Unavailable("away"), RuntimeError("a mistake of ours")])

        async def failing(*arguments: object, **named: object) -> object:
            for failure in failures:
                raise failure
            return await real(*arguments, **named)  # type: ignore[arg-type]

        monkeypatch.setattr(one.over.store, "events_after", failing)
        ids = await one.happens("ann")
        deliveries.begin()
        await asyncio.to_thread(one.receiver.wait, lambda: one.receiver.first() == ids)
        await deliveries.close()
        assert "a mistake of ours" in caplog.text


def test_waits_grow_to_an_hour() -> None:
    """B22: from seconds to an hour, spread over the upper half; some eighty attempts in three days."""
    assert [back_off(n, 1.0) for n in (1, 2, 3, 7, 8, 100, 100_000)] == [5, 15, 45, 3600, 3600, 3600, 3600]
    assert back_off(1, 0.0) == 2.5


@pytest.mark.parametrize(
    ("url", "plain"),
    [
        ("http://example.com/", False),
        ("ftp://example.com/", True),
        ("https:///hooks", True),
        ("https://user:word@example.com/", True),
        ("https://example.com/#here", True),
        ("https://example.com:99999/", True),
        ("https://ex ample.com/", True),
        ("https://bücher.example/", True),
        ("https://[::1/", True),
        ("https://example.com/" + "a" * 2000, True),
        ("", True),
    ],
)
async def test_a_wrong_url_is_refused(tmp_path: Path, url: str, plain: bool) -> None:
    """B28: with a sentence that says what is right."""
    async with opened("memory", tmp_path, Clock()) as over:
        with pytest.raises(InvalidInput) as caught:
            await Webhooks(over, LOOPBACK if plain else ()).add(url, client=HOME, actor="cli")
        assert caught.value.field == "url"


async def test_a_wrong_event_is_refused(tmp_path: Path) -> None:
    """B28: a webhook that would never get anything is a mistake."""
    async with opened("memory", tmp_path, Clock()) as over:
        with pytest.raises(InvalidInput, match="account_creatd"):
            await Webhooks(over).add("https://example.com", events=["account_creatd"], client=HOME, actor="cli")


async def test_after_a_move_it_goes_on(tmp_path: Path) -> None:
    """B27: another database has another log. What was not delivered comes, with some minutes of what was."""
    async with site(tmp_path, store="sqlite") as one:
        old = await one.happens("ann")
        one.clock.forward(3600)
        (reached,) = await one.happens("ann")
        courier = one.courier()
        await one.work(courier)
        one.receiver.messages.clear()
        (waits,) = await one.happens("bob")
        await one.over.close()
        source, target = SqliteStore(tmp_path / "test.db"), SqliteStore(tmp_path / "moved.db")
        await source.open()
        await target.open()
        await move(source, target, clock=one.clock)
        await source.close()
        over = authority(target, one.clock)
        await over.open()
        moved = Courier(Webhooks(over, LOOPBACK), one.webhook.id, "moved")
        one.clock.forward(LEASE + 1)
        while not await moved.round():
            pass
        assert {waits} <= set(one.receiver.first()) <= {reached, waits}
        assert old[0] not in one.receiver.first()
        await moved.close()
        await over.close()


async def test_what_waits_after_an_erasure_names_no_client(tmp_path: Path) -> None:
    """B27: an event that waits is read from the log, which holds no place of an erased person any more."""
    async with site(tmp_path, store="sqlite") as one:
        made = await one.webhooks.add(one.receiver.url, with_client=True, client=Client(), actor="cli")
        one.receiver.answers = lambda _message: Reply(500)
        people = directory(one.over, Mailbox())
        await people.registration.register("ann@example.com", PASSWORD, "Ann", client=HOME)
        account = await one.over.store.account_by_email("ann@example.com")
        assert account is not None
        courier = one.courier(webhook=made.webhook.id)
        await one.work(courier)
        assert HOME.address in str(one.receiver.messages)
        await people.deletion.erase(account.subject, client=HOME, actor="cli")
        one.receiver.messages.clear()
        one.receiver.answers = lambda _message: Reply()
        one.clock.forward(60)
        await one.work(courier)
        theirs = [each for each in one.receiver.messages if each.subject == account.subject]
        assert (theirs[0].type, theirs[-1].type) == ("account_created", "account_erased")
        assert not [each for each in theirs if HOME.address in str(each.body) or "ann@" in str(each.body)]
        lanes = await one.over.store.select(Lane)
        assert "ann@" not in "".join(lane.failure + lane.cursor for lane in lanes)
        await people.close()


async def test_metrics_say_what_waits(tmp_path: Path) -> None:
    """B29: attempts by their outcome, the age of the oldest event that waits, and how many accounts do."""
    with receiving() as receiver:
        clock = Clock(time.time())
        async with Auth(f"sqlite:///{tmp_path}/test.db", webhook_networks=LOOPBACK, clock=clock) as auth:
            counters = Counters()
            counters.watch(auth)
            made = await auth.webhooks.add(receiver.url, client=HOME, actor="cli")
            courier = Courier(auth.webhooks, made.webhook.id, "first")
            auth.deliveries._couriers[made.webhook.id] = courier, asyncio.ensure_future(asyncio.sleep(0))
            receiver.answers = refusing("bob")
            for subject in ("ann", "bob"):
                await auth.store.commit(Log(event("login", now=clock(), client=HOME, subject=subject)))
            while not await courier.round():
                pass
            clock.forward(120)
            await counters.look(auth)
            text = counters.text().decode()
            name = f'{{webhook="{made.webhook.id}"}}'
            assert 'dutchdoor_webhook_attempts_total{outcome="failed"} 1.0' in text
            assert f"dutchdoor_webhook_waiting{name} 1.0" in text
            assert re.search(rf"dutchdoor_webhook_behind_seconds{re.escape(name)} 12[0-9]", text)
            await courier.close()
