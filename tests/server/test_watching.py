"""What a node counts and says of itself: events from the audit log, whichever process wrote them, and its own state."""

from __future__ import annotations

import asyncio
import logging
import math
import re
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest
from tests.backing import a_valkey
from tests.server.certificates import write_certificate
from tests.standins import Wrapped

from dutchdoor.auth import Auth
from dutchdoor.errors import Unavailable
from dutchdoor.mail import Mail
from dutchdoor.model.audit_events import EventName, event
from dutchdoor.model.http_client import Client
from dutchdoor.model.master_key import MasterKeys
from dutchdoor.server.metrics import Counters
from dutchdoor.server.watching import Watch, log_foreign
from dutchdoor.services.hooks import notify
from dutchdoor.stores.base import Log, Store
from dutchdoor.stores.memory import MemoryStore
from dutchdoor.stores.sqlite import SqliteStore

KEYS = MasterKeys.parse("MRTLSyTEIGLeEZzFGI8OczLNTI0BvZxiVeUUP2uAgEY")


@asynccontextmanager
async def opened(store: Store) -> AsyncIterator[Auth]:
    async with Auth(store, master_key=KEYS) as auth:
        yield auth


@asynccontextmanager
async def watched(auth: Auth, place: Path | None = None) -> AsyncIterator[tuple[Counters, Watch]]:
    """Counters of a process, and its looks, which the test takes itself."""
    counters = Counters(auth.api.routes)
    counters.watch(auth)
    watch = Watch(auth, happened=[log_foreign, counters.happened], looks=[counters.look], place=place)
    await watch.begin()
    yield counters, watch
    await watch.close()


def value(counters: Counters, series: str) -> float:
    found = re.search(rf"^dutchdoor_{re.escape(series)} (\S+)$", counters.text().decode(), re.MULTILINE)
    assert found, f"there is no series {series}"
    return float(found[1])


def counted(counters: Counters, name: EventName) -> float:
    return value(counters, f'events_total{{name="{name}",outcome="ok"}}')


async def by_command(store: Store, name: EventName) -> None:
    """Commit an event as a command does, from a process of its own."""
    await store.commit(Log(event(name, now=1_800_000_000.0, client=Client(), actor="cli")))


