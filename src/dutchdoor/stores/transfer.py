"""Moving everything from one store into another: what a store does for it, and how two are compared.

A move carries records as they stand: ended and expired sessions, revisions, numbers of the log. It runs while nobody
writes to either store, and it may be killed at any moment and begun again.

1. `begin_move` makes the empty target the unfinished copy of a source. From here on it opens for nobody but a move: a
   server over half of the records would refuse people, and believe sessions that have ended elsewhere.
2. `export` and `take_in`, table after table in the order of `Kinds.all`. Each page is noted with its records in one
   transaction, so that whoever comes after a kill goes on behind it.
3. Both are read again, and a `Tally` of each kind compared. If they differ, somebody wrote to the source meanwhile:
   `begin_move` empties the target, and all begins again.
4. `leave` shuts the source: it opens for nobody but a move. From here to the end neither opens. A server that was
   started on it later would believe what has ended in the target.
5. `end_move` makes the target whole, under a log epoch that is higher than the source's.

Why another log epoch. Nodes' rows are not moved: those processes are gone. But leases that they granted may still run
in verifiers, and over the target no row tells of them. Within one log epoch a node says "fenced" as soon as all that it
knows of have acknowledged; in the target it would know of nobody, and say so while a verifier still accepts under its
old lease. In a log epoch later than the first a node gives no such early answer before it has followed for one guarded
lease, and acknowledgements and answers of another epoch count for nothing. The entries, their numbers and their salt
are the same, so verifiers read them again and take nothing back.

Not moved: nodes' rows, and sessions whose account was removed, which no read of any store gives.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Final, Protocol, runtime_checkable

import msgspec
from msgspec import Struct

from dutchdoor.errors import Misconfigured
from dutchdoor.model.audit_events import AuditEvent
from dutchdoor.stores.base import Store

__all__ = ["LEFT", "LogState", "Movable", "Page", "Tally", "Transfer", "refuse_unless_whole"]


class Page(Struct, frozen=True):
    """Some records of one kind, in the order of their keys, which is the store's own."""

    records: Sequence[Struct]
    after: str | None
    """What the next page comes after; None when there is none. Only the store that gave it can read it."""


class LogState(Struct, frozen=True):
    """What a store keeps of the log beside its entries."""

    log_epoch: int
    salt: bytes
    seq: int


LEFT: Final = "left"
"""Stands among the kinds that a move has begun to bring, in a store that was left."""


def refuse_unless_whole(noted: Iterable[str], place: str) -> None:
    """Refuse a store for anybody but a move, by what stands in it of one. Raises `Misconfigured`."""
    text = ""
    if LEFT in (noted := set(noted)):
        text = (
            f"Everything in {place} was moved to another database: use that one. To come back, move it back: "
            "`dutchdoor migrate --from THE_OTHER --to THIS`. If the other one is lost: `dutchdoor restored`."
        )
    elif noted:
        text = f"A move into {place} was not finished: run `dutchdoor migrate --from ... --to ...` again."
    if text:
        raise Misconfigured(text)


class Transfer(Protocol):
    """What a move asks of a store. A kind is named by its table. Every method may raise `Unavailable`."""

    async def export(self, table: str, after: str | None = None, *, limit: int = 1000) -> Page:
        """Records of a kind after those of an earlier page, as they stand. Whatever does not change between the pages
        is given once.
        """
        ...

    async def unfinished(self) -> Mapping[str, str | None] | None:
        """How far the move into this store is: the `after` last taken in, of each kind that was begun. None if there is
        no move, or it is finished.
        """
        ...

    async def begin_move(self, log: LogState) -> None:
        """Become the empty, unfinished copy of another store: its salt, its numbers, its log epoch; no row of a node.
        What an unfinished move has brought is deleted, and all of a store that was left, if the salt says that the
        other one came from it. Raises `Conflict` if there is anything else in it, be it only a number that was given.
        """
        ...

    async def take_in(self, table: str, page: Page) -> None:
        """Write a page's records as they stand, in place of those of the same key, and note `page.after`: all of it or
        nothing. Durable when it returns; a repeat changes nothing. Raises `Conflict` without an unfinished move, for a
        session without its account, and for a unique value that another record has.
        """
        ...

    async def end_move(self, now: float, event: AuditEvent) -> int:
        """Log an event, begin a new log epoch, as `begin_log_epoch` does, and be whole: one step. Gives the log epoch.
        Raises `Conflict` without an unfinished move.
        """
        ...

    async def is_left(self) -> bool:
        """Whether `leave` was called, and nothing has undone it: `take_back`, or a move into this store that began."""
        ...

    async def leave(self) -> None:
        """Open for nobody but a move from now on. Idempotent."""
        ...

    async def take_back(self) -> None:
        """Open for everybody again. Idempotent."""
        ...


@runtime_checkable
class Movable(Store, Transfer, Protocol):
    """A store that can be moved from and into."""

    async def open(self, *, to_move: bool = False) -> None:
        """As `Store.open`. Raises `Misconfigured` for a store into which a move is not finished, and for one that was
        left; with `to_move` that is fine, but `Conflict` is raised if another process has the store open, where the
        store can tell, and `Misconfigured` if it has records of kinds that it was not made with.
        """
        ...


class Tally:
    """The number of records of one kind, and a digest of them that does not depend on their order: each store has its
    own. It tells of accidents, not of somebody who makes records to fit.
    """

    __slots__ = ("_sum", "count")

    def __init__(self) -> None:
        self.count, self._sum = 0, 0

    def add(self, records: Iterable[Struct]) -> None:
        for record in records:
            self.count += 1
            self._sum += int.from_bytes(hashlib.sha256(_encode(record)).digest(), "big")

    @property
    def digest(self) -> str:
        return f"{self._sum % 2**256:064x}"


_encode = msgspec.msgpack.Encoder().encode
