"""Everything in this process's memory, gone when it exits: for trying out, for tests, and as the model of other stores.

One lock makes every method one step. Nothing is durable, and no other process sees it: of the laws of
`dutchdoor.stores.base`, the second and the second half of the eighth do not apply. Its log epoch is the instant of its
creation: a restart loses what the last process knew, and counts as a restore that lost everything.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import time
from bisect import bisect_right, insort
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from threading import Lock
from typing import Any, TypeVar

from msgspec import Struct
from msgspec.structs import replace

from dutchdoor.errors import Conflict, Misconfigured
from dutchdoor.model.accounts import Account, Credential
from dutchdoor.model.audit_events import AuditCursor, AuditEvent, AuditSearch
from dutchdoor.model.ids import ordered_from
from dutchdoor.model.rate_limits import Bucket, decide_all, give_back
from dutchdoor.model.sessions import Session
from dutchdoor.revocation.log import Revocation
from dutchdoor.revocation.node_messages import LogHead, NodeRow, Renewed, Rows
from dutchdoor.stores.account_words import read_word_cursor, sought, words_of, write_cursor
from dutchdoor.stores.base import (
    WRITING,
    AccountStatus,
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
    Known,
    Load,
    Log,
    Remove,
    Revoke,
    Revoked,
    Store,
    Swap,
    Take,
)
from dutchdoor.stores.kinds import ACCOUNTS, EVENTS, KINDS, SESSIONS, Kinds, Level
from dutchdoor.stores.memory.table import Table, Undo, drop, order, put
from dutchdoor.stores.transfer import LEFT, LogState, Page, refuse_unless_whole

__all__ = ["MemoryStore", "from_url"]

_PAGE = 4096
"""Entries of the log that one read returns."""

R = TypeVar("R", bound=Struct)


def from_url(url: str) -> Store:
    """Raises `Misconfigured` for anything but `memory:`."""
    if url not in {"memory:", "memory://"}:
        raise Misconfigured("The memory store has the URL memory: and takes nothing after it.")
    return MemoryStore()


class MemoryStore:
    """See `dutchdoor.stores.base.Store`."""

    def __init__(self, *, kinds: Kinds = KINDS, clock: Callable[[], float] = time.time) -> None:
        self.kinds = kinds
        self._lock = Lock()
        self._accounts, self._sessions, self._events = Table(ACCOUNTS), Table(SESSIONS), Table(EVENTS)
        self._general: dict[type[Struct], Table[Any]] = {kind.record: Table(kind) for kind in kinds.general}
        self._live: dict[str, dict[str, None]] = {}
        self._orphans: dict[str, None] = {}
        self._log: list[Revocation] = []
        self._log_of: dict[str, list[Revocation]] = {}
        self._seq = 0
        self._audit_log, self._audited = secrets.token_hex(8), 0
        self._audit: list[tuple[int, int, str]] = []
        """The order of the audit log: log epoch, number and id of each event."""
        # Nothing outlives this process, so each life begins its own log.
        self.first_epoch = self._log_epoch = int(clock() * 1000)
        self.newest_log = 0
        self._salt = secrets.token_bytes(16)
        self._nodes: dict[str, NodeRow] = {}
        self._watchers: dict[object, tuple[asyncio.AbstractEventLoop, Callable[[], None]]] = {}
        self._tats: dict[str, float] = {}
        self._moving: dict[str, str | None] | None = None
        self._left = False

    def _table(self, kind: type[R]) -> Table[R]:
        return self._general[self.kinds.of(kind).record]

    @property
    def load(self) -> Load:
        return Load()

    async def open(self, *, to_move: bool = False, as_is: bool = False) -> None:  # noqa: ARG002 - it has no schema
        if not to_move:
            refuse_unless_whole([LEFT] if self._left else [""] if self._moving is not None else [], "this store")

    async def close(self) -> None:
        pass

    # --- writing ------------------------------------------------------------------------------------------------------

    async def commit(self, *changes: Change) -> Revoked:
        undo: list[Undo] = []
        ended = 0
        with self._lock:
            seq = self._seq
            try:
                for change in changes:
                    ended += self._apply(change, undo)
            except BaseException:
                for step in reversed(undo):
                    step()
                raise
            grown = self._seq != seq
            longest = max((row.lease_for for row in self._nodes.values()), default=0.0) if grown else 0.0
            done = Revoked(self._seq, ended, self._log_epoch, longest)
        if grown:
            self._wake()
        return done

    def _apply(self, change: Change, undo: list[Undo]) -> int:  # noqa: C901, PLR0912, PLR0915 - one for each for a kind of change
        match change:
            case Add(record):
                self._add(record, undo)
            case Swap(record):
                self._swap(record, undo)
            case Remove(record):
                self._remove(record, undo)
            case Expect(subject, epoch):
                account = self._accounts.rows.get((subject,))
                if account is None or not account.active or account.epoch != epoch:
                    raise Conflict("account is gone, disabled or of another epoch")
            case ExpectFew(subject, at_most, at):
                if sum(entry.expires_at > at for entry in self._log_of.get(subject, ())) > at_most:
                    raise Conflict("many revocations of the subject are live")
            case ExpectLive(session_id, subject):
                session = self._sessions.rows.get((session_id,))
                if session is None or session.ended_at is not None or session.subject != subject:
                    raise Conflict("session is not there or has ended")
                if session_id in self._orphans:
                    raise Conflict("the session's account was removed")
            case ExpectRole(role):
                if not any(account.active and role in account.roles for account in self._accounts.rows.values()):
                    raise Conflict("no active account has the role")
            case Take(record):
                if self._table(type(record)).drop(record, undo) is None:
                    raise Conflict("record is not there")
            case Discard(kind, values):
                table = self._table(kind)
                for record in table.select(values):
                    table.drop(record, undo)
            case End(session_id, reason, at):
                session = self._sessions.rows.get((session_id,))
                if session is None or session.ended_at is not None:
                    raise Conflict("session is not there or has ended")
                self._write_session(_ended(session, reason, at), undo)
            case EndAll(subject, reason, at, keep):
                live = [self._sessions.rows[live_id,] for live_id in self._live.get(subject, ()) if live_id != keep]
                for session in live:
                    self._write_session(_ended(session, reason, at), undo)
                return len(live)
            case Revoke(entry):
                self._seq += 1
                entry = replace(entry, seq=self._seq)
                self._log.append(entry)
                self._log_of.setdefault(entry.subject, []).append(entry)
                undo.append(self._unrevoke)
            case Forgive(returned, forgotten):
                for bucket in returned:
                    if (tat := self._tats.get(bucket.key)) is not None:
                        put(self._tats, bucket.key, give_back(tat, bucket.limit), undo)
                for bucket in forgotten:
                    drop(self._tats, bucket.key, undo)
            case Log(event):
                self._events.insert(event, undo)
                self._audited += 1
                self._audit.append((self._log_epoch, self._audited, event.id))
                undo.append(self._audit.pop)
        return 0

    def _add(self, record: Struct, undo: list[Undo]) -> None:
        match record:
            case Account():
                self._accounts.insert(record, undo)
            case Session():
                if (record.id,) in self._sessions.rows or (record.subject,) not in self._accounts.rows:
                    raise Conflict("session is there already, or its account is not")
                self._write_session(replace(record, revision=0), undo)
            case _:
                self._table(type(record)).insert(record, undo)

    def _swap(self, record: Struct, undo: list[Undo]) -> None:
        match record:
            case Account():
                self._accounts.swap(record, undo)
            case Session():
                stored = self._sessions.rows.get((record.id,))
                if stored is None or stored.revision != record.revision:
                    raise Conflict("session is not there or was written since it was read")
                if stored.ended_at is not None or stored.subject != record.subject or record.id in self._orphans:
                    raise Conflict("session has ended")
                self._write_session(replace(record, revision=record.revision + 1), undo)
            case _:
                self._table(type(record)).swap(record, undo)

    def _remove(self, record: Struct, undo: list[Undo]) -> None:
        if not isinstance(record, Account):
            self._table(type(record)).drop(record, undo)
            return
        subject = record.subject
        self._accounts.drop(record, undo)
        for table in self._general.values():
            if table.kind.owner:
                for owned in table.select({table.kind.owner: subject}):
                    table.drop(owned, undo)
        # Another account of the same subject must not inherit them.
        for session in self._sessions.rows.values():
            if session.subject == subject:
                put(self._orphans, session.id, None, undo)
        drop(self._live, subject, undo)

    def _write_session(self, session: Session, undo: list[Undo]) -> None:
        self._sessions.write(session, undo)
        live = self._live.setdefault(session.subject, {})
        if session.ended_at is None:
            put(live, session.id, None, undo)
            return
        drop(live, session.id, undo)
        for table in self._general.values():
            if table.kind.session:
                for record in table.select({table.kind.session: session.id}):
                    table.drop(record, undo)

    def _replace_log(self, log: list[Revocation]) -> None:
        self._log, self._log_of = log, {}
        for entry in log:
            self._log_of.setdefault(entry.subject, []).append(entry)

    def _unrevoke(self) -> None:
        self._log_of[self._log.pop().subject].pop()
        self._seq -= 1

    # --- reading ------------------------------------------------------------------------------------------------------

    async def session(self, session_id: str) -> tuple[Session, Account] | None:
        with self._lock:
            session = self._sessions.rows.get((session_id,))
            if session is None or session_id in self._orphans:
                return None
            return session, self._accounts.rows[session.subject,]

    async def sessions_of(self, subject: str, *, limit: int | None = None) -> list[Session]:
        with self._lock:
            live = [self._sessions.rows[session_id,] for session_id in self._live.get(subject, ())]
        return sorted(live, key=lambda session: order(session.id), reverse=True)[:limit]

    async def account(self, subject: str) -> Account | None:
        with self._lock:
            return self._accounts.rows.get((subject,))

    async def account_by_email(self, email: str) -> Account | None:
        with self._lock:
            return self._accounts.find({"email": email})

    async def known(self, email: str, *, recent: int) -> Known | None:
        with self._lock:
            account = self._accounts.find({"email": email})
            if account is None:
                return None
            credentials = self._table(Credential).select({"subject": account.subject})
            live = [self._sessions.rows[session_id,] for session_id in self._live.get(account.subject, ())]
        newest = sorted(live, key=lambda session: order(session.id), reverse=True)[:recent]
        return Known(account, credentials, [(session.created_at, session.address) for session in newest])

    async def accounts(self, *, after: str = "", limit: int = 100) -> list[Account]:
        with self._lock:
            found = [account for account in self._accounts.rows.values() if account.subject > after]
        return sorted(found, key=lambda account: account.subject)[:limit]

    async def newest_accounts(
        self, *, status: AccountStatus = "any", before: tuple[float, str] | None = None, limit: int = 100
    ) -> list[Account]:
        def age(account: Account) -> tuple[float, str]:
            return account.created_at, account.subject

        with self._lock:
            found = [a for a in self._accounts.rows.values() if _has_status(a, status)]
        return sorted([a for a in found if before is None or age(a) < before], key=age, reverse=True)[:limit]

    async def search_accounts(self, text: str, *, after: str = "", limit: int = 100) -> list[tuple[str, Account]]:
        begins = sought(text)
        if not begins:
            return []
        word, subject = read_word_cursor(after, begins)
        start = word, subject if isinstance(subject, str) else ""
        with self._lock:
            found = {account.subject: (words_of(account), account) for account in self._accounts.rows.values()}
        firsts = (
            (min(word for word in words if word.startswith(begins)), account.subject)
            for words, account in found.values()
            if any(word.startswith(begins) for word in words)
        )
        page = sorted(first for first in firsts if first > start)[:limit]
        return [(write_cursor(*each), found[each[1]][1]) for each in page]

    async def accounts_with_role(self, role: str, *, after: str = "", limit: int) -> list[Account]:
        with self._lock:
            found = [a for a in self._accounts.rows.values() if a.active and role in a.roles and a.subject > after]
        return sorted(found, key=lambda account: account.subject)[:limit]

    async def registered_before(self, at: float, *, after: str = "", limit: int = 100) -> list[Account]:
        with self._lock:
            accounts = (
                self._accounts.rows[credential.subject,]
                for credential in self._table(Credential).rows.values()
                if credential.method == "registration" and credential.created_at < at
                if (credential.subject,) in self._accounts.rows
            )
            found = [a for a in accounts if a.email_verified_at is None and a.active and not a.roles]
        return sorted((a for a in found if a.subject > after), key=lambda account: account.subject)[:limit]

    async def get(self, kind: type[R], *key: str | int) -> R | None:
        table = self._table(kind)
        table.kind.sought(key)
        with self._lock:
            return table.rows.get(key)

    async def find(self, kind: type[R], **unique: str | int) -> R | None:
        with self._lock:
            return self._table(kind).find(unique)

    async def select(
        self, kind: type[R], *, after: Sequence[str | int] = (), limit: int | None = None, **values: str | int
    ) -> list[R]:
        table = self._table(kind)
        listing = table.kind.listing
        with self._lock:
            found = table.select(values)
        found.sort(key=lambda record: table.place([getattr(record, name) for name in listing], listing))
        if after:
            behind = table.place(after, listing)
            found = [r for r in found if table.place([getattr(r, name) for name in listing], listing) > behind]
        return found[:limit]

    async def events(
        self, *, subject: str = "", name: str = "", since: float = 0.0, before: str = "", limit: int = 100
    ) -> list[AuditEvent]:
        with self._lock:
            found = [
                event
                for event in self._events.rows.values()
                if (not subject or event.subject == subject) and (not name or event.name == name) and event.at >= since
            ]
        found.sort(key=lambda event: order(event.id), reverse=True)
        return [event for event in found if not before or order(event.id) < order(before)][:limit]

    async def look_for_events(
        self, wanted: AuditSearch, *, before: str = "", limit: int = 100, look_at: int = 50_000
    ) -> tuple[list[AuditEvent], str]:
        indexed = replace(wanted, outcome="", actor="", address="")
        with self._lock:
            found = [event for event in self._events.rows.values() if indexed.finds(event)]
        found.sort(key=lambda event: order(event.id), reverse=True)
        behind = [event for event in found if not before or order(event.id) < order(before)]
        shown = [event for event in behind[:look_at] if wanted.finds(event)][:limit]
        if len(shown) == limit:
            return shown, shown[-1].id
        return shown, behind[look_at - 1].id if len(behind) >= look_at else ""

    async def count_events(self, names: Sequence[str], edges: Sequence[float]) -> dict[str, list[int]]:
        counts = {name: [0] * (len(edges) - 1) for name in names}
        with self._lock:
            for event in self._events.rows.values():
                if event.name in counts and edges[0] <= event.at < edges[-1]:
                    counts[event.name][bisect_right(edges, event.at) - 1] += 1
        return counts

    async def count_details(self, name: str, *, subject: str, since: float) -> dict[str, int]:
        with self._lock:
            every = self._events.rows.values()
            return Counter(e.detail for e in every if (e.name, e.subject) == (name, subject) and e.at >= since)

    async def events_after(
        self, cursor: AuditCursor | None, *, subject: str | None = None, since: float = 0.0, limit: int = 100
    ) -> list[tuple[AuditCursor, AuditEvent]]:
        with self._lock:
            start = 0
            if cursor is not None:
                cursor.must_be_in(self._audit_log)
                start = bisect_right(self._audit, (cursor.log_epoch, cursor.number, cursor.id))
            behind = (
                (AuditCursor(self._audit_log, *place), self._events.rows[place[2],])
                for place in islice(self._audit, start, None)
            )
            wanted = (
                (place, event)
                for place, event in behind
                if (subject is None or event.subject == subject)
                and (not since or order(event.id) >= order(ordered_from(since)))
            )
            return list(islice(wanted, limit))

    async def audit_end(self) -> AuditCursor:
        return AuditCursor(self._audit_log, self._log_epoch, self._audited + 1, "")

    # --- the revocation log, and the nodes that follow it -------------------------------------------------------------

    def head(self) -> LogHead:
        # Without the lock, which a commit may hold for long. The result may count an uncommitted entry: ahead is
        # allowed.
        return LogHead(self._log_epoch, self._seq)

    def watch(self, woken: Callable[[], None]) -> Callable[[], None]:
        watcher = object()
        self._watchers[watcher] = asyncio.get_running_loop(), woken

        def unwatch() -> None:
            self._watchers.pop(watcher, None)

        return unwatch

    def _wake(self) -> None:
        for loop, woken in list(self._watchers.values()):
            with contextlib.suppress(RuntimeError):  # the loop was closed: no watcher is left to wake
                loop.call_soon_threadsafe(woken)

    async def read_log(self, log_epoch: int, after: int) -> Renewed:
        with self._lock:
            return self._read_log(log_epoch, after)

    def _read_log(self, log_epoch: int, after: int, *, there: bool = True, rows: Sequence[NodeRow] = ()) -> Renewed:
        after = after if log_epoch == self._log_epoch else 0
        start = bisect_right(self._log, after, key=lambda entry: entry.seq)
        entries = self._log[start : start + _PAGE]
        return Renewed(
            there=there,
            log_epoch=self._log_epoch,
            salt=self._salt,
            after=after,
            entries=entries,
            upto=entries[-1].seq if start + _PAGE < len(self._log) else self._seq,
            head=self._seq,
            rows=rows,
        )

    async def live_revocations(self, subject: str, now: float) -> int:
        with self._lock:
            return sum(entry.expires_at > now for entry in self._log_of.get(subject, ()))

    async def begin_log_epoch(self, now: float) -> int:
        with self._lock:
            log_epoch = self._begin_log_epoch(now)
        self._wake()
        return log_epoch

    def _begin_log_epoch(self, now: float) -> int:
        self._log_epoch = max(self._log_epoch + 1, int(now * 1000))
        self._nodes.clear()
        for account in list(self._accounts.rows.values()):
            epoch = max(account.epoch + 1, self._log_epoch)
            self._accounts.write(replace(account, epoch=epoch, revision=account.revision + 1), [])
        return self._log_epoch

    async def node_register(self, row: NodeRow) -> None:
        with self._lock:
            self._nodes[row.id] = row

    async def node_renew(self, row: NodeRow, after: int) -> Renewed:
        with self._lock:
            there = row.id in self._nodes
            if there:
                self._nodes[row.id] = row
            return self._read_log(row.log_epoch, after, there=there, rows=list(self._nodes.values()))

    async def node_rows(self) -> Rows:
        with self._lock:
            return Rows(log_epoch=self._log_epoch, rows=list(self._nodes.values()))

    async def node_forget(self, id: str, stamp: str) -> None:
        with self._lock:
            if id in self._nodes and self._nodes[id].stamp == stamp:
                del self._nodes[id]

    # --- limits, upkeep -----------------------------------------------------------------------------------------------

    async def hit(self, buckets: Sequence[Bucket], now: float) -> tuple[float, str]:
        with self._lock:
            verdict = decide_all([self._tats.get(bucket.key) for bucket in buckets], buckets, now)
            self._tats.update((b.key, tat) for b, tat in zip(buckets, verdict.tats, strict=True) if tat is not None)
        return verdict.retry_after, verdict.refused_by

    async def try_writing(self, now: float) -> None:
        await self.hit([WRITING], now)

    async def purge(self, *, before: float, events_before: float) -> int:
        deleted = 0
        with self._lock:
            for session in self._sessions.expired(before):
                self._orphans.pop(session.id, None)
                self._live.get(session.subject, {}).pop(session.id, None)
            for table in self._tables().values():
                over = table.expired(events_before if table is self._events else before)
                deleted += len(over)
                for record in over:
                    table.drop(record, [])
            full = [key for key, tat in self._tats.items() if tat < before]
            deleted += len(full)
            for key in full:
                del self._tats[key]
            self._audit = [place for place in self._audit if (place[2],) in self._events.rows]
            kept = [entry for entry in self._log if entry.expires_at >= before]
            deleted += len(self._log) - len(kept)
            self._replace_log(kept)
        return deleted

    async def forget(self, subject: str) -> int:
        with self._lock:
            gone = [session for session in self._sessions.rows.values() if session.subject == subject]
            for session in gone:
                self._sessions.drop(session, [])
                self._orphans.pop(session.id, None)
            self._live.pop(subject, None)
            seen = [
                each
                for each in self._events.rows.values()
                if each.subject == subject and (each.address or each.country or each.device)
            ]
            for each in seen:
                self._events.write(replace(each, address="", country="", device=""), [])
        return len(gone) + len(seen)

    async def counts(self) -> dict[str, int]:
        with self._lock:
            counts = {name: len(table.rows) for name, table in self._tables().items()}
            return {**counts, "revocations": len(self._log), "limits": len(self._tats)}

    # --- moving -------------------------------------------------------------------------------------------------------

    def _tables(self) -> dict[str, Table[Any]]:
        """Every table by its name, except the log, which is a list, and the levels of limits."""
        tables: list[Table[Any]] = [self._accounts, self._sessions, *self._general.values(), self._events]
        return {table.kind.table: table for table in tables}

    async def export(self, table: str, after: str | None = None, *, limit: int = 1000) -> Page:
        kind = self.kinds.by_table[table]
        with self._lock:
            records: list[Any]
            if table == "revocations":
                records = list(self._log)
            elif table == "limits":
                records = [Level(key=key, tat=tat) for key, tat in self._tats.items()]
            else:
                records = [
                    r for r in self._tables()[table].rows.values() if table != "sessions" or r.id not in self._orphans
                ]
        behind = None if after is None else tuple(json.loads(after))
        records = [record for record in records if behind is None or kind.key_of(record) > behind]
        page = sorted(records, key=kind.key_of)[:limit]
        return Page(page, json.dumps(kind.key_of(page[-1])) if len(page) == limit else None)

    async def unfinished(self) -> Mapping[str, str | None] | None:
        with self._lock:
            return None if self._moving is None else dict(self._moving)

    async def begin_move(self, log: LogState) -> None:
        with self._lock:
            superseded = self._moving is not None or (self._left and self._salt == log.salt)
            if not superseded and (self._seq or self._tats or any(table.rows for table in self._tables().values())):
                raise Conflict("there is something in this store already")
            for table in self._tables().values():
                table.clear()
            self._tats, self._log, self._log_of, self._live, self._orphans = {}, [], {}, {}, {}
            self._nodes, self._moving, self._left = {}, {}, False
            self._audit_log, self._audit = secrets.token_hex(8), []
            self._log_epoch, self._salt, self._seq = log.log_epoch, log.salt, log.seq

    async def take_in(self, table: str, page: Page) -> None:
        undo: list[Undo] = []
        with self._lock:
            if self._moving is None:
                raise Conflict("no move into this store was begun")
            if table == "revocations":
                entries = {entry.seq: entry for entry in (*self._log, *page.records) if isinstance(entry, Revocation)}
                self._replace_log([entries[seq] for seq in sorted(entries)])
            try:
                for record in page.records:
                    self._take_in(table, record, undo)
            except BaseException:
                for step in reversed(undo):
                    step()
                raise
            self._moving[table] = page.after

    def _take_in(self, table: str, record: Struct, undo: list[Undo]) -> None:
        match record:
            case Session():
                if (record.subject,) not in self._accounts.rows:
                    raise Conflict("a session's account is not there")
                self._write_session(record, undo)
            case Revocation():
                pass  # taken in all at once
            case Level():
                put(self._tats, record.key, record.tat, undo)
            case _:
                self._tables()[table].write(record, undo)
                if isinstance(record, AuditEvent) and (place := (0, 0, record.id)) not in self._audit:
                    insort(self._audit, place)

    async def end_move(self, now: float, event: AuditEvent) -> int:
        with self._lock:
            if self._moving is None:
                raise Conflict("no move into this store was begun")
            self._take_in("events", event, [])
            self._moving = None
            log_epoch = self._begin_log_epoch(now)
        self._wake()
        return log_epoch

    async def is_left(self) -> bool:
        return self._left

    async def leave(self) -> None:
        self._left = True

    async def take_back(self) -> None:
        self._left = False


def _ended(session: Session, reason: str, at: float) -> Session:
    return replace(session, ended_at=at, end_reason=reason, revision=session.revision + 1)


def _has_status(account: Account, status: AccountStatus) -> bool:
    if status == "unverified":
        return account.email_verified_at is None and account.email is not None
    return status in {"any", account.status}
