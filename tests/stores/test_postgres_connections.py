"""The way to PostgreSQL: URLs, TLS, proxies that pool, and hosts that are silent."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import traceback
from urllib.parse import urlsplit

import asyncpg
import pytest
from msgspec.structs import replace
from tests.backing import PASSWORD, a_postgres, as_user, new_database
from tests.faults.proxy import Proxy
from tests.ports import free_port
from tests.server.certificates import write_certificate
from tests.stores.postgres import opened, patiently, somebody_waits, there, timed, until

from dutchdoor.errors import Conflict, InvalidInput, Misconfigured, Unavailable
from dutchdoor.jose.signing_keys import StoredKey
from dutchdoor.stores.base import Add, Log, Revoke
from dutchdoor.stores.postgres import COMMIT_LANES, failures, from_url
from dutchdoor.stores.urls import make_store
from dutchdoor.testing.conformance import LAWS, World, a_revocation, an_account, an_event
from dutchdoor.testing.conformance.commits import LAWS as LAWS_OF_COMMITS

# URLs


@pytest.mark.parametrize(
    "url",
    [
        "postgresql://",
        "postgresql://u:s3cr3t@h",
        "postgresql://u:s3cr3t@h/",
        "postgresql://u:s3cr3t@h/db?pooling=statement",
        "postgresql://u:s3cr3t@h/db?synchronous_commit=off",
        "postgresql://u:s3cr3t@h/db?nonsense",
        "postgresql://u:s3cr3t@h:port/db",
        "postgresql://u:s3cr3t@[::1/db",
    ],
)
def test_a_url_that_cannot_be_read_is_refused_without_repeating_it(url):
    """A URL may hold a password: no refusal repeats it."""
    with pytest.raises(Misconfigured) as refused:
        make_store(url)
    assert "s3cr3t" not in f"{refused.value!r} {refused.value} {refused.value.reason}"


def test_what_a_url_says(postgres_url):
    """`pooling` is ours, the rest is the driver's; several hosts may be named."""
    assert not make_store(postgres_url)._make.by_transaction
    assert make_store(f"{postgres_url}?pooling=transaction&sslmode=disable")._make.by_transaction
    make_store("postgresql://u:p@one:5432,two:5433/db?sslmode=verify-full")
    assert PASSWORD not in repr(make_store(postgres_url))


async def test_no_password_is_in_an_error(postgres_url, caplog):
    """Whatever goes wrong in connecting, the password is in no text of the error."""
    for wrong in (
        postgres_url.replace(PASSWORD, "wr0ng-pa55"),
        postgres_url.replace(PASSWORD, "wr0ng-pa55").replace("127.0.0.1", "127.0.0.1:1,127.0.0.1"),
        there(postgres_url.replace(PASSWORD, "wr0ng-pa55"))(free_port()),
        postgres_url.replace(PASSWORD, "wr0ng-pa55") + "?sslmode=verify-full",
    ):
        with pytest.raises((Misconfigured, Unavailable)) as refused:
            await from_url(wrong).open()
        error = refused.value
        while error is not None:
            assert "wr0ng-pa55" not in f"{error!r} {error} {getattr(error, 'reason', '')}"
            error = error.__cause__
    assert "wr0ng-pa55" not in caplog.text


async def test_no_value_of_a_row_is_in_a_log(store, monkeypatch):
    """The server's DETAIL of a refusal repeats the row, and some texts the value: neither is in an error, nor in what a
    traceback of it shows.
    """
    secret = "s3cr3t@example.com"
    monkeypatch.setattr(failures, "_CONFLICTS", frozenset())  # so that its text is kept
    await store.commit(Add(replace(an_account(), email=secret)))
    for refused in (
        store.commit(Add(replace(an_account(), email=secret))),
        store._all(f"SELECT '{secret}'::bigint"),
        store._all("SELECT $1::bigint", secret),
        store._scan("SELECT ($1::jsonb) -> 'x'", f'"{secret}'),
    ):
        with pytest.raises((InvalidInput, Unavailable)) as raised:
            await refused
        written = "".join(traceback.format_exception(raised.value))
        assert secret not in f"{raised.value!r} {raised.value.reason} {written}"
        assert "postgres:" in raised.value.reason


async def test_what_no_waiting_changes_is_misconfigured(postgres_url):
    """A wrong password, a database that is not there, a role that may not: said while opening, and not 'try again'."""
    for wrong in (postgres_url.replace(PASSWORD, "wrong"), postgres_url + "x"):
        with pytest.raises(Misconfigured):
            await from_url(wrong).open()
    with (
        new_database("ENCODING 'SQL_ASCII' TEMPLATE template0") as url,
        pytest.raises(Misconfigured, match="SQL_ASCII"),
    ):
        await from_url(url).open()


async def test_a_password_that_changed_meanwhile_is_an_outage(store, beside):
    """Once open, a server that refuses us may be repaired: callers are asked to try again."""
    await store.account("ada")
    store._make._urls = [url.replace(PASSWORD, "wrong") for url in store._make._urls]
    for lane in store._lanes:
        lane.drop()
    with pytest.raises(Unavailable):
        await store.session("x")


