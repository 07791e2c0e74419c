"""Moving everything from one store into another: what a store does for it, and how two are compared.

A move copies records as they stand: ended and expired sessions, revisions, numbers of the log. It runs while no process
writes to either store. A kill at any moment is safe, and the move can start again.

1. `begin_move` makes the empty target the unfinished copy of a source. From here on it opens only for a move: a server
   over half of the records would refuse people, and accept sessions that have ended in the source.
2. `export` and `take_in`, table after table in the order of `Kinds.all`. One transaction writes each page's records and
   its position, so that a new process continues after a kill.
3. Both are read again, and a `Tally` of each kind compared. If they differ, a process wrote to the source meanwhile:
   `begin_move` empties the target, and the move starts again.
4. `leave` closes the source: it opens only for a move. From here to the end neither opens. A server that was started on
   it later would accept what has ended in the target.
5. `end_move` completes the target, under a log epoch that is higher than the source's.

Why another log epoch: acknowledgements and answers of the old servers must not count in the target, where numbers go on
from another process. The entries, their numbers and their salt are the same, so verifiers read them again and forget
nothing.

Nodes' rows are not moved, because those processes are gone. Verifiers may still hold leases from them, and no row of
the target would report those leases: a node would say "fenced" while a verifier still accepts under its old lease. So
the move waits until those leases are over before it ends, and the new log begins an hour ago (`end_move`): nodes that
start on it need not wait for leases from before, as they do after a restore.

Not moved: nodes' rows, and sessions whose account was removed, which no read of any store returns.
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
    """What the next page comes after; None when there is none. Only the store that returned it can read it."""


class LogState(Struct, frozen=True):
    """What a store keeps of the log besides its entries."""

    log_epoch: int
    salt: bytes
    seq: int


LEFT: Final = "left"
"""Stands among the kinds that a move has started, in a store that was left."""


def refuse_unless_whole(noted: Iterable[str], place: str) -> None:
    """Refuse a store for everything but a move, by its move state. Raises `Misconfigured`."""
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
    """What a move needs from a store. A kind is named by its table. Every method may raise `Unavailable`."""

    async def export(self, table: str, after: str | None = None, *, limit: int = 1000) -> Page:
        """Records of a kind after those of an earlier page, as they stand. A record that does not change between the
        pages is returned once.
        """
        ...

    async def unfinished(self) -> Mapping[str, str | None] | None:
        """How far the move into this store is: the last `after` that was taken in, of each kind that was started. None
        if there is no move, or it is finished.
        """
        ...

    async def begin_move(self, log: LogState) -> None:
        """Become the empty, unfinished copy of another store: its salt, its numbers, its log epoch; no row of a node.
        Delete what an unfinished move has brought. Delete all of a store that was left, if the salt says that the other
        one came from it. Raises `Conflict` if the store has anything else, even only a number that it gave out.
        """
        ...

    async def take_in(self, table: str, page: Page) -> None:
        """Write a page's records as they stand, in place of those of the same key, and note `page.after`: all of it or
        nothing. Durable when it returns; a repeat changes nothing. Raises `Conflict` without an unfinished move, for a
        session without its account, and for a unique value that another record has.
        """
        ...

    async def end_move(self, now: float, event: AuditEvent) -> int:
        """Log an event, begin a new log epoch as `begin_log_epoch(now)` does, and complete the store, in one step.
        Returns the log epoch. Raises `Conflict` without an unfinished move.
        """
        ...

    async def is_left(self) -> bool:
        """Whether `leave` was called and not undone, by `take_back` or by the start of a move into this store."""
        ...

    async def leave(self) -> None:
        """Open only for a move from now on. Idempotent."""
        ...

    async def take_back(self) -> None:
        """Open for every process again. Idempotent."""
        ...


@runtime_checkable
class Movable(Store, Transfer, Protocol):
    """A store that can be moved from and into."""

    async def open(self, *, to_move: bool = False, as_is: bool = False) -> None:
        """As `Store.open`. With `as_is`, nothing is created and no schema changes: raises `NoSchema` or `OlderSchema`
        (`dutchdoor.stores.migrations`) if that would be needed.

        Raises `Misconfigured` for a store with an unfinished move into it, and for one that was left. With `to_move`
        that is allowed. But then it raises `Conflict` if another process has the store open, where the store can
        detect, and `Misconfigured` if it has records of kinds that it was not created with.
        """
        ...


class Tally:
    """The number of records of one kind, and a digest of them that does not depend on their order: each store has its
    own order. It detects accidents, not an attacker who crafts records to match.
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
