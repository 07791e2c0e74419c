"""Redis out of reach, and back."""

from __future__ import annotations

import signal
import time

import pytest
import redis.asyncio
from tests.backing import a_valkey
from tests.stores.valkey import BACK_WITHIN, PATIENCE, SLOW, Far, a_signed_in, copied, is_counting, opened, timed, until

from dutchdoor.errors import Unavailable
from dutchdoor.model.rate_limits import Bucket
from dutchdoor.stores import redis as redis_store
from dutchdoor.stores.base import Forgive
from dutchdoor.stores.redis_connection import Address, Link
from dutchdoor.testing.conformance import NOW


@pytest.mark.parametrize("how", ["killed", "stopped"])
async def test_out_of_reach_sessions_go_on_and_limits_say_so(how, caplog):
    """I-12, I-13, I-16: with Redis killed, or silent, look-ups of sessions go on at once from the record, attempts are
    refused with `Unavailable` within a second, and both are back within five of its return, with one line for each
    transition.
    """
    record = Far()
    ada, session = await a_signed_in(record)
    with a_valkey() as server:
        async with opened(record, server.url, patient=False) as store:
            await copied(store, ada, session)

            def said(is_of_limits):
                """Whether it is back or out of reach, line by line."""
                lines = [entry.getMessage() for entry in caplog.records]
                return ["back" in line for line in lines if ("limits" in line) is is_of_limits]

            for _ in range(2):
                if how == "killed":
                    server.kill()
                else:
                    server.send(signal.SIGSTOP)
                found, took = await timed(store.recent_session(session.id, 1))
                assert found is None
                assert took < PATIENCE
                waits = []
                for _ in range(4):
                    refused, took = await timed(store.hit([Bucket("slow:x", SLOW)], NOW))
                    assert isinstance(refused, Unavailable)
                    waits.append(took)
                assert min(waits[1:]) < redis_store.COUNT_FOR, "who comes next does not wait"
                waits.append((await timed(store.recent_session(session.id, 1)))[1])
                waits.append((await timed(store.commit(Forgive(forget=(Bucket("slow:x", SLOW),)))))[1])
                assert max(waits) < PATIENCE
                assert await store.session(session.id) == (session, ada)
                assert (await store.counts())["sessions"] == 1
                await until(lambda: all(said(each)[-1:] == [False] for each in (False, True)))
                if how == "killed":
                    server.start()
                else:
                    server.send(signal.SIGCONT)
                started = time.monotonic()
                await until(lambda: is_counting(store))
                await until(lambda: store._copies.is_up)
                assert time.monotonic() - started < BACK_WITHIN
                if how == "killed":  # empty: nothing is known, and nothing is wrong
                    assert await store.recent_session(session.id, 1) is None
                await copied(store, ada, session)
                for each in (False, True):
                    assert said(each) == [n % 2 == 1 for n in range(len(said(each)))], "one line for each transition"
                lines_of_all = [entry.getMessage() for entry in caplog.records]
                assert all(f":{server.port} is out of reach" in line for line in lines_of_all if "back" not in line)


async def test_a_server_that_starts_later_is_found(caplog):
    """Redis need not be there when the store is opened."""
    record = Far()
    with a_valkey() as server:
        server.stop()
        async with opened(record, server.url) as store:
            assert not await is_counting(store)
            server.start()
            await until(lambda: is_counting(store))


async def test_a_stale_connection_is_no_outage(caplog, valkey_url, emptied):
    """Connections that the server closed meanwhile cost one attempt, milliseconds, and no line in the log."""
    async with opened(Far(), valkey_url) as store:
        assert await is_counting(store)
        await emptied.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        await until(lambda: is_counting(store))
    assert caplog.records == []


async def test_a_server_that_takes_no_writes_is_out_of_reach(caplog):
    """A full Redis, or a replica in the place of its primary, counts nothing: it is out of reach, and says why once."""
    with a_valkey() as server:
        client = redis.asyncio.Redis.from_url(server.url)
        async with opened(Far(), server.url) as store:
            await client.replicaof("127.0.0.1", 1)
            assert not await is_counting(store)
            await until(lambda: len(caplog.records) >= 1)
            assert "READONLY" in caplog.records[0].getMessage() or "ReadOnly" in caplog.records[0].getMessage()
            await client.replicaof("NO", "ONE")
            await until(lambda: is_counting(store))
        await client.aclose()


async def test_one_that_keeps_failing_is_tried_less_often(valkey_url):
    """A server that answers the probe and nothing else is not asked again at once each time."""
    link = Link(Address.read(valkey_url), 0.1, lambda client: client.ping(), "nothing: nobody cares")

    async def fail(client):
        raise redis.exceptions.ResponseError("no")

    failures = 0
    deadline = time.monotonic() + 1.5
    while time.monotonic() < deadline:
        await until(lambda: link.is_up)
        with pytest.raises(Unavailable):
            await link.ask(fail)
        failures += 1
    assert failures <= 5
    await link.close()
