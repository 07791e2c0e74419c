"""The order in which PostgreSQL's locks are taken: commits that meet wait for each other in one direction only."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest
from msgspec.structs import replace

from dutchdoor.errors import Conflict
from dutchdoor.model.one_time_tokens import OneTimeToken
from dutchdoor.stores.base import Add, Discard, Expect, ExpectRole, Log, Remove, Swap, Take
from dutchdoor.stores.postgres import PostgresStore
from dutchdoor.testing.conformance import NOW, a_credential, a_token, an_account, an_event

pytestmark = pytest.mark.usefixtures("patience")  # a busy machine is no outage

SLOW = """
CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.2); RETURN NULL; END $$;
CREATE TRIGGER slow AFTER UPDATE OR DELETE ON dutchdoor.accounts FOR EACH ROW EXECUTE FUNCTION slow();
CREATE TRIGGER slow AFTER UPDATE OR DELETE ON dutchdoor.credentials FOR EACH ROW EXECUTE FUNCTION slow();
CREATE TRIGGER slow AFTER UPDATE OR DELETE ON dutchdoor.one_time_tokens FOR EACH ROW EXECUTE FUNCTION slow();
"""


@pytest.mark.parametrize(
    "meeting", ["a link is used while another is sent", "an account is removed", "it is read first"]
)
async def test_an_account_is_locked_before_what_belongs_to_it(meeting, postgres_url):
    """Two commits about one account, which touch what belongs to it in other orders: one goes after the other, and
    no caller gets an error about an unavailable database.
    """
    ada = an_account()
    token, credential = a_token(ada.subject), a_credential(ada)
    use = [Take(token), Swap(replace(ada, email_verified_at=NOW)), Log(an_event())]
    one, two = {
        "a link is used while another is sent": (
            use,
            [
                Expect(ada.subject, 0),
                Discard(OneTimeToken, {"subject": ada.subject, "purpose": token.purpose}),
                Add(a_token(ada.subject)),
                Log(an_event()),
            ],
        ),
        "an account is removed": ([Swap(credential), Swap(ada)], [Remove(ada)]),
        "it is read first": ([Expect(ada.subject, 0), Swap(ada)], [Expect(ada.subject, 0), Swap(ada)]),
    }[meeting]
    stores = [PostgresStore(postgres_url) for _ in range(2)]
    try:
        for store in stores:
            await store.open()
        await stores[0].commit(Add(ada), Add(token), Add(credential))
        await stores[1].account("warm")
        connection = await asyncpg.connect(postgres_url)
        await connection.execute(SLOW)
        if meeting == "it is read first":
            # Both have read before either writes.
            await connection.execute(
                "CREATE FUNCTION pause() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(0.2); "
                "RETURN NEW; END $$; CREATE TRIGGER pause BEFORE UPDATE ON dutchdoor.accounts FOR EACH STATEMENT "
                "EXECUTE FUNCTION pause()"
            )
        await connection.close()
        outcomes = await asyncio.gather(stores[0].commit(*one), stores[1].commit(*two), return_exceptions=True)
        assert [type(outcome) for outcome in outcomes if isinstance(outcome, Exception)] in ([], [Conflict]), outcomes
        assert all("40P01" not in str(getattr(outcome, "reason", "")) for outcome in outcomes)
    finally:
        for store in stores:
            await store.close()


async def test_a04_two_who_take_a_role_from_the_last_two_wait_for_each_other(postgres_url):
    """Of two transactions that have each taken a role from one account, the second to look sees what the first did."""
    one, two = (replace(an_account(name), roles=("admin",)) for name in ("one", "two"))
    stores = [PostgresStore(postgres_url) for _ in range(2)]
    try:
        for store in stores:
            await store.open()
        await stores[0].commit(Add(one), Add(two))
        await asyncio.gather(*(store.commit(Log(an_event())) for store in stores for _ in range(4)))
        connection = await asyncpg.connect(postgres_url)
        await connection.execute(SLOW)
        # Both have looked before either is committed.
        await connection.execute(
            "CREATE TRIGGER slow AFTER INSERT ON dutchdoor.events FOR EACH ROW EXECUTE FUNCTION slow()"
        )
        await connection.close()
        outcomes = await asyncio.gather(
            stores[0].commit(Swap(replace(one, roles=())), ExpectRole("admin"), Log(an_event())),
            stores[1].commit(Swap(replace(two, status="disabled")), ExpectRole("admin"), Log(an_event())),
            return_exceptions=True,
        )
        assert [type(outcome) for outcome in outcomes if isinstance(outcome, Exception)] == [Conflict], outcomes
        assert len(await stores[0].accounts_with_role("admin", limit=2)) == 1
    finally:
        for store in stores:
            await store.close()
