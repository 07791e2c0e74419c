"""One SQLite file: the system of record for one machine, shared by as many processes as serve from it.

Reads run where they are asked for, on a connection of the reading thread: a look-up takes less time than handing it to
another thread would. Scans, which may take long, go to one thread of their own. All writes go through one thread a
process that commits whatever has queued up as one transaction, each commit in a savepoint of its own: one `fsync`
serves them all.

Durability is SQLite's: write-ahead log with `synchronous=FULL`, so a commit has been flushed before it is acknowledged.
Attempts counted against limits (`hit`) alone do not wait for the disk: they survive `kill -9`, and the loss of power
may forget the last few.

Beside `x.db` lie `x.db-wal` and `x.db-shm`, which are SQLite's, and `x.db-head`, which is ours (see `_Head`). None of
them may be moved or deleted while a process has the database open. All of them are for their owner alone: one that
other users can read or change is refused.

Left out: databases in memory (`stores/memory.py` is that), and file systems shared over a network, on which the
write-ahead log does not work.
"""

# ruff: noqa: S608 - every statement here is put together from constants of this file; values are bound, always

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import json
import mmap
import os
import sqlite3
import stat
import sys
import threading
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from importlib.resources import files
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, Generic, NamedTuple, TypeVar

from msgspec import Struct
from msgspec.structs import replace

from dutchdoor.errors import Conflict, DutchdoorError, Misconfigured, Unavailable
from dutchdoor.jose.signing_keys import StoredKey
from dutchdoor.model.accounts import Account, Credential
from dutchdoor.model.audit_events import AuditEvent
from dutchdoor.model.file_access import is_closed_to_others
from dutchdoor.model.ids import encode, packed
from dutchdoor.model.oauth_clients import RegisteredClient
from dutchdoor.model.one_time_tokens import OneTimeToken
from dutchdoor.model.rate_limits import Bucket, decide_all, give_back
from dutchdoor.model.sessions import Session
from dutchdoor.model.verifier_keys import VerifierKey
from dutchdoor.revocation.log import Revocation
from dutchdoor.revocation.node_messages import FIRST_EPOCH, LogHead, NodeRow, Renewed, Rows
from dutchdoor.stores.base import (
    WRITING,
    Add,
    Change,
    Committed,
    Discard,
    End,
    EndAll,
    Expect,
    ExpectRole,
    Forgive,
    Log,
    Remove,
    Revoke,
    Store,
    Swap,
    Take,
    joined,
    words,
)
from dutchdoor.stores.transfer import KINDS, LEFT, Kind, Level, LogState, Page, Stored, refuse_unless_whole

__all__ = ["SqliteStore", "from_url"]

_LOCK_FOR = 5.0
"""Seconds a commit waits for another process that writes. A slow disk's flush is not an outage."""
_ANSWER_FOR = 6.0
"""Seconds a caller waits for its commit altogether: a disk that hangs must not hang every request."""
_ANSWER_FOR_AFTER = 0.8
"""The same, once somebody waited in vain, until a commit succeeds: whoever comes into an outage is told soon."""
_OPEN_FOR = 30.0
"""Seconds to wait for another process's migration."""
_READ_FOR = 0.5
"""Seconds a read waits: only for another process that opens, recovers or closes the file, which takes milliseconds."""
_QUEUE_AT_MOST = 4096
_BATCH_AT_MOST = 512
_STEP = 500
"""Rows that one step of a purge deletes: a few milliseconds of the writer's time."""
_PAGE = 2048
"""Entries of the log that one reading gives: a few milliseconds."""
_PAGE_INLINE = 64
"""Entries that are read where they are asked for; more on a thread of their own."""
_LOOK_EVERY = 0.005
"""Seconds between two looks at what other processes may have committed."""
_BEGIN_FOR = 3600.0
"""Seconds a caller waits for a new log epoch, which writes a row for each account."""

_APPLICATION = 0x64646F6F

T = TypeVar("T")
Row = tuple[Any, ...]
Apply = Callable[["_Transaction"], T]


def from_url(url: str) -> Store:
    """Read `sqlite:///relative/path` or `sqlite:////absolute/path`. Raises `Misconfigured` for anything else."""
    path = url.removeprefix("sqlite:///")
    if path == url or not path or "?" in path or path == ":memory:":
        text = "Write sqlite:///file.db, or sqlite:////absolute/path/file.db; there are no options."
        raise Misconfigured(text)
    return SqliteStore(path)


