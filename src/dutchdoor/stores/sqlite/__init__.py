"""One SQLite file: the system of record for one machine, shared by as many processes as serve from it.

Reads run where they are called, on a connection of the reading thread: a look-up takes less time than handing it to
another thread. Scans, which may take long, run on one thread of their own. All writes go through one thread per
process. It commits everything in its queue as one transaction, each commit in its own savepoint: one `fsync` serves
them all.

Durability is SQLite's: write-ahead log with `synchronous=FULL`, so a commit has been flushed before it is acknowledged.
Only attempts counted against limits (`hit`) do not wait for the disk: they survive `kill -9`, and the loss of power may
forget the last few.

Beside `x.db` are `x.db-wal` and `x.db-shm`, which belong to SQLite, and `x.db-head`, which belongs to this store (see
`Head`). Do not move or delete any of them while a process has the database open. Only their owner may access them: a
file that other users can read or change is refused.

Left out: databases in memory (`stores/memory` does that), and network file systems, on which the write-ahead log
does not work.
"""

# ruff: noqa: S608 - every statement here is put together from constants and from descriptions; values are bound, always

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import threading
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from msgspec import Struct

from dutchdoor.errors import Misconfigured, Unavailable
from dutchdoor.model.accounts import Account, Credential
from dutchdoor.model.audit_events import AuditCursor, AuditEvent
from dutchdoor.model.ids import ordered_from
from dutchdoor.model.rate_limits import Bucket
from dutchdoor.model.sessions import Session
from dutchdoor.revocation.node_messages import FIRST_EPOCH, LogHead, NodeRow, Renewed, Rows
from dutchdoor.stores.base import RESTS_FOR, WRITING, Change, Forgive, Known, Load, Revoked, Store
from dutchdoor.stores.kinds import EVENTS, KINDS, Kinds
from dutchdoor.stores.sql import Row, SqlStore, marks, quoted, read_session
from dutchdoor.stores.sqlite.changes import apply_all, begin_move, delete, end_move, hit, leave, take_in
from dutchdoor.stores.sqlite.file import READ_FOR, connect, prepare, unavailable
from dutchdoor.stores.sqlite.head import Head, Watch
from dutchdoor.stores.sqlite.log import (
    NODE,
    PAGE,
    READ_LOG,
    begin_log_epoch,
    node_forget,
    node_register,
    node_renew,
    read_node,
    read_renewed,
)
from dutchdoor.stores.sqlite.records import (
    EVENTS_AFTER,
    EVENTS_AFTER_OF,
    SESSION_WITH_ACCOUNT,
    SESSIONS_OF,
    SQLITE,
    Table,
    Tables,
    stored_id,
    text_of_id,
)
from dutchdoor.stores.sqlite.writer import Apply, Job, Writer
from dutchdoor.stores.transfer import LogState, Page

__all__ = ["SqliteStore", "from_url"]

_ANSWER_FOR = 6.0
"""Seconds a caller waits for its commit in all: a disk that hangs must not hang every request."""
_ANSWER_FOR_AFTER = 0.8
"""The same after a caller waited in vain, until a commit succeeds: a call during an outage gets its answer soon."""
_STEP = 100
"""Rows that one step of a purge looks at: a millisecond or two of the writer's time."""
_PAGE_INLINE = 64
"""Entries that are read in the calling thread; longer reads have a thread of their own."""
_BEGIN_FOR = 3600.0
"""Seconds a caller waits for a new log epoch, which writes a row for each account."""

T = TypeVar("T")
R = TypeVar("R", bound=Struct)


def from_url(url: str) -> Store:
    """Read `sqlite:///relative/path` or `sqlite:////absolute/path`. Raises `Misconfigured` for anything else."""
    path = url.removeprefix("sqlite:///")
    if path == url or not path or "?" in path or path == ":memory:":
        text = "Write sqlite:///file.db, or sqlite:////absolute/path/file.db; there are no options."
        raise Misconfigured(text)
    return SqliteStore(path)


