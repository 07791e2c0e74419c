"""The revocation log and the nodes that follow it, as rows."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from dutchdoor.revocation.log import Kind, Revocation
from dutchdoor.revocation.node_messages import NodeRow, Renewed
from dutchdoor.stores.postgres.connection import Row
from dutchdoor.stores.postgres.rows import read_text
from dutchdoor.stores.sql import renewed

__all__ = ["PAGE", "read_nodes", "read_renewed"]

PAGE = 2048
"""Entries of the log that one read returns."""


def read_renewed(
    rows: Sequence[Row], log_epoch: int, after: int, *, there: bool = True, nodes: Sequence[NodeRow] = ()
) -> Renewed:
    """Read rows of `read_log_1`, which was asked for one more than a page has."""
    entries = [_read_entry(*row[4:]) for row in rows[:PAGE] if row[4] is not None]
    return renewed(rows[0], log_epoch, after, entries, more=len(rows) > PAGE, there=there, rows=nodes, at=rows[0][3])


def _read_entry(seq: int, kind: Kind, id: str, min_epoch: int, expires_at: float, subject: str) -> Revocation:
    return Revocation(
        seq=seq, kind=kind, id=read_text(id), min_epoch=min_epoch, expires_at=expires_at, subject=read_text(subject)
    )


def read_nodes(rows: str | None) -> list[NodeRow]:
    return [] if rows is None else msgspec.json.decode(rows, type=list[NodeRow])