class SqliteStore:
    """See `dutchdoor.stores.base.Store`. Make and open one in each process, after forking."""

    first_epoch = FIRST_EPOCH
    newest_log = 0

    def __init__(self, path: str | os.PathLike[str]) -> None:
        # Symbolic links are followed, as SQLite follows them for its own files beside the database. Two processes that
        # came by two names would otherwise have two heads, and neither would see what the other one revoked.
        self._path = Path(path).resolve()
        self._local = threading.local()
        self._readers: weakref.WeakSet[_Reader] = weakref.WeakSet()
        self._is_open = False
        # Made by `open`.
        self._head: _Head
        self._writer: _Writer
        self._scanner: ThreadPoolExecutor
        self._watches: dict[asyncio.AbstractEventLoop, _Watch] = {}

    # --- opening and closing ------------------------------------------------------------------------------------------

    async def open(self, *, to_move: bool = False) -> None:
        """Create the file where there is none, for its owner's eyes only, and migrate it.

        Raises:
            Misconfigured: the file is not ours, was migrated by a newer program, or a move into it is not finished.
            Conflict: it is opened to be moved, and another process has it open.
            Unavailable: it cannot be reached, read or written.
        """
        if self._is_open:
            return
        self._head = await asyncio.to_thread(_prepare, self._path, to_move=to_move)
        self._writer = _Writer(self._path, self._head, self._grown)
        self._scanner = ThreadPoolExecutor(1, "dutchdoor-sqlite-scanner")
        self._is_open = True

    async def close(self) -> None:
        """Write what is queued, then let go."""
        if not self._is_open:
            return
        self._is_open = False
        # Not joined here: those whose commits are still queued are told of them through this loop.
        await asyncio.to_thread(self._writer.close)
        await asyncio.to_thread(self._scanner.shutdown)
        for watch in list(self._watches.values()):
            watch.stop()
        self._watches = {}
        for reader in list(self._readers):
            reader.connection.close()
        self._local = threading.local()
        self._head.close()

    # --- writing ------------------------------------------------------------------------------------------------------

    async def commit(self, *changes: Change) -> Committed:
        # One change is one statement, but for this one.
        atomic = len(changes) <= 1 and not any(isinstance(change, Forgive) for change in changes)
        return await self._write(partial(_apply_all, changes), atomic=atomic)

    async def _write(
        self, apply: Apply[T], *, atomic: bool, durable: bool = True, answer_for: float | None = None
    ) -> T:
        if not self._is_open:
            raise Unavailable("store is not open")
        job = _Job(apply, atomic=atomic, durable=durable)
        self._writer.put(job)
        # Cancelled or timed out, a caller leaves; its job is skipped or finished, and harms nobody.
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
        reader = _Reader(_connect(self._path, wait=_READ_FOR))
        reader.connection.execute("PRAGMA query_only = ON")
        self._local.reader = reader
        self._readers.add(reader)
        return reader.connection

    def _one(self, sql: str, *values: object) -> Row | None:
        try:
            row: Row | None = self._reader().execute(sql, values).fetchone()
        except sqlite3.Error as exc:
            raise _unavailable(exc) from exc
        return row

    def _all(self, sql: str, *values: object) -> list[Row]:
        try:
            return self._reader().execute(sql, values).fetchall()
        except sqlite3.Error as exc:
            raise _unavailable(exc) from exc

    async def _scan(self, sql: str, *values: object) -> list[Row]:
        """Read what may take long, on a thread of its own."""
        return await self._beside(self._all, sql, *values)

    async def _beside(self, read: Callable[..., T], *args: object) -> T:
        if not self._is_open:
            raise Unavailable("store is not open")
        return await asyncio.get_running_loop().run_in_executor(self._scanner, partial(read, *args))

    async def session(self, session_id: str) -> tuple[Session, Account] | None:
        row = self._one(_SESSION_WITH_ACCOUNT, _key(session_id))
        return None if row is None else _session_and_account(session_id, row)

    async def sessions_of(self, subject: str, *, limit: int | None = None) -> list[Session]:
        rows = self._all(_SESSIONS_OF, subject, -1 if limit is None else limit)
        return [_session_and_account(_id(row[0]), row)[0] for row in rows]

    async def account(self, subject: str) -> Account | None:
        row = self._one(f"SELECT {_ACCOUNT} FROM accounts a WHERE a.subject = ?", subject)
        return None if row is None else _account(row)

    async def account_by_email(self, email: str) -> Account | None:
        row = self._one(f"SELECT {_ACCOUNT} FROM accounts a WHERE a.email = ?", email)
        return None if row is None else _account(row)

    async def accounts(self, *, search: str = "", after: str = "", limit: int = 100) -> list[Account]:
        # `instr` and not LIKE: it has no wildcards to escape.
        sql = f"SELECT {_ACCOUNT} FROM accounts a WHERE a.subject > ? AND instr(a.folded, ?) ORDER BY a.subject LIMIT ?"
        return [_account(row) for row in await self._scan(sql, after, search.casefold(), limit)]

    async def accounts_with_role(self, role: str, *, limit: int) -> list[Account]:
        sql = f"SELECT {_ACCOUNT} FROM accounts a WHERE {_WITH_ROLE} ORDER BY a.subject LIMIT ?"
        return [_account(row) for row in await self._scan(sql, f" {role} ", limit)]

    async def registered_before(self, at: float, *, after: str = "", limit: int = 100) -> list[Account]:
        sql = (
            f"SELECT {_ACCOUNT} FROM credentials c JOIN accounts a ON a.subject = c.subject "
            "WHERE c.method = 'registration' AND c.created_at < ? AND c.subject > ? "
            "AND a.email_verified_at IS NULL AND a.active AND a.roles = '' ORDER BY c.subject LIMIT ?"
        )
        return [_account(row) for row in await self._scan(sql, at, after, limit)]

    async def credential(self, subject: str, method: str, handle: str = "") -> Credential | None:
        sql = f"{_select(Credential, 'credentials')} WHERE subject = ? AND method = ? AND handle = ?"
        row = self._one(sql, subject, method, handle)
        return None if row is None else _record(Credential, row)

    async def one_time_token(self, id: str) -> OneTimeToken | None:
        row = self._one(f"{_select(OneTimeToken, 'one_time_tokens')} WHERE id = ?", _key(id))
        return None if row is None else _record(OneTimeToken, (id, *row[1:]))

    async def keys(self) -> list[StoredKey]:
        return [_record(StoredKey, row) for row in self._all(f"{_select(StoredKey, 'keys')} ORDER BY number")]

    async def client(self, id: str) -> RegisteredClient | None:
        row = self._one(f"{_select(RegisteredClient, 'clients')} WHERE id = ?", id)
        return None if row is None else _record(RegisteredClient, row)

    async def clients(self) -> list[RegisteredClient]:
        rows = self._all(f"{_select(RegisteredClient, 'clients')} ORDER BY id")
        return [_record(RegisteredClient, row) for row in rows]

    async def verifier_key(self, id: str) -> VerifierKey | None:
        row = self._one(f"{_select(VerifierKey, 'verifiers')} WHERE id = ?", id)
        return None if row is None else _record(VerifierKey, row)

    async def verifier_keys(self) -> list[VerifierKey]:
        return [_record(VerifierKey, row) for row in self._all(f"{_select(VerifierKey, 'verifiers')} ORDER BY name")]

    async def events(
        self, *, subject: str = "", name: str = "", since: float = 0.0, before: str = "", limit: int = 100
    ) -> list[AuditEvent]:
        where: list[str] = ["at >= ?"]
        values: list[object] = [since]
        if subject:
            where.append("subject <> '' AND subject = ?")  # the first half tells that the partial index has it
            values.append(subject)
        if name:
            where.append("name = ?")
            values.append(name)
        if before:
            where.append("id < ?")
            values.append(_key(before))
        sql = f"{_select(AuditEvent, 'events')} WHERE {' AND '.join(where)} ORDER BY id DESC LIMIT ?"
        return [_record(AuditEvent, (_id(row[0]), *row[1:])) for row in await self._scan(sql, *values, limit)]

    # --- the revocation log, and the nodes that follow it -------------------------------------------------------------

    def head(self) -> LogHead | None:
        """See `_Head`. None only while the store is not open."""
        return LogHead(*self._head.words) if self._is_open else None

    def watch(self, woken: Callable[[], None]) -> Callable[[], None]:
        loop = asyncio.get_running_loop()
        if loop not in self._watches:
            self._watches[loop] = _Watch(loop, self.head, self._committed_head)
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
            with contextlib.suppress(RuntimeError):  # the loop was closed: nobody is left to wake
                loop.call_soon_threadsafe(watch.look)

    def _committed_head(self) -> LogHead | None:
        row = self._one("SELECT epoch, seq FROM revocation_log")
        return None if row is None else LogHead(*row)

    async def read_log(self, log_epoch: int, after: int) -> Renewed:
        values = log_epoch, after
        rows = self._all(_READ_LOG, *values, _PAGE_INLINE + 1)
        if len(rows) <= _PAGE_INLINE:
            return _renewed(rows, log_epoch, after, _PAGE_INLINE)
        return await self._beside(lambda: _renewed(self._all(_READ_LOG, *values, _PAGE + 1), log_epoch, after, _PAGE))

    async def live_revocations(self, subject: str, now: float) -> int:
        ((count,),) = self._all("SELECT count(*) FROM revocations WHERE subject = ? AND expires_at > ?", subject, now)
        return int(count)

    async def begin_log_epoch(self, now: float) -> int:
        return await self._write(partial(_begin_log_epoch, now), atomic=False, answer_for=_BEGIN_FOR)

    async def node_register(self, row: NodeRow) -> None:
        await self._write(partial(_node_register, row), atomic=True)

    async def node_renew(self, row: NodeRow, after: int) -> Renewed:
        # What a lost renewal leaves is the row before it, which acknowledges less: fences wait longer.
        return await self._write(partial(_node_renew, row, after), atomic=False, durable=False)

    async def node_rows(self) -> Rows:
        rows = self._all(f"SELECT l.epoch, {_NODE} FROM revocation_log l LEFT JOIN nodes n")
        return Rows(log_epoch=rows[0][0], rows=[_record(NodeRow, row[1:]) for row in rows if row[1] is not None])

    async def node_forget(self, id: str, stamp: str) -> None:
        await self._write(partial(_node_forget, id, stamp), atomic=True)

    # --- limits, upkeep -----------------------------------------------------------------------------------------------

    async def hit(self, buckets: Sequence[Bucket], now: float) -> tuple[float, str]:
        return await self._write(partial(_hit, buckets, now), atomic=True, durable=False)

    async def try_writing(self, now: float) -> None:
        await self.hit([WRITING], now)

    async def purge(self, *, before: float, events_before: float) -> int:
        """Find rows beside the writer and hand it a few hundred at a time, so that no commit waits long for it."""
        deleted = 0
        for table, key, instant, until in (
            ("sessions", "id", "expires_at", before),
            ("one_time_tokens", "id", "expires_at", before),
            ("limits", "key", "tat", before),
            ("revocations", "seq", "expires_at", before),
            ("events", "id", "at", events_before),
        ):
            find = f"SELECT {key} FROM {table} WHERE {key} > ? AND {instant} < ? ORDER BY {key} LIMIT {_STEP}"
            # Asked again of each row: it may have been written since it was found.
            delete = f"DELETE FROM {table} WHERE {key} = ? AND {instant} < ?"
            last: object = -1  # numbers sort before all texts, and texts before all blobs
            while rows := await self._scan(find, last, until):
                last = rows[-1][0]
                step = partial(_delete, delete, [(row[0], until) for row in rows])
                deleted += await self._write(step, atomic=False, durable=False)
        return deleted

    async def counts(self) -> dict[str, int]:
        ((*rows,),) = await self._scan(f"SELECT {', '.join(f'(SELECT count(*) FROM {table})' for table in KINDS)}")
        return dict(zip(KINDS, rows, strict=True))

    # --- moving -------------------------------------------------------------------------------------------------------

    async def page(self, kind: Kind, after: str | None = None, *, limit: int = 1000) -> Page:
        return await self._beside(self._page, kind, after, limit)

    def _page(self, kind: Kind, after: str | None, limit: int) -> Page:
        stored = _STORED[kind]
        keys = ", ".join(stored.key)
        where, values = "1", list[object]()
        if after is not None:
            where, values = f"({keys}) > ({_marks(len(stored.key))})", json.loads(after)
            if stored.has_id:
                values = [_key(str(values[0]))]
        rows = self._all(f"{stored.select} {where} ORDER BY {keys} LIMIT ?", *values, limit)
        records = [stored.read(row) for row in rows]
        last = [getattr(records[-1], name.rpartition(".")[2]) for name in stored.key] if len(rows) == limit else None
        return Page(records, None if last is None else json.dumps(last))

    async def unfinished(self) -> Mapping[Kind, str | None] | None:
        noted: dict[str, str | None] = dict(self._all("SELECT kind, after FROM moving WHERE kind <> ?", LEFT))
        return {kind: noted[kind] for kind in KINDS if kind in noted} if noted else None

    async def begin_move(self, log: LogState) -> None:
        await self._write(partial(_begin_move, log), atomic=False, answer_for=_BEGIN_FOR)

    async def take_in(self, kind: Kind, page: Page) -> None:
        await self._write(partial(_take_in, kind, page), atomic=False)

    async def end_move(self, now: float, event: AuditEvent) -> int:
        return await self._write(partial(_end_move, now, event), atomic=False, answer_for=_BEGIN_FOR)

    async def is_left(self) -> bool:
        return bool(self._all("SELECT 1 FROM moving WHERE kind = ?", LEFT))

    async def leave(self) -> None:
        await self._write(partial(_leave, left=True), atomic=False)

    async def take_back(self) -> None:
        await self._write(partial(_leave, left=False), atomic=False)


