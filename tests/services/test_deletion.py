"""Deletion: no one signs in any more, a mailed link keeps the account, and what is erased is nowhere."""

from __future__ import annotations

import asyncio
import logging
import random
import sqlite3
import sys
from pathlib import Path

import pytest
import redis.asyncio
from msgspec.structs import replace
from tests.backing import _psql, a_valkey, new_database
from tests.services.house import ANN, House, Spoiled
from tests.services.test_email_change import changed
from tests.standins import (
    HOME,
    ISSUER,
    MASTER,
    OTHER_PASSWORD,
    PASSWORD,
    T0,
    THIEF,
    Broken,
    Clock,
    Gate,
    Interleaved,
    Mailbox,
    authority,
    directory,
    opened,
)

from dutchdoor import Auth, ExternalUsers
from dutchdoor.credentials.password import CHEAPEST, PasswordHasher
from dutchdoor.errors import InvalidToken, LastAdministrator, NotAuthenticated, NotFound, Unavailable, WrongCredentials
from dutchdoor.model.departures import Departure
from dutchdoor.model.policy import DAY, STANDARD, Policy
from dutchdoor.services.browser import Browser
from dutchdoor.services.delivering import Courier
from dutchdoor.services.webhooks import Webhooks
from dutchdoor.stores.base import Remove, Store
from dutchdoor.stores.postgres import PostgresStore
from dutchdoor.stores.redis import around
from dutchdoor.stores.sqlite import SqliteStore

GRACE = STANDARD.keep_deleted_for


@pytest.fixture
async def house(house: House) -> House:
    await house.verify()
    return house


def forward(house: House, seconds: float) -> None:
    assert isinstance(house.clock, Clock)
    house.clock.forward(seconds)


async def deleted(house: House) -> tuple[Departure, str]:
    """Delete Ann's account; return when it is erased, and the token that keeps it."""
    departure, _ = await house.clean.deletion.ask((await house.ann()).subject, client=HOME)
    await house.posted()
    return departure, house.mailbox.token()


async def test_a_deleted_account_signs_nobody_in(house: House) -> None:
    """A22: from then on every proof is refused, and the refusal is that of an unknown address; a letter says when."""
    session, hybrid, stateless = [await house.sign_in(mode=mode) for mode in ("session", "hybrid", "jwt")]
    reset = await house.reset_token()
    departure, _ = await deleted(house)
    assert departure.due_at == house.clock() + GRACE
    for signed_in in (session, hybrid, stateless):
        assert not await house.alive(signed_in)
    with pytest.raises(WrongCredentials) as caught:
        await house.sign_in()
    with pytest.raises(WrongCredentials) as unknown:
        await house.clean.sign_in.by_password("nobody@example.com", PASSWORD, Browser(HOME), mode="jwt")
    assert str(caught.value) == str(unknown.value)
    with pytest.raises(InvalidToken):
        await house.clean.recovery.reset_password(reset, OTHER_PASSWORD, client=HOME)
    letter = house.mailbox.mails[-1]
    assert (letter.to, letter.subject) == (ANN, "Your account will be deleted - Example")
    assert "June 29, 2025" in letter.text
    with pytest.raises(NotFound):
        await house.clean.deletion.ask((await house.ann()).subject, client=HOME)


async def test_the_link_keeps_the_account_once(house: House) -> None:
    """A22: within the time, by the mailbox alone; what was revoked stays revoked."""
    signed_in = await house.sign_in()
    _, token = await deleted(house)
    forward(house, GRACE - 60)
    assert await house.clean.deletion.tidy() == 0
    assert (await house.clean.deletion.keep(token, client=HOME)).active
    assert await house.opens(PASSWORD)
    assert not await house.alive(signed_in)
    with pytest.raises(InvalidToken):
        await house.clean.deletion.keep(token, client=HOME)
    forward(house, GRACE)
    assert await house.clean.deletion.tidy() == 0
    assert await house.events("deletion_cancelled") == 1


