"""Creates the schema `dutchdoor` and brings it up to date."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from dutchdoor.errors import Conflict, Misconfigured
from dutchdoor.stores.kinds import Kinds
from dutchdoor.stores.migrations import Migration, refuse_another_schema
from dutchdoor.stores.postgres.connection import (
    CONNECT_PATIENTLY_FOR,
    MIGRATE_FOR,
    OPEN_FOR,
    Connection,
    Connector,
    begin,
    timeouts,
)
from dutchdoor.stores.postgres.failures import Refusal, meant
from dutchdoor.stores.transfer import refuse_unless_whole

__all__ = ["prepare"]

_LEAVES_WITHIN = 2.0
"""Seconds for which a process of the server may outlive its client: a move may follow the stop of a server at once."""
_MOVING = "SELECT kind, after FROM dutchdoor.moving"

_LOCK = 0x64646F6F
"""First half of the advisory lock that migrations hold. 'ddoo' in ASCII; the limits' locks use it too."""


async def prepare(connect: Connector, kinds: Kinds, *, to_move: bool, as_is: bool) -> None:
    """Check that the server can be used, and bring the schema up to date; or refuse if this is needed and the database
    is opened `as_is`.
    """
    migrations = kinds.migrations("postgres")
    try:
        connection = await connect(OPEN_FOR, within=CONNECT_PATIENTLY_FOR)
        try:
            async with asyncio.timeout(OPEN_FOR) as patience:
                await _check_server(connection)
                if to_move:
                    await _refuse_company(connection)
                if as_is:
                    await connection.execute(begin(OPEN_FOR))
                    refuse_another_schema("postgres", await _applied(connection, migrations), migrations)
                    await connection.execute("COMMIT")
                for migration in migrations:
                    await _migrate(connection, migration, migrations, patience)
                await _check_whole(connection, kinds, to_move=to_move)
        except Exception as exc:  # noqa: BLE001 - a driver has many ways to fail
            raise meant(exc) from None
        finally:
            connection.terminate()
    except Refusal as exc:
        raise Misconfigured(exc.reason) from exc
    connect.known = tuple(migration.name for migration in migrations)


async def _check_server(connection: Connection) -> None:
    await connection.execute(begin(OPEN_FOR))
    row = await connection.fetchrow(
        "SELECT current_setting('server_version_num')::integer, current_setting('server_encoding')"
    )
    assert row is not None  # noqa: S101 - a SELECT without FROM gives one row
    version, encoding = row
    if version < 140000:  # noqa: PLR2004
        raise Misconfigured("postgres: version 14 or newer is needed")
    if encoding != "UTF8":
        raise Misconfigured(
            f"postgres: the encoding is {encoding}: create the database with ENCODING 'UTF8' TEMPLATE template0"
        )
    await connection.execute("COMMIT")


async def _refuse_company(connection: Connection) -> None:
    """Raise `Conflict` if another program of ours is connected to the database, and stays so."""
    until = asyncio.get_running_loop().time() + _LEAVES_WITHIN
    while await _has_company(connection):
        if asyncio.get_running_loop().time() > until:
            text = (
                "Another process has this database open. Stop all servers and commands that use it, and run this again."
            )
            raise Conflict(text, message=text)
        await asyncio.sleep(0.05)


async def _has_company(connection: Connection) -> bool:
    await connection.execute(begin(OPEN_FOR))  # in a transaction of its own: each shows one state of the server
    found = await connection.fetch(
        "SELECT FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'dutchdoor%' "
        "AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
    )
    await connection.execute("COMMIT")
    return bool(found)


async def _check_whole(connection: Connection, kinds: Kinds, *, to_move: bool) -> None:
    """Refuse an unfinished copy: half of the records would refuse people, and accept sessions that have ended
    elsewhere.
    """
    await connection.execute(begin(OPEN_FOR))
    if not to_move:
        refuse_unless_whole([kind for kind, _ in await connection.fetch(_MOVING)], "this database")
    if to_move:  # records of a kind from a newer program would stay behind
        unknown = await connection.fetch("SELECT name FROM dutchdoor.kinds WHERE name <> ALL ($1)", kinds.tables)
        if unknown:
            text = (
                f"The database has records that this program does not know: {', '.join(name for (name,) in unknown)}."
            )
            raise Misconfigured(text)
    await connection.execute("COMMIT")


async def _migrate(
    connection: Connection, migration: Migration, migrations: Sequence[Migration], patience: asyncio.Timeout
) -> None:
    """Apply a file, and record that, in one transaction: after a kill, both happened or neither."""
    await connection.execute(begin(OPEN_FOR))
    applied = await _applied(connection, migrations)
    if migration.name not in applied:
        patience.reschedule(asyncio.get_running_loop().time() + MIGRATE_FOR)
        await connection.execute("; ".join(f"SET LOCAL {name} = {ms}" for name, ms in timeouts(MIGRATE_FOR).items()))
        # Check again under the lock, since another process may have migrated a moment ago. Each statement takes its own
        # snapshot, and so takes it after the lock.
        await connection.execute(f"SELECT pg_advisory_xact_lock({_LOCK}, 0)")
        applied = await _applied(connection, migrations)
    if migration.name not in applied:
        if not applied:
            await _found(connection)
        await connection.execute(migration.text)
        await connection.execute(
            "INSERT INTO dutchdoor.migrations VALUES ($1, $2, $3)",
            migration.name,
            migration.sha256,
            migration.is_additive,
        )
    await connection.execute("COMMIT")


async def _applied(connection: Connection, migrations: Sequence[Migration]) -> set[str]:
    """Names of the applied migrations. Raises `Misconfigured` if this program and this database do not fit."""
    if _MIGRATIONS not in await _relations(connection):
        return set()
    rows = await connection.fetch("SELECT name, sha256, additive FROM dutchdoor.migrations")
    known = {migration.name: migration.sha256 for migration in migrations}
    for name, digest, additive in rows:
        if name not in known and not additive:
            raise Misconfigured(f"postgres: the database is newer than this program: it has had {name}")
        if known.get(name, digest) != digest:
            raise Misconfigured(
                f"postgres: {name} is not the migration this database has had: a released one was changed"
            )
    return {name for name, _, _ in rows}


_MIGRATIONS = "migrations"


async def _relations(connection: Connection) -> set[str]:
    """What exists in the schema. It is read from the catalogue tables and not by `to_regclass`: that caches that
    nothing existed, though another process created it while we waited for the lock.
    """
    rows = await connection.fetch(
        "SELECT c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
        "WHERE n.nspname = 'dutchdoor'"
    )
    return {name for (name,) in rows}


async def _found(connection: Connection) -> None:
    """Create the schema, which an operator may have created before, and the table of applied migrations."""
    if not await connection.fetch("SELECT 1 FROM pg_namespace WHERE nspname = 'dutchdoor'"):
        await connection.execute("CREATE SCHEMA dutchdoor")
    elif await _relations(connection):
        raise Misconfigured("postgres: the schema dutchdoor belongs to another application")
    await connection.execute(
        'CREATE TABLE dutchdoor.migrations (name text COLLATE "C" PRIMARY KEY, sha256 text COLLATE "C" NOT NULL, '
        "additive boolean NOT NULL)"
    )
