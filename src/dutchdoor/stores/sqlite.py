"""One SQLite file: the system of record for one machine, shared by as many processes as serve from it.

Reads run where they are asked for, on a connection of the reading thread: a look-up takes less time than handing it to
another thread would. Scans, which may take long, go to one thread of their own. All writes go through one thread a process
that commits whatever has queued up as one transaction, each commit in a savepoint of its own: one `fsync` serves them all.

Durability is SQLite's: write-ahead log with `synchronous=FULL`, so a commit has been flushed before it is acknowledged.
Attempts counted against limits (`hit`) alone do not wait for the disk: they survive `kill -9`, and the loss of power may
forget the last few.

Left out: databases in memory (`stores/memory.py` is that), and file systems shared over a network, on which the write-ahead
log does not work.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import sqlite3
import threading
import time
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from importlib.resources import files
from queue import Empty, SimpleQueue
from typing import Any, Generic, TypeVar

import pybase64
from msgspec import Struct

from dutchdoor.accounts import Account, Credential
from dutchdoor.errors import Conflict, DutchdoorError, Misconfigured, Unavailable
from dutchdoor.events import AuditEvent
from dutchdoor.ids import is_id
from dutchdoor.keyring import StoredKey
from dutchdoor.limits import Bucket, decide_all, give_back
from dutchdoor.one_time import OneTimeToken
from dutchdoor.registered_clients import RegisteredClient
from dutchdoor.revocation.log import Revocation
from dutchdoor.sessions import Session
from dutchdoor.store import (
    Add,
    Change,
    Committed,
    Discard,
    End,
    EndAll,
    Expect,
    Log,
    Remove,
    Revoke,
    Store,
    Swap,
    Take,
)

__all__ = ["SqliteStore", "from_url"]

_LOCK_FOR = 5.0
"""Seconds a commit waits for another process that writes. A slow disk's flush is not an outage."""
_ANSWER_FOR = 6.0
"""Seconds a caller waits for its commit altogether: a disk that hangs must not hang every request."""
_OPEN_FOR = 30.0
"""Seconds to wait for another process's migration."""
_READ_FOR = 0.5
"""Seconds a read waits: only for another process that opens, recovers or closes the file, which takes milliseconds."""
_QUEUE_AT_MOST = 4096
_BATCH_AT_MOST = 512
_STEP = 500
"""Rows that one step of a purge deletes: a few milliseconds of the writer's time."""

_APPLICATION = 0x64646F6F

T = TypeVar("T")
Row = tuple[Any, ...]


def from_url(url: str) -> Store:
    """Read `sqlite:///relative/path` or `sqlite:////absolute/path`. Raises `Misconfigured` for anything else."""
    path = url.removeprefix("sqlite:///")
    if path == url or not path or "?" in path or path == ":memory:":
        raise Misconfigured("write sqlite:///file.db, or sqlite:////absolute/path/file.db; there are no options")
    return SqliteStore(path)


class _Job(Generic[T]):
    """One commit that waits for the writer, and whoever waits for it."""

    __slots__ = ("apply", "atomic", "durable", "future", "loop")

    def __init__(self, apply: Callable[[sqlite3.Connection], T], *, atomic: bool, durable: bool) -> None:
        self.apply = apply
        self.atomic = atomic
        """Whether `apply` leaves nothing behind when it fails, so that no savepoint is needed."""
        self.durable = durable
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[T] = self.loop.create_future()


class _Reader:
    """A thread's connection, closed with its thread."""

    __slots__ = ("__weakref__", "connection")

    def __init__(self, connection: sqlite3.Connection) -> None:
        self.connection = connection

    def __del__(self) -> None:
        self.connection.close()


