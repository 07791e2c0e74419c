"""What a node and its store say to each other: the rows by which nodes know of one another, and reads of the log."""

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
"""The log epoch of a deployment that was never restored. No row that was ever committed in it has been lost."""


class LogHead(NamedTuple):
    """How far the log goes."""

    log_epoch: int
    seq: int


class NodeRow(Struct, frozen=True, kw_only=True):
    """What a node lets the others know. A row says nothing about time: no lease is judged by anybody's wall clock."""

    id: str
    stamp: str
    """Random, at every write another. A row is alive as long as this changes."""
    log_epoch: int
    acked_seq: int
    """Counts in `log_epoch` only."""
    lease_for: float
    """The longest lease there may be behind this row."""


def row_of_the_gone(rows: Sequence[NodeRow], log_epoch: int, lease_for: float = 0.0) -> NodeRow:
    """Make the row that stands in a log that has begun for all that were there before: leases granted by them may still
    run. It says the longest one, theirs or `lease_for`, and is never renewed: after a guarded lease it is taken for
    dead, and until then every fence waits, whatever lease its own node was told.
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
    """In one transaction, where commits go: replace a row if it is there, and read what is new in the log."""

    row: NodeRow
    after: int
    """In `row.log_epoch`; in another log, everything is new."""


class ReadLog(Struct, frozen=True):
    """Read what is new in the log, where commits go. What a node without a row asks in place of `Renew`."""

    log_epoch: int
    after: int


class ReadRows(Struct, frozen=True):
    """Read all rows, where commits go."""


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
    """Answer to `Renew`, and to `ReadLog`, in which the row counts as there and no rows are given."""

    there: bool
    """Whether the row was."""
    log_epoch: int
    salt: bytes
    after: int
    """What the entries come after: what was asked for, or 0 in another log."""
    entries: Sequence[Revocation]
    upto: int
    """What has been applied once the entries have."""
    head: int
    """The last `seq` committed."""
    rows: Sequence[NodeRow] = ()
    at: float | None = None
    """The store's time of day at the reading, if it has a clock of its own: one for all nodes."""