# TLS, and a proxy that pools


async def test_tls_is_verified_where_the_url_says_so(tmp_path):
    """With verify-full a server whose certificate is another's, or not signed by a known authority, is refused."""
    write_certificate(tmp_path, "localhost")
    with a_postgres() as server:
        for name in ("cert.pem", "key.pem"):
            target = server.folder / "data" / f"server-{name}"
            shutil.copy(tmp_path / name, target)
            target.chmod(0o600)
            if os.geteuid() == 0:
                shutil.chown(target, as_user("nobody")["user"])
        server.stop()
        server.arguments += [
            "-c", "ssl=on", "-c", "ssl_cert_file=server-cert.pem", "-c", "ssl_key_file=server-key.pem",
        ]  # fmt: skip
        server.start()
        verified = f"?sslmode=verify-full&sslrootcert={tmp_path / 'cert.pem'}"
        by_name = server.url().replace("127.0.0.1", "localhost")
        async with opened(by_name + verified) as store:
            encrypted = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
            assert [tuple(row) for row in await store._all(encrypted)] == [(True,)]
        write_certificate(tmp_path, "localhost")
        for wrong in (server.url() + verified, by_name + verified):
            with pytest.raises(Unavailable):
                await from_url(wrong).open()


@pytest.fixture
def pooled(prepared_url, tmp_path):
    """The same database through PgBouncer, which hands out its few connections by the transaction."""
    program = os.environ.get("PGBOUNCER") or shutil.which("pgbouncer")
    if program is None:
        pytest.skip("needs pgbouncer on the PATH, or named by the variable PGBOUNCER")
    parts, port = urlsplit(prepared_url), free_port()
    config = tmp_path / "pgbouncer.ini"
    config.write_text(
        f"[databases]\n* = host=127.0.0.1 port={parts.port} user=postgres password={PASSWORD}\n"
        f"[pgbouncer]\nlisten_addr=127.0.0.1\nlisten_port={port}\nunix_socket_dir=\nauth_type=any\n"
        "pool_mode=transaction\ndefault_pool_size=6\nlogfile=\npidfile=\n"
    )
    tmp_path.chmod(0o755)
    for parent in tmp_path.parents[:3]:
        parent.chmod(parent.stat().st_mode | 0o011)
    user = as_user("nobody" if os.geteuid() == 0 else None)
    process = subprocess.Popen([program, "-q", str(config)], stderr=subprocess.DEVNULL, **user)
    try:
        yield there(prepared_url)(port)
    finally:
        process.terminate()
        process.wait(60)


@pytest.mark.parametrize(
    "law",
    [pytest.param(law, marks=[] if law in LAWS_OF_COMMITS else pytest.mark.long) for law in LAWS],
    ids=lambda law: law.__name__,
)
async def test_law_behind_a_pool_of_transactions(law, pooled):
    """`?pooling=transaction`: every law holds though each transaction may get another connection."""
    store = from_url(f"{pooled}&pooling=transaction")
    await asyncio.wait_for(_open_patiently(store), 60)
    await law(store)
    await store.close()


async def _open_patiently(store):
    while True:
        try:
            return await store.open()
        except Unavailable:
            await asyncio.sleep(0.05)


async def test_nothing_is_kept_in_a_connection(postgres_url, patience):
    """`?pooling=transaction` without a proxy: each statement stands by itself, in a transaction that ends."""
    store = from_url(f"{postgres_url}?pooling=transaction")
    await store.open()
    world = await World(store).fill()
    assert (await store.session(world.live.id))[0] == world.live
    woken = asyncio.Event()
    unwatch = store.watch(woken.set)
    for _ in range(3):
        await asyncio.wait_for(woken.wait(), 60)
        woken.clear()
        await store.commit(Revoke(a_revocation()))
    unwatch()
    for lane in store._lanes:
        if lane._connection is not None and not lane._connection.is_closed():
            assert not lane._connection.is_in_transaction()
            assert await lane._connection.fetchval("SELECT count(*) FROM pg_prepared_statements WHERE name <> ''") == 0
    await store.close()


async def test_a_conflict_behind_a_pool_keeps_the_connection(pooled, prepared_url):
    """After a conflict the next commit goes over the same connection of ours, and the proxy keeps its own: each would
    cost the server a new process.
    """
    processes = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
    store = from_url(f"{pooled}&pooling=transaction")
    await asyncio.wait_for(_open_patiently(store), 60)
    beside = await asyncpg.connect(prepared_url)
    await store.commit(Add(ada := an_account()))
    before = await beside.fetch(processes)
    for number in range(3):
        with pytest.raises(Conflict):
            await store.commit(Add(replace(an_account(f"other{number}"), email=ada.email)))
    await store.commit(Add(an_account("bob")))
    assert await beside.fetch(processes) == before
    await beside.close()
    await store.close()


