"""What a store must do, in words. `dutchdoor.testing.conformance` has the same laws as code, and every store passes
them.

A store keeps records and does not interpret them: it has no clock, no expiry and no policy. It has two verbs. Reads
return what is there, including ended and expired records. `commit` takes a list of changes and applies all or none.

`dutchdoor.stores.kinds` describes what is kept, once; a store derives its reads and changes from there. Four ports have
the verbs: `Records`, `RevocationLog`, `RateLimits`, and `Transfer` (in `dutchdoor.stores.transfer`). One `commit`
covers them all.

The laws:

1. **All or none.** Any impossible change undoes the whole commit, and raises `Conflict`.
2. **Acknowledged is durable.** When `commit` returns, what it wrote survives `kill -9` and the loss of power. (Attempts
   against limits survive `kill -9`; the loss of power may forget the last few.)
3. **Swap.** A `Swap` succeeds if and only if the stored revision is the record's own; it writes the record with that
   revision plus one. Of any number of simultaneous swaps from one revision exactly one succeeds.
4. **Take.** A record is taken at most once, ever.
5. **End.** An `End` succeeds once per session; an ended session never lives again, and no swap can change that. What
   belongs to a session is deleted by the change that ends it.
6. **The log** is dense and in commit order: an entry that is read was committed, and none with a lower `seq` appears
   later. `head`, where it is not None, and `read_log` are never behind a commit that returned before.
7. **What is written is what is read**, to the bit (a role and an `amr` value are words: not empty, without spaces).
   Unknown ids give None, and an id is found by its own text only. Removing what is absent is fine.
8. **Reads see every commit that returned before they began**, from whichever process (linearizable).
9. **A store never retries** a conflict. When its backing is out of reach, it raises `Unavailable` within a second. When
   it waits for another writer or for the disk's flush, and no call has waited in vain yet, it may take six seconds. A
   commit that raised `Unavailable` may or may not have happened.
10. **No record is a credential**: no record holds a usable secret.
11. **Nodes.** Each verb about nodes' rows is one transaction where commits go. A renewal sees every commit that
    returned before it began, and replaces a row only if it is there; of a renewal and a `node_forget` at once one wins,
    and no row comes back after it was forgotten. A registered row survives what a commit survives; the loss of power
     may undo the last renewals of a store that lives on one machine.
12. **The audit log** has an order in which no event appears before one that was read: see `events_after`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cached_property, lru_cache
from operator import attrgetter
from typing import Any, Literal, Protocol, TypeAlias, TypeVar

from msgspec import Struct

from dutchdoor.model.accounts import Account, Credential
from dutchdoor.model.audit_events import AuditCursor, AuditEvent, AuditSearch
from dutchdoor.model.rate_limits import Bucket, Limit
from dutchdoor.model.sessions import Session
from dutchdoor.revocation.log import Revocation
from dutchdoor.revocation.node_messages import LogHead, NodeRow, Renewed, Rows
from dutchdoor.stores.kinds import Kinds

__all__ = [
    "REMEMBERED_FOR", "RESTS_FOR", "AccountStatus", "Add", "Around", "Change", "Copies", "Discard", "End", "EndAll",
    "Expect", "ExpectFew", "ExpectLive", "ExpectRole", "Forgive", "Known", "Load", "Log", "RateLimits", "Records",
    "Remove", "RevocationLog", "Revoke", "Revoked", "Store", "Swap", "Take", "joined", "words",
]  # fmt: skip

R = TypeVar("R", bound=Struct)

AccountStatus: TypeAlias = Literal["any", "active", "disabled", "unverified"]
"""Which accounts are listed. `unverified` are those whose address was not verified."""


class Add(Struct, frozen=True):
    """Insert an account, a session or a record of a general kind, with revision 0. Conflict if its key or a unique
    value of it exists already, and for a session whose account does not exist.
    """

    record: Struct


class Swap(Struct, frozen=True):
    """Replace a record that has a revision. Conflict unless the stored revision equals the record's, and if another
    record has one of its unique values. A session that has ended is never replaced, whatever its revision, and a
    session never moves to another subject.
    """

    record: Struct


class Remove(Struct, frozen=True):
    """Delete an account or a record of a general kind by its key, if it exists. Removing an account removes what it
    owns: records of each kind that has an owner. Its sessions stay until they are purged, ended or not. But no read
    returns them any more, not even to a later account of the same subject.
    """

    record: Struct


class Expect(Struct, frozen=True):
    """Write nothing. Conflict unless the account exists, is active, and has this epoch."""

    subject: str
    epoch: int


class ExpectFew(Struct, frozen=True):
    """Write nothing. Conflict if more than `at_most` entries of the log that name this subject as their own have not
    expired (`expires_at > at`). It comes before the entries of its own commit.
    """

    subject: str
    at_most: int
    at: float


class ExpectLive(Struct, frozen=True):
    """Write nothing. Conflict unless the session exists, belongs to this subject's account, and has not ended. When it
    is ended at the same moment, the ending comes before or after the whole commit.
    """

    session_id: str
    subject: str


class ExpectRole(Struct, frozen=True):
    """Write nothing. Conflict unless an active account has the role after the changes before this one. When two commits
    at once each take the role from one account, the second sees what the first did.
    """

    role: str


class Take(Struct, frozen=True):
    """Delete a record of a general kind by its key. Conflict if it does not exist."""

    record: Struct


class Discard(Struct, frozen=True):
    """Delete every record of a general kind that has these values, if there is any. One of the kind's indexes begins
    with these values.
    """

    kind: type[Struct]
    values: Mapping[str, str | int]

    def __post_init__(self) -> None:
        if not self.values:  # a mistake that would delete all of them
            raise TypeError("name the values of the records to discard")


class End(Struct, frozen=True):
    """End a session: `ended_at`, its reason, revision plus one. Conflict if it does not exist or has ended already. The
    records of kinds with a `session` that belong to it are deleted.
    """

    session_id: str
    reason: str
    at: float


class EndAll(Struct, frozen=True):
    """End every session of a subject that has not ended, except `keep`, with what belongs to it. Never a conflict;
    `Revoked.count` counts the ended sessions.
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
    """Undo one attempt in each existing bucket of `give_back` (`limits.give_back`); empty the buckets of `forget`."""

    give_back: tuple[Bucket, ...] = ()
    forget: tuple[Bucket, ...] = ()