class SqliteStore:
    """See `dutchdoor.store.Store`. Make and open one in each process, after forking."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = os.path.abspath(path)
        self._local = threading.local()
        self._readers: weakref.WeakSet[_Reader] = weakref.WeakSet()
        self._queue: SimpleQueue[_Job[Any] | None] = SimpleQueue()
        self._writer: threading.Thread | None = None
        self._scanner: ThreadPoolExecutor | None = None
        self._is_open = False

    # --- opening and closing ------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Raises `Misconfigured` for a file that is not ours or is newer than this code, `Unavailable` for one out of reach."""
        if self._is_open:
            return
        await asyncio.to_thread(_prepare, self._path)
        self._queue = SimpleQueue()
        self._writer = threading.Thread(
            target=self._write, args=(self._queue,), name="dutchdoor-sqlite-writer", daemon=True
        )
        self._scanner = ThreadPoolExecutor(1, "dutchdoor-sqlite-scanner")
        self._is_open = True
        self._writer.start()

    async def close(self) -> None:
        if not self._is_open:
            return
        self._is_open = False
        writer, scanner = self._writer, self._scanner
        self._queue.put(None)
        if writer is not None and scanner is not None:
            # The loop has to run meanwhile: those whose commits are still queued are told through it.
            await asyncio.to_thread(writer.join)
            await asyncio.to_thread(scanner.shutdown)
        for reader in list(self._readers):
            reader.connection.close()
        self._local = threading.local()

    # --- writing ------------------------------------------------------------------------------------------------------

    async def commit(self, *changes: Change) -> Committed:
        return await self._in_writer(partial(_apply_all, changes), atomic=len(changes) <= 1)

    async def _in_writer(self, apply: Callable[[sqlite3.Connection], T], *, atomic: bool, durable: bool = True) -> T:
        if not self._is_open:
            raise Unavailable("store is not open")
        if self._queue.qsize() >= _QUEUE_AT_MOST:
            raise Unavailable("too many commits wait for the disk")
        job = _Job(apply, atomic=atomic, durable=durable)
        self._queue.put(job)
        # Cancelled or timed out, a caller leaves; its job stays in the queue and harms nobody.
        deadline = job.loop.call_later(_ANSWER_FOR, _give_up, job.future)
        try:
            return await job.future
        finally:
            deadline.cancel()

    def _write(self, queue: SimpleQueue[_Job[Any] | None]) -> None:
        """Commit what is queued, until a None is reached. The writer thread's whole life."""
        connection: sqlite3.Connection | None = None
        closing = False
        while not closing:
            batch: list[_Job[Any]] = []
            job = queue.get()
            try:
                while job is not None:
                    batch.append(job)
                    if len(batch) == _BATCH_AT_MOST:
                        break
                    job = queue.get_nowait()
                closing = job is None
            except Empty:
                pass
            if not batch:
                continue
            try:
                if connection is None:
                    connection = _connect(self._path, wait=0)
                outcomes = _commit_batch(connection, batch)
            except Exception as exc:  # noqa: BLE001 - a thread that dies here would leave every later caller waiting
                outcomes = [_unavailable(exc)] * len(batch)
                # Whatever state it is in, a new connection is in none.
                if connection is not None:
                    connection.close()
                    connection = None
            _answer(batch, outcomes)
        if connection is not None:
            connection.close()

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
        connection = _connect(self._path, wait=_READ_FOR)
        connection.execute("PRAGMA query_only = ON")
        reader = _Reader(connection)
        self._local.reader = reader
        self._readers.add(reader)
        return connection

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
        if self._scanner is None or not self._is_open:
            raise Unavailable("store is not open")
        return await asyncio.get_running_loop().run_in_executor(self._scanner, partial(self._all, sql, *values))

    async def session(self, session_id: str) -> tuple[Session, Account] | None:
        row = self._one(_SESSION_AND_ACCOUNT, _key(session_id))
        return None if row is None else (_session(row, session_id), _account(row[_ACCOUNT_AT:]))

    async def sessions_of(self, subject: str) -> list[Session]:
        rows = self._all(_SESSIONS_OF, subject)
        return [_session(row, _id(row[0])) for row in rows]

    async def account(self, subject: str) -> Account | None:
        row = self._one(f"SELECT {_ACCOUNT_COLUMNS} FROM accounts a WHERE a.subject = ?", subject)
        return None if row is None else _account(row)

    async def account_by_email(self, email: str) -> Account | None:
        row = self._one(f"SELECT {_ACCOUNT_COLUMNS} FROM accounts a WHERE a.email = ?", email)
        return None if row is None else _account(row)

    async def accounts(self, *, search: str = "", after: str = "", limit: int = 100) -> list[Account]:
        # `instr` and not LIKE: it has no wildcards to escape.
        sql = (
            f"SELECT {_ACCOUNT_COLUMNS} FROM accounts a "
            "WHERE a.subject > ? AND instr(a.folded, ?) > 0 ORDER BY a.subject LIMIT ?"
        )
        return [_account(row) for row in await self._scan(sql, after, search.casefold(), limit)]

    async def credential(self, subject: str, method: str, handle: str = "") -> Credential | None:
        row = self._one(
            "SELECT proof, created_at, revision FROM credentials WHERE subject = ? AND method = ? AND handle = ?",
            subject,
            method,
            handle,
        )
        if row is None:
            return None
        proof, created_at, revision = row
        return Credential(
            subject=subject, method=method, handle=handle, proof=proof, created_at=created_at, revision=revision
        )

    async def one_time_token(self, id: str) -> OneTimeToken | None:
        row = self._one(
            "SELECT purpose, subject, email, secret_hash, created_at, expires_at FROM one_time_tokens WHERE id = ?",
            _key(id),
        )
        if row is None:
            return None
        purpose, subject, email, secret_hash, created_at, expires_at = row
        return OneTimeToken(
            id=id,
            purpose=purpose,
            subject=subject,
            email=email,
            secret_hash=secret_hash,
            created_at=created_at,
            expires_at=expires_at,
        )

    async def keys(self) -> list[StoredKey]:
        names = StoredKey.__struct_fields__
        return [
            StoredKey(**dict(zip(names, row, strict=True)))
            for row in self._all(_select(StoredKey, "keys") + " ORDER BY number")
        ]

    async def client(self, id: str) -> RegisteredClient | None:
        row = self._one(_select(RegisteredClient, "clients") + " WHERE id = ?", id)
        return None if row is None else _client(row)

    async def clients(self) -> list[RegisteredClient]:
        return [_client(row) for row in self._all(_select(RegisteredClient, "clients") + " ORDER BY id")]

    async def revocations(self, after: int) -> list[Revocation]:
        rows = self._all(
            "SELECT kind, id, min_epoch, expires_at, seq FROM revocations WHERE seq > ? ORDER BY seq", after
        )
        return [
            Revocation(kind=kind, id=id, min_epoch=min_epoch, expires_at=expires_at, seq=seq)
            for kind, id, min_epoch, expires_at, seq in rows
        ]

    async def events(
        self, *, subject: str = "", name: str = "", since: float = 0.0, before: str = "", limit: int = 100
    ) -> list[AuditEvent]:
        where: list[str] = ["at >= ?"]
        values: list[object] = [since]
        for clause, value in (("subject = ?", subject), ("name = ?", name), ("id < ?", _key(before) if before else "")):
            if value:
                where.append(clause)
                values.append(value)
        if subject:
            where.append("subject <> ''")  # says to the planner that the partial index has it
        sql = f"{_select(AuditEvent, 'events')} WHERE {' AND '.join(where)} ORDER BY id DESC LIMIT ?"
        return [_event(row) for row in await self._scan(sql, *values, limit)]

    # --- limits, upkeep -----------------------------------------------------------------------------------------------

    async def hit(self, buckets: Sequence[Bucket], now: float) -> tuple[float, str]:
        return await self._in_writer(partial(_hit, buckets, now), atomic=True, durable=False)

    async def give_back(self, buckets: Sequence[Bucket]) -> None:
        await self._in_writer(partial(_give_back, buckets), atomic=True, durable=False)

    async def forget(self, buckets: Sequence[Bucket]) -> None:
        await self._in_writer(partial(_forget, buckets), atomic=True, durable=False)

    async def purge(self, *, before: float, events_before: float) -> int:
        """Finds rows beside the writer and hands it a few hundred at a time, so that no commit waits long for it."""
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
                deleted += await self._in_writer(step, atomic=False, durable=False)
        return deleted

    async def counts(self) -> dict[str, int]:
        (row,) = await self._scan("SELECT " + ", ".join(f"(SELECT count(*) FROM {table})" for table in _TABLES))
        return dict(zip(_TABLES, row, strict=True))


