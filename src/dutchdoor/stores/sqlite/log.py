"""The revocation log and the nodes that follow it: what is read, and what a transaction does to them."""

# ruff: noqa: S608 - every statement here is put together from constants of this file; values are bound, always

from __future__ import annotations

from collections.abc import Sequence

from dutchdoor.revocation.log import Revocation
from dutchdoor.revocation.node_messages import NodeRow, Renewed
from dutchdoor.stores.sql import Row, renewed
from dutchdoor.stores.sqlite.writer import Transaction

__all__ = [
    "NODE", "PAGE", "READ_LOG", "begin_log_epoch", "node_forget", "node_register", "node_renew", "read_node",
    "read_renewed",
]  # fmt: skip

PAGE = 2048
"""Entries of the log that one read returns: a few milliseconds."""

NODE = ", ".join(f"n.{name}" for name in NodeRow.__struct_fields__)
ENTRY = "r.kind, r.id, r.min_epoch, r.expires_at, r.seq, r.subject"
READ_LOG = (
    f"SELECT l.epoch, l.salt, l.seq, {ENTRY} FROM revocation_log l LEFT JOIN revocations r "
    "ON r.seq > CASE l.epoch WHEN ? THEN ? ELSE 0 END WHERE l.only = 1 ORDER BY r.seq LIMIT ?"
)
"""One statement, so that entries and head are of one instant. Without entries, it returns one row, which has none."""


def read_renewed(
    rows: Sequence[Row], log_epoch: int, after: int, page: int, *, there: bool = True, nodes: Sequence[NodeRow] = ()
) -> Renewed:
    """Read rows of `READ_LOG`, which was asked for one more than a page has."""
    # By name and not by `record`, which takes seven times as long: a server that starts reads all of them.
    entries = [
        Revocation(kind=kind, id=name, min_epoch=min_epoch, expires_at=expires_at, seq=seq, subject=subject)
        for _, _, _, kind, name, min_epoch, expires_at, seq, subject in rows[:page]
        if seq is not None
    ]
    return renewed(rows[0], log_epoch, after, entries, more=len(rows) > page, there=there, rows=nodes)


def begin_log_epoch(now: float, transaction: Transaction) -> int:
    transaction.log_epoch = max(transaction.log_epoch + 1, int(now * 1000))
    transaction.execute("UPDATE revocation_log SET epoch = ?", (transaction.log_epoch,))
    transaction.execute("DELETE FROM nodes")
    raised = "UPDATE accounts SET epoch = max(epoch + 1, ?), revision = revision + 1"
    transaction.execute(raised, (transaction.log_epoch,))
    return transaction.log_epoch


def node_register(row: NodeRow, transaction: Transaction) -> None:
    names = ", ".join(NodeRow.__struct_fields__)
    marks = ", ".join("?" * len(NodeRow.__struct_fields__))
    sql = f"INSERT OR REPLACE INTO nodes ({names}) VALUES ({marks})"
    transaction.execute(sql, _values(row))


def node_renew(row: NodeRow, after: int, transaction: Transaction) -> Renewed:
    values = _values(row)
    names = ", ".join(f"{name} = ?" for name in NodeRow.__struct_fields__[1:])
    sql = f"UPDATE nodes SET {names} WHERE id = ?"
    there = transaction.execute(sql, (*values[1:], row.id)).rowcount == 1
    rows = transaction.execute(READ_LOG, (row.log_epoch, after, PAGE + 1)).fetchall()
    # The log's own row is written at the end of the batch: it does not count yet what was appended before this.
    rows = [(epoch, salt, transaction.seq, *entry) for epoch, salt, _, *entry in rows]
    nodes = [read_node(found) for found in transaction.execute(f"SELECT {NODE} FROM nodes n").fetchall()]
    return read_renewed(rows, row.log_epoch, after, PAGE, there=there, nodes=nodes)


def node_forget(id: str, stamp: str, transaction: Transaction) -> None:
    transaction.execute("DELETE FROM nodes WHERE id = ? AND stamp = ?", (id, stamp))


def read_node(row: Row) -> NodeRow:
    return NodeRow(**dict(zip(NodeRow.__struct_fields__, row, strict=True)))


def _values(row: NodeRow) -> Row:
    return tuple([getattr(row, name) for name in NodeRow.__struct_fields__])