async def test_who_asks_for_a_new_password_gets_the_link_again(house: House) -> None:
    """A person who does not remember, and cannot sign in, finds the way back; the earlier link is void."""
    _, first = await deleted(house)
    await house.clean.recovery.forget_password(ANN, client=HOME)
    await house.posted()
    second = house.mailbox.token()
    assert second != first
    with pytest.raises(InvalidToken):
        await house.clean.deletion.keep(first, client=HOME)
    await house.clean.deletion.keep(second, client=HOME)


async def test_a_disabled_account_gets_no_link(house: House) -> None:
    """What an administrator disabled is not kept by its owner: not by a new link, nor by an earlier one."""
    _, token = await deleted(house)
    subject = (await house.ann()).subject
    await house.clean.admin.disable(subject, client=HOME, actor="cli")
    mails = len(house.mailbox.mails)
    await house.clean.recovery.forget_password(ANN, client=HOME)
    await house.posted()
    assert len(house.mailbox.mails) == mails
    with pytest.raises(InvalidToken):
        await house.clean.deletion.keep(token, client=HOME)
    await house.clean.admin.enable(subject, client=HOME, actor="cli")
    forward(house, GRACE + 1)
    assert await house.clean.deletion.tidy() == 0
    assert await house.opens(PASSWORD)


async def test_the_time_over_it_is_erased(house: House) -> None:
    """A22: the next process that tidies erases it; the address is free, and a new account inherits nothing."""
    subject = (await house.ann()).subject
    _, token = await deleted(house)
    forward(house, GRACE)
    assert await house.clean.deletion.tidy() == 1
    assert await house.clean.deletion.tidy() == 0
    assert await house.store.account(subject) is None
    with pytest.raises(InvalidToken):
        await house.clean.deletion.keep(token, client=HOME)
    kept = await house.store.events(subject=subject)
    assert kept[0].name == "account_erased"
    assert {(event.address, event.country, event.device) for event in kept} == {("", "", "")}
    again = await house.clean.registration.register(ANN, OTHER_PASSWORD, "Ann", client=HOME)
    assert again is not None
    assert again.subject != subject


async def test_the_last_administrator_stays(house: House) -> None:
    """A04: the last administrator cannot be deleted, by themselves or by a command, nor two at once."""
    ann = await house.ann()
    await house.clean.admin.set_roles(ann.subject, ["admin"], client=HOME, actor="cli")
    with pytest.raises(LastAdministrator):
        await house.clean.deletion.ask(ann.subject, client=HOME)
    with pytest.raises(LastAdministrator):
        await house.clean.deletion.erase(ann.subject, client=HOME, actor="cli")
    bob = await house.clean.registration.register("bob@example.com", PASSWORD, "Bob", client=HOME)
    assert bob is not None
    await house.clean.admin.set_roles(bob.subject, ["admin"], client=HOME, actor="cli")
    racing = house.over(Interleaved(house.store, seed=3))
    results = await asyncio.gather(
        racing.deletion.ask(ann.subject, client=HOME),
        racing.deletion.erase(bob.subject, client=HOME, actor="cli"),
        return_exceptions=True,
    )
    assert sum(isinstance(result, LastAdministrator) for result in results) == 1, results
    assert len(await house.store.accounts_with_role("admin", limit=2)) == 1


async def test_the_owner_of_a_stolen_account_saves_it(house: House) -> None:
    """A22: a thief changed the address and deleted the account: it waits until its former mailbox takes it back."""
    house.clean.authority.policy = house.clean.deletion.policy = Policy(keep_deleted_for=0)
    undo = await changed(house)
    account = await house.store.account_by_email("ann@new.example")
    assert account is not None
    departure, _ = await house.clean.deletion.ask(account.subject, client=THIEF)
    assert departure.due_at > house.clock() + 6 * DAY
    forward(house, 6 * DAY)
    assert await house.clean.deletion.tidy() == 0
    restored, _, _ = await house.clean.email_change.restore(undo, OTHER_PASSWORD, client=HOME)
    assert restored.active
    forward(house, 30 * DAY)
    assert await house.clean.deletion.tidy() == 0
    assert await house.opens(OTHER_PASSWORD)