_TABLES = (
    "accounts",
    "credentials",
    "sessions",
    "one_time_tokens",
    "keys",
    "clients",
    "revocations",
    "events",
    "limits",
)


# --- one batch --------------------------------------------------------------------------------------------------------


def _commit_batch(connection: sqlite3.Connection, batch: list[_Job[Any]]) -> list[object]:
    """Apply jobs in one transaction. Gives what each returned or raised; when this raises, none of them happened."""
    durable = any(job.durable for job in batch)
    # FULL flushes the log at every commit, NORMAL only before a checkpoint. A later FULL flushes what NORMAL left.
    connection.execute("PRAGMA synchronous = FULL" if durable else "PRAGMA synchronous = NORMAL")
    _begin(connection)
    outcomes: list[object] = []
    for job in batch:
        if not job.atomic:
            connection.execute("SAVEPOINT job")
        try:
            outcomes.append(job.apply(connection))
        except sqlite3.IntegrityError as exc:
            outcomes.append(Conflict(str(exc)))
        except sqlite3.OperationalError:
            raise
        except Exception as exc:  # noqa: BLE001 - one caller's bad value must not undo the others' commits
            outcomes.append(exc)
        else:
            if not job.atomic:
                connection.execute("RELEASE job")
            continue
        if not job.atomic:
            connection.execute("ROLLBACK TO job")
            connection.execute("RELEASE job")
    connection.execute("COMMIT")
    return outcomes


