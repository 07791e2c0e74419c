"""What a transaction does: the changes of a commit, attempts against limits, and the steps of a move."""

# ruff: noqa: S608 - every statement here is put together from constants and from descriptions; values are bound, always

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from msgspec import Struct
from msgspec.structs import replace

from dutchdoor.errors import Conflict
from dutchdoor.model.accounts import Account
from dutchdoor.model.audit_events import AuditEvent
from dutchdoor.model.rate_limits import Bucket, decide_all, give_back
from dutchdoor.model.sessions import Session
from dutchdoor.stores.base import (
    Add,
    Change,
    Discard,
    End,
    EndAll,
    Expect,
    ExpectFew,
    ExpectLive,
    ExpectRole,
    Forgive,
    Log,
    Remove,
    Revoke,
    Revoked,
    Swap,
    Take,
)
from dutchdoor.stores.sql import Row, account_values, quoted, session_values
from dutchdoor.stores.sqlite.log import begin_log_epoch
from dutchdoor.stores.sqlite.records import (
    ADD_ACCOUNT,
    ADD_EVENT,
    ADD_SESSION,
    SQLITE,
    SWAP_ACCOUNT,
    SWAP_AND_END,
    SWAP_SESSION,
    Tables,
    stored_id,
)
from dutchdoor.stores.sqlite.writer import Transaction
from dutchdoor.stores.transfer import LEFT, LogState, Page

__all__ = ["apply_all", "begin_move", "delete", "end_move", "hit", "leave", "take_in"]


def apply_all(changes: Sequence[Change], transaction: Transaction) -> Revoked:
    ended, before, longest = 0, transaction.seq, 0.0
    for change in changes:
        ended += _apply(change, transaction)
    if transaction.seq != before:
        longest = transaction.execute("SELECT ifnull(max(lease_for), 0.0) FROM nodes").fetchone()[0]
    return Revoked(transaction.seq, ended, transaction.log_epoch, longest)


def _apply(change: Change, transaction: Transaction) -> int:  # noqa: C901, PLR0912 - a branch for each kind of change
    execute, tables = transaction.execute, transaction.tables
    match change:
        case Add(record):
            _must_change(execute(*_added(record, tables)))
        case Swap(record):
            _must_change(execute(*_swapped(record, tables)))
            if isinstance(record, Session) and record.ended_at is not None:
                _delete_with(record.id, transaction)
        case Remove(Account(subject=subject)):
            execute("DELETE FROM accounts WHERE subject = ?", (subject,))
            for kind in tables.kinds.general:
                if kind.owner:
                    execute(*tables.of(kind.record).deleted({kind.owner: subject}))
        case Remove(record):
            execute(*tables.of(type(record)).deleted_by_key(record))
        case Expect(subject, epoch):
            sql = "SELECT 1 FROM accounts WHERE subject = ? AND epoch = ? AND active"
            if execute(sql, (subject, epoch)).fetchone() is None:
                raise Conflict("account is gone, disabled or of another epoch")
        case ExpectFew(subject, at_most, at):
            sql = "SELECT count(*) FROM revocations WHERE subject = ? AND expires_at > ?"
            if execute(sql, (subject, at)).fetchone()[0] > at_most:
                raise Conflict("many revocations of the subject are live")
        case ExpectLive(session_id, subject):
            if execute(_LIVE, (stored_id(session_id), subject)).fetchone() is None:
                raise Conflict("session is not there or has ended")
        case ExpectRole(role):
            sql = f"SELECT 1 FROM accounts a WHERE {SQLITE.with_role} LIMIT 1"
            if execute(sql, (f" {role} ",)).fetchone() is None:
                raise Conflict("no active account has the role")
        case Take(record):
            _must_change(execute(*tables.of(type(record)).deleted_by_key(record)))
        case Discard(kind, values):
            execute(*tables.of(kind).deleted(values))
        case End(session_id, reason, at):
            _must_change(execute(f"{_END} id = ?", (at, reason, stored_id(session_id))))
            _delete_with(session_id, transaction)
        case EndAll(subject, reason, at, keep):
            which = subject, None if keep is None else stored_id(keep)
            for kind in tables.kinds.general:
                if kind.session:
                    execute(
                        f"DELETE FROM {tables.of(kind.record).name} WHERE {quoted(kind.session)} IN ({_ENDING})", which
                    )
            return execute(_END_ALL, (at, reason, *which)).rowcount
        case Revoke(entry):
            transaction.seq += 1
            execute(*tables.by_name["revocations"].added(replace(entry, seq=transaction.seq)))
        case Forgive(returned, forgotten):
            _forgive(returned, forgotten, transaction)
        case Log(event):
            transaction.audited += 1
            execute(ADD_EVENT, (*tables.by_name["events"].values(event), transaction.log_epoch, transaction.audited))
    return 0


_END = "UPDATE sessions SET ended_at = ?, end_reason = ?, revision = revision + 1 WHERE ended_at IS NULL AND"
_OF_SUBJECT = "account = (SELECT number FROM accounts WHERE subject = ?) AND id IS NOT ?"
_END_ALL = f"{_END} {_OF_SUBJECT}"
_ENDING = f"SELECT id FROM sessions WHERE ended_at IS NULL AND {_OF_SUBJECT}"
_LIVE = (
    "SELECT 1 FROM sessions s JOIN accounts a ON a.number = s.account WHERE s.id = ? AND a.subject = ? "
    "AND s.ended_at IS NULL"
)


