"""Connections to one database: created, checked before they are used, and closed when they are silent."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Mapping
from typing import Any, TypeAlias

import asyncpg
from asyncpg.connect_utils import SessionAttribute
from asyncpg.exceptions import PostgresError

from dutchdoor.errors import Conflict, DutchdoorError, InvalidInput, Unavailable
from dutchdoor.stores.postgres.failures import is_fatal, meant
from dutchdoor.stores.postgres.url import hosts

__all__ = [
    "ANSWER_FOR", "COMMIT_STATEMENT_FOR", "CONNECT_PATIENTLY_FOR", "MIGRATE_FOR", "OPEN_FOR", "STATEMENT_FOR",
    "Connection", "Connector", "Lane", "Row", "begin", "timeouts",
]  # fmt: skip

ANSWER_FOR = 0.8
"""Seconds a caller waits in all, including for a connection and its turn. Callers were promised a second."""
STATEMENT_FOR = 0.65
"""Seconds after which the server cancels a statement: before we do, so that it reports it and the connection survives.
"""
COMMIT_STATEMENT_FOR = 5.0
"""The same for a commit: a slow disk's flush is not an outage."""
_LOCK_FOR = 1.0
"""Seconds to wait for a row that another transaction holds. Ours hold one for milliseconds."""
_IDLE_FOR = 2.0
"""Seconds between two steps of a transaction behind a proxy: a client that vanished there still holds its locks."""
CONNECT_FOR = 0.65
_NEXT_HOST_AFTER = 0.15
"""Seconds in which a host must answer before the next one is tried beside it: a machine that is gone answers nothing.
"""
CONNECT_PATIENTLY_FOR = 5.0
"""The same for operations with a probe, and for opening."""
OPEN_FOR = 30.0
"""Seconds in which a database answers what an opening asks."""
MIGRATE_FOR = 1800.0
"""Seconds for a migration, by this process or by another one that this waits for: it may write rows for each account.
"""

Row: TypeAlias = Any
"""A tuple of values, or the driver's record, which unpacks like one."""
Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