def _begin(connection: sqlite3.Connection) -> None:
    """Take the write lock. SQLite's own waiting backs off to 100 ms and starves one of several busy processes."""
    deadline = time.monotonic() + _LOCK_FOR
    while True:
        try:
            connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as exc:
            if exc.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() >= deadline:
                raise
            time.sleep(0.0005)
        else:
            return


def _answer(batch: list[_Job[Any]], outcomes: list[object]) -> None:
    """Tell every loop of its jobs' outcomes, with one wake-up for a loop and not one for a job."""
    by_loop: dict[asyncio.AbstractEventLoop, list[tuple[asyncio.Future[Any], object]]] = {}
    for job, outcome in zip(batch, outcomes, strict=True):
        by_loop.setdefault(job.loop, []).append((job.future, outcome))
    for loop, answers in by_loop.items():
        try:
            loop.call_soon_threadsafe(_resolve, answers)
        except RuntimeError:  # the loop was closed: nobody is left to tell
            continue


def _resolve(answers: list[tuple[asyncio.Future[Any], object]]) -> None:
    for future, outcome in answers:
        if future.done():  # cancelled, or gave up
            continue
        if isinstance(outcome, Exception):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)


def _give_up(future: asyncio.Future[Any]) -> None:
    if not future.done():
        future.set_exception(Unavailable("the disk does not answer"))


def _unavailable(exc: BaseException) -> DutchdoorError:
    return exc if isinstance(exc, DutchdoorError) else Unavailable(f"sqlite: {exc}")


# --- changes ----------------------------------------------------------------------------------------------------------


def _apply_all(changes: Sequence[Change], connection: sqlite3.Connection) -> Committed:
    ended = 0
    for change in changes:
        ended += _apply(change, connection)
    return Committed(connection.execute("SELECT seq FROM revocation_head").fetchone()[0], ended)


