"""Stores over PostgreSQL, and what tests wait for, ask and kill there."""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from urllib.parse import urlsplit, urlunsplit

from dutchdoor.errors import Unavailable
from dutchdoor.model.rate_limits import Bucket, Limit
from dutchdoor.stores.base import Add, Log, Revoke, Swap
from dutchdoor.stores.postgres import PostgresStore
from dutchdoor.testing.conformance import NOW, a_revocation, a_row, a_session, an_account, an_event, the_log

BUCKET = Bucket("b", Limit(name="b", count=1, per_seconds=60.0, burst=100))


KILL = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
    "WHERE datname = current_database() AND pid <> pg_backend_pid()"
)


@contextlib.asynccontextmanager
async def opened(url, **options):
    store = PostgresStore(url, **options)
    await store.open()
    try:
        yield store
    finally:
        await store.close()


async def until(condition, within=60.0):
    """Wait until an asynchronous condition holds."""
    deadline = time.monotonic() + within
    while not await condition():
        assert time.monotonic() < deadline, "it did not come about"
        await asyncio.sleep(0.02)


async def patiently(ask):
    """What an answer is once there is one: on a busy machine a second may not be enough."""
    async with asyncio.timeout(60):
        while True:
            with contextlib.suppress(Unavailable):
                return await ask()


async def timed(awaitable):
    """How long something took, and what it gave or raised."""
    begun = time.monotonic()
    try:
        outcome = await awaitable
    except Exception as exc:  # noqa: BLE001 - the test looks at it
        outcome = exc
    return time.monotonic() - begun, outcome


async def somebody_waits(connection):
    """Whether any connection to this database waits for a lock, now and not when this transaction first looked."""
    await connection.execute("SELECT pg_stat_clear_snapshot()")
    return await connection.fetchval(
        "SELECT count(*) > 0 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
    )


def there(url):
    """The same database through another address. Without TLS: the driver complains to the loop where a connection is
    given up while it asks for it.
    """
    parts = urlsplit(url)
    return lambda port: urlunsplit(
        parts._replace(netloc=f"{parts.username}:{parts.password}@127.0.0.1:{port}", query="sslmode=disable")
    )


async def followed(store, cursor, count):
    """What there is behind a cursor once there is so much: a transaction of the server's own may hold it back."""
    async with asyncio.timeout(60):
        while len(found := await patiently(lambda: store.events_after(cursor))) < count:
            await asyncio.sleep(0.01)
    return found


@contextlib.asynccontextmanager
async def lag():
    """How many seconds the machine was too busy to let this loop run, summed up in a list."""
    late = [0.0]

    async def measure():
        while True:
            begun = time.monotonic()
            await asyncio.sleep(0.02)
            late[0] += time.monotonic() - begun - 0.02

    task = asyncio.create_task(measure())
    yield late
    task.cancel()


async def kill_server(server, *, kills, seed):
    dice = random.Random(seed)
    ada, acknowledged = an_account(), set()
    async with opened(there(server.own)(server.port)) as store:
        await store.commit(Add(ada))

        async def commit_on():
            while True:
                session = a_session(ada)
                try:
                    await store.commit(Add(session), Revoke(a_revocation(session.id)), Log(an_event(session.id)))
                except Unavailable:
                    if not server.is_running():
                        return
                    await asyncio.sleep(0.01)
                else:
                    acknowledged.add(session.id)

        for _ in range(kills):
            before = len(acknowledged)
            writers = [asyncio.create_task(commit_on()) for _ in range(8)]
            enough = dice.randrange(5, 60)

            async def has_enough(before=before, enough=enough):
                return len(acknowledged) >= before + enough

            await until(has_enough, within=60)
            server.crash()
            await asyncio.gather(*writers)
            server.start()

            async def is_back():
                return not isinstance((await timed(store.commit()))[1], Exception)

            await until(is_back)
            log = await patiently(lambda: the_log(store))
            assert [entry.seq for entry in log] == list(range(1, len(log) + 1))
            revoked = {entry.id for entry in log}
            logged = {event.subject for event in await patiently(lambda: store.events(limit=1_000_000))}
            assert acknowledged <= revoked, "an acknowledged commit is lost"
            assert revoked == logged
            assert (await patiently(store.counts))["sessions"] == len(revoked)


async def asks(store, session, account):
    """One of each kind of question that a request has."""
    return await asyncio.gather(
        *[timed(store.session(session.id)) for _ in range(20)],
        timed(store.account(account.subject)),
        timed(store.commit(Swap(session))),
        timed(store.commit(Swap(account))),
        timed(store.hit([BUCKET], NOW)),
        timed(store.read_log(1, 0)),
        timed(store.node_renew(a_row(), 0)),
        timed(store.accounts()),
        timed(store.events()),
        timed(store.begin_log_epoch(NOW)),
    )