def _delete_with(session_id: str, transaction: Transaction) -> None:
    """Delete what belongs to a session that has ended."""
    tables = transaction.tables
    for kind in tables.kinds.general:
        if kind.session:
            transaction.execute(*tables.of(kind.record).deleted({kind.session: session_id}))


def _added(record: Struct, tables: Tables) -> tuple[str, Row]:
    """Return the statement that inserts a record with revision 0, whatever the record says, or changes no row."""
    match record:
        case Session():
            return ADD_SESSION, (stored_id(record.id), record.ended_at, *session_values(record), record.subject)
        case Account():
            return ADD_ACCOUNT, (record.subject, *account_values(record))
        case _:
            return tables.of(type(record)).added(record)


def _swapped(record: Struct, tables: Tables) -> tuple[str, Row]:
    """Return the statement that replaces a record of the same revision, or changes no row."""
    match record:
        case Session():
            # The index holds sessions that have not ended: a normal swap names no column of it, and leaves it alone.
            sql, ending = (SWAP_SESSION, ()) if record.ended_at is None else (SWAP_AND_END, (record.ended_at,))
            return sql, (*session_values(record), *ending, stored_id(record.id), record.revision, record.subject)
        case Account():
            return SWAP_ACCOUNT, (*account_values(record), record.subject, record.revision)
        case _:
            return tables.of(type(record)).replaced(record)


def _must_change(cursor: sqlite3.Cursor) -> None:
    if cursor.rowcount != 1:
        raise Conflict("row is not there, or was written since it was read")


# --- limits, upkeep ---------------------------------------------------------------------------------------------------


def hit(buckets: Sequence[Bucket], now: float, transaction: Transaction) -> tuple[float, str]:
    verdict = decide_all([_tat(bucket, transaction) for bucket in buckets], buckets, now)
    changed = [(bucket.key, tat) for bucket, tat in zip(buckets, verdict.tats, strict=True) if tat is not None]
    transaction.connection.executemany("INSERT OR REPLACE INTO limits (key, tat) VALUES (?, ?)", changed)
    return verdict.retry_after, verdict.refused_by


def _forgive(returned: Sequence[Bucket], forgotten: Sequence[Bucket], transaction: Transaction) -> None:
    for bucket in returned:
        if (tat := _tat(bucket, transaction)) is not None:
            transaction.execute("UPDATE limits SET tat = ? WHERE key = ?", (give_back(tat, bucket.limit), bucket.key))
    transaction.connection.executemany("DELETE FROM limits WHERE key = ?", [(bucket.key,) for bucket in forgotten])


def _tat(bucket: Bucket, transaction: Transaction) -> float | None:
    row = transaction.execute("SELECT tat FROM limits WHERE key = ?", (bucket.key,)).fetchone()
    return None if row is None else row[0]


def delete(sql: str, values: Row, transaction: Transaction) -> int:
    return transaction.execute(sql, values).rowcount


# --- moving -----------------------------------------------------------------------------------------------------------


def begin_move(log: LogState, transaction: Transaction) -> None:
    execute, tables = transaction.execute, transaction.tables.kinds.tables
    superseded = "SELECT 1 FROM moving, revocation_log WHERE moving.kind <> ? OR revocation_log.salt = ?"
    if execute(superseded, (LEFT, log.salt)).fetchone() is None:
        taken = [table for table in tables if execute(f'SELECT 1 FROM "{table}" LIMIT 1').fetchone()]
        if taken or transaction.seq:
            raise Conflict(f"there is something in this database already: {', '.join(taken) or 'a log'}")
    for table in (*tables, "nodes", "moving"):
        execute(f'DELETE FROM "{table}"')
    execute("INSERT INTO moving VALUES ('', NULL)")
    execute("UPDATE revocation_log SET salt = ?, audit_log = lower(hex(randomblob(8)))", (log.salt,))
    transaction.log_epoch, transaction.seq = log.log_epoch, log.seq


def take_in(name: str, page: Page, transaction: Transaction) -> None:
    _must_be_moving(transaction)
    table = transaction.tables.by_name[name]
    rows = [table.values(record) for record in page.records]
    if transaction.connection.executemany(table.put, rows).rowcount != len(rows) and rows:
        raise Conflict("a session's account is not there")
    transaction.execute("INSERT OR REPLACE INTO moving VALUES (?, ?)", (name, page.after))


def end_move(now: float, event: AuditEvent, transaction: Transaction) -> int:
    take_in("events", Page([event], None), transaction)
    transaction.execute("DELETE FROM moving")
    return begin_log_epoch(now, transaction)


def leave(transaction: Transaction, *, left: bool) -> None:
    transaction.execute(
        "INSERT OR REPLACE INTO moving VALUES (?, NULL)" if left else "DELETE FROM moving WHERE kind = ?", (LEFT,)
    )


def _must_be_moving(transaction: Transaction) -> None:
    if transaction.execute("SELECT 1 FROM moving WHERE kind <> ?", (LEFT,)).fetchone() is None:
        raise Conflict("no move into this store was begun")