Change = (
    Add | Swap | Remove | Expect | ExpectFew | ExpectLive | ExpectRole | Take | Discard
    | End | EndAll | Revoke | Forgive | Log
)  # fmt: skip


class Revoked(Struct, frozen=True):
    """What a commit did, and what its fence needs to know."""

    seq: int
    """The highest `seq` of the log after it; 0 for an empty log."""
    count: int = 0
    """How many sessions, tokens or keys it revoked. From a store: the sessions that `EndAll` ended."""
    log_epoch: int = 0
    """The log that `seq` counts in."""
    longest_lease: float = 0.0
    """Seconds: the longest lease in any node's row, read in the commit if it revoked anything."""


class Load(Struct, frozen=True):
    """How busy a store is at a moment, for metrics."""

    connections: int = 0
    """Open connections to the database."""
    busy: int = 0
    """Connections that wait for an answer now."""
    waiting: int = 0
    """Calls that wait for a connection, or for the thread that writes."""
    redis_up: bool | None = None
    """Whether the Redis beside the store answers; None without one."""


class Known(Struct, frozen=True):
    """What a sign-in needs to know of an account, read in one step."""

    account: Account
    credentials: list[Credential]
    recent: list[tuple[float, str]]
    """When and from which addresses its newest sessions were created, without ended ones; the newest first."""