@pytest.mark.parametrize("seed", range(6))
async def test_keeping_and_erasing_race(house: House, seed: int) -> None:
    """At the last moment, several processes erase while the owner keeps: the account is there as a whole, or gone."""
    subject = (await house.ann()).subject
    _, token = await deleted(house)
    forward(house, GRACE - 0.5)
    racing = house.over(Interleaved(house.store, seed=seed, most=6))

    async def erase() -> None:
        forward(house, 0.5)
        await racing.deletion.tidy()

    results = await asyncio.gather(
        racing.deletion.keep(token, client=HOME), erase(), racing.deletion.tidy(), return_exceptions=True
    )
    account, departure = await house.store.account(subject), await house.store.get(Departure, subject)
    assert departure is None
    assert (account is not None) == (not isinstance(results[0], Exception)), results
    assert account is None or (account.active and await house.opens(PASSWORD))


async def test_an_account_that_is_kept_in_the_middle_of_the_erasure_stays(house: House) -> None:
    """A22: the owner keeps the account at a node whose clock is behind, while another one erases it: it stays."""
    subject = (await house.ann()).subject
    _, token = await deleted(house)
    forward(house, GRACE)
    gate = Gate(house.store, "forget")
    erasing = asyncio.create_task(house.over(gate).deletion.tidy())
    await gate.reached.wait()
    forward(house, -1)
    await house.clean.deletion.keep(token, client=HOME)
    forward(house, 1)
    gate.open.set()
    assert await erasing == 0
    assert await house.opens(PASSWORD)
    assert (await house.ann()).subject == subject


async def test_a_sign_in_that_overlaps_the_deletion_does_not_survive_it(house: House) -> None:
    """I-3: the password was checked before, the session begins after: it is refused."""
    gate = Gate(house.store, "known", after=True)
    signing_in = asyncio.create_task(house.sign_in(through=house.over(gate)))
    await gate.reached.wait()
    await deleted(house)
    gate.open.set()
    with pytest.raises(WrongCredentials):
        await signing_in


@pytest.mark.parametrize("how", ["lost", "unknown"])
async def test_an_erasure_that_is_interrupted_is_finished_later(house: House, how: str) -> None:
    """A22: killed between its steps, it left an account that signs no one in, and the next process erases it."""
    subject = (await house.ann()).subject
    spoiled = Broken(house.store, at=0, how=how, only=lambda *changes: any(isinstance(c, Remove) for c in changes))
    with pytest.raises(Unavailable):
        await house.over(spoiled).deletion.erase(subject, client=HOME, actor="cli")
    account = await house.store.account(subject)
    assert account is None or not account.active
    assert await house.clean.deletion.tidy() == (how == "lost")
    assert await house.store.account(subject) is None


async def test_a_failure_in_the_middle_undoes_all(house: House) -> None:
    """I-10: whichever step of the deletion fails, the account signs in as before."""
    subject = (await house.ann()).subject
    at = steps = 0
    while at <= steps:
        spoiled = Spoiled(house.store, at=at, how="change")
        with pytest.raises(Exception) as caught:  # noqa: PT011 - of whatever kind, it is not a success
            await house.over(spoiled).deletion.ask(subject, client=HOME)
        assert not isinstance(caught.value, AssertionError), caught.value
        assert await house.opens(PASSWORD), f"step {at} of {spoiled.changes}"
        assert await house.store.get(Departure, subject) is None
        steps, at = spoiled.changes, at + 1


