"""PostgreSQL 14 or newer: the system of record for any number of machines.

Every write is one statement, the call of a function in the schema (`schema/postgres`), and so is one transaction and
one round trip. So a cancelled caller, a broken connection or a killed process leaves no transaction open. Commits that
wait at the same moment travel together and are flushed together. So do look-ups of sessions: those of one turn of the
event loop become one query.

    postgresql://user:password@host:port/database
        ?sslmode=verify-full&sslrootcert=/path   what to use over any network: without it, TLS is used only if the
                                                 server offers it, and no certificate is checked
        &pooling=transaction                     behind a proxy that assigns connections per transaction

Every other libpq option either means what it means in libpq, or is refused by its name.

The URL may name several hosts, `host1,host2`: the store uses the one that is not a standby. A standby is never read:
leases and sessions are read where they are committed.

No call waits longer than a second for a server that is gone, and look-ups have no more time than that. Some operations
may take longer for a good reason, such as a slow disk or a large table. Meanwhile, another connection checks that the
server still answers. The server itself ends a statement that takes too long, so that nothing continues without a
caller.

One event loop, the one that `open` runs in.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

from dutchdoor.errors import Unavailable
from dutchdoor.model.accounts import Account, Credential
from dutchdoor.model.audit_events import AuditCursor, AuditEvent
from dutchdoor.model.ids import ordered_from
from dutchdoor.model.rate_limits import Bucket
from dutchdoor.model.sessions import Session
from dutchdoor.revocation.node_messages import FIRST_EPOCH, LogHead, NodeRow, Renewed, Rows
from dutchdoor.stores.base import RESTS_FOR, WRITING, Change, Known, Load, Revoked, Store
from dutchdoor.stores.kinds import EVENTS, KINDS, Kinds
from dutchdoor.stores.postgres.batches import Batches, Group, Lookups, Reads
from dutchdoor.stores.postgres.changes import COMMIT, HIT, read_committed, to_json, write_bucket, write_job
from dutchdoor.stores.postgres.connection import ANSWER_FOR, COMMIT_STATEMENT_FOR, STATEMENT_FOR, Connector, Lane, Row
from dutchdoor.stores.postgres.log import PAGE, read_nodes, read_renewed
from dutchdoor.stores.postgres.rows import (
    AUDIT_END,
    EVENTS_AFTER,
    EVENTS_AFTER_OF,
    KNOWN,
    POSTGRES,
    SESSIONS_OF,
    Table,
    Tables,
    numbered,
    read_row,
    read_session,
    read_text,
    stored_id,
    write_record,
    write_text,
)
from dutchdoor.stores.postgres.schema import prepare
from dutchdoor.stores.postgres.url import NAME, read_url
from dutchdoor.stores.postgres.watch import Watch
from dutchdoor.stores.sql import SqlStore, read_account
from dutchdoor.stores.transfer import LogState, Page

__all__ = ["COMMIT_LANES", "PostgresStore", "from_url"]

COMMIT_FOR = 5.5
"""Seconds a caller waits for a commit: a slow disk's flush is not an outage."""
PROBE_FOR = 0.7
"""Seconds in which the server must answer the probe, once another answer is slow."""
SCAN_FOR = 300.0
"""Seconds for a look at every row of a kind."""
LOOKUP_LANES, READ_LANES, COMMIT_LANES = 2, 2, 2
"""Connections. Behind a proxy, where a transaction takes four times as long, three times as many."""
_STEP = 400
"""Rows that one step of a purge reads: a few milliseconds of the server's time."""
_FORGET_SESSIONS: Final = """
WITH gone AS (
    DELETE FROM dutchdoor.sessions s USING dutchdoor.accounts a WHERE a.subject = $1 AND s.account = a.number
    RETURNING 1
)
SELECT count(*) FROM gone"""
_FORGET_CLIENTS: Final = """
WITH emptied AS (
    UPDATE dutchdoor.events SET address = '', country = '', device = ''
    WHERE subject <> '' AND subject = $1 AND (address, country, device) <> ('', '', '') RETURNING 1
)
SELECT count(*) FROM emptied"""