def _apply(change: Change, connection: sqlite3.Connection) -> int:
    match change:
        case Add(record):
            _add(record, connection)
        case Swap(record):
            _swap(record, connection)
        case Remove(record):
            _remove(record, connection)
        case Expect(subject, epoch):
            sql = "SELECT 1 FROM accounts WHERE subject = ? AND epoch = ? AND active"
            if connection.execute(sql, (subject, epoch)).fetchone() is None:
                raise Conflict("account is gone, disabled or of another epoch")
        case Take(id):
            _must_change(connection.execute("DELETE FROM one_time_tokens WHERE id = ?", (_key(id),)))
        case Discard(subject, purpose):
            connection.execute("DELETE FROM one_time_tokens WHERE subject = ? AND purpose = ?", (subject, purpose))
        case End(session_id, reason, at):
            sql = f"UPDATE sessions SET {_END} WHERE id = ? AND ended_at IS NULL"
            _must_change(connection.execute(sql, (at, reason, _key(session_id))))
        case EndAll(subject, reason, at, keep):
            sql = (
                f"UPDATE sessions SET {_END} WHERE account = (SELECT number FROM accounts WHERE subject = ?) "
                "AND ended_at IS NULL AND id IS NOT ?"
            )
            return connection.execute(sql, (at, reason, subject, None if keep is None else _key(keep))).rowcount
        case Revoke(entry):
            connection.execute("UPDATE revocation_head SET seq = seq + 1")
            connection.execute(
                "INSERT INTO revocations (seq, kind, id, min_epoch, expires_at) SELECT seq, ?, ?, ?, ? FROM revocation_head",
                (entry.kind, entry.id, entry.min_epoch, entry.expires_at),
            )
        case Log(event):
            connection.execute(_insert(AuditEvent, "events"), (_key(event.id), *_values(event)[1:]))
    return 0


_END = "ended_at = ?, end_reason = ?, revision = revision + 1"


def _add(record: Struct, connection: sqlite3.Connection) -> None:
    match record:
        case Account():
            columns = (
                "subject, email, address, name, roles, active, email_verified_at, epoch, created_at, folded, revision"
            )
            connection.execute(
                f"INSERT INTO accounts ({columns}) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, 0)",
                (record.subject, *_account_values(record)),
            )
        case Credential():
            connection.execute(_insert(Credential, "credentials"), _first(record))
        case Session():
            # The SELECT finds no row where there is no account.
            sql = (
                "INSERT INTO sessions (account, id, epoch, amr, auth_time, client_id, country, created_at, hybrid, scope, secret_hash, salt, "
                "master_key_id, ended_at, last_seen_at, idle_expires_at, expires_at, generation, sibling, parent_sibling, rotated_at, "
                "sibling_at, fingerprint, device, address, end_reason, revision) "
                f"SELECT number, {', '.join('?' * 25)}, 0 FROM accounts WHERE subject = ?"
            )
            values = (
                _key(record.id), record.epoch, _joined(record.amr), record.auth_time, record.client_id, record.country, record.created_at,
                record.mode == "hybrid", record.scope, record.secret_hash, record.salt, record.master_key_id, record.ended_at,
                *_moving(record), record.end_reason, record.subject,
            )  # fmt: skip
            _must_change(connection.execute(sql, values))
        case OneTimeToken():
            connection.execute(_insert(OneTimeToken, "one_time_tokens"), (_key(record.id), *_values(record)[1:]))
        case StoredKey():
            connection.execute(_insert(StoredKey, "keys"), _first(record))
        case RegisteredClient():
            connection.execute(_insert(RegisteredClient, "clients"), _first(record))
        case _:
            raise TypeError(f"{type(record).__name__} is not a record")