class SqliteStore(SqlStore[Table[Any]]):
    """See `dutchdoor.stores.base.Store`. Create and open one in each process, after forking."""

    _dialect = SQLITE
    first_epoch = FIRST_EPOCH
    newest_log = 0

    def __init__(self, path: str | os.PathLike[str], *, kinds: Kinds = KINDS) -> None:
        self.kinds, self._tables = kinds, Tables(kinds, Table)
        # Symbolic links are followed, as SQLite follows them for its own files beside the database. Otherwise, two
        # processes that use two names would have two heads, and neither would see what the other one revoked.
        self._path = Path(path).resolve()
        self._local = threading.local()
        self._readers: weakref.WeakSet[Reader] = weakref.WeakSet()
        self._is_open = False
        # Set by `open`.
        self._head: Head
        self._writer: Writer
        self._scanner: ThreadPoolExecutor
        self._watches: dict[asyncio.AbstractEventLoop, Watch] = {}

    # --- opening and closing ------------------------------------------------------------------------------------------

    async def open(self, *, to_move: bool = False, as_is: bool = False) -> None:
        """Create the file if it does not exist, readable only by its owner, and migrate it; not `as_is`.

        Raises:
            Misconfigured: the file is not ours, a newer program migrated it, or a move into it is not finished. It is
                opened as it is, and does not exist (`NoSchema`) or has to be migrated (`OlderSchema`).
            Conflict: it is opened for a move, and another process has it open.
            Unavailable: it cannot be reached, read or written.
        """
        if self._is_open:
            return
        self._head = await asyncio.to_thread(prepare, self._path, self.kinds, to_move=to_move, as_is=as_is)
        self._writer = Writer(self._path, self._tables, self._head, self._grown)
        self._scanner = ThreadPoolExecutor(1, "dutchdoor-sqlite-scanner")
        self._is_open = True

    async def close(self) -> None:
        """Write what is queued, then release everything."""
        if not self._is_open:
            return
        self._is_open = False
        # Not joined here: the callers whose commits are still queued get their results through this loop.
        await asyncio.to_thread(self._writer.close)
        await asyncio.to_thread(self._scanner.shutdown)
        for watch in list(self._watches.values()):
            watch.stop()
        self._watches = {}
        for reader in list(self._readers):
            reader.connection.close()
        self._local = threading.local()
        self._head.close()

    @property
    def load(self) -> Load:
        if not self._is_open:
            return Load()
        waiting = self._writer.waiting
        return Load(len(self._readers) + 1, min(waiting, 1), waiting)

    # --- writing ------------------------------------------------------------------------------------------------------

    async def commit(self, *changes: Change) -> Revoked:
        # Every change is one statement, except this one.
        atomic = len(changes) <= 1 and not any(isinstance(change, Forgive) for change in changes)
        return await self._write(partial(apply_all, changes), atomic=atomic)

    async def _write(
        self, apply: Apply[T], *, atomic: bool, durable: bool = True, answer_for: float | None = None
    ) -> T:
        if not self._is_open:
            raise Unavailable("store is not open")
        job = Job(apply, atomic=atomic, durable=durable)
        self._writer.put(job)
        # A caller that is cancelled or timed out leaves; its job is skipped or finished, which is safe.
        patience = answer_for or (_ANSWER_FOR if self._writer.answers else _ANSWER_FOR_AFTER)
        deadline = job.loop.call_later(patience, self._writer.give_up, job.future)
        try:
            return await job.future
        finally:
            deadline.cancel()

    # --- reading ------------------------------------------------------------------------------------------------------

    def _reader(self) -> sqlite3.Connection:
        try:
            connection: sqlite3.Connection = self._local.reader.connection
        except AttributeError:
            connection = self._connect_reader()
        return connection

    def _connect_reader(self) -> sqlite3.Connection:
        if not self._is_open:
            raise Unavailable("store is not open")
        reader = Reader(connect(self._path, wait=READ_FOR))
        reader.connection.execute("PRAGMA query_only = ON")
        self._local.reader = reader
        self._readers.add(reader)
        return reader.connection

    def _one(self, sql: str, *values: object) -> Row | None:
        try:
            row: Row | None = self._reader().execute(sql, values).fetchone()
        except sqlite3.Error as exc:
            raise unavailable(exc) from exc
        return row

    def _all(self, sql: str, *values: object) -> list[Row]:
        try:
            return self._reader().execute(sql, values).fetchall()
        except sqlite3.Error as exc:
            raise unavailable(exc) from exc

    async def _rows(self, sql: str, values: Row, *, scan: bool = False) -> list[Row]:
        """What may take long is read on a separate thread."""
        return await self._beside(self._all, sql, *values) if scan else self._all(sql, *values)

    async def _beside(self, read: Callable[..., T], *args: object) -> T:
        if not self._is_open:
            raise Unavailable("store is not open")
        return await asyncio.get_running_loop().run_in_executor(self._scanner, partial(read, *args))

    async def session(self, session_id: str) -> tuple[Session, Account] | None:
        row = self._one(SESSION_WITH_ACCOUNT, stored_id(session_id))
        return None if row is None else read_session(session_id, row)

    async def sessions_of(self, subject: str, *, limit: int | None = None) -> list[Session]:
        rows = self._all(SESSIONS_OF, subject, -1 if limit is None else limit)
        return [read_session(text_of_id(row[0]), row)[0] for row in rows]

    async def known(self, email: str, *, recent: int) -> Known | None:
        # The account first: a password that was changed in between is of a higher epoch, and starts nothing.
        account = await self.account_by_email(email)
        if account is None:
            return None
        credentials = await self.select(Credential, subject=account.subject)
        sessions = await self.sessions_of(account.subject, limit=recent)
        return Known(account, credentials, [(session.created_at, session.address) for session in sessions])

    async def events_after(
        self, cursor: AuditCursor | None, *, subject: str | None = None, since: float = 0.0, limit: int = 100
    ) -> list[tuple[AuditCursor, AuditEvent]]:
        end = await self.audit_end()
        after: Row = (0, 0, "")
        if cursor is not None:
            cursor.must_be_in(end.log)
            after = (cursor.log_epoch, cursor.number, stored_id(cursor.id))
        first = stored_id(ordered_from(since)) if since else ""
        sql, of = (EVENTS_AFTER, ()) if subject is None else (EVENTS_AFTER_OF, (subject,))
        found = []
        for log_epoch, number, *row in await self._rows(sql, (*after, first, *of, limit), scan=True):
            event = self._tables.by_name["events"].read(row)
            found.append((AuditCursor(end.log, log_epoch, number, event.id), event))
        return found

    async def audit_end(self) -> AuditCursor:
        ((log, log_epoch, audited),) = self._all("SELECT audit_log, epoch, audited FROM revocation_log")
        return AuditCursor(log, log_epoch, audited + 1, "")

    # --- the revocation log, and the nodes that follow it -------------------------------------------------------------

    def head(self) -> LogHead | None:
        """See `Head`. None only while the store is not open."""
        return LogHead(*self._head.words) if self._is_open else None

    def watch(self, woken: Callable[[], None]) -> Callable[[], None]:
        loop = asyncio.get_running_loop()
        if loop not in self._watches:
            self._watches[loop] = Watch(loop, self.head, self._committed_head)
        watch, watcher = self._watches[loop], object()
        watch.woken[watcher] = woken

        def unwatch() -> None:
            watch.woken.pop(watcher, None)
            if not watch.woken and self._watches.get(loop) is watch:
                watch.stop()
                del self._watches[loop]

        return unwatch

    def _grown(self) -> None:
        """The writer has committed an entry, or another log."""
        for loop, watch in list(self._watches.items()):
            with contextlib.suppress(RuntimeError):  # the loop was closed: no watcher is left to wake
                loop.call_soon_threadsafe(watch.look)

    def _committed_head(self) -> LogHead | None:
        row = self._one("SELECT epoch, seq FROM revocation_log")
        return None if row is None else LogHead(*row)

    async def read_log(self, log_epoch: int, after: int) -> Renewed:
        values = log_epoch, after
        rows = self._all(READ_LOG, *values, _PAGE_INLINE + 1)
        if len(rows) <= _PAGE_INLINE:
            return read_renewed(rows, log_epoch, after, _PAGE_INLINE)
        return await self._beside(lambda: read_renewed(self._all(READ_LOG, *values, PAGE + 1), log_epoch, after, PAGE))

    async def begin_log_epoch(self, now: float) -> int:
        return await self._write(partial(begin_log_epoch, now), atomic=False, answer_for=_BEGIN_FOR)

    async def node_register(self, row: NodeRow) -> None:
        await self._write(partial(node_register, row), atomic=True)

    async def node_renew(self, row: NodeRow, after: int) -> Renewed:
        # If a renewal is lost, the row before it remains, which acknowledges less: fences wait longer.
        return await self._write(partial(node_renew, row, after), atomic=False, durable=False)

    async def node_rows(self) -> Rows:
        rows = self._all(f"SELECT l.epoch, {NODE} FROM revocation_log l LEFT JOIN nodes n")
        return Rows(log_epoch=rows[0][0], rows=[read_node(row[1:]) for row in rows if row[1] is not None])

    async def node_forget(self, id: str, stamp: str) -> None:
        await self._write(partial(node_forget, id, stamp), atomic=True)

    # --- limits, upkeep -----------------------------------------------------------------------------------------------

    async def hit(self, buckets: Sequence[Bucket], now: float) -> tuple[float, str]:
        return await self._write(partial(hit, buckets, now), atomic=True, durable=False)

    async def try_writing(self, now: float) -> None:
        await self.hit([WRITING], now)

    async def purge(self, *, before: float, events_before: float) -> int:
        """Find rows beside the writer and give it a few hundred at a time, so that no commit waits long for it. Each
        step is one statement: between two statements, the writer would wait for the GIL with the lock in its hands.
        """
        deleted, loop = 0, asyncio.get_running_loop()
        for kind in self.kinds.all:
            if not kind.expires:
                continue
            until = events_before if kind is EVENTS else before
            table, instant, keys = quoted(kind.table), quoted(kind.expires), [*map(quoted, kind.key)]
            names, place = ", ".join(keys), marks(len(keys))
            order, behind = ", ".join(f"{name} DESC" for name in keys), f"({names}) > ({place})"
            last: Row = ()
            while True:
                after = behind if last else "true"
                seen = f"SELECT {names}, {instant} < ? AS over FROM {table} WHERE {after} ORDER BY {names} LIMIT ?"
                find = f"WITH seen AS MATERIALIZED ({seen}) SELECT (SELECT sum(over) FROM seen), {names} FROM seen"
                rows = await self._rows(f"{find} ORDER BY {order} LIMIT 1", (until, *last, _STEP), scan=True)
                if not rows:
                    break
                ((over, *upto),) = rows
                if over:
                    began = loop.time()
                    # The condition is checked again for each row: it may have changed since it was found.
                    drop = f"DELETE FROM {table} WHERE {after} AND ({names}) <= ({place}) AND {instant} < ?"
                    step = partial(delete, drop, (*last, *upto, until))
                    deleted += await self._write(step, atomic=True, durable=False)
                    await asyncio.sleep(RESTS_FOR * (loop.time() - began))
                last = tuple(upto)
        return deleted

    async def forget(self, subject: str) -> int:
        """Find rows beside the writer and give it a few hundred at a time, as `purge` does."""
        of_account = "SELECT id FROM sessions WHERE account = (SELECT number FROM accounts WHERE subject = ?)"
        named = (
            "SELECT id FROM events WHERE subject <> '' AND subject = ? AND (address, country, device) <> ('', '', '')"
        )
        count = 0
        for find, do in (
            (of_account, "DELETE FROM sessions WHERE id IN"),
            (named, "UPDATE events SET address = '', country = '', device = '' WHERE id IN"),
        ):
            found = await self._rows(find, (subject,), scan=True)
            for start in range(0, len(found), _STEP):
                ids = [key for (key,) in found[start : start + _STEP]]
                step = partial(delete, f"{do} ({marks(len(ids))})", ids)
                count += await self._write(step, atomic=True, durable=False)
        return count

    # --- moving -------------------------------------------------------------------------------------------------------

    async def begin_move(self, log: LogState) -> None:
        await self._write(partial(begin_move, log), atomic=False, answer_for=_BEGIN_FOR)

    async def take_in(self, table: str, page: Page) -> None:
        await self._write(partial(take_in, table, page), atomic=False)

    async def end_move(self, now: float, event: AuditEvent) -> int:
        return await self._write(partial(end_move, now, event), atomic=False, answer_for=_BEGIN_FOR)

    async def leave(self) -> None:
        await self._write(partial(leave, left=True), atomic=False)

    async def take_back(self) -> None:
        await self._write(partial(leave, left=False), atomic=False)


class Reader:
    """A thread's connection, closed with its thread."""

    __slots__ = ("__weakref__", "connection")

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection

    def __del__(self) -> None:
        self.connection.close()