class Connector:
    """Creates connections to one database. The URL may hold a password, and does not leave this object."""

    def __init__(self, url: str, *, by_transaction: bool, connect_for: float, settings: Mapping[str, str]) -> None:
        self._urls = hosts(url)
        self._connect_for, self._settings = connect_for, settings
        self._losing: set[asyncio.Task[Connection]] = set()
        self.by_transaction = by_transaction
        self.known: tuple[str, ...] = ()
        """Names of the migrations that this program has, once they are known to be applied."""
        self.newest_log = 0
        """The epoch of the newest log that any connection reported before it was used."""
        self.lost_at = 0.0
        """When a connection last broke or was silent, by the loop's clock. The cause may have broken others too, and an
        idle connection does not notice: no connection from before is used again.
        """
        self.moved_at = 0.0
        """When another one of several hosts turned out to be the one to use: callers that still wait for the previous
        host wait in vain.
        """

    async def __call__(self, statement_for: float, *, within: float = CONNECT_FOR) -> Connection:
        """Connect. Raises `Unavailable`, or `Misconfigured` for what waiting cannot change."""
        connection: Connection
        within = min(within, self._connect_for)
        try:
            async with asyncio.timeout(within):
                connection = await self._to_any(statement_for, within)
        except Exception as exc:  # noqa: BLE001 - a driver has many ways to fail, and its text may hold the URL
            raise meant(exc) from None
        return connection

    async def _to_any(self, statement_for: float, within: float) -> Connection:
        """Connect to the first usable host, beginning with the last one that was usable. A host that was replaced is
        not usable, however fast it answers.
        """
        tasks: dict[asyncio.Task[Connection], str] = {}
        used: asyncio.Task[Connection] | None = None
        try:
            for url in self._urls:
                tasks[asyncio.ensure_future(self._to(url, statement_for, within))] = url
                is_last = len(tasks) == len(self._urls)
                going = {task for task in tasks if not task.done()}
                while going and used is None:
                    ended, going = await asyncio.wait(
                        going, timeout=None if is_last else _NEXT_HOST_AFTER, return_when=asyncio.FIRST_COMPLETED
                    )
                    used = next((task for task in ended if task.exception() is None), None)
                    if not is_last:
                        break
                if used is not None:
                    if tasks[used] != self._urls[0]:
                        self.moved_at = self.lost_at = asyncio.get_running_loop().time()
                    self._urls = [url := tasks[used], *(each for each in self._urls if each != url)]
                    return used.result()
            raise next(exc for task in tasks if (exc := task.exception()) is not None)
        finally:
            for task in tasks:
                if task is not used:
                    self._losing.add(task)
                    task.add_done_callback(self._lost)
                    task.cancel()

    def _lost(self, task: asyncio.Task[Connection]) -> None:
        self._losing.discard(task)
        if not task.cancelled() and task.exception() is None:
            task.result().terminate()

    async def _to(self, url: str, statement_for: float, within: float) -> Connection:
        # A proxy would not pass settings on, and refuses those that it is not configured to accept.
        settings = {} if self.by_transaction else {**SETTINGS, **timeouts(statement_for)}
        # A proxy may have a standby behind it at any time: `begin` checks then.
        anything = self.by_transaction and len(self._urls) == 1
        connection = await asyncpg.connect(
            url,
            timeout=within + 1,
            statement_cache_size=0 if self.by_transaction else 100,
            server_settings={**self._settings, **settings},
            target_session_attrs=SessionAttribute.any if anything else SessionAttribute.primary,
        )
        try:
            if self.known:
                await self._check(connection)
        except BaseException:
            connection.terminate()
            raise
        return connection

    async def attend(self, connection: Connection, begin: str) -> int:
        """Return which log this server is on, in a transaction that began or begins with this, once it is committed.

        Without values a statement is one message, and its answer is only the number of rows: one if the log is not the
        one that was known.
        """
        whole, log_epoch = "false" if begin else "true", self.newest_log
        attend = f"{begin}SELECT FROM dutchdoor.attend_1({whole}, {log_epoch:d})"
        if await connection.execute(attend) != "SELECT 0":
            log_epoch = await connection.fetchval("SELECT epoch FROM dutchdoor.revocation_log")
        if log_epoch < self.newest_log:  # it still answers, and may acknowledge what no other server will know
            raise Unavailable("postgres: this server was replaced by another")
        return log_epoch

    def note_log(self, log_epoch: int) -> None:
        """Record which log is the newest."""
        if log_epoch > self.newest_log:
            if self.newest_log:  # other connections may lead to the server that was replaced
                self.lost_at = asyncio.get_running_loop().time()
            self.newest_log = log_epoch

    async def _check(self, connection: Connection) -> None:
        """Check the server before any question or write.

        A program of the next version may have migrated the database while we were away, so that this version no longer
        fits. And a promoted server may lack what another one acknowledged: then a new log begins here, as after a
        restore. A server that takes writes keeps its timeline for as long as it keeps a connection.
        """
        await connection.execute(begin(STATEMENT_FOR))
        newer = await connection.fetch(
            "SELECT name FROM dutchdoor.migrations WHERE NOT additive AND name <> ALL ($1)", self.known
        )
        log_epoch = self.newest_log if newer else await self.attend(connection, "")
        await connection.execute("COMMIT")
        self.note_log(log_epoch)
        if newer:
            raise Unavailable(f"the database is newer than this program: it has had {newer[0][0]}")


SETTINGS = {
    "default_transaction_isolation": "read committed",
    "idle_in_transaction_session_timeout": "5000",
    "jit": "off",
    "search_path": "",
    # Each statement here is planned once, and uses an index, however small the table was then.
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    # The server must release what belonged to a machine that is gone, and stop working for it.
    "client_connection_check_interval": "1000",
    "tcp_keepalives_idle": "5",
    "tcp_keepalives_interval": "2",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "10000",
}