def _swap(record: Struct, connection: sqlite3.Connection) -> None:
    match record:
        case Session():
            # Only the columns that move, and not those of the index, so that the everyday swap leaves the index alone.
            fixed = (
                "epoch = ?, amr = ?, auth_time = ?, client_id = ?, country = ?, created_at = ?, hybrid = ?, scope = ?, secret_hash = ?, "
                "salt = ?, master_key_id = ?, "
            )
            moving = (
                "last_seen_at = ?, idle_expires_at = ?, expires_at = ?, generation = ?, sibling = ?, parent_sibling = ?, rotated_at = ?, "
                "sibling_at = ?, fingerprint = ?, device = ?, address = ?, "
            )
            ending = "" if record.ended_at is None else "ended_at = ?, "
            sql = (
                f"UPDATE sessions SET {fixed}{ending}{moving}end_reason = ?, revision = revision + 1 WHERE id = ? AND revision = ? "
                "AND ended_at IS NULL AND account = (SELECT number FROM accounts WHERE subject = ?)"
            )
            values = (
                record.epoch, _joined(record.amr), record.auth_time, record.client_id, record.country, record.created_at,
                record.mode == "hybrid", record.scope, record.secret_hash, record.salt, record.master_key_id,
                *(() if record.ended_at is None else (record.ended_at,)), *_moving(record), record.end_reason,
                _key(record.id), record.revision, record.subject,
            )  # fmt: skip
        case Account():
            sql = (
                "UPDATE accounts SET email = ?, address = ?, name = ?, roles = ?, active = ?, email_verified_at = ?, epoch = ?, "
                "created_at = ?, folded = ?, revision = revision + 1 WHERE subject = ? AND revision = ?"
            )
            values = (*_account_values(record), record.subject, record.revision)
        case Credential():
            sql = (
                "UPDATE credentials SET proof = ?, created_at = ?, revision = revision + 1 "
                "WHERE subject = ? AND method = ? AND handle = ? AND revision = ?"
            )
            values = (record.proof, record.created_at, record.subject, record.method, record.handle, record.revision)
        case StoredKey():
            sql = (
                "UPDATE keys SET number = ?, alg = ?, sealed = ?, created_at = ?, signs_at = ?, signs_until = ?, verifies_until = ?, "
                "revoked_at = ?, revision = revision + 1 WHERE kid = ? AND revision = ?"
            )
            values = (*_values(record)[1:-1], record.kid, record.revision)
        case RegisteredClient():
            sql = (
                "UPDATE clients SET name = ?, secret_hash = ?, created_at = ?, revision = revision + 1 "
                "WHERE id = ? AND revision = ?"
            )
            values = (record.name, record.secret_hash, record.created_at, record.id, record.revision)
        case _:
            raise TypeError(f"{type(record).__name__} is not swapped")
    _must_change(connection.execute(sql, values))


def _remove(record: Struct, connection: sqlite3.Connection) -> None:
    match record:
        case Account(subject=subject):
            for table in ("accounts", "credentials", "one_time_tokens"):
                connection.execute(f"DELETE FROM {table} WHERE subject = ?", (subject,))
        case Credential():
            connection.execute(
                "DELETE FROM credentials WHERE subject = ? AND method = ? AND handle = ?",
                (record.subject, record.method, record.handle),
            )
        case RegisteredClient():
            connection.execute("DELETE FROM clients WHERE id = ?", (record.id,))
        case _:
            raise TypeError(f"{type(record).__name__} is not removed")


def _must_change(cursor: sqlite3.Cursor) -> None:
    if cursor.rowcount != 1:
        raise Conflict("row is not there, or was written since it was read")


def _hit(buckets: Sequence[Bucket], now: float, connection: sqlite3.Connection) -> tuple[float, str]:
    verdict = decide_all([_tat(bucket, connection) for bucket in buckets], buckets, now)
    changed = [(bucket.key, tat) for bucket, tat in zip(buckets, verdict.tats, strict=True) if tat is not None]
    connection.executemany("INSERT OR REPLACE INTO limits (key, tat) VALUES (?, ?)", changed)
    return verdict.retry_after, verdict.refused_by


def _give_back(buckets: Sequence[Bucket], connection: sqlite3.Connection) -> None:
    for bucket in buckets:
        if (tat := _tat(bucket, connection)) is not None:
            connection.execute("UPDATE limits SET tat = ? WHERE key = ?", (give_back(tat, bucket.limit), bucket.key))


def _forget(buckets: Sequence[Bucket], connection: sqlite3.Connection) -> None:
    connection.executemany("DELETE FROM limits WHERE key = ?", [(bucket.key,) for bucket in buckets])


def _tat(bucket: Bucket, connection: sqlite3.Connection) -> float | None:
    row = connection.execute("SELECT tat FROM limits WHERE key = ?", (bucket.key,)).fetchone()
    return None if row is None else row[0]