async def test_p51_what_a_command_does_is_counted_and_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Each event of the database is counted, whichever process wrote it, and so are those of a log that began while no
    program wrote anything. The event of a command is a line of the server's log; the server's own is no second line.
    """
    caplog.set_level(logging.INFO, "dutchdoor.events")
    beside = SqliteStore(tmp_path / "door.db")
    async with opened(SqliteStore(tmp_path / "door.db")) as auth, watched(auth) as (counters, watch):
        await beside.open()
        assert counted(counters, "key_exported") == 0, "a series that begins with its first event hides that event"
        await by_command(beside, "key_exported")
        await auth.store.commit(Log(event("session_started", now=1.0, client=Client())))
        await watch.look()
        await watch.look()
        assert (counted(counters, "key_exported"), counted(counters, "session_started")) == (1, 1)
        await beside.begin_log_epoch(1_900_000_000.0)
        await by_command(beside, "log_begun")
        await watch.look()
        assert counted(counters, "log_begun") == 1
        await beside.close()
    assert re.findall(r"event=(\w+)", "\n".join(caplog.messages)) == ["key_exported", "log_begun"]


async def test_p51_a_log_that_began_while_no_node_ran_is_seen(tmp_path: Path) -> None:
    """After a restore, `dutchdoor restored` begins a log before any node starts. A node that starts then shows when,
    and so does one that runs while another log begins.
    """
    beside = SqliteStore(tmp_path / "door.db")
    async with opened(SqliteStore(tmp_path / "door.db")) as auth, watched(auth) as (counters, _):
        assert value(counters, "log_begun_timestamp_seconds") == 0, "the first log of a database is no restore"
    await beside.open()
    await by_command(beside, "log_begun")
    async with opened(SqliteStore(tmp_path / "door.db")) as auth, watched(auth) as (counters, watch):
        assert value(counters, "log_begun_timestamp_seconds") == 1_800_000_000.0
        await beside.commit(Log(event("log_begun", now=1_900_000_000.0, client=Client(), actor="system")))
        await watch.look()
        assert value(counters, "log_begun_timestamp_seconds") == 1_900_000_000.0
    await beside.close()


async def test_p51_one_process_of_a_node_counts_and_another_continues(tmp_path: Path) -> None:
    """Of the processes of a node one counts each event. When it ends another one continues behind the last event that
    was counted: none is counted twice, and none is missed.
    """
    place = tmp_path / "place"
    async with opened(MemoryStore()) as auth, AsyncExitStack() as second:
        async with watched(auth, place) as (one, first_watch):
            two, second_watch = await second.enter_async_context(watched(auth, place))
            await by_command(auth.store, "verifier_added")
            for watch in (second_watch, first_watch, second_watch):
                await watch.look()
            assert (counted(one, "verifier_added"), counted(two, "verifier_added")) == (1, 0)
            await by_command(auth.store, "verifier_removed")
        await second_watch.look()
        assert (counted(one, "verifier_removed"), counted(two, "verifier_removed")) == (0, 1)
        assert counted(two, "verifier_added") == 0


async def test_p53_what_a_node_depends_on_is_measured(tmp_path: Path) -> None:
    """The pool of the database, the mail server, the purge, the certificate, the keys and the process itself."""
    write_certificate(tmp_path, "auth.example.com")
    async with opened(SqliteStore(tmp_path / "door.db")) as auth:
        counters = Counters(certificate=str(tmp_path / "cert.pem"))
        counters.watch(auth)
        await auth.directory.admin.create("ada@example.com", client=Client(), actor="cli")
        await counters.look(auth)
        assert value(counters, "database_connections") >= 2
        assert value(counters, "database_waiting") == 0
        assert value(counters, 'expiry_timestamp_seconds{of="certificate"}') > time.time()
        last = value(counters, 'expiry_timestamp_seconds{of="signing_key"}')
        assert value(counters, "next_key_due_timestamp_seconds") == last - auth.authority.policy.key_publish_for
        assert value(counters, 'mails_total{outcome="sent"}') == 1
        assert value(counters, "process_resident_memory_bytes") > 1e6
        assert value(counters, "process_cpu_seconds_total") > 0
        assert "dependency_up{" not in counters.text().decode(), "no Redis was configured"
        auth.directory.post.transport = Broken()
        with pytest.raises(Unavailable):
            await auth.directory.admin.create("bob@example.com", client=Client(), actor="cli")
        assert value(counters, 'mails_total{outcome="failed"}') == 1
        notify(auth.authority.hooks.tidied, 3, 0.5)
        assert (value(counters, "purged_rows_total"), value(counters, "purge_seconds")) == (3, 0.5)


async def test_p53_a_redis_that_is_gone_is_seen_without_a_request() -> None:
    """While Redis or Valkey answers it is up, and when it is gone the next look says so, without a request."""
    with a_valkey() as server:
        async with Auth("memory:", redis=server.url, master_key=KEYS) as auth, watched(auth) as (counters, watch):
            await watch.look()
            async with asyncio.timeout(60):
                while value(counters, 'dependency_up{name="redis"}') != 1:  # a busy machine may not have reached it yet
                    await asyncio.sleep(0.01)
                    await watch.look()
            server.kill()
            await watch.look()
            assert value(counters, 'dependency_up{name="redis"}') == 0


async def test_p53_a_process_that_starts_is_no_alarm() -> None:
    """Before its first look a process says nothing that an alert fires on at once, and at its start it has looked."""
    text = Counters().text().decode()
    assert "dutchdoor_next_key_due_timestamp_seconds +Inf" in text
    async with opened(MemoryStore()) as auth, watched(auth) as (counters, _):
        assert value(counters, "ready") == 1
        assert time.time() < value(counters, "next_key_due_timestamp_seconds") < math.inf


class Broken:
    """A mail server that accepts nothing."""

    async def send(self, _message: Mail) -> None:
        raise Unavailable("mail not sent: refused")


class Unreadable(Wrapped):
    """A store whose audit log or whose writes fail."""

    fails = ""

    async def events_after(self, *args: object, **named: object) -> object:
        if self.fails:
            raise Unavailable(self.fails)
        return await self.inner.events_after(*args, **named)  # type: ignore[arg-type]

    async def try_writing(self, now: float) -> None:
        if self.fails:
            raise Unavailable(self.fails)
        await self.inner.try_writing(now)


async def test_p51_an_outage_is_seen_without_requests_and_loses_no_event() -> None:
    """While the store is unavailable the node counts itself as not ready, though it gets no request; events that
    were committed meanwhile are counted afterwards.
    """
    store = Unreadable(MemoryStore())
    async with opened(store) as auth, watched(auth) as (counters, watch):  # type: ignore[arg-type]
        now = auth.authority.fencing.now()
        auth.authority.fencing.now = lambda: now
        assert value(counters, "ready") == 1
        await by_command(store.inner, "key_revoked")
        store.fails, now = "sqlite: database or disk is full", now + 10.0
        with pytest.raises(Unavailable):
            await watch.look()
        assert (value(counters, "ready"), counted(counters, "key_revoked")) == (0, 0)
        store.fails, now = "", now + 10.0
        await watch.look()
        assert (value(counters, "ready"), counted(counters, "key_revoked")) == (1, 1)


class Away(Wrapped):
    """A store that is a network away: where its log ends takes a question."""

    def head(self) -> None:
        return None


@pytest.mark.parametrize("store", [MemoryStore, lambda: Away(MemoryStore())], ids=["here", "away"])
async def test_p51_a_quiet_node_is_not_stale(store: Callable[[], Store]) -> None:
    """A node that gets no request reports that it is not stale, after another process revoked something too: no alert
    fires in a quiet night.
    """
    shared = store()
    async with opened(shared) as auth, opened(shared) as other, watched(auth) as (counters, watch):
        assert value(counters, "stale") == 0
        account = await other.directory.admin.create("ada@example.com", client=Client(), actor="cli")
        await other.authority.end_all(account.subject, client=Client(), actor="cli")
        await watch.look()
        assert value(counters, "stale") == 0


async def test_p52_series_that_alerts_count_are_there_from_the_start() -> None:
    """Known labels start at 0, the 5xx of each route included, so that `increase` sees the first event; a fence that is
    still pending when its call is answered is counted as such; nothing says when a series was created.
    """
    async with opened(MemoryStore()) as auth, watched(auth) as (counters, _):
        for series in (
            'events_total{name="refresh_theft",outcome="refused"}',
            'unavailable_total{source="sqlite"}',
            'refreshes_total{outcome="failed"}',
            'fence_seconds_count{state="pending"}',
            'http_answers_total{route="/auth/login",status="500"}',
        ):
            assert value(counters, series) == 0
        notify(auth.authority.hooks.fence_waited, "pending", 0.25)
        counters.answered("/auth/login", 500, 0.2)
        counters.answered("/auth/revocations/poll", 200, 15.0)
        text = counters.text().decode()
        assert value(counters, 'fence_seconds_count{state="pending"}') == 1
        assert value(counters, 'http_seconds_count{route="/auth/login"}') == 1
        assert 'http_seconds_count{route="/auth/revocations/poll"}' not in text, "a long poll says nothing of speed"
        assert "_created{" not in text