def joined(names: tuple[str, ...]) -> str:
    """Join roles or `amr` values with spaces, for stores that keep them so.

    Raises:
        ValueError: a name is empty or holds a space: it would be read as other names than were written.
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
    """Records of each kind, as the last commit left them."""

    @property
    def kinds(self) -> Kinds:
        """What is kept."""
        ...

    @property
    def load(self) -> Load:
        """How busy it is now. Asks nothing of the database."""
        ...

    async def open(self) -> None:
        """Connect, and bring the schema up to date. A kill at any step is safe, and so is a repeat."""
        ...

    async def close(self) -> None:
        """Release everything: threads, sockets, files. Idempotent."""
        ...

    async def commit(self, *changes: Change) -> Revoked:
        """Apply all changes in this order, or none of them."""
        ...

    async def get(self, kind: type[R], *key: str | int) -> R | None:
        """One record of a general kind, by its key."""
        ...

    async def find(self, kind: type[R], **unique: str | int) -> R | None:
        """One record of a general kind, by a unique value. An empty value belongs to no record and finds none."""
        ...

    async def select(
        self, kind: type[R], *, after: Sequence[str | int] = (), limit: int | None = None, **values: str | int
    ) -> list[R]:
        """Records of a general kind that have these values, in the order of the kind's `listing`; without values, all
        of them.

        One of the kind's indexes begins with the named values. `after` has the `listing` values of the last record of a
        page, and the next page begins after it.
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

    async def accounts(self, *, after: str = "", limit: int = 100) -> list[Account]:
        """Accounts in the order of their subjects, after the named one."""
        ...

    async def newest_accounts(
        self, *, status: AccountStatus = "any", before: tuple[float, str] | None = None, limit: int = 100
    ) -> list[Account]:
        """Accounts, the newest first; `before` has the `created_at` and the subject of the last one seen."""
        ...

    async def search_accounts(self, text: str, *, after: str = "", limit: int = 100) -> list[tuple[str, Account]]:
        """Accounts in whose address or name a word begins with a text, with case folded: see
        `dutchdoor.stores.account_words`. They are in the order of what was found, each once and with its cursor:
        `after` has that of the last one of a page, which may have been removed meanwhile.

        The cost depends on `limit` alone, whatever is searched. Raises `InvalidInput` for what is no cursor.
        """
        ...

    async def accounts_with_role(self, role: str, *, after: str = "", limit: int) -> list[Account]:
        """Active accounts that have a role, in the order of their subjects, after the named one."""
        ...

    async def registered_before(self, at: float, *, after: str = "", limit: int = 100) -> list[Account]:
        """Active accounts without roles whose address is not verified and whose credential `registration` is older than
        an instant, in the order of their subjects, after the named one.
        """
        ...

    async def events(
        self, *, subject: str = "", name: str = "", since: float = 0.0, before: str = "", limit: int = 100
    ) -> list[AuditEvent]:
        """Audit events, newest first; `before` is the id of the last one seen."""
        ...

    async def look_for_events(
        self, wanted: AuditSearch, *, before: str = "", limit: int = 100, look_at: int = 50_000
    ) -> tuple[list[AuditEvent], str]:
        """Audit events of a search, newest first, and the `before` of the next call: "" if there are no more.

        Indexes have the subject, the name and the time. For an outcome, an actor and an address, a call looks at so
        many events that have the rest, and may return few or none of them although there are more.
        """
        ...

    async def count_events(self, names: Sequence[str], edges: Sequence[float]) -> dict[str, list[int]]:
        """How many events of each name happened from each of the `edges`, which are instants in order, to the next.

        The time of an event is that of its id, in milliseconds. An index has both, so that a call reads the ids that it
        counts and no event.
        """
        ...

    async def count_details(self, name: str, *, subject: str, since: float) -> dict[str, int]:
        """How many events of a name and of one account happened from an instant on, by their details. The time of an
        event is that of its id.
        """
        ...

    async def events_after(
        self, cursor: AuditCursor | None, *, subject: str | None = None, since: float = 0.0, limit: int = 100
    ) -> list[tuple[AuditCursor, AuditEvent]]:
        """Audit events behind a cursor, each with its own cursor; without one, from the oldest. Raises `InvalidInput`
        for a cursor of another database.

        `subject` asks for those of one account alone, "" for those without an account, and `since` for those whose id
        is not of an earlier instant.

        An event that is returned was committed, and no event before it appears later. So a follower that continues
        behind the last cursor gets every event once, in whatever order transactions began. A log epoch that begins
        later, after a restore too, comes behind all earlier ones. The store may hold an event back while an older
        transaction is under way.
        """
        ...

    async def audit_end(self) -> AuditCursor:
        """A cursor that everything committed from now on comes after, and perhaps some that was committed before."""
        ...

    async def purge(self, *, before: float, events_before: float) -> int:
        """Delete what ended or expired before an instant, and audit events older than another. Returns the number of
        rows.

        Deleted are: sessions (by absolute expiry only, since an old refresh token of a deleted session looks like a
        forged one), limits that are full again, expired entries of the log, and records whose kind names an expiry
        field.
        """
        ...

    async def forget(self, subject: str) -> int:
        """Delete every session of a subject, ended or not, and empty what its audit events say of the clients: address,
        country, device. Returns the number of rows. The events stay, in their order.

        It is not one step with anything else, and may be repeated. It comes before the removal of the account, which a
        store may name its sessions by, and after their end, which is what the log and the nodes learn of.
        """
        ...

    async def counts(self) -> dict[str, int]:
        """Rows per table: accounts, sessions, keys, ..., for people and for verifying a move."""
        ...