def _delete(sql: str, rows: list[Row], connection: sqlite3.Connection) -> int:
    return connection.executemany(sql, rows).rowcount


# --- records and rows -------------------------------------------------------------------------------------------------

_MODES = "session", "hybrid"
_STATUS = "disabled", "active"
_ID_CHARS = 22

_SESSION_COLUMNS = (
    "s.id, s.hybrid, s.client_id, s.scope, s.secret_hash, s.salt, s.master_key_id, s.epoch, s.amr, s.auth_time, s.created_at, "
    "s.last_seen_at, s.idle_expires_at, s.expires_at, s.generation, s.sibling, s.parent_sibling, s.rotated_at, s.sibling_at, "
    "s.fingerprint, s.device, s.address, s.country, s.ended_at, s.end_reason, s.revision"
)
_ACCOUNT_AT = 26
"""How many of them there are: in a joined row, the account's begin here."""
_ACCOUNT_COLUMNS = (
    "a.subject, a.email, a.address, a.name, a.roles, a.active, a.email_verified_at, a.epoch, a.created_at, a.revision"
)
_JOINED = f"SELECT {_SESSION_COLUMNS}, {_ACCOUNT_COLUMNS} FROM sessions s JOIN accounts a ON a.number = s.account"
_SESSION_AND_ACCOUNT = f"{_JOINED} WHERE s.id = ?"
_SESSIONS_OF = f"{_JOINED} WHERE a.subject = ? AND s.ended_at IS NULL ORDER BY s.created_at DESC, s.id DESC"


def _key(id: str) -> bytes | str:
    """Give an id as it is stored: 16 bytes where it is the canonical text of 16 bytes, else the text itself.

    Two texts must never meet in one row: the second would be an id that we did not make and yet found.
    """
    return pybase64.urlsafe_b64decode(id + "==") if len(id) == _ID_CHARS and is_id(id) else id


def _id(key: bytes | str) -> str:
    return key if isinstance(key, str) else pybase64.urlsafe_b64encode(key)[:_ID_CHARS].decode()


def _joined(names: tuple[str, ...]) -> str:
    """Join names by spaces. A name that holds one, or is empty, would be read as others than were written."""
    text = " ".join(names)
    if _split(text) != names:
        raise ValueError("a role or an amr value is empty or holds a space")
    return text


@lru_cache(1024)
def _split(text: str) -> tuple[str, ...]:
    return tuple(text.split(" ")) if text else ()


