"""What a store must do, in words. The same laws as code are in `dutchdoor.testing.conformance`, and every store passes
them.

A store keeps records and knows nothing about them: no clock, no expiry, no policy. It has two verbs. Reads give what is
there, ended and expired records included. `commit` takes a list of changes and applies all of them or none.

What is kept is said once, in `dutchdoor.stores.kinds`; a store derives its reads and changes from there. Four ports
have the verbs: `Records`, `RevocationLog`, `RateLimits`, and `Transfer` (in `dutchdoor.stores.transfer`). One `commit`
covers them all.

The laws:

1. **All or none.** Whatever makes one change impossible undoes the whole commit, and raises `Conflict`.
2. **Acknowledged is durable.** When `commit` returns, what it wrote survives `kill -9` and the loss of power. (Attempts
   against limits survive `kill -9`; the loss of power may forget the last few.)
3. **Swap.** A `Swap` succeeds if and only if the stored revision is the record's own; it writes the record with that
   revision plus one. Of any number of simultaneous swaps from one revision exactly one succeeds.
4. **Take.** A record is taken at most once, ever.
5. **End.** An `End` succeeds once per session; an ended session never lives again, and no swap can change that.
6. **The log** is dense and in commit order: an entry that is read was committed, and none with a lower `seq` appears
   later. `head`, where it is not None, and `read_log` are never behind a commit that returned before.
7. **What is written is what is read**, to the bit (a role and an `amr` value are words: not empty, without spaces).
   Unknown ids give None, and an id is found by its own text only. Removing what is absent is fine.
8. **Reads see every commit that returned before they began**, from whichever process (linearizable).
9. **A store never retries** a conflict. When its backing is out of reach it raises `Unavailable`: within a second, or
   within six where what it waits for is another writer or the disk's flush and nobody has waited for it in vain yet. A
   commit that raised it may or may not have happened.
10. **Nothing in it signs anybody in**: no record holds a usable secret.
11. **Nodes.** Each verb about nodes' rows is one transaction where commits go. A renewal sees every commit that
    returned before it began, and replaces a row only if it is there; of a renewal and a `node_forget` at once one wins,
    and no row comes back after it was forgotten. A registered row survives what a commit survives; the loss of power
    may undo the last renewals of a store that lives on one machine.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, lru_cache
from operator import attrgetter
from typing import Any, Protocol, TypeVar

from msgspec import Struct

from dutchdoor.model.accounts import Account, Credential
from dutchdoor.model.audit_events import AuditEvent
from dutchdoor.model.rate_limits import Bucket, Limit
from dutchdoor.model.sessions import Session
from dutchdoor.revocation.log import Revocation
from dutchdoor.revocation.node_messages import LogHead, NodeRow, Renewed, Rows
from dutchdoor.stores.kinds import Kinds

__all__ = [
    "REMEMBERED_FOR", "Add", "Around", "Change", "Copies", "Discard", "End", "EndAll", "Expect", "ExpectFew",
    "ExpectRole", "Forgive", "Known", "Log", "RateLimits", "Records", "Remove", "RevocationLog", "Revoke", "Revoked",
    "Store", "Swap", "Take", "joined", "words",
]  # fmt: skip

R = TypeVar("R", bound=Struct)


class Add(Struct, frozen=True):
    """Insert an account, a session or a record of a general kind, with revision 0. Conflict if its key, or a unique
    value of it, is there already, and for a session whose account is not there.
    """

    record: Struct


class Swap(Struct, frozen=True):
    """Replace a record that has a revision. Conflict unless the stored one equals the record's, and if another record
    has a unique value of it. A session that has ended is never replaced, whatever its revision, and no session is
    handed to another subject.
    """

    record: Struct


class Remove(Struct, frozen=True):
    """Delete an account or a record of a general kind by its key, if it is there. Removing an account removes what it
    owns with it: records of each kind that has an owner. Its sessions stay until they are purged, ended or not, but no
    read gives them any more: not to a later account of the same subject either.
    """

    record: Struct


class Expect(Struct, frozen=True):
    """Write nothing; conflict unless the account is there, active, and its epoch is this one."""

    subject: str
    epoch: int


class ExpectFew(Struct, frozen=True):
    """Write nothing; conflict if more than `at_most` entries of the log that name this subject as their own have not
    expired (`expires_at > at`). It stands before the entries of its own commit.
    """

    subject: str
    at_most: int
    at: float


class ExpectRole(Struct, frozen=True):
    """Write nothing; conflict unless an active account has the role, as the changes before this one leave them. Of two
    commits at once that each take the role from one account, the second sees what the first did.
    """

    role: str


class Take(Struct, frozen=True):
    """Delete a record of a general kind by its key; conflict if it is not there."""

    record: Struct


class Discard(Struct, frozen=True):
    """Delete every record of a general kind that has these values, if there is any. One of its indexes begins with
    them.
    """

    kind: type[Struct]
    values: Mapping[str, str | int]

    def __post_init__(self) -> None:
        if not self.values:  # a mistake that would delete all of them
            raise TypeError("name the values of the records to discard")


class End(Struct, frozen=True):
    """End a session: `ended_at`, its reason, revision plus one. Conflict if it is not there or has ended already."""

    session_id: str
    reason: str
    at: float


class EndAll(Struct, frozen=True):
    """End every session of a subject that has not ended, but `keep`. Never a conflict; `Revoked.count` counts
    them.
    """

    subject: str
    reason: str
    at: float
    keep: str | None = None


class Revoke(Struct, frozen=True):
    """Append an entry to the revocation log; the store gives it the next `seq`."""

    entry: Revocation


class Log(Struct, frozen=True):
    """Append an audit event."""

    event: AuditEvent


class Forgive(Struct, frozen=True):
    """Undo one attempt in each bucket of `give_back` that is there (`limits.give_back`); empty those of `forget`."""

    give_back: tuple[Bucket, ...] = ()
    forget: tuple[Bucket, ...] = ()


Change = Add | Swap | Remove | Expect | ExpectFew | ExpectRole | Take | Discard | End | EndAll | Revoke | Forgive | Log


class Revoked(Struct, frozen=True):
    """What a commit did, and what a fence of it needs to know."""

    seq: int
    """The highest of the log after it; 0 for an empty log."""
    count: int = 0
    """How many sessions, tokens or keys it revoked: of a store, the sessions that `EndAll` ended."""
    log_epoch: int = 0
    """The log that `seq` counts in."""
    longest_lease: float = 0.0
    """Seconds: the longest in any node's row, read in the commit if it revoked anything."""


