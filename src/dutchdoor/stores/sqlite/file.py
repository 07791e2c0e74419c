"""Creates and opens the database file, and brings its schema up to date."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
import time
from collections.abc import Sequence
from pathlib import Path

from dutchdoor.errors import Conflict, DutchdoorError, Misconfigured, Unavailable
from dutchdoor.stores.kinds import Kinds
from dutchdoor.stores.migrations import Migration, refuse_another_schema
from dutchdoor.stores.sqlite.head import Head
from dutchdoor.stores.sqlite.permissions import refuse_open
from dutchdoor.stores.transfer import refuse_unless_whole

__all__ = ["READ_FOR", "connect", "patiently", "prepare", "unavailable", "vacuum"]

READ_FOR = 0.5
"""Seconds a read waits: only while another process opens, recovers or closes the file, which takes milliseconds."""
_OPEN_FOR = 30.0
"""Seconds to wait for another process's migration."""
_APPLICATION = 0x64646F6F

_preparing = threading.Lock()


def connect(path: Path, *, wait: float) -> sqlite3.Connection:
    # The thread that closes the store also closes the connections, and may not be the thread that reads.
    connection = sqlite3.connect(path, timeout=wait, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA synchronous = FULL")
    return connection


def prepare(path: Path, kinds: Kinds, *, to_move: bool, as_is: bool) -> Head:
    """Create the file if it does not exist, and bring its schema up to date; or refuse if this is needed and the file
    is opened `as_is`. One at a time in a process: see below.
    """
    migrations = kinds.migrations("sqlite")
    with _preparing:
        try:
            if not path.parent.is_dir():
                raise Misconfigured(
                    f"There is no directory {path.parent} for the database {path.name}. Create it first."
                )
            if as_is and not path.exists():
                refuse_another_schema(str(path), (), migrations)
            # Only if there is no file. Closing a descriptor of a file that SQLite has open in this process would drop
            # SQLite's locks on it: POSIX requires that, and it corrupts databases.
            with contextlib.suppress(FileExistsError):
                os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600))
            owner = path.stat().st_uid
            for file in (path, *(path.with_name(path.name + end) for end in ("-wal", "-shm", "-journal"))):
                with contextlib.suppress(FileNotFoundError):
                    refuse_open(file, file.lstat(), owner)
            if to_move:
                _refuse_company(path)
            connection = connect(path, wait=_OPEN_FOR)
            try:
                if as_is:
                    refuse_another_schema(str(path), _applied(connection, migrations), migrations)
                patiently(connection, "PRAGMA journal_mode = WAL", _OPEN_FOR)
                _migrate(connection, migrations)
                connection.execute("BEGIN IMMEDIATE")
                if not to_move:
                    refuse_unless_whole((kind for (kind,) in connection.execute("SELECT kind FROM moving")), str(path))
                log_epoch, seq = connection.execute("SELECT epoch, seq FROM revocation_log").fetchone()
                return Head(path, log_epoch, seq)
            finally:
                connection.close()
        except sqlite3.DatabaseError as exc:
            if exc.sqlite_errorcode == sqlite3.SQLITE_NOTADB:
                raise Misconfigured(f"{path} is not a database.") from exc
            raise unavailable(exc) from exc
        except OSError as exc:
            raise Unavailable(f"{path}: {exc.strerror}") from exc


def _refuse_company(path: Path) -> None:
    """Raise `Conflict` if another connection has the database open: an exclusive connection excludes all others."""
    connection = connect(path, wait=0)
    try:
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        patiently(connection, "BEGIN IMMEDIATE", READ_FOR)
    except sqlite3.OperationalError as exc:
        if exc.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY:
            raise
        text = f"Another process has {path} open. Stop all servers and commands that use it, and run this again."
        raise Conflict(text, message=text) from None
    finally:
        connection.close()


def vacuum(path: Path) -> None:
    """Write the file anew without the pages of deleted rows.

    Raises:
        Conflict: another process has it open, and its commits would have to wait.
        Unavailable: the disk has no room for a copy of the file.
    """
    try:
        _refuse_company(path)
        connection = connect(path, wait=_OPEN_FOR)
        try:
            connection.execute("VACUUM")
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        finally:
            connection.close()
    except sqlite3.Error as exc:
        raise unavailable(exc) from exc


def _migrate(connection: sqlite3.Connection, migrations: Sequence[Migration]) -> None:
    """Apply what is missing, each file in one transaction with its record. After a kill, the next call resumes."""
    for migration in migrations:
        connection.execute("BEGIN IMMEDIATE")
        # Under the lock, since another process may have migrated a moment ago.
        applied = _applied(connection, migrations)
        if not applied:
            connection.execute("CREATE TABLE migrations (name TEXT PRIMARY KEY NOT NULL, sha256 TEXT NOT NULL)")
        if migration.name not in applied:
            for statement in _statements(migration.text):
                connection.execute(statement)
            connection.execute("INSERT INTO migrations VALUES (?, ?)", (migration.name, migration.sha256))
        connection.execute("COMMIT")


def _applied(connection: sqlite3.Connection, migrations: Sequence[Migration]) -> set[str]:
    """Names of the applied migrations. Raises `Misconfigured` if this program and this database do not fit."""
    tables = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
    if not tables:
        return set()
    (application,) = connection.execute("PRAGMA application_id").fetchone()
    if "migrations" not in tables or application != _APPLICATION:
        raise Misconfigured("The database belongs to another application.")
    known = {migration.name: migration.sha256 for migration in migrations}
    applied = dict(connection.execute("SELECT name, sha256 FROM migrations"))
    for name, digest in applied.items():
        if name not in known:
            raise Misconfigured(f"The database is newer than this program: it has had {name}.")
        if known[name] != digest:
            raise Misconfigured(f"{name} is not the migration this database has had: a released one was changed.")
    return set(applied)


def _statements(text: str) -> list[str]:
    statements, gathered = [], ""
    for line in text.splitlines(keepends=True):
        gathered += line
        if sqlite3.complete_statement(gathered):
            statements.append(gathered)
            gathered = ""
    return statements


def patiently(connection: sqlite3.Connection, statement: str, wait: float) -> None:
    """Execute a statement that other processes may block, for so many seconds at most.

    SQLite does not wait at all where it might deadlock: two processes open a new file at once, and both turn on its
    write-ahead log.
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


def unavailable(exc: BaseException) -> DutchdoorError:
    return exc if isinstance(exc, DutchdoorError) else Unavailable(f"sqlite: {exc}")
