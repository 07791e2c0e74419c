"""Session data: the verbs. `model/session_data.py` has the decisions.

Nothing is read for a request that does not touch its data, and nothing is written for one that does not change it. A
write is a compare-and-swap of the newest record, and for a session it also expects that the session is live: a request
that runs on while its session ends brings no data back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from typing import Final, Literal
from weakref import WeakValueDictionary

from msgspec.structs import replace

from dutchdoor.errors import Conflict, InvalidToken, Unavailable
from dutchdoor.model.policy import Policy
from dutchdoor.model.session_data import (
    EMPTY,
    Changes,
    SessionData,
    StoredData,
    VisitorToken,
    applied,
    expiry_of_visitor,
    for_session,
    for_visitor,
    joined,
)
from dutchdoor.model.sessions import Session
from dutchdoor.stores.base import Add, Change, ExpectLive, Remove, Store, Swap

__all__ = ["MERGES", "DataVerbs", "VisitorCookie"]

VisitorCookie = Literal["keep", "set", "clear"]
"""What to do with a visitor's cookie after a write."""

MERGES: Final = 64
"""How often a write is tried. Each lost race is a write of the same data by another process: in this one, writers take
turns.
"""


class DataVerbs:
    """Session data in the store of one authority. Every verb raises `Unavailable` when the store is out of reach."""

    def __init__(self, store: Store, policy: Policy, clock: Callable[[], float]) -> None:
        self.store, self.policy, self.clock = store, policy, clock
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def of_session(self, session_id: str, subject: str) -> SessionData:
        """Return the data of a session. One look-up.

        Args:
            session_id: the id of a session that was found to be live.
            subject: its owner.
        """
        record = await self.store.get(StoredData, session_id)
        if record is not None and record.subject != subject:
            record = None  # a response must never mix data of two users
        return SessionData(record, session_id=session_id, subject=subject, at_most=self.policy.session_data_at_most)

    async def of_visitor(self, token: str = "") -> SessionData:
        """Return the data of the visitor whose cookie holds this `token`. Without one, or with one that was not issued
        here, the data is empty and becomes that of a new visitor.
        """
        found = await self._visitor(token)
        record, known = (None, None) if found is None else found
        return SessionData(record, token=known, at_most=self.policy.session_data_at_most)

    async def _visitor(self, text: str) -> tuple[StoredData, VisitorToken] | None:
        if not text:
            return None
        try:
            token = VisitorToken.parse(text)
        except InvalidToken:
            return None
        record = await self.store.get(StoredData, token.id)
        # A session's record has no hash, so no token finds it.
        if record is None or not token.matches(record.secret_hash) or self.clock() >= record.expires_at:
            return None
        return record, token

    async def save(self, data: SessionData) -> VisitorCookie:
        """Write what a request changed, applied to the newest record. Returns what to do with the visitor's cookie,
        whose new content is `data.token`.

        If the session has ended meanwhile, nothing is written.

        Raises:
            TooMuchData: the data would be larger than the policy allows.
            TypeError: a value is not JSON.
        """
        changes = data.changes()
        cookie: VisitorCookie = "keep"
        key = data.session_id or ("" if data.record is None else data.record.id)
        # A page may send dozens of requests at once. Without turns, each write would make all others try again.
        async with self._turns.setdefault(key, asyncio.Lock()) if key and changes else nullcontext():
            if not data.session_id:
                cookie = await self._merge_into_visitor(data, changes)
            elif changes:
                await self._merge_into_session(data, changes)
        data.stored(changes)
        return cookie

    async def _merge_into_session(self, data: SessionData, changes: Changes) -> None:
        live = ExpectLive(data.session_id, data.subject)
        record = data.record
        for _ in range(MERGES):
            text = applied(EMPTY if record is None else record.data, changes, self.policy.session_data_at_most)
            if record is None:
                found = await self.store.session(data.session_id)
                if text == EMPTY or found is None or found[0].ended_at is not None:
                    return
                written: list[Change] = [Add(for_session(found[0], text))]
            else:
                written = _written(record, text)
            try:
                await self.store.commit(live, *written)
            except Conflict:
                # Another request wrote first, or the session has ended. Which of them the next attempt finds out.
                record = await self.store.get(StoredData, data.session_id)
                continue
            return
        raise Unavailable("session data was written by too many requests at once")

    async def _merge_into_visitor(self, data: SessionData, changes: Changes) -> VisitorCookie:
        record = data.record
        if not changes:
            return "keep" if record is None else await self._extend(record)
        for _ in range(MERGES):
            now = self.clock()
            text = applied(EMPTY if record is None else record.data, changes, self.policy.session_data_at_most)
            if record is None:
                if text == EMPTY:
                    return "clear" if data.token is not None else "keep"
                made, data.token = for_visitor(text, now, self.policy)
                await self.store.commit(Add(made))
                data.record = made  # a WebSocket may store again
                return "set"
            expires_at = expiry_of_visitor(record, now, self.policy)
            try:
                await self.store.commit(*_written(replace(record, expires_at=expires_at), text))
            except Conflict:
                # Without a record, the visitor has signed in meanwhile or has emptied it: what this request stores
                # gets an id of its own, because an old one may be known to others.
                record = await self.store.get(StoredData, record.id)
                continue
            if text == EMPTY:
                return "clear"
            return "keep" if expires_at == record.expires_at else "set"
        raise Unavailable("session data was written by too many requests at once")

    async def _extend(self, record: StoredData) -> VisitorCookie:
        expires_at = expiry_of_visitor(record, self.clock(), self.policy)
        if expires_at == record.expires_at:
            return "keep"
        with suppress(Conflict):  # another request has written it, and extended it too
            await self.store.commit(Swap(replace(record, expires_at=expires_at)))
        return "set"

    async def forget_visitor(self, token: str) -> None:
        """Delete the data of the visitor whose cookie holds this `token`, if there is any."""
        found = await self._visitor(token)
        if found is not None:
            await self.store.commit(Remove(found[0]))

    async def moving(self, visitor: str, leaving: Sequence[Session], to: Session) -> list[Change]:
        """Return the changes that give a new session what a visitor has kept, and what the sessions that it replaces
        have. They conflict if any of that is written meanwhile.

        Args:
            visitor: the token of the visitor's cookie; "" for none.
            leaving: sessions that end in the same transaction. Only those of the same account pass their data on.
            to: the session that starts.
        """
        changes: list[Change] = []
        texts: list[str] = []
        for session in leaving:
            record = await self.store.get(StoredData, session.id) if session.subject == to.subject else None
            if record is not None:
                changes.append(Swap(record))  # the end of its session deletes it
                texts.append(record.data)
        found = await self._visitor(visitor)
        if found is not None:
            changes += _removed(found[0])
            texts.append(found[0].data)
        if texts:
            changes.append(Add(for_session(to, joined(texts, self.policy.session_data_at_most))))
        return changes


def _written(record: StoredData, text: str) -> list[Change]:
    return _removed(record) if text == EMPTY else [Swap(replace(record, data=text))]


def _removed(record: StoredData) -> list[Change]:
    """Delete a record, if it was not written since it was read."""
    return [Swap(record), Remove(record)]