class RevocationLog(Protocol):
    """What was revoked, dense and in commit order, and the nodes that follow it."""

    @property
    def first_epoch(self) -> int:
        """The log epoch that this store begins with. Without another, it has lost nothing that it acknowledged."""
        ...

    @property
    def newest_log(self) -> int:
        """The newest log epoch that any answer reported; 0 where only `head` and reads of the log report it. It is
        updated before the answer returns, for every answer that was read after that log began.
        """
        ...

    def head(self) -> LogHead | None:
        """Where the log ends, if the store knows that without waiting; else None. The result may be ahead of the log,
        never behind it.
        """
        ...

    def watch(self, woken: Callable[[], None]) -> Callable[[], None]:
        """From now on, call `woken` in the running loop whenever the log may have grown, whichever process wrote it.
        Calling the returned function stops that. A call too many costs a look; a missing call costs time.
        """
        ...

    async def read_log(self, log_epoch: int, after: int) -> Renewed:
        """Entries of the log with a higher `seq`, in order: all of them or the first few thousand. If the log is
        another one, they start at its beginning. The call writes nothing.
        """
        ...

    async def live_revocations(self, subject: str, now: float) -> int:
        """How many entries of the log that name this subject as their own have not expired: `expires_at > now`."""
        ...

    async def begin_log_epoch(self, now: float) -> int:
        """Begin a new log, after a restore or a promotion that may have lost commits, or a move to another store.
        Returns its epoch.

        The log epoch becomes max(the last + 1, `now` in milliseconds), and every node's row is deleted. Entries, their
        numbers and the salt stay. Every account's epoch becomes max(its own + 1, the log epoch), and its revision rises
        by one. So even if a raised epoch was lost, a later entry of the subject covers every token from before.

        Sessions stay valid as they are: a session's epoch is that of its proof, and nothing compares it later. Access
        tokens carry the account's epoch of their signing, so the next refresh brings a fresh one. A sign-in or a
        password change that is under way is refused, and succeeds when it is tried again.
        """
        ...

    async def node_register(self, row: NodeRow) -> None:
        """Insert a row, or replace the one of this id: a node that does not know whether it was written asks again. The
        row is durable when this returns.
        """
        ...

    async def node_renew(self, row: NodeRow, after: int) -> Renewed:
        """Replace a row if it exists. Then read the log after a `seq` in `row.log_epoch` as `read_log` does, and all
        rows.
        """
        ...

    async def node_rows(self) -> Rows: ...

    async def node_forget(self, id: str, stamp: str) -> None:
        """Delete a row if it still has this stamp."""
        ...


class RateLimits(Protocol):
    """Counts attempts. `Forgive`, in a commit, gives attempts back."""

    async def hit(self, buckets: Sequence[Bucket], now: float) -> tuple[float, str]:
        """Take one attempt from every bucket, in one step over all processes, and return (0.0, ""). Or take from none,
        and return the seconds to wait with the name of the limit that requires it. `limits.decide_all` has the
        arithmetic.
        """
        ...

    async def try_writing(self, now: float) -> None:
        """Write a row that no request reads, or raise `Unavailable`. A disk that is full, or a server that is
        read-only, still answers reads.
        """
        ...


class Store(Records, RevocationLog, RateLimits, Protocol):
    """Where records are kept. Every method may raise `Unavailable`; only `commit` raises `Conflict`. A store that can
    be moved is also a `dutchdoor.stores.transfer.Movable`.
    """


class Around(Store):
    """A store around a store: the inner store does what a subclass does not, at no cost."""

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
"""What `try_writing` writes: a bucket that refuses nothing and is purged like others."""

RESTS_FOR = 3.0
"""How many times as long as a step of a purge took a store leaves the database to others after it."""

REMEMBERED_FOR = 60.0
"""Seconds that a looked-up session is remembered, in memory or as a copy. It is as long as `last_seen_at` goes
unwritten, so that no look-up that is saved would have written anything.
"""


class Copies(Protocol):
    """Copies of sessions beside a store. A caller must judge each copy by its age and by the revocation log, as it
    judges an access token. A copy may be old, or vanish at any moment; nothing else may be wrong with it.
    """

    async def recent_session(self, session_id: str, log_epoch: int) -> tuple[Session, Account, float] | None:
        """Return a copy and when its read began, or None, soon. Never raises."""
        ...

    def keep_recent(self, session: Session, account: Account, read_at: float, log_epoch: int) -> None:
        """Keep a copy of what was read from the store, for a minute at most, if that is possible.

        `read_at` and `log_epoch` are from before the read began. Only callers that follow that log may use the copy:
        after a restore, the store may not have what was read before it.
        """
        ...