def from_url(url: str) -> Store:
    """Read `postgresql://user:password@host:port/database`, or `postgres://`, with the options named above.

    Raises:
        Misconfigured: the URL is not valid. The message repeats no part of it: it may hold a password.
    """
    return PostgresStore(**read_url(url)._asdict())


class PostgresStore(SqlStore[Table[Any]]):
    """See `dutchdoor.stores.base.Store`. Create and open one in each process, after forking.

    `by_transaction` is for a proxy that gives each transaction another connection: then no state is kept in a
    connection, and none listens. A round trip becomes four. `connect_for` limits the seconds for making a connection;
    `settings` are the server's settings for each connection.
    """

    _dialect = POSTGRES
    first_epoch = FIRST_EPOCH

    def __init__(
        self,
        url: str,
        *,
        kinds: Kinds = KINDS,
        by_transaction: bool = False,
        connect_for: float = math.inf,
        settings: Mapping[str, str] = MappingProxyType({"application_name": NAME}),
    ) -> None:
        self.kinds, self._tables = kinds, Tables(kinds, Table)
        self._make = Connector(url, by_transaction=by_transaction, connect_for=connect_for, settings=settings)
        self._is_open = False
        # Set by `open`.
        self._lanes: list[Lane] = []
        self._lookups: Lookups
        self._reads: Reads
        self._commits: Batches[Revoked]
        self._hits: Batches[tuple[float, str]]
        self._scans: Reads
        self._probe: Reads
        self._watch: Watch

    # --- opening and closing ------------------------------------------------------------------------------------------

    @property
    def newest_log(self) -> int:
        return self._make.newest_log

    async def open(self, *, to_move: bool = False, as_is: bool = False) -> None:
        """Connect, and create or migrate the schema `dutchdoor`; not `as_is`.

        Raises:
            Misconfigured: the role or the database cannot be used, a newer program migrated the database, or a move
                into it is not finished. It is opened as it is, and has no schema (`NoSchema`) or has to be migrated
                (`OlderSchema`).
            Conflict: it is opened for a move, and another client is connected to it.
            Unavailable: no server that is not a standby can be reached.
        """
        if self._is_open:
            return
        await prepare(self._make, self.kinds, to_move=to_move, as_is=as_is)
        probe = self._probe = Reads(self._some(1), PROBE_FOR)
        self._lookups = Lookups(self._some(LOOKUP_LANES), ANSWER_FOR)
        self._reads = Reads(self._some(READ_LANES), ANSWER_FOR)
        self._scans = Reads(self._some(1, statement_for=SCAN_FOR), SCAN_FOR, probe)
        committing = self._some(COMMIT_LANES, statement_for=COMMIT_STATEMENT_FOR)
        self._commits = Batches(committing, COMMIT_FOR, probe, COMMIT, read_committed)
        self._hits = Batches(self._some(1, statement_for=COMMIT_STATEMENT_FOR), COMMIT_FOR, probe, HIT, tuple)
        self._watch = Watch(self._make)
        self._is_open = True

    def _some(self, count: int, *, statement_for: float = STATEMENT_FOR) -> list[Lane]:
        if self._make.by_transaction and count > 1:
            count *= 3
        lanes = [Lane(self._make, statement_for) for _ in range(count)]
        self._lanes += lanes
        return lanes

    async def close(self) -> None:
        """Finish what is under way, then release everything. Cancel reads of a whole kind: they may take minutes."""
        if not self._is_open:
            return
        self._is_open = False
        await self._watch.close()
        self._scans.give_up(Unavailable("store is not open"))
        for group in self._groups():
            await group.close()
        lanes, self._lanes = self._lanes, []
        await asyncio.gather(*[lane.close() for lane in lanes])

    def _groups(self) -> tuple[Group, ...]:
        return self._lookups, self._commits, self._hits, self._reads, self._scans, self._probe

    @property
    def load(self) -> Load:
        if not self._is_open:
            return Load()
        groups = self._groups()
        return Load(
            sum(lane.is_connected for lane in self._lanes),
            sum(group.busy for group in groups),
            sum(group.waiting for group in groups),
        )

    def _must_be_open(self) -> None:
        if not self._is_open:
            raise Unavailable("store is not open")

    # --- writing ------------------------------------------------------------------------------------------------------

    async def commit(self, *changes: Change) -> Revoked:
        self._must_be_open()
        return await self._commits.put(*write_job(changes, self._tables))

    # --- reading ------------------------------------------------------------------------------------------------------

    async def _all(self, sql: str, *values: object) -> list[Row]:
        self._must_be_open()
        return await self._reads.fetch(sql, *values)

    async def _scan(self, sql: str, *values: object) -> list[Row]:
        """Ask what may take long, and check meanwhile that the server answers."""
        self._must_be_open()
        return await self._scans.fetch(sql, *values)

    async def _rows(self, sql: str, values: Sequence[Any], *, scan: bool = False) -> list[Row]:
        ask = self._scan if scan else self._all
        sent = [write_text(value) if isinstance(value, str) else value for value in values]
        return [read_row(row) for row in await ask(numbered(sql), *sent)]

    async def session(self, session_id: str) -> tuple[Session, Account] | None:
        self._must_be_open()
        return await self._lookups.ask(stored_id(session_id))

    async def sessions_of(self, subject: str, *, limit: int | None = None) -> list[Session]:
        return [read_session(row)[0] for row in await self._all(SESSIONS_OF, write_text(subject), limit)]

    async def known(self, email: str, *, recent: int) -> Known | None:
        rows = await self._all(KNOWN, write_text(email), recent)
        if not rows:
            return None
        table = self._tables.of(Credential)
        columns = len(table.names)
        *account, created_at, addresses = read_row(rows[0][:-columns])
        credentials = [read_row(row[-columns:]) for row in rows]
        return Known(
            read_account(account),
            [table.read(row) for row in credentials if row[0] is not None],
            [(at, read_text(address)) for at, address in zip(created_at, addresses, strict=True)],
        )

    async def events_after(
        self, cursor: AuditCursor | None, *, subject: str | None = None, since: float = 0.0, limit: int = 100
    ) -> list[tuple[AuditCursor, AuditEvent]]:
        after = (0, 0, b"") if cursor is None else (cursor.log_epoch, cursor.number, stored_id(cursor.id))
        sql, of = (EVENTS_AFTER, ()) if subject is None else (EVENTS_AFTER_OF, (write_text(subject),))
        first = stored_id(ordered_from(since)) if since else b""
        found = []
        for log, log_epoch, number, *row in await self._all(sql, *after, limit, first, *of):
            if cursor is not None:
                cursor.must_be_in(log)
            if log_epoch is not None:
                event = self._tables.by_name["events"].read(read_row(row))
                found.append((AuditCursor(log, log_epoch, number, event.id), event))
        return found

    async def audit_end(self) -> AuditCursor:
        ((log, log_epoch, number),) = await self._all(AUDIT_END)
        return AuditCursor(log, log_epoch, number, "")

    # --- the revocation log, and the nodes that follow it -------------------------------------------------------------

    def head(self) -> LogHead | None:
        """None: it takes a question to the server."""
        return None

    def watch(self, woken: Callable[[], None]) -> Callable[[], None]:
        self._must_be_open()
        return self._watch.add(woken)

    async def read_log(self, log_epoch: int, after: int) -> Renewed:
        rows = await self._all("SELECT * FROM dutchdoor.read_log_1($1, $2, $3)", log_epoch, after, PAGE + 1)
        return read_renewed(rows, log_epoch, after)

    async def begin_log_epoch(self, now: float) -> int:
        ((begun,),) = await self._scan("SELECT dutchdoor.begin_log_epoch_1($1)", int(now * 1000))
        return int(begun)

    async def node_register(self, row: NodeRow) -> None:
        await self._all("SELECT dutchdoor.node_register_1($1)", to_json(write_record(row)).decode())

    async def node_renew(self, row: NodeRow, after: int) -> Renewed:
        sql = "SELECT * FROM dutchdoor.node_renew_1($1, $2, $3)"
        rows = await self._all(sql, to_json(write_record(row)).decode(), after, PAGE + 1)
        there, nodes = rows[0][:2]
        return read_renewed([found[2:] for found in rows], row.log_epoch, after, there=there, nodes=read_nodes(nodes))

    async def node_rows(self) -> Rows:
        sql = "SELECT l.epoch, (SELECT jsonb_agg(n) FROM dutchdoor.nodes n) FROM dutchdoor.revocation_log l"
        ((log_epoch, nodes),) = await self._all(sql)
        return Rows(log_epoch=log_epoch, rows=read_nodes(nodes))

    async def node_forget(self, id: str, stamp: str) -> None:
        await self._all("DELETE FROM dutchdoor.nodes WHERE id = $1 AND stamp = $2", write_text(id), write_text(stamp))

    # --- limits, upkeep -----------------------------------------------------------------------------------------------

    async def hit(self, buckets: Sequence[Bucket], now: float) -> tuple[float, str]:
        self._must_be_open()
        if not buckets:
            return 0.0, ""
        return await self._hits.put(
            to_json({"now": str(now), "buckets": [write_bucket(one) for one in buckets]}), (0, "")
        )

    async def try_writing(self, now: float) -> None:
        await self.hit([WRITING], now)

    async def purge(self, *, before: float, events_before: float) -> int:
        """Read a few hundred rows at a time, in the order of their keys, so that no commit waits long for it."""
        deleted, loop = 0, asyncio.get_running_loop()
        for table in self._tables.by_name.values():
            if not table.kind.expires:
                continue
            until = events_before if table.kind is EVENTS else before
            last: list[object] | None = []
            while last is not None:
                began = loop.time()
                ((count, *seen),) = await self._scan(table.purged(_STEP, begun=bool(last)), until, *last)
                deleted += count
                last = None if seen[0] is None else seen
                if count:
                    await asyncio.sleep(RESTS_FOR * (loop.time() - began))
        return deleted

    async def forget(self, subject: str) -> int:
        count = 0
        for change in (_FORGET_SESSIONS, _FORGET_CLIENTS):
            ((changed,),) = await self._scan(change, write_text(subject))
            count += changed
        return count

    # --- moving -------------------------------------------------------------------------------------------------------

    async def begin_move(self, log: LogState) -> None:
        await self._scan("SELECT dutchdoor.begin_move_1($1, $2, $3)", log.log_epoch, log.salt, log.seq)
        self._make.newest_log = 0  # the new log may be older than the one that was here

    async def take_in(self, table: str, page: Page) -> None:
        rows = to_json([*map(self._tables.by_name[table].write, page.records)]).decode()
        await self._scan("SELECT dutchdoor.take_in_1($1, $2, $3)", table, rows, page.after)

    async def end_move(self, now: float, event: AuditEvent) -> int:
        row = to_json([self._tables.by_name["events"].write(event)]).decode()
        ((begun,),) = await self._scan("SELECT dutchdoor.end_move_1($1, $2)", int(now * 1000), row)
        return int(begun)

    async def leave(self) -> None:
        await self._scan("SELECT dutchdoor.leave_1(true)")

    async def take_back(self) -> None:
        await self._scan("SELECT dutchdoor.leave_1(false)")
