"""Everything in this process's memory, gone when it ends: for trying out, for tests, and as the model for other stores.

One lock makes every method one step. Nothing is durable, and no other process sees it: of the laws of
`dutchdoor.stores.base`, the second and the second half of the eighth are void. Its log epoch is the instant it was
made: a process that starts again has lost what the last one knew, and counts as a restore that lost everything.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import secrets
import time
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from threading import Lock
from typing import Any, TypeVar

from msgspec.structs import replace

from dutchdoor.errors import Conflict, Misconfigured
from dutchdoor.jose.signing_keys import StoredKey
from dutchdoor.model.accounts import Account, Credential
from dutchdoor.model.audit_events import AuditEvent
from dutchdoor.model.ids import decode, is_id
from dutchdoor.model.oauth_clients import RegisteredClient
from dutchdoor.model.one_time_tokens import OneTimeToken
from dutchdoor.model.rate_limits import Bucket, decide_all, give_back
from dutchdoor.model.sessions import Session
from dutchdoor.model.verifier_keys import VerifierKey
from dutchdoor.revocation.log import Revocation
from dutchdoor.revocation.node_messages import LogHead, NodeRow, Renewed, Rows
from dutchdoor.stores.base import (
    WRITING,
    Add,
    Change,
    Committed,
    Discard,
    End,
    EndAll,
    Expect,
    ExpectRole,
    Forgive,
    Log,
    Record,
    Remove,
    Revoke,
    Store,
    Swap,
    Take,
)
from dutchdoor.stores.transfer import LEFT, Kind, Level, LogState, Page, Stored, refuse_unless_whole

__all__ = ["MemoryStore", "from_url"]

_PAGE = 4096
"""Entries of the log that one reading gives."""

Undo = Callable[[], object]
K = TypeVar("K")
V = TypeVar("V")


def from_url(url: str) -> Store:
    """Raises `Misconfigured` for anything but `memory:`."""
    if url not in {"memory:", "memory://"}:
        raise Misconfigured("The memory store has the URL memory: and takes nothing after it.")
    return MemoryStore()


class MemoryStore:
    """See `dutchdoor.stores.base.Store`."""

    def __init__(self, *, clock: Callable[[], float] = time.time) -> None:
        self._lock = Lock()
        self._accounts: dict[str, Account] = {}
        self._by_email: dict[str, str] = {}
        self._credentials: dict[tuple[str, str, str], Credential] = {}
        self._sessions: dict[str, Session] = {}
        self._live: dict[str, dict[str, None]] = {}
        self._orphans: dict[str, None] = {}
        self._one_time: dict[str, OneTimeToken] = {}
        self._keys: dict[str, StoredKey] = {}
        self._clients: dict[str, RegisteredClient] = {}
        self._verifiers: dict[str, VerifierKey] = {}
        self._log: list[Revocation] = []
        self._log_of: dict[str, list[Revocation]] = {}
        self._seq = 0
        # Nothing outlives this process, so that each life begins a log of its own.
        self.first_epoch = self._log_epoch = int(clock() * 1000)
        self.newest_log = 0
        self._salt = secrets.token_bytes(16)
        self._nodes: dict[str, NodeRow] = {}
        self._watchers: dict[object, tuple[asyncio.AbstractEventLoop, Callable[[], None]]] = {}
        self._events: dict[str, AuditEvent] = {}
        self._tats: dict[str, float] = {}
        self._moving: dict[Kind, str | None] | None = None
        self._left = False

    async def open(self, *, to_move: bool = False) -> None:
        if not to_move:
            refuse_unless_whole([LEFT] if self._left else [""] if self._moving is not None else [], "this store")

    async def close(self) -> None:
        pass

    # --- writing ------------------------------------------------------------------------------------------------------

    async def commit(self, *changes: Change) -> Committed:
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
            done = Committed(self._seq, ended, self._log_epoch, longest)
        if grown:
            self._wake()
        return done

    def _apply(self, change: Change, undo: list[Undo]) -> int:  # noqa: C901, PLR0912 - one branch for a kind of change
        match change:
            case Add(record):
                self._add(record, undo)
            case Swap(record):
                self._swap(record, undo)
            case Remove(record):
                self._remove(record, undo)
            case Expect(subject, epoch):
                account = self._accounts.get(subject)
                if account is None or not account.active or account.epoch != epoch:
                    raise Conflict("account is gone, disabled or of another epoch")
            case ExpectRole(role):
                if not any(account.active and role in account.roles for account in self._accounts.values()):
                    raise Conflict("no active account has the role")
            case Take(id):
                if id not in self._one_time:
                    raise Conflict("one-time token is not there")
                _drop(self._one_time, id, undo)
            case Discard(subject, purpose):
                for token in [t for t in self._one_time.values() if t.subject == subject and t.purpose == purpose]:
                    _drop(self._one_time, token.id, undo)
            case End(session_id, reason, at):
                session = self._sessions.get(session_id)
                if session is None or session.ended_at is not None:
                    raise Conflict("session is not there or has ended")
                self._write_session(_ended(session, reason, at), undo)
            case EndAll(subject, reason, at, keep):
                live = [self._sessions[session_id] for session_id in self._live.get(subject, ()) if session_id != keep]
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
                        _put(self._tats, bucket.key, give_back(tat, bucket.limit), undo)
                for bucket in forgotten:
                    _drop(self._tats, bucket.key, undo)
            case Log(event):
                if event.id in self._events:
                    raise Conflict("audit event is there already")
                _put(self._events, event.id, event, undo)
        return 0

    def _add(self, record: Record, undo: list[Undo]) -> None:
        match record:
            case Account():
                self._claim_email(None, record, undo)
                _insert(self._accounts, record.subject, replace(record, revision=0), undo)
            case Credential():
                key = record.subject, record.method, record.handle
                _insert(self._credentials, key, replace(record, revision=0), undo)
            case Session():
                if record.id in self._sessions or record.subject not in self._accounts:
                    raise Conflict("session is there already, or its account is not")
                self._write_session(replace(record, revision=0), undo)
            case OneTimeToken():
                _insert(self._one_time, record.id, record, undo)
            case StoredKey():
                if any(key.number == record.number for key in self._keys.values()):
                    raise Conflict("key number is taken")
                _insert(self._keys, record.kid, replace(record, revision=0), undo)
            case RegisteredClient():
                _insert(self._clients, record.id, replace(record, revision=0), undo)
            case VerifierKey():
                if any(key.name == record.name for key in self._verifiers.values()):
                    raise Conflict("name is taken")
                _insert(self._verifiers, record.id, replace(record, revision=0), undo)

    def _swap(self, record: Account | Credential | Session | StoredKey | RegisteredClient, undo: list[Undo]) -> None:
        match record:
            case Account():
                old = _same_revision(self._accounts.get(record.subject), record)
                self._claim_email(old, record, undo)
                _put(self._accounts, record.subject, _next(record), undo)
            case Credential():
                key = record.subject, record.method, record.handle
                _same_revision(self._credentials.get(key), record)
                _put(self._credentials, key, _next(record), undo)
            case Session():
                stored = _same_revision(self._sessions.get(record.id), record)
                if stored.ended_at is not None or stored.subject != record.subject or record.id in self._orphans:
                    raise Conflict("session has ended")
                self._write_session(_next(record), undo)
            case StoredKey():
                _same_revision(self._keys.get(record.kid), record)
                if any(key.number == record.number and key.kid != record.kid for key in self._keys.values()):
                    raise Conflict("key number is taken")
                _put(self._keys, record.kid, _next(record), undo)
            case RegisteredClient():
                _same_revision(self._clients.get(record.id), record)
                _put(self._clients, record.id, _next(record), undo)

    def _remove(self, record: Account | Credential | RegisteredClient | VerifierKey, undo: list[Undo]) -> None:
        match record:
            case Account(subject=subject):
                old = self._accounts.get(subject)
                _drop(self._accounts, subject, undo)
                if old is not None and old.email is not None:
                    _drop(self._by_email, old.email, undo)
                for key in [key for key in self._credentials if key[0] == subject]:
                    _drop(self._credentials, key, undo)
                for token in [token for token in self._one_time.values() if token.subject == subject]:
                    _drop(self._one_time, token.id, undo)
                # Another account of the same subject must not inherit them.
                for session in self._sessions.values():
                    if session.subject == subject:
                        _put(self._orphans, session.id, None, undo)
                _drop(self._live, subject, undo)
            case Credential():
                _drop(self._credentials, (record.subject, record.method, record.handle), undo)
            case RegisteredClient():
                _drop(self._clients, record.id, undo)
            case VerifierKey():
                _drop(self._verifiers, record.id, undo)

    def _claim_email(self, old: Account | None, new: Account, undo: list[Undo]) -> None:
        if new.email is not None and self._by_email.get(new.email, new.subject) != new.subject:
            raise Conflict("e-mail address is taken")
        if old is not None and old.email is not None and old.email != new.email:
            _drop(self._by_email, old.email, undo)
        if new.email is not None:
            _put(self._by_email, new.email, new.subject, undo)

    def _write_session(self, session: Session, undo: list[Undo]) -> None:
        _put(self._sessions, session.id, session, undo)
        live = self._live.setdefault(session.subject, {})
        if session.ended_at is None:
            _put(live, session.id, None, undo)
        else:
            _drop(live, session.id, undo)

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
            session = self._sessions.get(session_id)
            if session is None or session_id in self._orphans:
                return None
            return session, self._accounts[session.subject]

    async def sessions_of(self, subject: str, *, limit: int | None = None) -> list[Session]:
        with self._lock:
            live = [self._sessions[session_id] for session_id in self._live.get(subject, ())]
        return sorted(live, key=lambda session: _order(session.id), reverse=True)[:limit]

    async def account(self, subject: str) -> Account | None:
        with self._lock:
            return self._accounts.get(subject)

    async def account_by_email(self, email: str) -> Account | None:
        with self._lock:
            subject = self._by_email.get(email)
            return None if subject is None else self._accounts[subject]

    async def accounts(self, *, search: str = "", after: str = "", limit: int = 100) -> list[Account]:
        with self._lock:
            found = [
                a
                for a in self._accounts.values()
                if a.subject > after and (not search or _mentions(a, search.casefold()))
            ]
        return sorted(found, key=lambda account: account.subject)[:limit]

    async def accounts_with_role(self, role: str, *, limit: int) -> list[Account]:
        with self._lock:
            found = [account for account in self._accounts.values() if account.active and role in account.roles]
        return sorted(found, key=lambda account: account.subject)[:limit]

    async def registered_before(self, at: float, *, after: str = "", limit: int = 100) -> list[Account]:
        with self._lock:
            accounts = (
                self._accounts[subject]
                for (subject, method, _), credential in self._credentials.items()
                if method == "registration" and credential.created_at < at and subject in self._accounts
            )
            found = [a for a in accounts if a.email_verified_at is None and a.active and not a.roles]
        return sorted((a for a in found if a.subject > after), key=lambda account: account.subject)[:limit]

    async def credential(self, subject: str, method: str, handle: str = "") -> Credential | None:
        with self._lock:
            return self._credentials.get((subject, method, handle))

    async def one_time_token(self, id: str) -> OneTimeToken | None:
        with self._lock:
            return self._one_time.get(id)

    async def keys(self) -> list[StoredKey]:
        with self._lock:
            return sorted(self._keys.values(), key=lambda key: key.number)

    async def client(self, id: str) -> RegisteredClient | None:
        with self._lock:
            return self._clients.get(id)

    async def clients(self) -> list[RegisteredClient]:
        with self._lock:
            return sorted(self._clients.values(), key=lambda client: client.id)

    async def verifier_key(self, id: str) -> VerifierKey | None:
        with self._lock:
            return self._verifiers.get(id)

    async def verifier_keys(self) -> list[VerifierKey]:
        with self._lock:
            return sorted(self._verifiers.values(), key=lambda key: key.name)

    async def events(
        self, *, subject: str = "", name: str = "", since: float = 0.0, before: str = "", limit: int = 100
    ) -> list[AuditEvent]:
        with self._lock:
            found = [
                event
                for event in self._events.values()
                if (not subject or event.subject == subject) and (not name or event.name == name) and event.at >= since
            ]
        found.sort(key=lambda event: _order(event.id), reverse=True)
        return [event for event in found if not before or _order(event.id) < _order(before)][:limit]

    # --- the revocation log, and the nodes that follow it -------------------------------------------------------------

    def head(self) -> LogHead:
        # Without the lock, which a commit may hold for long. What is not committed yet may be counted: too far.
        return LogHead(self._log_epoch, self._seq)

    def watch(self, woken: Callable[[], None]) -> Callable[[], None]:
        watcher = object()
        self._watchers[watcher] = asyncio.get_running_loop(), woken

        def unwatch() -> None:
            self._watchers.pop(watcher, None)

        return unwatch

    def _wake(self) -> None:
        for loop, woken in list(self._watchers.values()):
            with contextlib.suppress(RuntimeError):  # the loop was closed: nobody is left to wake
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
        for account in self._accounts.values():
            epoch = max(account.epoch + 1, self._log_epoch)
            self._accounts[account.subject] = replace(account, epoch=epoch, revision=account.revision + 1)
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
        with self._lock:
            sessions = [s for s in self._sessions.values() if s.expires_at < before]
            for session in sessions:
                del self._sessions[session.id]
                self._orphans.pop(session.id, None)
                self._live.get(session.subject, {}).pop(session.id, None)
            deleted = len(sessions)
            deleted += _delete_where(self._one_time, lambda token: token.expires_at < before)
            deleted += _delete_where(self._tats, lambda tat: tat < before)
            deleted += _delete_where(self._events, lambda event: event.at < events_before)
            kept = [entry for entry in self._log if entry.expires_at >= before]
            deleted += len(self._log) - len(kept)
            self._replace_log(kept)
        return deleted

    async def counts(self) -> dict[str, int]:
        with self._lock:
            return {**{kind: len(table) for kind, table in self._tables().items()}, "revocations": len(self._log)}

    # --- moving -------------------------------------------------------------------------------------------------------

    def _tables(self) -> dict[str, dict[Any, Any]]:
        """Every table by its kind, but the log, which is a list."""
        return {
            "accounts": self._accounts,
            "credentials": self._credentials,
            "sessions": self._sessions,
            "one_time_tokens": self._one_time,
            "keys": self._keys,
            "clients": self._clients,
            "verifiers": self._verifiers,
            "events": self._events,
            "limits": self._tats,
        }

    async def page(self, kind: Kind, after: str | None = None, *, limit: int = 1000) -> Page:
        with self._lock:
            records: dict[Any, Stored]
            if kind == "revocations":
                records = {entry.seq: entry for entry in self._log}
            elif kind == "limits":
                records = {key: Level(key=key, tat=tat) for key, tat in self._tats.items()}
            else:
                records = {key: value for key, value in self._tables()[kind].items() if key not in self._orphans}
        behind = None if after is None else json.loads(after)
        keys = sorted(key for key in records if behind is None or _comparable(key) > _comparable(behind))[:limit]
        last = json.dumps(keys[-1]) if len(keys) == limit else None
        return Page([records[key] for key in keys], last)

    async def unfinished(self) -> Mapping[Kind, str | None] | None:
        with self._lock:
            return None if self._moving is None else dict(self._moving)

    async def begin_move(self, log: LogState) -> None:
        with self._lock:
            superseded = self._moving is not None or (self._left and self._salt == log.salt)
            if not superseded and (self._seq or any(self._tables().values())):
                raise Conflict("there is something in this store already")
            for table in self._tables().values():
                table.clear()
            self._log, self._log_of, self._by_email, self._live, self._orphans = [], {}, {}, {}, {}
            self._nodes, self._moving, self._left = {}, {}, False
            self._log_epoch, self._salt, self._seq = log.log_epoch, log.salt, log.seq

    async def take_in(self, kind: Kind, page: Page) -> None:
        undo: list[Undo] = []
        with self._lock:
            if self._moving is None:
                raise Conflict("no move into this store was begun")
            if kind == "revocations":
                entries = {entry.seq: entry for entry in (*self._log, *page.records) if isinstance(entry, Revocation)}
                self._replace_log([entries[seq] for seq in sorted(entries)])
            try:
                for record in page.records:
                    self._take_in(kind, record, undo)
            except BaseException:
                for step in reversed(undo):
                    step()
                raise
            self._moving[kind] = page.after

    def _take_in(self, kind: Kind, record: Stored, undo: list[Undo]) -> None:
        match record:
            case Account():
                self._claim_email(self._accounts.get(record.subject), record, undo)
                _put(self._accounts, record.subject, record, undo)
            case Session():
                if record.subject not in self._accounts:
                    raise Conflict("a session's account is not there")
                self._write_session(record, undo)
            case Credential():
                _put(self._credentials, (record.subject, record.method, record.handle), record, undo)
            case StoredKey():
                if any(key.number == record.number and key.kid != record.kid for key in self._keys.values()):
                    raise Conflict("key number is taken")
                _put(self._keys, record.kid, record, undo)
            case VerifierKey():
                if any(key.name == record.name and key.id != record.id for key in self._verifiers.values()):
                    raise Conflict("name is taken")
                _put(self._verifiers, record.id, record, undo)
            case Revocation():
                pass  # taken in all at once
            case Level():
                _put(self._tats, record.key, record.tat, undo)
            case _:
                _put(self._tables()[kind], record.id, record, undo)

    async def end_move(self, now: float, event: AuditEvent) -> int:
        with self._lock:
            if self._moving is None:
                raise Conflict("no move into this store was begun")
            self._events[event.id] = event
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


V_ = TypeVar("V_", Account, Credential, Session, StoredKey, RegisteredClient)


def _next(record: V_) -> V_:
    return replace(record, revision=record.revision + 1)


def _same_revision(stored: V_ | None, record: V_) -> V_:
    if stored is None or stored.revision != record.revision:
        raise Conflict("record is not there or was written since it was read")
    return stored


def _ended(session: Session, reason: str, at: float) -> Session:
    return replace(session, ended_at=at, end_reason=reason, revision=session.revision + 1)


def _insert(table: dict[K, V], key: K, value: V, undo: list[Undo]) -> None:
    if key in table:
        raise Conflict("record is there already")
    _put(table, key, value, undo)


def _put(table: dict[K, V], key: K, value: V, undo: list[Undo]) -> None:
    if key in table:
        old = table[key]
        undo.append(lambda: table.__setitem__(key, old))
    else:
        undo.append(lambda: table.pop(key, None))
    table[key] = value


def _drop(table: dict[K, V], key: K, undo: list[Undo]) -> None:
    if key in table:
        old = table.pop(key)
        undo.append(lambda: table.__setitem__(key, old))


def _delete_where(table: dict[K, V], condition: Callable[[V], bool]) -> int:
    gone = [key for key, value in table.items() if condition(value)]
    for key in gone:
        del table[key]
    return len(gone)


def _comparable(key: Any) -> Any:
    """A key of several parts is a tuple here, and a list in JSON."""
    return tuple(key) if isinstance(key, list) else key


def _order(id: str) -> tuple[bool, bytes]:
    """Ids of ours sort by their bytes, which begin with the time of birth; their text sorts otherwise."""
    return (True, decode(id)) if is_id(id) else (False, id.encode())


def _mentions(account: Account, part: str) -> bool:
    return any(part in text.casefold() for text in (account.email or "", account.address or "", account.name))
