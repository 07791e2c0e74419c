"""Re-applying: revokes again what a store lost and this process still knows.

An operator promotes a standby that lagged, or restores a backup, while processes run that read newer entries of the
log. The new log lacks these entries, so the sessions and keys that they name are valid again in the records.
`Reapplying` is a store around that store, with one more law. Once a process has read an entry of the log, every later
log epoch with the same salt has that entry again, until it expires. The law covers the newest `KEPT` entries.

`Reapplying` passes on nothing of a new log until the log has these entries. Meanwhile, reads of the log, of sessions
and of accounts wait for `WAITS_FOR` and then raise `Unavailable`. `newest_log` says that the node is behind: the node
judges no request and extends no lease.

An entry of a subject does not say why it was written: a log-out everywhere, a new password, a disabled account or new
roles. All sessions of the subject are revoked. That is too much for a change of roles, and not enough for the others:
the password, the disabled state and the roles stay as the store has them.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from itertools import chain, islice
from typing import Final, ParamSpec, TypeAlias, TypeVar

from msgspec import Struct
from msgspec.structs import replace

from dutchdoor.errors import Conflict, Unavailable
from dutchdoor.jose import signing_keys
from dutchdoor.jose.signing_keys import StoredKey
from dutchdoor.model.accounts import Account
from dutchdoor.model.acting import BY_SYSTEM, NO_CLIENT, SYSTEM
from dutchdoor.model.audit_events import EventName, account_event, event, session_event
from dutchdoor.model.policy import LONGEST_ACCESS
from dutchdoor.model.service_credentials import RegisteredClient, VerifierKey
from dutchdoor.model.sessions import Session
from dutchdoor.revocation.log import Kind, Revocation, is_doubt
from dutchdoor.revocation.node_messages import NodeRow, Renewed
from dutchdoor.stores.base import Around, Change, End, EndAll, Known, Log, Remove, Revoke, Store, Swap

__all__ = ["ENDED_AGAIN", "Reapplying"]

ENDED_AGAIN: Final = "ended_again"
"""Why a session is revoked: it was revoked before, for a reason that was lost."""
KEPT: Final = 4096
"""Entries that are remembered at least, the newest: what a store loses is little and recent. At most twice as many."""
AT_ONCE: Final = 512
WAITS_FOR: Final = 0.7
"""Seconds that a call waits for re-applying."""
AGAIN_IN: Final = 0.1
"""Seconds between two attempts without progress."""
ATTEMPTS: Final = 100
"""Attempts that the store answers but that bring no progress, after which the rest is given up."""

_log = logging.getLogger("dutchdoor")

_Known: TypeAlias = dict[tuple[Kind, str], Revocation]
P = ParamSpec("P")
T = TypeVar("T")


class _NewLog(Struct):
    """How far a log was read, and which of the known entries were not found in it yet."""

    epoch: int = 0
    salt: bytes = b""
    upto: int = 0
    missing: _Known = {}


class Reapplying(Around):
    """A store around a store that may lose what it acknowledged. Each process has its own.

    Args:
        inner: the store.
        clock: the time of day.
    """

    def __init__(self, inner: Store, clock: Callable[[], float]) -> None:
        super().__init__(inner)
        self._clock = clock
        self._task: asyncio.Task[None] | None = None
        self._forget()

    def _forget(self) -> None:
        self._epoch, self._salt = 0, b""
        """The log that is passed on: the newest in which no entry is missing."""
        self._seen = 0
        """The newest log epoch of any answer."""
        self._before = _Known()
        """Entries that were read from the logs before that one."""
        self._young, self._old = _Known(), _Known()
        """Entries that were read from it: two generations, each in the order of the log."""

    async def open(self) -> None:
        """Open the store, and begin with no known entries, as a new process does."""
        self._stop()
        self._forget()
        await self._inner.open()

    async def close(self) -> None:
        self._stop()
        await self._inner.close()

    def _stop(self) -> None:
        if self._task is not None:
            self._task.cancel()
            self._task = None

    # The port

    @property
    def newest_log(self) -> int:
        inner = self._inner.newest_log
        return max(self._seen, inner)  # asked at every request: `max` takes twice as long

    async def read_log(self, log_epoch: int, after: int) -> Renewed:
        while not self._passes(answer := await self._inner.read_log(log_epoch, after)):
            await self._reapplied()
        return answer

    async def node_renew(self, row: NodeRow, after: int) -> Renewed:
        while not self._passes(answer := await self._inner.node_renew(row, after)):
            await self._reapplied()
        return answer

    async def session(self, session_id: str) -> tuple[Session, Account] | None:
        found = await self._current(self._inner.session, session_id)
        if found is None or found[0].ended_at is not None or not self._has_read("session", session_id):
            return found
        # The loss is not noticed yet, as after a disk snapshot was restored, or re-applying was given up.
        return replace(found[0], ended_at=found[0].last_seen_at, end_reason=ENDED_AGAIN), found[1]

    async def account(self, subject: str) -> Account | None:
        return await self._current(self._inner.account, subject)

    async def account_by_email(self, email: str) -> Account | None:
        return await self._current(self._inner.account_by_email, email)

    async def known(self, email: str, *, recent: int) -> Known | None:
        return await self._current(self._inner.known, email, recent=recent)

    # What is known

    def _passes(self, answer: Renewed) -> bool:
        """Return whether the node may have an answer, and remember its entries. An answer of an older log passes: the
        reader refuses it.
        """
        self._seen = max(self._seen, answer.log_epoch)
        if answer.log_epoch < self.newest_log:
            return True
        if not self._epoch:
            self._epoch, self._salt = answer.log_epoch, answer.salt
        if answer.log_epoch > self._epoch:
            return False
        for entry in answer.entries:
            if len(self._young) >= KEPT:
                self._old, self._young = self._young, {}
            self._young[entry.kind, entry.id] = entry
        return True

    def _has_read(self, kind: Kind, id: str) -> bool:
        key = kind, id
        return key in self._young or key in self._old or key in self._before

    def _known(self) -> _Known:
        """Return all known entries, of each subject the newest."""
        known = dict(self._before)
        for key, entry in chain(self._old.items(), self._young.items()):
            earlier = known.pop(key, entry)  # keep the newer entry, even where this log was read in part
            known[key] = earlier if earlier.min_epoch > entry.min_epoch else entry
        return known

    async def _current(self, ask: Callable[P, Awaitable[T]], *args: P.args, **named: P.kwargs) -> T:
        """Read a record, and read it again if the answer may be older than the newest log."""
        while True:
            if self.newest_log > self._epoch:
                await self._reapplied()
            epoch = self._epoch
            found = await ask(*args, **named)
            if self.newest_log == epoch:
                return found

    # Re-applying

    async def _reapplied(self) -> None:
        """Wait until no entry is missing in the newest log. Raises `Unavailable`, and what `_reapply` raises."""
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._reapply())
            self._task.add_done_callback(_seen)
        task = self._task
        done, _ = await asyncio.wait([task], timeout=WAITS_FOR)  # a client that hangs up does not cancel it
        if not done:
            raise Unavailable("what the store has lost is being revoked again")
        if not task.cancelled():  # the store was opened again: the caller asks again
            task.result()

    async def _reapply(self) -> None:
        """Read the newest log, and revoke again what it lacks, until the log has all of it. Another process that knew
        the entries may write them too. What the log says in the end is passed on.

        Fails with the exception if the log cannot be read. The next call begins anew.
        """
        log, attempts, failures = _NewLog(), 0, list[Exception]()
        while True:
            epoch, missing = log.epoch, len(log.missing)
            await self._read_on(log)
            if not log.missing:
                break
            if log.epoch != epoch:
                _log.error("the store has lost %d revocations; this process makes them again", len(log.missing))
            # A store that does not answer has refused nothing: keep trying for as long as it is silent.
            if log.epoch != epoch or len(log.missing) < missing or any(isinstance(e, Unavailable) for e in failures):
                attempts = 0
            attempts += 1
            if attempts > ATTEMPTS:
                why = failures[0] if failures else None
                _log.error("%d revocations that the store lost cannot be made again", len(log.missing), exc_info=why)
                break
            if log.epoch == epoch and len(log.missing) >= missing:
                await asyncio.sleep(AGAIN_IN)
            failures = await self._try_all(log.missing)
        # Keep all of it apart: the node now reads this log from its beginning, and yet another may begin meanwhile.
        known = self._known() if log.salt == self._salt else {}
        self._before = dict(islice(known.items(), max(0, len(known) - 2 * KEPT), None))
        self._young, self._old = {}, {}
        self._epoch, self._salt = log.epoch, log.salt

    async def _read_on(self, log: _NewLog) -> None:
        """Read a log to its end, and cross out the known entries that it has. If another has begun, read that one."""
        while True:
            answer = await self._inner.read_log(log.epoch, log.upto)
            self._seen = max(self._seen, answer.log_epoch)
            if answer.log_epoch < self.newest_log:
                raise Unavailable("the store's log is older than one that was read before")
            if answer.log_epoch != log.epoch:
                log.epoch, log.salt, log.missing = answer.log_epoch, answer.salt, {}
                if log.salt == self._salt:  # else it is another deployment's
                    now = self._clock()  # what has expired may have been purged
                    log.missing = {key: entry for key, entry in self._known().items() if entry.expires_at > now}
            for entry in answer.entries:
                known = log.missing.get((entry.kind, entry.id))
                if known is not None and known.min_epoch <= entry.min_epoch:
                    del log.missing[entry.kind, entry.id]
            log.upto = answer.upto
            if log.upto >= answer.head or not log.missing:
                return

    async def _try_all(self, missing: _Known) -> list[Exception]:
        """Try some of the missing entries, and move them to the end of the queue. Returns what failed."""
        tried = list(islice(missing, AT_ONCE))
        for key in tried:
            missing[key] = missing.pop(key)
        now = self._clock()
        done = await asyncio.gather(*(self._revoke_again(missing[key], now) for key in tried), return_exceptions=True)
        # After a conflict, another process has done it, or the next attempt does.
        return [each for each in done if isinstance(each, Exception) and not isinstance(each, Conflict)]

    async def _revoke_again(self, lost: Revocation, now: float) -> None:
        """Revoke what an entry names that the log has lost. Several processes may do so at once.

        Raises:
            Conflict: another process changed the record at the same moment.
            Unavailable: the store is out of reach.
        """
        store = self._inner
        # Since then, tokens may have been issued for what should have been dead.
        entry = replace(lost, seq=0, expires_at=max(lost.expires_at, now + LONGEST_ACCESS))
        changes: list[Change] = []
        if lost.kind == "session":
            found = await store.session(lost.id)
            if found is not None and found[0].ended_at is None:
                record = session_event("session_ended", found[0], NO_CLIENT, now, actor=SYSTEM, detail=ENDED_AGAIN)
                changes = [End(lost.id, ENDED_AGAIN, now), Log(record)]
        elif lost.kind == "subject":
            account = await store.account(lost.id)
            if account is not None:
                raised = replace(account, epoch=max(account.epoch, lost.min_epoch) + 1)
                entry = replace(entry, min_epoch=raised.epoch)
                record = account_event("session_ended", account, NO_CLIENT, now, actor=SYSTEM, detail=ENDED_AGAIN)
                changes = [Swap(raised), EndAll(lost.id, ENDED_AGAIN, now), Log(record)]
        elif lost.kind == "key":
            key = await store.get(StoredKey, lost.id)
            if key is not None and key.revoked_at is None:
                record = event("key_revoked", now=now, **BY_SYSTEM, detail=lost.id)
                changes = [Swap(signing_keys.revoked(key, now)), Log(record)]
        elif lost.kind == "client":
            verifier = await store.get(VerifierKey, lost.id)
            row = verifier or await store.get(RegisteredClient, lost.id)
            if row is not None:
                name: EventName = "client_removed" if verifier is None else "verifier_removed"
                record = event(name, now=now, **BY_SYSTEM, client_id=lost.id, detail=row.name)
                changes = [Remove(row), Log(record)]
        elif lost.kind == "doubt" and is_doubt(lost.min_epoch):
            found = await store.session(lost.id)
            if found is not None and found[0].ended_at is None:
                # As `watching` has it: the session does not outlive its doubt.
                changes = [Swap(replace(found[0], expires_at=min(found[0].expires_at, entry.expires_at)))]
        await store.commit(*changes, Revoke(entry))


def _seen(task: asyncio.Task[None]) -> None:
    if not task.cancelled():
        task.exception()  # every caller that waited may have hung up