class Lane:
    """One connection for one statement at a time, created when it is needed and again when it broke."""

    def __init__(self, connect: Connector, statement_for: float) -> None:
        self._connect, self._statement_for = connect, statement_for
        self._connection: Connection | None = None
        self._connecting: asyncio.Task[Connection] | None = None
        self._made_at = 0.0
        self._silent: int | None = None
        """The server process that did not answer in time, and may not be able to end."""

    async def _reconnect(self) -> Connection:
        at_most = CONNECT_FOR if self._statement_for <= STATEMENT_FOR else CONNECT_PATIENTLY_FOR
        connecting = self._connecting = asyncio.ensure_future(self._connect(self._statement_for, within=at_most))
        try:
            await asyncio.wait([connecting])  # `drop` may cancel it, and not us
        finally:
            connecting.cancel()
            self._connecting = None
        if connecting.cancelled():
            raise Unavailable("postgres: no answer")
        connection = self._connection = connecting.result()
        if self._silent is not None:
            # Nothing ends a server process whose commit waits for a standby. If each retry put another one beside it,
            # they would take all connections of the server, and look-ups would fail too.
            if await connection.fetchval(_WAITS_FOR_A_STANDBY, self._silent):
                self.drop()
                raise Unavailable("postgres: a commit waits for its standby")
            self._silent = None
        return connection

    async def fetch(self, sql: str, *values: object, within: float) -> list[Row]:
        """Run one statement, which is one transaction. Raises `Unavailable`, `Conflict` or `InvalidInput`."""
        loop = asyncio.get_running_loop()
        deadline = loop.call_later(within, self._too_late)  # the awaited statement then fails
        try:
            if self._made_at <= self._connect.lost_at:
                self.drop()
            connection = self._connection
            if connection is None or connection.is_closed():
                self._made_at = loop.time()
                connection = await self._reconnect()
            if not self._connect.by_transaction:
                return await connection.fetch(sql, *values)
            # An unnamed statement is prepared and run in two messages. Between them, a proxy might switch us to another
            # client's connection, with that client's statement; inside a transaction it does not. The server behind the
            # proxy may be another one than a moment ago.
            log_epoch = await self._connect.attend(connection, f"{begin(self._statement_for)}; ")
            rows = await connection.fetch(sql, *values)
            await connection.execute("COMMIT")
            self._connect.note_log(log_epoch)
            return rows
        except PostgresError as exc:
            why = meant(exc)
            if is_fatal(exc):  # the driver also says this of a connection that was dropped because it was silent
                self._connect.lost_at = loop.time()
                self.drop()
            elif self._connect.by_transaction:
                await self._roll_back(why)
            raise why from None
        except DutchdoorError:
            self.drop()
            raise
        except Exception as exc:  # noqa: BLE001 - a driver has many ways to fail
            self.drop()
            self._connect.lost_at = loop.time()
            raise meant(exc) from None
        except BaseException:
            self.drop()
            raise
        finally:
            deadline.cancel()

    async def _roll_back(self, why: DutchdoorError) -> None:
        """End a transaction that failed behind a proxy. If we left instead, the proxy would close its own connection
        too, and each conflict would cost the server a new process.
        """
        if self._connection is None or not isinstance(why, Conflict | InvalidInput):  # the server may be a wrong one
            self.drop()
            return
        try:
            await self._connection.execute("ROLLBACK")
        except Exception:  # noqa: BLE001 - a driver has many ways to fail, and the caller has its answer
            self.drop()
        except BaseException:
            self.drop()
            raise

    def _too_late(self) -> None:
        if self._connection is not None and not self._connect.by_transaction and self._silent is None:
            self._silent = self._connection.get_server_pid()
        self.drop()

    @property
    def is_connected(self) -> bool:
        return self._connection is not None and not self._connection.is_closed()

    @property
    def was_left_behind(self) -> bool:
        """Whether this connection is older than the move to another host."""
        return self._connection is not None and self._made_at <= self._connect.moved_at

    def drop(self) -> None:
        """Close the connection, whatever its state: a new one has none."""
        if self._connecting is not None:
            self._connecting.cancel()
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None

    async def close(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(Exception):
                await self._connection.close(timeout=CONNECT_FOR)
            self.drop()


_WAITS_FOR_A_STANDBY = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE pid = $1 AND wait_event = 'SyncRep')"


def timeouts(statement_for: float) -> dict[str, str]:
    lock_for = _LOCK_FOR if statement_for <= COMMIT_STATEMENT_FOR else statement_for
    return {"statement_timeout": f"{statement_for * 1000:.0f}", "lock_timeout": f"{lock_for * 1000:.0f}"}


def begin(statement_for: float) -> str:
    """Begin a transaction. A standby refuses READ WRITE.

    Behind a proxy, nothing else is set. Otherwise, objects that others create in `public` would be found before our own
    operators.
    """
    idle_for = f"{_IDLE_FOR * 1000:.0f}"
    settings = {**timeouts(statement_for), "idle_in_transaction_session_timeout": idle_for, "search_path": "''"}
    chosen = [f"SET LOCAL {name} = {value}" for name, value in settings.items()]
    return "; ".join(["BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE", *chosen])