class _Reader:
    """A thread's connection, closed with its thread."""

    __slots__ = ("__weakref__", "connection")

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection

    def __del__(self) -> None:
        self.connection.close()


class _Head:
    """Two words of memory that all processes share: the log's epoch, and a `seq` that no entry of it exceeds.

    Every request with a token asks what is new in the log, and nearly always nothing is. To begin and end SQLite's
    shortest read costs 3 to 5 microseconds; to look at these words, a few tenths of one.

    They are right because they are written only under the database's write lock, and before the commit: whoever was
    told of a revocation, or reads anything that was committed with it, finds them raised already. Somebody who reads
    one word before such a writing and the other after it has a pair that differs from what he knows, as either pair
    does: he looks. A commit that then fails leaves them too high, which costs a look-up and hides nothing. Opening the
    database sets them right, whatever a crash or a restored copy left in them.
    """

    def __init__(self, path: Path, log_epoch: int, seq: int) -> None:
        """Map the words and set them. The caller holds the write lock."""
        # Never through a link: what it leads to would be overwritten.
        head = path.with_name(path.name + "-head")
        try:
            file = os.open(head, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o600)
        except OSError as exc:
            if exc.errno == errno.ELOOP:
                raise _planted(head) from None
            raise
        try:
            _refuse_open(head, os.fstat(file), path.stat().st_uid)
            # Written and not just lengthened: a page of a sparse file, first touched on a full disk, kills the process.
            words = log_epoch.to_bytes(8, sys.byteorder) + seq.to_bytes(8, sys.byteorder)
            os.pwrite(file, words, 0)
            self._map = mmap.mmap(file, len(words))
        finally:
            os.close(file)
        self.words = memoryview(self._map).cast("Q")

    def close(self) -> None:
        self.words.release()
        self._map.close()


class _Watch:
    """One timer of one event loop, for all who want to know there when the log has grown.

    Another process raises the head before it commits, and a commit may take long. So the head tells only that it is
    worth the while to ask the database, which is asked until it has what the head tells.
    """

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        head: Callable[[], LogHead | None],
        committed: Callable[[], LogHead | None],
    ) -> None:
        self.woken: dict[object, Callable[[], None]] = {}
        self._loop, self._head, self._committed = loop, head, committed
        self._seen: LogHead | None = None
        self._timer = loop.call_soon(self._tick)

    def stop(self) -> None:
        self._timer.cancel()

    def look(self) -> None:
        """Wake everybody if there is more in the log than there was."""
        if self._head() == self._seen:
            return
        try:
            committed = self._committed()
        except Unavailable:
            return  # the next look may find it
        if committed != self._seen:
            self._seen = committed
            for woken in list(self.woken.values()):
                woken()

    def _tick(self) -> None:
        self._timer = self._loop.call_later(_LOOK_EVERY, self._tick)
        self.look()