ERASER = """
import asyncio, sys
from pathlib import Path
from tests.standins import HOME, Clock, authority, directory
from dutchdoor.stores.sqlite import SqliteStore

async def main():
    over = authority(SqliteStore(Path(sys.argv[1])), Clock())
    await over.open()
    people = directory(over)
    for subject in sys.argv[2:]:
        print(subject, flush=True)
        await people.deletion.erase(subject, client=HOME, actor="cli")

asyncio.run(main())
"""


@pytest.mark.long
@pytest.mark.parametrize("after", range(8))
async def test_a22_an_erasure_that_is_killed_is_finished_by_the_next_process(tmp_path: Path, after: int) -> None:
    """A22: killed with -9 anywhere, each account is there and disabled, or gone with all that it had; then all are."""
    async with opened("sqlite", tmp_path, Clock()) as over:
        people = directory(over, Mailbox())
        made = []
        for number in range(12):
            account = await people.registration.register(f"p{number}@example.com", PASSWORD, "", client=HOME)
            assert account is not None
            await people.sign_in.by_password(f"p{number}@example.com", PASSWORD, Browser(HOME), mode="session")
            made.append(account.subject)
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", ERASER, str(tmp_path / "test.db"), *made, stdout=asyncio.subprocess.PIPE
        )
        assert process.stdout is not None
        for _ in range(after + 1):
            await process.stdout.readline()
        await asyncio.sleep(random.Random(after).random() * 0.01)  # anywhere inside of an erasure
        process.kill()
        await process.wait()
        left = [account for subject in made if (account := await over.store.account(subject)) is not None]
        for account in left:
            departure = await over.store.get(Departure, account.subject)
            assert account.active == (departure is None)
        under_way = [account for account in left if not account.active]
        assert len(under_way) <= 1
        assert await people.deletion.tidy() == len(under_way)
        for _, account in await over.store.search_accounts("example.com"):
            assert account.active
        counts = await over.store.counts()
        assert counts["departures"] == 0
        assert counts["sessions"] == counts["credentials"] == len(await over.store.search_accounts("example.com"))
        await people.close()


# --- nowhere ----------------------------------------------------------------------------------------------------------


def in_sqlite(file: Path, needles: list[str]) -> list[str]:
    """Where any of these texts stands, in every table and every column."""
    found = []
    with sqlite3.connect(file) as connection:
        tables = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
        assert len(tables) > 10
        for table in tables:
            for row in connection.execute(f'SELECT * FROM "{table}"'):
                text = " ".join(str(value) for value in row)
                text += " ".join(value.decode("latin-1") for value in row if isinstance(value, bytes))
                found += [f"{table}: {needle}" for needle in needles if needle in text]
    return found


def in_postgres(url: str, needles: list[str]) -> list[str]:
    found = []
    tables = _psql(url, "SELECT table_name FROM information_schema.tables WHERE table_schema = 'dutchdoor'").split()
    assert len(tables) > 10
    for table in tables:
        text = _psql(url, f"SELECT t FROM dutchdoor.{table} t")
        found += [f"{table}: {needle}" for needle in needles if needle in text or needle.encode().hex() in text]
    return found


async def in_redis(url: str, needles: list[str]) -> list[str]:
    client = redis.asyncio.Redis.from_url(url)
    found = []
    async for key in client.scan_iter(count=1000):
        text = key + (await client.dump(key) or b"")
        found += [f"{key!r}: {needle}" for needle in needles if needle.encode() in text]
    await client.aclose()
    return found


