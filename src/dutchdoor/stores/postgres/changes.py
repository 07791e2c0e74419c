"""What is written, in the form that the functions of the schema take.

A job is JSON: the changes to apply, in order. Beside it is what must come last in a transaction, because every other
writer waits for it: entries of the log, and limits.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from dutchdoor.errors import Conflict
from dutchdoor.model.accounts import Account
from dutchdoor.model.rate_limits import Bucket
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
from dutchdoor.stores.postgres.batches import Order
from dutchdoor.stores.postgres.connection import Row
from dutchdoor.stores.postgres.rows import Tables, stored_id, write_bytes, write_record, write_text

__all__ = ["COMMIT", "HIT", "read_committed", "to_json", "write_bucket", "write_job"]

COMMIT = "SELECT possible, ended, seq, log_epoch, longest_lease FROM dutchdoor.commit_1($1)"
HIT = "SELECT retry_after, refused_by FROM dutchdoor.hit_1($1)"

to_json = msgspec.json.encode


def read_committed(row: Row) -> Revoked | Conflict:
    possible, ended, seq, log_epoch, longest = row
    if not possible:
        return Conflict("row is not there, or was written since it was read")
    return Revoked(seq, ended, log_epoch, longest)


def write_job(changes: Sequence[Change], tables: Tables) -> tuple[bytes, Order | None]:
    job: dict[str, Any] = {
        "changes": [_change(one, tables) for one in changes if not isinstance(one, Revoke | Forgive)]
    }
    entries = [write_record(one.entry) for one in changes if isinstance(one, Revoke)]
    if entries:
        job["revoke"] = entries
    forgiven = [one for one in changes if isinstance(one, Forgive)]
    if forgiven:
        job["back"] = [write_bucket(bucket) for one in forgiven for bucket in one.give_back]
        job["forget"] = [write_text(bucket.key) for one in forgiven for bucket in one.forget]
    order = _order(changes, tables)
    if order is None:
        job["whole"] = True
        locks = _locks(changes)
        if locks:
            job["locks"] = locks
    return to_json(job), order


def _order(changes: Sequence[Change], tables: Tables) -> Order | None:
    """Return the place in a batch, or None for a job that goes alone.

    A job may share its transaction under two conditions. If it is impossible, it must fail before it has written
    anything. And it takes at most one lock that others might wait for, or the lock of an account that it shares and
    nothing after that.
    """
    order: Order = 9, ""
    may_be_impossible = True
    for change in changes:
        match change:
            case Revoke() | Forgive():
                pass
            case Log():
                may_be_impossible = False
            case _ if not may_be_impossible:
                return None
            case ExpectFew():  # it takes no lock
                pass
            case Expect(subject) if order[0] == 9:  # noqa: PLR2004 - nothing came before it
                order = 0, subject
            case Add(Session()) if order[0] in {0, 9}:
                order, may_be_impossible = (0, order[1]), False
            case Swap(Session(id=id)) | End(id) if order[0] == 9:  # noqa: PLR2004
                order, may_be_impossible = (1, write_bytes(stored_id(id))), False
            case Take(record) if order[0] == 9:  # noqa: PLR2004
                kind = tables.of(type(record)).kind
                order, may_be_impossible = (2, f"{kind.table} {kind.key_of(record)}"), False
            case _:
                return None
    return order


def _locks(changes: Sequence[Change]) -> dict[str, object]:
    """The rows that a job alone will change, if they are or may be several: they are locked in one order."""
    accounts: dict[str, bool] = {}
    sessions: list[str] = []
    sessions_of: list[str] = []
    for change in changes:
        match change:
            case Swap(Account(subject=subject)) | Remove(Account(subject=subject)):
                accounts[write_text(subject)] = True
            case Expect(subject):
                accounts.setdefault(write_text(subject), False)
            case EndAll(subject):
                accounts[write_text(subject)] = True
                sessions_of.append(write_text(subject))
            case Swap(Session(id=id)) | End(id):
                sessions.append(write_bytes(stored_id(id)))
            case _:
                pass
    # What belongs to an account (a token or a credential) is locked after it, whatever the order of the changes.
    locking = sum(not isinstance(change, Add | ExpectFew | Log | Revoke | Forgive) for change in changes)
    if not (accounts or sessions) or (locking <= 1 and not sessions_of):
        return {}
    return {"accounts": accounts, "sessions": sessions, "sessions_of": sessions_of}


def _change(change: Change, tables: Tables) -> dict[str, Any]:  # noqa: C901, PLR0912 - one branch for a kind of change
    match change:
        case Swap(Session() as session):
            row = tables.by_name["sessions"].write(session)
            return {"do": "swap session", "subject": row.pop("subject"), "row": row}
        case Add(Session() as session):
            row = tables.by_name["sessions"].write(session)
            row["revision"] = 0
            return {"do": "add session", "subject": row.pop("subject"), "row": row}
        case Log(event):
            return {"do": "log", "row": {**write_record(event), "id": write_bytes(stored_id(event.id))}}
        case ExpectRole(role):
            return {"do": "expect role", "role": f" {write_text(role)} "}
        case ExpectFew(subject, at_most, at):
            return {"do": "expect few", "subject": write_text(subject), "at_most": at_most, "at": str(at)}
        case ExpectLive(session_id, subject):
            return {"do": "expect live", "id": write_bytes(stored_id(session_id)), "subject": write_text(subject)}
        case Expect(subject, epoch):
            return {"do": "expect", "subject": write_text(subject), "epoch": epoch}
        case End(id, reason, at):
            return {"do": "end", "id": write_bytes(stored_id(id)), "reason": write_text(reason), "at": str(at)}
        case EndAll(subject, reason, at, keep):
            kept = None if keep is None else write_bytes(stored_id(keep))
            return {
                "do": "end all", "subject": write_text(subject), "reason": write_text(reason), "at": str(at),
                "keep": kept,
            }  # fmt: skip
        case Add(Account() as account):
            return {"do": "add account", "row": tables.by_name["accounts"].write(account)}
        case Swap(Account() as account):
            return {"do": "swap account", "row": tables.by_name["accounts"].write(account)}
        case Remove(Account(subject=subject)):
            return {"do": "remove account", "subject": write_text(subject)}
        case Add(record):
            table = tables.of(type(record))
            row = {**table.write(record), "revision": 0} if table.kind.has_revision else table.write(record)
            return {"do": "add", "kind": table.kind.table, "row": row}
        case Swap(record):
            table = tables.of(type(record))
            if not table.kind.has_revision:
                raise TypeError(f"{type(record).__name__} is not swapped")
            return {"do": "swap", "kind": table.kind.table, "row": table.write(record)}
        case Take(record) | Remove(record):
            table = tables.of(type(record))
            verb = "take" if isinstance(change, Take) else "remove"
            key = table.write_some({name: getattr(record, name) for name in table.kind.key})
            return {"do": verb, "kind": table.kind.table, "row": key}
        case Discard(kind, values):
            table = tables.of(kind)
            table.kind.must_index(values)
            return {"do": "remove", "kind": table.kind.table, "row": table.write_some(values)}
    raise TypeError(f"{type(change).__name__} is not a change")


def write_bucket(bucket: Bucket) -> dict[str, object]:
    limit = bucket.limit
    kind = {"kept_for": str(limit.kept_for)} if limit.is_ceiling else {"interval": str(limit.interval)}
    return {"key": write_text(bucket.key), "name": limit.name, "burst": limit.burst, **kind}