# --- the writer -------------------------------------------------------------------------------------------------------


class _Job(Generic[T]):
    """One commit that waits for the writer, and whoever waits for it."""

    __slots__ = ("apply", "atomic", "durable", "future", "loop")

    def __init__(self, apply: Apply[T], *, atomic: bool, durable: bool) -> None:
        self.apply = apply
        self.atomic = atomic
        """Whether `apply` leaves nothing behind when it raises, so that it needs no savepoint."""
        self.durable = durable
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[T] = self.loop.create_future()


class _Transaction:
    """What a job is applied in: the writer's connection under the write lock, and where the log ends."""

    __slots__ = ("connection", "execute", "log_epoch", "seq")

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection
        self.execute = connection.execute
        self.log_epoch: int
        self.seq: int
        self.log_epoch, self.seq = connection.execute("SELECT epoch, seq FROM revocation_log").fetchone()


class _Writer:
    """The one thread of this process that writes."""

    def __init__(self, path: Path, head: _Head, grown: Callable[[], None]) -> None:
        self._path = path
        self._head, self._grown = head, grown
        self._queue: SimpleQueue[_Job[Any] | None] = SimpleQueue()
        self._connection: sqlite3.Connection | None = None
        self._synchronous = ""
        self.answers = True
        """False from when somebody waited in vain until the next commit."""
        self._thread = threading.Thread(target=self._run, name="dutchdoor-sqlite-writer", daemon=True)
        self._thread.start()

    def put(self, job: _Job[Any]) -> None:
        """Queue a job. Raises `Unavailable` when more wait than the disk can keep up with."""
        if self._queue.qsize() >= _QUEUE_AT_MOST:
            raise Unavailable("sqlite: too many commits wait for the disk")
        self._queue.put(job)

    def give_up(self, future: asyncio.Future[Any]) -> None:
        """Tell a caller that it need not wait any longer."""
        if not future.done():
            self.answers = False
            future.set_exception(Unavailable("sqlite: the disk does not answer, or another process holds the lock"))

    def close(self) -> None:
        """Write what is queued, and end."""
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        closing = False
        while not closing:
            batch, closing = self._next()
            if batch:
                try:
                    outcomes = self._commit(batch)
                except Exception as exc:  # noqa: BLE001 - a thread that died here would leave every later caller waiting
                    self.answers = False
                    self._disconnect()
                    outcomes = [_unavailable(exc)] * len(batch)
                _answer(batch, outcomes)
        self._disconnect()

    def _next(self) -> tuple[list[_Job[Any]], bool]:
        """Wait for a job, and give it with all that are queued behind it; and whether the end was reached."""
        batch: list[_Job[Any]] = []
        job = self._queue.get()
        with contextlib.suppress(Empty):
            while job is not None:
                # Whoever gave up need not be served after all; after an outage they are many.
                if not job.future.done():
                    batch.append(job)
                if len(batch) == _BATCH_AT_MOST:
                    break
                job = self._queue.get_nowait()
        return batch, job is None

    def _commit(self, batch: list[_Job[Any]]) -> list[object]:
        """Apply jobs in one transaction; give what each returned or raised. When this raises, none of them happened."""
        if self._connection is None:
            self._connection, self._synchronous = _connect(self._path, wait=0), "FULL"
        connection = self._connection
        # FULL flushes the log at every commit, NORMAL only before a checkpoint; a later FULL flushes what NORMAL left.
        synchronous = "FULL" if any(job.durable for job in batch) else "NORMAL"
        if synchronous != self._synchronous:
            connection.execute(f"PRAGMA synchronous = {synchronous}")
            self._synchronous = synchronous
        _begin(connection)
        transaction = _Transaction(connection)
        before = transaction.log_epoch, transaction.seq
        outcomes = [_attempt(job, transaction) for job in batch]
        after = transaction.log_epoch, transaction.seq
        if after != before:
            connection.execute("UPDATE revocation_log SET epoch = ?, seq = ?", after)
            self._head.words[0], self._head.words[1] = after
        connection.execute("COMMIT")
        self.answers = True
        if after != before:
            self._grown()
        return outcomes

    def _disconnect(self) -> None:
        """Close the connection, which undoes what it had begun: whatever state it is in, a new one is in none."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


def _begin(connection: sqlite3.Connection) -> None:
    """Take the write lock. SQLite's own waiting backs off to 100 ms, and starves one of several busy processes."""
    _patiently(connection, "BEGIN IMMEDIATE", _LOCK_FOR)


def _patiently(connection: sqlite3.Connection, statement: str, wait: float) -> None:
    """Execute a statement that others may be in the way of, for so many seconds at most.

    SQLite does not wait at all where it might wait for itself: two processes that open a new file at once, and both
    turn its write-ahead log on.
    """
    deadline = time.monotonic() + wait
    while True:
        try:
            connection.execute(statement)
        except sqlite3.OperationalError as exc:
            if exc.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() >= deadline:
                raise
            time.sleep(0.0005)
        else:
            return


def _attempt(job: _Job[Any], transaction: _Transaction) -> object:
    """Apply a job, or leave no trace of it. Raises only what undoes the whole transaction: a disk that fails."""
    if job.future.done():  # its caller gave up while the lock was waited for
        return None
    log_epoch, seq = transaction.log_epoch, transaction.seq
    if not job.atomic:
        transaction.execute("SAVEPOINT job")
    outcome: object
    try:
        outcome = job.apply(transaction)
    except sqlite3.IntegrityError as exc:
        outcome = Conflict(str(exc))
    except sqlite3.OperationalError:
        raise
    except Exception as exc:  # noqa: BLE001 - one caller's bad value must not undo the commits of others
        outcome = exc
    else:
        if not job.atomic:
            transaction.execute("RELEASE job")
        return outcome
    transaction.log_epoch, transaction.seq = log_epoch, seq
    if not job.atomic:
        transaction.execute("ROLLBACK TO job")
        transaction.execute("RELEASE job")
    return outcome


def _answer(batch: Sequence[_Job[Any]], outcomes: Sequence[object]) -> None:
    """Tell every loop of its jobs' outcomes, with one wake-up for a loop and not one for a job."""
    by_loop: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[Any], object]]] = {}
    for job, outcome in zip(batch, outcomes, strict=True):
        by_loop.setdefault(job.loop, []).append((job.future, outcome))
    for loop, answers in by_loop.items():
        with contextlib.suppress(RuntimeError):  # the loop was closed: nobody is left to tell
            loop.call_soon_threadsafe(_resolve, answers)


def _resolve(answers: list[tuple[asyncio.Future[Any], object]]) -> None:
    for future, outcome in answers:
        if future.done():  # cancelled, or gave up
            continue
        if isinstance(outcome, Exception):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)


def _unavailable(exc: BaseException) -> DutchdoorError:
    return exc if isinstance(exc, DutchdoorError) else Unavailable(f"sqlite: {exc}")


# --- changes ----------------------------------------------------------------------------------------------------------