@pytest.mark.parametrize("place", ["sqlite", "postgres"])
async def test_a22_what_is_erased_is_nowhere(
    tmp_path: Path, place: str, caplog: pytest.LogCaptureFixture, patience: None
) -> None:
    """A22: after an erasure no table of the database, no key in Valkey and no line of the log holds the address, the
    name, or where the person was. The search itself finds them before.
    """
    caplog.set_level(logging.DEBUG)
    address, name, network, device = "Erased.Person@Example.org", "Erika Nirgends", "203.0.113.177", "Firefox on Linux"
    client = replace(HOME, address=network)
    needles = [address, address.lower(), "erased.person", name, network, device]
    with a_valkey() as valkey, new_database() as url:
        record: Store = SqliteStore(tmp_path / "test.db") if place == "sqlite" else PostgresStore(url)
        over = authority(around(record, valkey.url, key=MASTER.current.derive("redis")), clock := Clock())
        await over.open()
        people = directory(over, Mailbox())

        async def found() -> list[str]:
            inside = in_sqlite(tmp_path / "test.db", needles) if place == "sqlite" else in_postgres(url, needles)
            return inside + await in_redis(valkey.url, needles)

        await people.registration.register(address, PASSWORD, name, client=client)
        account = await over.store.account_by_email(address.lower())
        assert account is not None
        for mode in ("session", "hybrid", "jwt"):
            await people.sign_in.by_password(address, PASSWORD, Browser(client), mode=mode)
        with pytest.raises(WrongCredentials):
            await people.sign_in.by_password(address, "wrong wrong 7", Browser(client), mode="jwt")
        (session, *_) = await over.sessions(account.subject)
        data = await over.data.of_session(session.id, account.subject)
        data["ship_to"] = name
        await over.data.save(data)
        await people.recovery.send_reset(account, client=client)
        await people.email_change.ask(account, "other@example.org", client=client)
        await people.post.close()
        before = await found()
        assert {entry.partition(":")[0] for entry in before} >= {"accounts", "one_time_tokens", "sessions", "events"}
        # An endpoint that takes nothing: what waits for it is a place in the log, and no copy.
        webhooks = Webhooks(over, ["127.0.0.0/8"])
        waiting = await webhooks.add("http://127.0.0.1:9/", with_client=True, client=THIEF, actor="")
        await people.deletion.ask(account.subject, client=client)
        await people.post.close()
        courier = Courier(webhooks, waiting.webhook.id, "sender")
        await courier.round()
        assert (await over.store.counts())["webhook_lanes"] > 1
        await courier.close()
        clock.forward(GRACE)
        assert await people.deletion.tidy() == 1
        assert await found() == []
        assert not [line for line in caplog.messages for needle in needles if needle in line]
        await people.close()
        await over.close()


# --- users of the application's own -----------------------------------------------------------------------------------


async def test_the_application_erases_a_user_of_its_own() -> None:
    """A22: `auth.erase` ends and erases what is kept of a subject; one that never signed in is no error."""

    async def authenticate(login: str, password: str) -> str | None:
        return login if password == PASSWORD else None

    async def load(subject: str) -> str:
        return subject

    auth = Auth(
        "memory:",
        users=ExternalUsers(authenticate=authenticate, load=load),
        clock=lambda: T0,
    )
    async with auth:
        signed_in, _ = await auth.directory.sign_in.by_password("42", PASSWORD, Browser(HOME), mode="session")
        assert await auth.erase("42") == 0.0
        assert await auth.store.account("42") is None
        with pytest.raises(NotAuthenticated):
            await auth.authority.resume(signed_in.session_token)
        assert await auth.erase("42") == 0.0
        assert (await auth.store.counts())["sessions"] == 0


async def test_without_a_grace_it_is_erased_at_once() -> None:
    """An operator may keep nothing: then no letter is written, and the address is free at once."""
    mailbox = Mailbox()
    auth = Auth(
        "memory:",
        public_url=ISSUER,
        policy=Policy(keep_deleted_for=0),
        mail=mailbox,
        hasher=PasswordHasher(CHEAPEST),
    )
    async with auth:
        account = await auth.directory.registration.register(ANN, PASSWORD, "Ann", client=HOME)
        assert account is not None
        await auth.directory.deletion.ask(account.subject, client=HOME)
        assert await auth.store.account(account.subject) is None
        assert mailbox.mails == []