class Known(Struct, frozen=True):
    """What a sign-in has to know of an account, read in one step."""

    account: Account
    credentials: list[Credential]
    recent: list[tuple[float, str]]
    """When its newest sessions that have not been ended were created, and from which addresses; the newest first."""


def joined(names: tuple[str, ...]) -> str:
    """Join roles or `amr` values by spaces, for stores that keep them so.

    Raises:
        ValueError: a name is empty or holds a space, and would be read as others than were written.
    """
    text = " ".join(names)
    if words(text) != names:
        raise ValueError("a role or an amr value is empty or holds a space")
    return text


@lru_cache(1024)
def words(text: str) -> tuple[str, ...]:
    """Take apart what `joined` joined."""
    return tuple(text.split(" ")) if text else ()


class Records(Protocol):
    """Records of each kind, read as the last commit left them."""

    @property
    def kinds(self) -> Kinds:
        """What is kept."""
        ...

    async def open(self) -> None:
        """Connect, and bring the schema up to date. Safe to kill at any step and to repeat."""
        ...

    async def close(self) -> None:
        """Let go of everything: threads, sockets, files. Idempotent."""
        ...

    async def commit(self, *changes: Change) -> Revoked:
        """Apply all changes in this order, or none of them."""
        ...

    async def get(self, kind: type[R], *key: str | int) -> R | None:
        """One record of a general kind, by its key."""
        ...

    async def find(self, kind: type[R], **unique: str | int) -> R | None:
        """One record of a general kind, by a unique value; none by an empty one, which belongs to no record."""
        ...

    async def select(
        self, kind: type[R], *, after: Sequence[str | int] = (), limit: int | None = None, **values: str | int
    ) -> list[R]:
        """Records of a general kind that have these values, in the order of the kind's `listing`; all without any.

        One of the kind's indexes begins with the values that are named. `after` has the values of `listing` of the last
        record seen, and begins the next page behind it.
        """
        ...

    async def session(self, session_id: str) -> tuple[Session, Account] | None:
        """One session with the account it belongs to, read in one step. The hot path: one look-up."""
        ...

    async def sessions_of(self, subject: str, *, limit: int | None = None) -> list[Session]:
        """Sessions of a subject that have not been ended (expired ones included), newest first; at most `limit`."""
        ...

    async def account(self, subject: str) -> Account | None: ...

    async def account_by_email(self, email: str) -> Account | None:
        """By the canonical spelling."""
        ...

    async def known(self, email: str, *, recent: int) -> Known | None:
        """An account by the canonical spelling, with its credentials and the addresses of its newest sessions."""
        ...

    async def accounts(self, *, search: str = "", after: str = "", limit: int = 100) -> list[Account]:
        """Accounts in the order of their subjects, after the one named; `search` is part of an e-mail address or a
        name, taken literally, case folded.
        """
        ...

    async def accounts_with_role(self, role: str, *, limit: int) -> list[Account]:
        """Active accounts that have a role, in the order of their subjects."""
        ...

    async def registered_before(self, at: float, *, after: str = "", limit: int = 100) -> list[Account]:
        """Active accounts without roles, whose address is not verified and whose credential `registration` is from
        before an instant; in the order of their subjects, after the one named.
        """
        ...

    async def events(
        self, *, subject: str = "", name: str = "", since: float = 0.0, before: str = "", limit: int = 100
    ) -> list[AuditEvent]:
        """Audit events, newest first; `before` is the id of the last one seen."""
        ...

    async def purge(self, *, before: float, events_before: float) -> int:
        """Delete what ended or expired before an instant (sessions by absolute expiry only, since an old refresh token
        of a deleted session could not be told from a forged one; limits that are full again; the log's expired
        entries; records whose kind names a field that says so), and audit events older than another. Gives the number
        of rows deleted.
        """
        ...

    async def counts(self) -> dict[str, int]:
        """Rows per table: accounts, sessions, keys, ..., for people and for verifying a move."""
        ...