def _session(row: Row, session_id: str) -> Session:
    (
        _, hybrid, client_id, scope, secret_hash, salt, master_key_id, epoch, amr, auth_time, created_at, last_seen_at, idle_expires_at,
        expires_at, generation, sibling, parent_sibling, rotated_at, sibling_at, fingerprint, device, address, country, ended_at,
        end_reason, revision, subject, *_,
    ) = row  # fmt: skip
    return Session(
        id=session_id,
        subject=subject,
        mode=_MODES[hybrid],  # type: ignore[arg-type]
        client_id=client_id,
        scope=scope,
        secret_hash=secret_hash,
        salt=salt,
        master_key_id=master_key_id,
        epoch=epoch,
        amr=_split(amr),
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


def _account(row: Row) -> Account:
    subject, email, address, name, roles, active, email_verified_at, epoch, created_at, revision = row
    return Account(
        subject=subject,
        email=email,
        address=address,
        name=name,
        roles=_split(roles),
        status=_STATUS[active],  # type: ignore[arg-type]
        email_verified_at=email_verified_at,
        epoch=epoch,
        created_at=created_at,
        revision=revision,
    )


def _client(row: Row) -> RegisteredClient:
    id, name, secret_hash, created_at, revision = row
    return RegisteredClient(id=id, name=name, secret_hash=secret_hash, created_at=created_at, revision=revision)


def _event(row: Row) -> AuditEvent:
    values = dict(zip(AuditEvent.__struct_fields__, row, strict=True))
    values["id"] = _id(row[0])
    return AuditEvent(**values)


def _account_values(account: Account) -> Row:
    folded = "\n".join((account.email or "", account.address or "", account.name)).casefold()
    return (
        account.email, account.address, account.name, _joined(account.roles), account.active, account.email_verified_at,
        account.epoch, account.created_at, folded,
    )  # fmt: skip


def _moving(session: Session) -> Row:
    """What a refresh or a sighting changes, in the order in which both statements name it."""
    return (
        session.last_seen_at, session.idle_expires_at, session.expires_at, session.generation, session.sibling, session.parent_sibling,
        session.rotated_at, session.sibling_at, session.fingerprint, session.device, session.address,
    )  # fmt: skip


def _values(record: Struct) -> Row:
    return tuple(getattr(record, name) for name in record.__struct_fields__)


def _first(record: Credential | StoredKey | RegisteredClient) -> Row:
    """The values of a record that is new: its revision, the last of them, is 0 whatever it says."""
    return (*_values(record)[:-1], 0)


def _select(kind: type[Struct], table: str) -> str:
    return f"SELECT {', '.join(kind.__struct_fields__)} FROM {table}"


def _insert(kind: type[Struct], table: str) -> str:
    names = kind.__struct_fields__
    return f"INSERT INTO {table} ({', '.join(names)}) VALUES ({', '.join('?' * len(names))})"


# --- the file ---------------------------------------------------------------------------------------------------------


def _connect(path: str, *, wait: float) -> sqlite3.Connection:
    # Connections are closed by whoever closes the store, which may be another thread than the one that reads.
    connection = sqlite3.connect(path, timeout=wait, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA synchronous = FULL")
    return connection


def _prepare(path: str) -> None:
    """Create the file if it is not there, for its owner's eyes only, and bring its schema up to date."""
    try:
        if not os.path.isdir(os.path.dirname(path)):
            raise Misconfigured(f"no such directory: {os.path.dirname(path)}")
        try:
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
        except FileExistsError:
            pass
        connection = _connect(path, wait=_OPEN_FOR)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            _migrate(connection, _migrations())
        finally:
            connection.close()
    except sqlite3.DatabaseError as exc:
        if exc.sqlite_errorcode == sqlite3.SQLITE_NOTADB:
            raise Misconfigured(f"{path} is not a database") from exc
        raise _unavailable(exc) from exc
    except OSError as exc:
        raise Unavailable(f"{path}: {exc.strerror}") from exc


def _migrations() -> list[tuple[str, str]]:
    """Every migration by name, in order: numbered files, which are never changed once released."""
    folder = files("dutchdoor.stores").joinpath("schema", "sqlite")
    return sorted((file.name, file.read_text("utf-8")) for file in folder.iterdir() if file.name.endswith(".sql"))


def _migrate(connection: sqlite3.Connection, migrations: list[tuple[str, str]]) -> None:
    """Apply what is missing, each file in one transaction with the note that it was applied: killed anywhere, it resumes."""
    for name, text in migrations:
        connection.execute("BEGIN IMMEDIATE")
        try:
            # Under the lock, since another process may have been here a moment ago.
            _check_ours(connection, migrations)
            done = connection.execute("SELECT 1 FROM migrations WHERE name = ?", (name,)).fetchone()
            if done is None:
                for statement in _statements(text):
                    connection.execute(statement)
                connection.execute("INSERT INTO migrations VALUES (?, ?)", (name, _digest(text)))
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise


def _check_ours(connection: sqlite3.Connection, migrations: list[tuple[str, str]]) -> None:
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")}
    if not tables:
        connection.execute(
            "CREATE TABLE migrations (name TEXT PRIMARY KEY NOT NULL, sha256 TEXT NOT NULL) WITHOUT ROWID"
        )
        return
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    if "migrations" not in tables or application != _APPLICATION:
        raise Misconfigured("the database belongs to another application")
    known = {name: _digest(text) for name, text in migrations}
    for name, digest in connection.execute("SELECT name, sha256 FROM migrations"):
        if name not in known:
            raise Misconfigured(f"the database is newer than this program: it has had {name}")
        if known[name] != digest:
            raise Misconfigured(f"{name} is not the migration this database has had: a released one was changed")


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