def _apply_all(changes: Sequence[Change], transaction: _Transaction) -> Committed:
    ended, before, longest = 0, transaction.seq, 0.0
    for change in changes:
        ended += _apply(change, transaction)
    if transaction.seq != before:
        longest = transaction.execute("SELECT ifnull(max(lease_for), 0.0) FROM nodes").fetchone()[0]
    return Committed(transaction.seq, ended, transaction.log_epoch, longest)


def _apply(change: Change, transaction: _Transaction) -> int:  # noqa: C901 - one branch for a kind of change
    execute = transaction.execute
    match change:
        case Add(record):
            _must_change(execute(*_add(record)))
        case Swap(record):
            _must_change(execute(*_swap(record)))
        case Remove(record):
            for statement in _remove(record):
                execute(*statement)
        case Expect(subject, epoch):
            sql = "SELECT 1 FROM accounts WHERE subject = ? AND epoch = ? AND active"
            if execute(sql, (subject, epoch)).fetchone() is None:
                raise Conflict("account is gone, disabled or of another epoch")
        case ExpectRole(role):
            if execute(f"SELECT 1 FROM accounts a WHERE {_WITH_ROLE} LIMIT 1", (f" {role} ",)).fetchone() is None:
                raise Conflict("no active account has the role")
        case Take(id):
            _must_change(execute("DELETE FROM one_time_tokens WHERE id = ?", (_key(id),)))
        case Discard(subject, purpose):
            execute("DELETE FROM one_time_tokens WHERE subject = ? AND purpose = ?", (subject, purpose))
        case End(session_id, reason, at):
            _must_change(execute(f"{_END} id = ?", (at, reason, _key(session_id))))
        case EndAll(subject, reason, at, keep):
            return execute(_END_ALL, (at, reason, subject, None if keep is None else _key(keep))).rowcount
        case Revoke(entry):
            transaction.seq += 1
            execute(_insert(Revocation, "revocations"), _values(replace(entry, seq=transaction.seq)))
        case Forgive(returned, forgotten):
            _forgive(returned, forgotten, transaction)
        case Log(event):
            execute(_insert(AuditEvent, "events"), (_key(event.id), *_values(event)[1:]))
    return 0


_WITH_ROLE = "a.roles <> '' AND a.active AND instr(' ' || a.roles || ' ', ?)"
"""The first part tells that the partial index has them."""
_END = "UPDATE sessions SET ended_at = ?, end_reason = ?, revision = revision + 1 WHERE ended_at IS NULL AND"
_END_ALL = f"{_END} account = (SELECT number FROM accounts WHERE subject = ?) AND id IS NOT ?"


def _add(record: Struct) -> tuple[str, Row]:
    """Give the statement that inserts a record, with revision 0 whatever the record says, or changes no row."""
    match record:
        case Session():
            return _ADD_SESSION, (_key(record.id), record.ended_at, *_session_values(record), record.subject)
        case Account():
            return _ADD_ACCOUNT, (record.subject, *_account_values(record))
        case OneTimeToken():
            return _insert(OneTimeToken, "one_time_tokens"), (_key(record.id), *_values(record)[1:])
        case Credential():
            return _insert(Credential, "credentials"), (*_values(record)[:-1], 0)
        case StoredKey():
            return _insert(StoredKey, "keys"), (*_values(record)[:-1], 0)
        case RegisteredClient():
            return _insert(RegisteredClient, "clients"), (*_values(record)[:-1], 0)
        case VerifierKey():
            return _insert(VerifierKey, "verifiers"), (*_values(record)[:-1], 0)
    raise TypeError(f"{type(record).__name__} is not kept")


def _swap(record: Struct) -> tuple[str, Row]:
    """Give the statement that replaces a record of the same revision, or changes no row."""
    match record:
        case Session():
            # The index holds sessions that have not ended: an everyday swap names no column of it, and leaves it alone.
            sql, ending = (_SWAP_SESSION, ()) if record.ended_at is None else (_SWAP_AND_END, (record.ended_at,))
            return sql, (*_session_values(record), *ending, _key(record.id), record.revision, record.subject)
        case Account():
            return _SWAP_ACCOUNT, (*_account_values(record), record.subject, record.revision)
        case Credential():
            return _update("credentials", Credential, key=3), _moved(record, key=3)
        case StoredKey():
            return _update("keys", StoredKey, key=1), _moved(record, key=1)
        case RegisteredClient():
            return _update("clients", RegisteredClient, key=1), _moved(record, key=1)
    raise TypeError(f"{type(record).__name__} is not swapped")


def _remove(record: Struct) -> list[tuple[str, Row]]:
    match record:
        case Account(subject=subject):
            tables = "accounts", "credentials", "one_time_tokens"
            return [(f"DELETE FROM {table} WHERE subject = ?", (subject,)) for table in tables]
        case Credential():
            sql = "DELETE FROM credentials WHERE subject = ? AND method = ? AND handle = ?"
            return [(sql, (record.subject, record.method, record.handle))]
        case RegisteredClient():
            return [("DELETE FROM clients WHERE id = ?", (record.id,))]
        case VerifierKey():
            return [("DELETE FROM verifiers WHERE id = ?", (record.id,))]
    raise TypeError(f"{type(record).__name__} is not removed")


def _must_change(cursor: sqlite3.Cursor) -> None:
    if cursor.rowcount != 1:
        raise Conflict("row is not there, or was written since it was read")


# --- the log and the nodes --------------------------------------------------------------------------------------------

_NODE = ", ".join(f"n.{name}" for name in NodeRow.__struct_fields__)
_ENTRY = "r.kind, r.id, r.min_epoch, r.expires_at, r.seq, r.subject"
_READ_LOG = (
    f"SELECT l.epoch, l.salt, l.seq, {_ENTRY} FROM revocation_log l LEFT JOIN revocations r "
    "ON r.seq > CASE l.epoch WHEN ? THEN ? ELSE 0 END WHERE l.only = 1 ORDER BY r.seq LIMIT ?"
)
"""One statement, so that entries and head are of one instant. Without entries it gives one row, which has none."""


def _renewed(
    rows: Sequence[Row], log_epoch: int, after: int, page: int, *, there: bool = True, nodes: Sequence[NodeRow] = ()
) -> Renewed:
    """Read rows of `_READ_LOG`, of which one more was asked for than a page has."""
    epoch, salt, head = rows[0][:3]
    # By name and not by `_record`, which takes seven times as long: a server that starts reads all of them.
    entries = [
        Revocation(kind=kind, id=name, min_epoch=min_epoch, expires_at=expires_at, seq=seq, subject=subject)
        for _, _, _, kind, name, min_epoch, expires_at, seq, subject in rows[:page]
        if seq is not None
    ]
    return Renewed(
        there=there,
        log_epoch=epoch,
        salt=salt,
        after=after if epoch == log_epoch else 0,
        entries=entries,
        upto=entries[-1].seq if len(rows) > page else head,
        head=head,
        rows=nodes,
    )