class RevocationLog(Protocol):
    """What was revoked, dense and in commit order, and the nodes that follow it."""

    @property
    def first_epoch(self) -> int:
        """The log epoch that this store begins with. While it has no other, nothing it acknowledged was ever lost."""
        ...

    @property
    def newest_log(self) -> int:
        """The newest log epoch that any answer brought along; 0 where only `head` and the reading of the log tell it.
        Known before the answer is, for every answer that was read where that log had begun.
        """
        ...

    def head(self) -> LogHead | None:
        """Where the log ends, if that can be told without waiting for anything; else None. It may be told too far,
        never too short.
        """
        ...

    def watch(self, woken: Callable[[], None]) -> Callable[[], None]:
        """From now on call `woken` in the running loop whenever the log may have grown, whichever process wrote it;
        stop when what is returned is called. A call too many costs a look, one too few costs time.
        """
        ...

    async def read_log(self, log_epoch: int, after: int) -> Renewed:
        """Entries of the log with a higher `seq`, in order, all or the first few thousand; from the beginning if the
        log is another. No row is touched.
        """
        ...

    async def live_revocations(self, subject: str, now: float) -> int:
        """How many entries of the log that name this subject as their own have not expired: `expires_at > now`."""
        ...

    async def begin_log_epoch(self, now: float) -> int:
        """Begin a new log, after a restore or a promotion that may have lost commits, or a move to another store. Gives
        its epoch.

        The log epoch becomes max(the last + 1, `now` in milliseconds), and every node's row is deleted. Entries, their
        numbers and the salt stay. Every account's epoch becomes max(its own + 1, the log epoch), and its revision rises
        by one: whatever was raised and lost, a later entry of the subject covers every token from before.

        Sessions stay as they are, and live: a session's epoch is that of its proof, which nothing compares later.
        Access tokens carry the account's epoch of their signing, so a fresh one comes with the next refresh. A sign-in
        or a change of password that is under way is refused, and succeeds when it is tried again.
        """
        ...

    async def node_register(self, row: NodeRow) -> None:
        """Insert a row, or replace the one of this id: whoever does not know whether it was written asks again. It is
        durable when this returns.
        """
        ...

    async def node_renew(self, row: NodeRow, after: int) -> Renewed:
        """Replace a row if it is there, then read the log after a `seq` in `row.log_epoch` as `read_log` does, and all
        rows.
        """
        ...

    async def node_rows(self) -> Rows: ...

    async def node_forget(self, id: str, stamp: str) -> None:
        """Delete a row if it still has this stamp."""
        ...


