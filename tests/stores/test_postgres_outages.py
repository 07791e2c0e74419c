"""A PostgreSQL that is gone, slow or killed: said at once, and nothing acknowledged is lost."""

from __future__ import annotations

import asyncio

import pytest
from tests.faults.proxy import Proxy
from tests.stores.postgres import KILL, asks, kill_server, lag, opened, patiently, there, timed, until

from dutchdoor.errors import Unavailable
from dutchdoor.stores.base import Add, Log, Swap
from dutchdoor.testing.conformance import a_session, an_account, an_event

OUTAGES = {
    "hold": lambda link: link.hold(),
    "refuse": lambda link: link.refuse(),
    "reset": lambda link: setattr(link, "resetting", True) or link.reset(),
    "half open": lambda link: link.half_open() or link.hold(),
    "cut": lambda link: link.down.cut(after=5),
    "no answers": lambda link: link.down.hold(),
}


@pytest.mark.parametrize(
    "outage", [pytest.param(name, marks=[] if name in {"refuse", "hold"} else pytest.mark.long) for name in OUTAGES]
)
async def test_a_store_that_is_gone_is_said_within_a_second(outage, server):
    """I-12, I-13: whatever the network does, each caller has an answer within a second; and after its return all is
    well without a restart, with no connection or lock left behind.
    """
    ada = an_account()
    session = a_session(ada)
    async with Proxy("127.0.0.1", server.port) as link, opened(there(server.own)(link.port)) as store:
        await patiently(lambda: store.commit(Add(ada), Add(session)))
        await asks(store, a_session(an_account()), an_account("eve"))  # all lanes are connected
        OUTAGES[outage](link)
        for _ in range(3):
            async with lag() as late:
                answers = await asks(store, session, ada)
            for took, outcome in answers:
                assert isinstance(outcome, Unavailable), outcome
                assert took < 1.0 + late[0]
        link.heal()
        link.resetting = False

        async def well():
            answers = await asks(store, a_session(ada), an_account("eve"))
            return all(not isinstance(outcome, Unavailable) for _, outcome in answers)

        await until(well)
    waiting = (
        "SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in transaction%' OR wait_event_type = 'Lock'"
    )
    assert server.sql(waiting) == "0"


async def test_a_server_that_restarts_is_back_without_a_word(server):
    """Connections that a restart closed are made anew, for a session that is looked up and one that is swapped."""
    ada = an_account()
    session = a_session(ada)
    async with opened(there(server.own)(server.port)) as store:
        await patiently(lambda: store.commit(Add(ada), Add(session)))
        await asks(store, session, ada)
        server.stop()
        assert all(isinstance(outcome, Unavailable) for _, outcome in await asks(store, session, ada))
        server.start()

        async def well():
            return not isinstance((await timed(store.session(session.id)))[1], Exception)

        await until(well)
        assert (await patiently(lambda: store.session(session.id)))[0].id == session.id


async def test_a_statement_that_waits_for_a_lock_is_given_up_by_the_server(store, beside):
    """Another transaction's lock is in the way: the caller gets an error within six seconds, and nothing of ours goes
    on waiting.
    """
    ada = an_account()
    session = a_session(ada)
    await store.commit(Add(ada), Add(session))
    async with beside.transaction():
        await beside.execute("SELECT 1 FROM dutchdoor.sessions FOR UPDATE")
        async with lag() as late:
            took, outcome = await timed(store.commit(Swap(session)))
        assert isinstance(outcome, Unavailable)
        assert took < 6.0 + late[0]
        waiting = (
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        )
        assert await beside.fetchval(waiting) == 0
    assert (await store.commit(Swap(session))).seq == 0


async def test_a_slow_disk_is_no_outage(store, beside):
    """A commit that takes two seconds because the server is slow succeeds, as long as the server answers otherwise."""
    await beside.execute(
        "CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(2); RETURN NULL; END $$;"
        "CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON dutchdoor.accounts DEFERRABLE INITIALLY DEFERRED "
        "FOR EACH ROW EXECUTE FUNCTION slow()"
    )
    took, outcome = await timed(store.commit(Add(an_account())))
    assert outcome.seq == 0
    assert took >= 2


async def test_a_killed_backend_is_one_outage(store, beside):
    """I-09: of a commit whose connection is killed under it, the caller learns that it may have happened."""
    ada = an_account()
    await store.commit(Add(ada))
    lost = kept = 0
    for n in range(40):
        commits = [asyncio.create_task(timed(store.commit(Log(an_event(str(n)))))) for _ in range(3)]
        await asyncio.sleep(0.001 * (n % 7))
        await beside.execute(KILL)
        for _, outcome in await asyncio.gather(*commits):
            assert not isinstance(outcome, Exception) or isinstance(outcome, Unavailable)
            lost += isinstance(outcome, Exception)
            kept += not isinstance(outcome, Exception)
    assert kept
    assert kept <= (await store.counts())["events"] <= kept + lost


def test_acknowledged_commits_survive_the_server(server):
    """I-09, I-10: the whole server is killed in the middle of commits, again and again: none that it acknowledged is
    lost, and none is half there.
    """
    asyncio.run(kill_server(server, kills=3, seed=1))