def _begin_log_epoch(now: float, transaction: _Transaction) -> int:
    transaction.log_epoch = max(transaction.log_epoch + 1, int(now * 1000))
    transaction.execute("UPDATE revocation_log SET epoch = ?", (transaction.log_epoch,))
    transaction.execute("DELETE FROM nodes")
    raised = "UPDATE accounts SET epoch = max(epoch + 1, ?), revision = revision + 1"
    transaction.execute(raised, (transaction.log_epoch,))
    return transaction.log_epoch


def _node_register(row: NodeRow, transaction: _Transaction) -> None:
    names = ", ".join(NodeRow.__struct_fields__)
    sql = f"INSERT OR REPLACE INTO nodes ({names}) VALUES ({_marks(len(NodeRow.__struct_fields__))})"
    transaction.execute(sql, _values(row))


def _node_renew(row: NodeRow, after: int, transaction: _Transaction) -> Renewed:
    values = _values(row)
    sql = f"UPDATE nodes SET {_to_marks(NodeRow.__struct_fields__[1:])} WHERE id = ?"
    there = transaction.execute(sql, (*values[1:], row.id)).rowcount == 1
    rows = transaction.execute(_READ_LOG, (row.log_epoch, after, _PAGE + 1)).fetchall()
    # The log's own row is written when the batch is over: it does not tell yet what was appended before this.
    rows = [(epoch, salt, transaction.seq, *entry) for epoch, salt, _, *entry in rows]
    nodes = [_record(NodeRow, found) for found in transaction.execute(f"SELECT {_NODE} FROM nodes n").fetchall()]
    return _renewed(rows, row.log_epoch, after, _PAGE, there=there, nodes=nodes)


def _node_forget(id: str, stamp: str, transaction: _Transaction) -> None:
    transaction.execute("DELETE FROM nodes WHERE id = ? AND stamp = ?", (id, stamp))


# --- limits -----------------------------------------------------------------------------------------------------------


def _hit(buckets: Sequence[Bucket], now: float, transaction: _Transaction) -> tuple[float, str]:
    verdict = decide_all([_tat(bucket, transaction) for bucket in buckets], buckets, now)
    changed = [(bucket.key, tat) for bucket, tat in zip(buckets, verdict.tats, strict=True) if tat is not None]
    transaction.connection.executemany("INSERT OR REPLACE INTO limits (key, tat) VALUES (?, ?)", changed)
    return verdict.retry_after, verdict.refused_by


def _forgive(returned: Sequence[Bucket], forgotten: Sequence[Bucket], transaction: _Transaction) -> None:
    for bucket in returned:
        if (tat := _tat(bucket, transaction)) is not None:
            transaction.execute("UPDATE limits SET tat = ? WHERE key = ?", (give_back(tat, bucket.limit), bucket.key))
    transaction.connection.executemany("DELETE FROM limits WHERE key = ?", [(bucket.key,) for bucket in forgotten])


def _tat(bucket: Bucket, transaction: _Transaction) -> float | None:
    row = transaction.execute("SELECT tat FROM limits WHERE key = ?", (bucket.key,)).fetchone()
    return None if row is None else row[0]


def _delete(sql: str, rows: list[Row], transaction: _Transaction) -> int:
    return transaction.connection.executemany(sql, rows).rowcount


# --- records and rows -------------------------------------------------------------------------------------------------
#
# Most kinds of record have a column for each field, in the fields' order. Sessions and accounts are stored otherwise.

R = TypeVar("R", bound=Struct)


def _record(kind: type[R], row: Row) -> R:
    return kind(**dict(zip(kind.__struct_fields__, row, strict=True)))


def _values(record: Struct) -> Row:
    return tuple([getattr(record, name) for name in record.__struct_fields__])


def _moved(record: Struct, *, key: int) -> Row:
    """The values that `_update` asks for: all but key and revision, then those."""
    values = _values(record)
    return (*values[key:-1], *values[:key], values[-1])


@lru_cache
def _select(kind: type[Struct], table: str) -> str:
    return f"SELECT {', '.join(kind.__struct_fields__)} FROM {table}"


@lru_cache
def _insert(kind: type[Struct], table: str) -> str:
    names = kind.__struct_fields__
    return f"INSERT INTO {table} ({', '.join(names)}) VALUES ({_marks(len(names))})"


@lru_cache
def _update(table: str, kind: type[Struct], *, key: int) -> str:
    """Replace what follows the key, of which there are the first few fields; the last field is the revision."""
    names = kind.__struct_fields__
    where = " AND ".join(f"{name} = ?" for name in (*names[:key], "revision"))
    return f"UPDATE {table} SET {_to_marks(names[key:-1])}, revision = revision + 1 WHERE {where}"


def _marks(count: int) -> str:
    return ", ".join("?" * count)


def _to_marks(names: Sequence[str]) -> str:
    return ", ".join(f"{name} = ?" for name in names)


_SESSION_COLUMNS = (
    "hybrid", "client_id", "scope", "secret_hash", "salt", "master_key_id", "epoch", "amr", "auth_time", "created_at",
    "last_seen_at", "idle_expires_at", "expires_at", "generation", "sibling", "parent_sibling", "rotated_at",
    "sibling_at", "fingerprint", "device", "address", "country", "end_reason",
)  # fmt: skip
"""All but id, account, ended_at and revision, which no swap writes as they stand."""
_ACCOUNT_COLUMNS = (
    "email", "address", "name", "roles", "active", "email_verified_at", "epoch", "created_at", "folded",
)  # fmt: skip
"""All but number, subject and revision."""

_SESSION = ", ".join(f"s.{name}" for name in ("id", *_SESSION_COLUMNS, "ended_at", "revision"))
_ACCOUNT = ", ".join(f"a.{name}" for name in ("subject", *_ACCOUNT_COLUMNS[:-1], "revision"))
_JOINED = f"SELECT {_SESSION}, {_ACCOUNT} FROM sessions s JOIN accounts a ON a.number = s.account WHERE"
_SESSION_WITH_ACCOUNT = f"{_JOINED} s.id = ?"
_SESSIONS_OF = f"{_JOINED} a.subject = ? AND s.ended_at IS NULL ORDER BY s.id DESC LIMIT ?"
"""By id, which is the order of birth and the index's: to give the newest three of ten thousand it reads three."""
_ADD_SESSION = (
    # Without an account the SELECT finds no row, and nothing is added.
    f"INSERT INTO sessions (account, id, ended_at, {', '.join(_SESSION_COLUMNS)}, revision) "
    f"SELECT number, {_marks(len(_SESSION_COLUMNS) + 2)}, 0 FROM accounts WHERE subject = ?"
)
_SWAPPED = (
    "revision = revision + 1 WHERE id = ? AND revision = ? AND ended_at IS NULL "
    "AND account = (SELECT number FROM accounts WHERE subject = ?)"
)
_SWAP_SESSION = f"UPDATE sessions SET {_to_marks(_SESSION_COLUMNS)}, {_SWAPPED}"
_SWAP_AND_END = f"UPDATE sessions SET {_to_marks(_SESSION_COLUMNS)}, ended_at = ?, {_SWAPPED}"
_ADD_ACCOUNT = (
    f"INSERT INTO accounts (subject, {', '.join(_ACCOUNT_COLUMNS)}, revision) "
    f"VALUES ({_marks(len(_ACCOUNT_COLUMNS) + 1)}, 0)"
)
_SWAP_ACCOUNT = (
    f"UPDATE accounts SET {_to_marks(_ACCOUNT_COLUMNS)}, revision = revision + 1 WHERE subject = ? AND revision = ?"
)