class RateLimits(Protocol):
    """How often something was tried. `Forgive`, in a commit, gives attempts back."""

    async def hit(self, buckets: Sequence[Bucket], now: float) -> tuple[float, str]:
        """Take one attempt from every bucket, in one step over all processes, and give (0.0, ""); or take from none and
        give the seconds to wait with the name of the limit that asks for it. The arithmetic is `limits.decide_all`.
        """
        ...

    async def try_writing(self, now: float) -> None:
        """Write a row that no request reads, or raise `Unavailable`: what can be read is not always written, on a disk
        that is full or a server that is read-only.
        """
        ...


class Store(Records, RevocationLog, RateLimits, Protocol):
    """Where records are kept. Every method may raise `Unavailable`; only `commit` raises `Conflict`. One that can be
    moved is a `dutchdoor.stores.transfer.Movable` too.
    """


class Around(Store):
    """A store around a store: what a subclass does not do itself, the inner one does, at no cost."""

    def __init__(self, inner: Store) -> None:
        self._inner = inner


def _pass_on(name: str, member: object) -> property | cached_property[Any]:
    path = attrgetter(f"_inner.{name}")
    if isinstance(member, property):  # it may change
        return property(path)
    method = cached_property(path)
    method.__set_name__(Around, name)
    return method


for _port in (Records, RevocationLog, RateLimits):
    for _name, _member in vars(_port).items():
        if not _name.startswith("_"):
            setattr(Around, _name, _pass_on(_name, _member))


WRITING = Bucket("writing", Limit(name="writing", count=1000, per_seconds=1.0, burst=1000))
"""What `try_writing` writes: a bucket that refuses nothing and is purged as others are."""

REMEMBERED_FOR = 60.0
"""Seconds that a session which was looked up is remembered, in memory or as a copy. As long as `last_seen_at` goes
unwritten, so that each look-up that is saved would have written nothing.
"""


class Copies(Protocol):
    """Copies of sessions beside a store, for whoever judges each of them by its age and by the revocation log, as one
    judges an access token. They may be old, or be gone at any moment; nothing else may be wrong with them.
    """

    async def recent_session(self, session_id: str, log_epoch: int) -> tuple[Session, Account, float] | None:
        """Give a copy and when its read began, or None, soon. Never raises."""
        ...

    def keep_recent(self, session: Session, account: Account, read_at: float, log_epoch: int) -> None:
        """Keep a copy of what was read from the store, for a minute at most, if that can be done.

        `read_at` and `log_epoch` are from before the read began. The copy is for those alone who follow that log: after
        a restore, what was read before it may never have been.
        """
        ...