@pytest.mark.parametrize("by_transaction", [False, True])
async def test_a_host_that_is_silent_is_passed_over(by_transaction, postgres_url):
    """Of several hosts in the URL one may be gone without a word, as a machine without power is: the next is used, for
    the connections that were open too, whether the hosts stand in the address or in `host`.
    """
    parts = urlsplit(postgres_url)
    name = f"{parts.username}:{parts.password}@"
    async with Proxy("127.0.0.1", parts.port) as gone, Proxy("127.0.0.1", parts.port) as there_still:
        ports = gone.port, there_still.port
        in_address = f"{name}127.0.0.1:{ports[0]},127.0.0.1:{ports[1]}{parts.path}?sslmode=disable"
        in_options = f"{name}{parts.path}?host=127.0.0.1,127.0.0.1&port={ports[0]},{ports[1]}&sslmode=disable"
        async with opened(f"postgresql://{in_address}", by_transaction=by_transaction) as store:
            await patiently(lambda: store.commit(Revoke(a_revocation())))
            assert gone.accepted, "the first host was not used: nothing is tested"
            gone.hold()

            async def goes_on():
                return not isinstance((await timed(store.commit(Revoke(a_revocation()))))[1], Exception)

            await until(goes_on)
            assert await patiently(lambda: store.select(StoredKey)) == []
        async with opened(f"postgresql://{in_options}", by_transaction=by_transaction) as store:
            assert await patiently(lambda: store.select(StoredKey)) == []


async def test_a_transaction_cut_off_before_its_end_lets_go(postgres_url, beside, store):
    """`?pooling=transaction`: a node that vanishes between its statement and the COMMIT holds no other node up for
    longer than some seconds, not until a lost connection is found out.
    """
    parts = urlsplit(postgres_url)
    async with (
        Proxy("127.0.0.1", parts.port) as link,
        opened(there(postgres_url)(link.port), by_transaction=True) as lost,
    ):
        await lost.commit(Revoke(a_revocation()))
        holding = beside.transaction()
        await holding.start()
        await beside.execute("SELECT 1 FROM dutchdoor.revocation_log FOR UPDATE")
        cut_off = asyncio.create_task(timed(lost.commit(Revoke(a_revocation()))))
        await until(lambda: somebody_waits(beside))
        link.up.hold()  # its statement is there; whatever comes after it is not
        await holding.rollback()
        is_left = "SELECT count(*) > 0 FROM pg_stat_activity WHERE state = 'idle in transaction' AND datname = $1"
        await until(lambda: beside.fetchval(is_left, parts.path.strip("/")))

        async def goes_on():
            return not isinstance((await timed(store.commit(Revoke(a_revocation()))))[1], Exception)

        await until(goes_on)
        assert isinstance((await cut_off)[1], Unavailable)


@pytest.mark.parametrize("by_transaction", [False, True])
async def test_no_functions_of_others_are_called(by_transaction, postgres_url, beside, patience):
    """What another role of the database put into `public` is not taken for PostgreSQL's own, where it fits better."""
    async with opened(postgres_url, by_transaction=by_transaction) as store:
        await beside.execute(
            "CREATE FUNCTION public.cardinality(bigint[]) RETURNS integer LANGUAGE plpgsql AS "
            "$$ BEGIN RAISE EXCEPTION 'called as %', current_user; END $$"
        )
        await store.commit(Revoke(a_revocation()))


async def test_a_standby_that_is_gone_does_not_take_all_connections(server):
    """Commits that wait for a synchronous standby cannot be ended. While it is gone each of ours has an answer, those
    that wait stay as many as commits have connections, and look-ups go on; when it is back, so do commits.
    """
    async with opened(server.own) as store:
        await store.commit(Log(an_event()))
        server.sql("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
        try:
            server.sql("SELECT pg_reload_conf()")

            async def waits():
                return isinstance((await timed(store.commit(Log(an_event()))))[1], Unavailable)

            await until(waits)  # not before the server has read it
            for _ in range(5):
                outcomes = await asyncio.gather(*(timed(store.commit(Log(an_event()))) for _ in range(3)))
                assert all(isinstance(outcome, Unavailable) for _, outcome in outcomes)
                assert await patiently(lambda: store.session("x")) is None
            waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'"
            assert 0 < int(server.sql(waiting)) <= COMMIT_LANES
        finally:
            server.sql("ALTER SYSTEM RESET synchronous_standby_names")
            server.sql("SELECT pg_reload_conf()")

        async def goes_on():
            return not isinstance((await timed(store.commit(Log(an_event()))))[1], Exception)

        await until(goes_on)


async def test_closing_waits_for_no_look_at_every_row(store, beside):
    """A node that is asked to stop while a table is locked stops; a caller that waits for the table gets an error."""
    async with beside.transaction():
        await beside.execute("LOCK TABLE dutchdoor.accounts IN ACCESS EXCLUSIVE MODE")
        looking = [asyncio.create_task(timed(store.accounts())) for _ in range(2)]
        await until(lambda: somebody_waits(beside))
        await asyncio.wait_for(store.close(), 30)
        for _, outcome in await asyncio.gather(*looking):
            assert isinstance(outcome, Unavailable)