def _session_values(session: Session) -> Row:
    return (
        session.mode == "hybrid", session.client_id, session.scope, session.secret_hash, session.salt,
        session.master_key_id, session.epoch, joined(session.amr), session.auth_time, session.created_at,
        session.last_seen_at, session.idle_expires_at, session.expires_at, session.generation, session.sibling,
        session.parent_sibling, session.rotated_at, session.sibling_at, session.fingerprint, session.device,
        session.address, session.country, session.end_reason,
    )  # fmt: skip


def _session_and_account(id: str, row: Row) -> tuple[Session, Account]:
    """Read a row of `_JOINED`. The hottest lines here: one unpacking, and two calls with keywords in field order."""
    (
        _, hybrid, client_id, scope, secret_hash, salt, master_key_id, epoch, amr, auth_time, created_at,
        last_seen_at, idle_expires_at, expires_at, generation, sibling, parent_sibling, rotated_at, sibling_at,
        fingerprint, device, address, country, end_reason, ended_at, revision,
        subject, email, address_typed, name, roles, active, email_verified_at, account_epoch, account_created_at,
        account_revision,
    ) = row  # fmt: skip
    session = Session(
        id=id,
        subject=subject,
        mode="hybrid" if hybrid else "session",
        client_id=client_id,
        scope=scope,
        secret_hash=secret_hash,
        salt=salt,
        master_key_id=master_key_id,
        epoch=epoch,
        amr=words(amr),
        auth_time=auth_time,
        created_at=created_at,
        last_seen_at=last_seen_at,
        idle_expires_at=idle_expires_at,
        expires_at=expires_at,
        generation=generation,
        sibling=sibling,
        parent_sibling=parent_sibling,
        rotated_at=rotated_at,
        sibling_at=sibling_at,
        fingerprint=fingerprint,
        device=device,
        address=address,
        country=country,
        ended_at=ended_at,
        end_reason=end_reason,
        revision=revision,
    )
    account = Account(
        subject=subject,
        email=email,
        address=address_typed,
        name=name,
        roles=words(roles),
        status="active" if active else "disabled",
        email_verified_at=email_verified_at,
        epoch=account_epoch,
        created_at=account_created_at,
        revision=account_revision,
    )
    return session, account


def _account_values(account: Account) -> Row:
    folded = "\n".join((account.email or "", account.address or "", account.name)).casefold()
    return (
        account.email, account.address, account.name, joined(account.roles), account.active, account.email_verified_at,
        account.epoch, account.created_at, folded,
    )  # fmt: skip


def _account(row: Row) -> Account:
    subject, email, address, name, roles, active, email_verified_at, epoch, created_at, revision = row
    return Account(
        subject=subject,
        email=email,
        address=address,
        name=name,
        roles=words(roles),
        status="active" if active else "disabled",
        email_verified_at=email_verified_at,
        epoch=epoch,
        created_at=created_at,
        revision=revision,
    )


# --- moving -----------------------------------------------------------------------------------------------------------


class _Stored(NamedTuple):
    """How one kind of record is read as it stands, and written."""

    select: str
    key: tuple[str, ...]
    read: Callable[[Row], Stored]
    insert: str
    values: Callable[[Any], Row]
    has_id: bool = False
    """Whether the key is an id, which `_key` stores."""


def _plain(kind: type[Any], table: str, *key: str) -> _Stored:
    names: tuple[str, ...] = kind.__struct_fields__
    insert = _or_update(f"INSERT INTO {table} ({', '.join(names)}) VALUES ({_marks(len(names))})", key, names)
    return _Stored(f"SELECT {', '.join(names)} FROM {table} WHERE", key, partial(_record, kind), insert, _values)


def _or_update(insert: str, key: Sequence[str], names: Sequence[str]) -> str:
    """Replace the row of this key, and no other: one that has a unique value of it is in the way."""
    updates = ", ".join(f"{name} = excluded.{name}" for name in names if name not in key)
    return f"{insert} ON CONFLICT ({', '.join(key)}) DO UPDATE SET {updates}"


def _with_id(kind: type[Any], table: str) -> _Stored:
    return _plain(kind, table, "id")._replace(
        read=lambda row: _record(kind, (_id(row[0]), *row[1:])),
        values=lambda record: (_key(record.id), *_values(record)[1:]),
        has_id=True,
    )


_STORED: dict[Kind, _Stored] = {
    "accounts": _Stored(
        f"SELECT {_ACCOUNT} FROM accounts a WHERE",
        ("a.subject",),
        _account,
        # Its number, by which its sessions know it, stays.
        _or_update(
            f"INSERT INTO accounts (subject, {', '.join(_ACCOUNT_COLUMNS)}, revision) "
            f"VALUES ({_marks(len(_ACCOUNT_COLUMNS) + 2)})",
            ("subject",),
            (*_ACCOUNT_COLUMNS, "revision"),
        ),
        lambda account: (account.subject, *_account_values(account), account.revision),
    ),
    "credentials": _plain(Credential, "credentials", "subject", "method", "handle"),
    "sessions": _Stored(
        _JOINED,
        ("s.id",),
        lambda row: _session_and_account(_id(row[0]), row)[0],
        _or_update(
            f"INSERT INTO sessions (account, id, ended_at, {', '.join(_SESSION_COLUMNS)}, revision) "
            f"SELECT number, {_marks(len(_SESSION_COLUMNS) + 3)} FROM accounts WHERE subject = ?",
            ("id",),
            ("account", "ended_at", *_SESSION_COLUMNS, "revision"),
        ),
        lambda session: (
            _key(session.id), session.ended_at, *_session_values(session), session.revision, session.subject,
        ),
        has_id=True,
    ),
    "one_time_tokens": _with_id(OneTimeToken, "one_time_tokens"),
    "keys": _plain(StoredKey, "keys", "kid"),
    "clients": _plain(RegisteredClient, "clients", "id"),
    "verifiers": _plain(VerifierKey, "verifiers", "id"),
    "revocations": _plain(Revocation, "revocations", "seq"),
    "events": _with_id(AuditEvent, "events"),
    "limits": _plain(Level, "limits", "key"),
}  # fmt: skip


