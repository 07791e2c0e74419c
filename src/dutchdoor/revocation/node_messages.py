"""The messages between a node and its store: the rows by which nodes know each other, and reads of the log."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, TypeAlias

from msgspec import Struct

from dutchdoor.model.ids import new_id
from dutchdoor.revocation.log import Revocation

__all__ = [
    "FIRST_EPOCH", "Forget", "LogHead", "NodeRow", "Question", "ReadLog", "ReadRows", "Register", "Renew", "Renewed",
    "Rows", "row_of_the_gone",
]  # fmt: skip

FIRST_EPOCH = 1
"""The log epoch of a deployment that was never restored. No row committed in it was ever lost."""


class LogHead(NamedTuple):
    """How far the log goes."""

    log_epoch: int
    seq: int


class NodeRow(Struct, frozen=True, kw_only=True):
    """What a node publishes to the other nodes. A row has no time of day: no node judges a lease by a wall clock."""

    id: str
    stamp: str
    """Random, and new at every write. A node is alive as long as its stamp changes."""
    log_epoch: int
    acked_seq: int
    """Valid in `log_epoch` only."""
    lease_for: float
    """The longest lease this row's node may have granted."""


def row_of_the_gone(rows: Sequence[NodeRow], log_epoch: int, lease_for: float = 0.0) -> NodeRow:
    """Return a row that represents, in a new log, all nodes of the old log: leases they granted may still run. Its
    lease is the longest of theirs and `lease_for`, and no node renews the row. After that lease plus clock margin the
    row counts as dead; until then every fence waits, whatever lease a node is configured with.
    """
    return NodeRow(
        id=new_id(),
        stamp=new_id(),
        log_epoch=log_epoch,
        acked_seq=0,
        lease_for=max([lease_for, *(row.lease_for for row in rows)]),
    )


class Register(Struct, frozen=True):
    """Insert a row."""

    row: NodeRow


class Renew(Struct, frozen=True):
    """In one transaction, on the primary: replace a row if it exists, and read what is new in the log."""

    row: NodeRow
    after: int
    """In `row.log_epoch`; in another log, everything is new."""


class ReadLog(Struct, frozen=True):
    """Read what is new in the log, on the primary. A node without a row sends this instead of `Renew`."""

    log_epoch: int
    after: int


class ReadRows(Struct, frozen=True):
    """Read all rows, on the primary."""


class Forget(Struct, frozen=True):
    """Delete a row that still has this stamp. No answer is needed."""

    id: str
    stamp: str


Question: TypeAlias = Register | Renew | ReadLog | ReadRows | Forget


class Rows(Struct, frozen=True, kw_only=True):
    """Answer to `ReadRows`."""

    log_epoch: int
    rows: Sequence[NodeRow]


class Renewed(Struct, frozen=True, kw_only=True):
    """Answer to `Renew`, and to `ReadLog`, which always reports the row as existing and returns no rows."""

    there: bool
    """Whether the row existed."""
    log_epoch: int
    salt: bytes
    after: int
    """The number the entries follow: the one asked for, or 0 in another log."""
    entries: Sequence[Revocation]
    upto: int
    """The `seq` applied once the node has applied the entries."""
    head: int
    """The last `seq` committed."""
    rows: Sequence[NodeRow] = ()
    at: float | None = None
    """The store's time of day at the read, if the store has its own clock, which is one for all nodes."""
