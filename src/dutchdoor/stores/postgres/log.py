"""The revocation log and the nodes that follow it, as rows."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from dutchdoor.revocation.log import Kind, Revocation
from dutchdoor.revocation.node_messages import NodeRow, Renewed
from dutchdoor.stores.postgres.connection import Row
from dutchdoor.stores.postgres.rows import read_text

__all__ = ["PAGE", "read_nodes", "read_renewed"]

PAGE = 2048
"""Entries of the log that one read returns."""

_NAME = "dutchdoor"
"""The prefix of the names of our connections in `pg_stat_activity`: a move looks there for other processes."""


def read_renewed(
    rows: Sequence[Row], log_epoch: int, after: int, *, there: bool = True, nodes: Sequence[NodeRow] = ()
) -> Renewed:
    """Read rows of `read_log_1`, which was asked for one more than a page has."""
    epoch, salt, head, at = rows[0][:4]
    entries = [_read_entry(*row[4:]) for row in rows[:PAGE] if row[4] is not None]
    return Renewed(
        there=there,
        log_epoch=epoch,
        salt=salt,
        after=after if epoch == log_epoch else 0,
        entries=entries,
        upto=entries[-1].seq if len(rows) > PAGE else head,
        head=head,
        rows=nodes,
        at=at,
    )


def _read_entry(seq: int, kind: Kind, id: str, min_epoch: int, expires_at: float, subject: str) -> Revocation:
    return Revocation(
        seq=seq, kind=kind, id=read_text(id), min_epoch=min_epoch, expires_at=expires_at, subject=read_text(subject)
    )


def read_nodes(rows: str | None) -> list[NodeRow]:
    return [] if rows is None else msgspec.json.decode(rows, type=list[NodeRow])