def _begin_move(log: LogState, transaction: _Transaction) -> None:
    execute = transaction.execute
    superseded = "SELECT 1 FROM moving, revocation_log WHERE moving.kind <> ? OR revocation_log.salt = ?"
    if execute(superseded, (LEFT, log.salt)).fetchone() is None:
        taken = [table for table in KINDS if execute(f"SELECT 1 FROM {table} LIMIT 1").fetchone()]
        if taken or transaction.seq:
            raise Conflict(f"there is something in this database already: {', '.join(taken) or 'a log'}")
    for table in (*KINDS, "nodes", "moving"):
        execute(f"DELETE FROM {table}")
    execute("INSERT INTO moving VALUES ('', NULL)")
    execute("UPDATE revocation_log SET salt = ?", (log.salt,))
    transaction.log_epoch, transaction.seq = log.log_epoch, log.seq


def _take_in(kind: Kind, page: Page, transaction: _Transaction) -> None:
    _must_be_moving(transaction)
    stored = _STORED[kind]
    rows = [stored.values(record) for record in page.records]
    if transaction.connection.executemany(stored.insert, rows).rowcount != len(rows) and rows:
        raise Conflict("a session's account is not there")
    transaction.execute("INSERT OR REPLACE INTO moving VALUES (?, ?)", (kind, page.after))


def _end_move(now: float, event: AuditEvent, transaction: _Transaction) -> int:
    _take_in("events", Page([event], None), transaction)
    transaction.execute("DELETE FROM moving")
    return _begin_log_epoch(now, transaction)


def _leave(transaction: _Transaction, *, left: bool) -> None:
    transaction.execute(
        "INSERT OR REPLACE INTO moving VALUES (?, NULL)" if left else "DELETE FROM moving WHERE kind = ?", (LEFT,)
    )


def _must_be_moving(transaction: _Transaction) -> None:
    if transaction.execute("SELECT 1 FROM moving WHERE kind <> ?", (LEFT,)).fetchone() is None:
        raise Conflict("no move into this store was begun")


def _key(id: str) -> bytes | str:
    """Give an id as it is stored: 16 bytes where it is the canonical text of 16 bytes, else the text itself."""
    return packed(id) or id


def _id(key: bytes | str) -> str:
    return key if isinstance(key, str) else encode(key)


# --- the file ---------------------------------------------------------------------------------------------------------

_preparing = threading.Lock()


def _connect(path: Path, *, wait: float) -> sqlite3.Connection:
    # Connections are closed by whoever closes the store, which may be another thread than the one that reads.
    connection = sqlite3.connect(path, timeout=wait, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA synchronous = FULL")
    return connection


def _prepare(path: Path, *, to_move: bool) -> _Head:
    """Create the file where there is none, and bring its schema up to date. One at a time in a process: see below."""
    with _preparing:
        try:
            if not path.parent.is_dir():
                raise Misconfigured(f"There is no directory {path.parent}.")
            # Only where there is no file. To close a descriptor of one that SQLite has open in this process would drop
            # SQLite's locks on it: so POSIX has it, and so databases are corrupted.
            with contextlib.suppress(FileExistsError):
                os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
            owner = path.stat().st_uid
            for file in (path, *(path.with_name(path.name + end) for end in ("-wal", "-shm", "-journal"))):
                with contextlib.suppress(FileNotFoundError):
                    _refuse_open(file, file.lstat(), owner)
            if to_move:
                _refuse_company(path)
            connection = _connect(path, wait=_OPEN_FOR)
            try:
                _patiently(connection, "PRAGMA journal_mode = WAL", _OPEN_FOR)
                _migrate(connection, _migrations())
                connection.execute("BEGIN IMMEDIATE")
                if not to_move:
                    refuse_unless_whole((kind for (kind,) in connection.execute("SELECT kind FROM moving")), str(path))
                transaction = _Transaction(connection)
                return _Head(path, transaction.log_epoch, transaction.seq)
            finally:
                connection.close()
        except sqlite3.DatabaseError as exc:
            if exc.sqlite_errorcode == sqlite3.SQLITE_NOTADB:
                raise Misconfigured(f"{path} is not a database.") from exc
            raise _unavailable(exc) from exc
        except OSError as exc:
            raise Unavailable(f"{path}: {exc.strerror}") from exc


def _refuse_open(file: Path, found: os.stat_result, owner: int) -> None:
    """Refuse what other users of this machine can read or change, by the rule for the file of master keys, and what
    another user than the database's owner put beside it. Raises `Misconfigured`.
    """
    if not stat.S_ISREG(found.st_mode) or found.st_uid not in {owner, os.geteuid()}:
        raise _planted(file)
    if not is_closed_to_others(found.st_mode, found.st_uid, os.geteuid()):
        text = f"The database file {file} can be read or changed by others. Close it: chmod 600 {file}"
        raise Misconfigured(text)


def _planted(file: Path) -> Misconfigured:
    text = f"{file} is a link or another user's, and is not used as a file of the database. See who made it; remove it."
    return Misconfigured(text)


def _refuse_company(path: Path) -> None:
    """Raise `Conflict` if anybody has the database open: nobody else may while one connection has it exclusively."""
    connection = _connect(path, wait=0)
    try:
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        _patiently(connection, "BEGIN IMMEDIATE", _READ_FOR)
    except sqlite3.OperationalError as exc:
        if exc.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
            raise
        text = f"Another process has {path} open. Stop all servers and commands that use it, and run this again."
        raise Conflict(text, message=text) from None
    finally:
        connection.close()


def _migrations() -> list[tuple[str, str]]:
    """Every migration by name, in order: numbered files, which are never changed once released."""
    folder = files("dutchdoor.stores").joinpath("schema", "sqlite")
    return sorted((file.name, file.read_text("utf-8")) for file in folder.iterdir() if file.name.endswith(".sql"))


def _migrate(connection: sqlite3.Connection, migrations: list[tuple[str, str]]) -> None:
    """Apply what is missing, each file in one transaction with the note that it was: killed anywhere, it resumes."""
    for name, text in migrations:
        connection.execute("BEGIN IMMEDIATE")
        # Under the lock, since another process may have been here a moment ago.
        _check_ours(connection, migrations)
        if connection.execute("SELECT 1 FROM migrations WHERE name = ?", (name,)).fetchone() is None:
            for statement in _statements(text):
                connection.execute(statement)
            connection.execute("INSERT INTO migrations VALUES (?, ?)", (name, _digest(text)))
        connection.execute("COMMIT")


def _check_ours(connection: sqlite3.Connection, migrations: list[tuple[str, str]]) -> None:
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if not tables:
        connection.execute("CREATE TABLE migrations (name TEXT PRIMARY KEY NOT NULL, sha256 TEXT NOT NULL)")
        return
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    if "migrations" not in tables or application != _APPLICATION:
        raise Misconfigured("The database belongs to another application.")
    known = {name: _digest(text) for name, text in migrations}
    for name, digest in connection.execute("SELECT name, sha256 FROM migrations"):
        if name not in known:
            raise Misconfigured(f"The database is newer than this program: it has had {name}.")
        if known[name] != digest:
            raise Misconfigured(f"{name} is not the migration this database has had: a released one was changed.")


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _statements(text: str) -> list[str]:
    statements, gathered = [], ""
    for line in text.splitlines(keepends=True):
        gathered += line
        if sqlite3.complete_statement(gathered):
            statements.append(gathered)
            gathered = ""
    return statements
