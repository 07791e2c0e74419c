"""Session data on the server: `SESSION_ENGINE = "dutchdoor.django.sessions"`.

A visitor's data has a token of its own, whose hash alone is stored. A log-in moves the data to the record of the
session, under another token, so that it ends with the session, in the same transaction. A change is applied to the
newest record, key by key: of two requests at once that change different keys, neither loses anything.
"""

from __future__ import annotations

import json
from collections.abc import Coroutine
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, TypeVar

from django.contrib.sessions.backends.base import CreateError, SessionBase, UpdateError
from msgspec import Raw
from msgspec.json import Decoder
from msgspec.structs import replace

from dutchdoor.django.awaiting import awaited
from dutchdoor.django.configuration import gate
from dutchdoor.django.cookie_alone import check_alone
from dutchdoor.errors import Conflict, DeviceProofRequired, DutchdoorError, InvalidToken, NotAuthenticated, Unavailable
from dutchdoor.guard.attached import engine_of
from dutchdoor.guard.gates import Known
from dutchdoor.model.ids import new_ordered_id
from dutchdoor.model.session_data import EMPTY, Changes, StoredData, VisitorToken, applied
from dutchdoor.services.sessions import Authority
from dutchdoor.stores.base import Add, Change, ExpectLive, Remove, Swap

if TYPE_CHECKING:
    from dutchdoor.django.visit import Visit

__all__ = ["SessionStore"]

T = TypeVar("T")

MERGES: Final = 64
"""How often a write is tried. Each lost race is the write of another request of the same session."""
EXTENDS_AFTER: Final = 60.0
"""Seconds by which the expiry must move before a save that changes nothing else is written."""
_decoder = Decoder(dict[str, Raw])


class SessionStore(SessionBase):
    """The session of one request, as Django's middleware makes it."""

    _session_key: Any  # Django's property

    def __init__(self, session_key: str | None = None) -> None:
        super().__init__(session_key)
        self._record: StoredData | None = None
        self._before: dict[str, bytes] = {}
        """What this request has read or stored. The record may hold more, from another request at once."""
        self._is_withheld = False
        """Whether there is data, and the browser has not proved that it may see it."""
        self.visit: Visit | None = None
        """The request, where dutchdoor's middleware has seen it."""

    # Reading

    def load(self) -> dict[str, Any]:
        """Return the data; empty, and without a key, if the key was not issued here or its session has ended."""
        proved = None if self.visit is None else self.visit.session_of_proof()
        try:
            return self._loaded(_run(_for_request(self.session_key, proved)))
        except DeviceProofRequired:
            return self._withheld()

    async def aload(self) -> dict[str, Any]:
        """Do what `load` does."""
        proved = None if self.visit is None else await self.visit.asession_of_proof()
        try:
            return self._loaded(await _arun(_for_request(self.session_key, proved)))
        except DeviceProofRequired:
            return self._withheld()

    def _withheld(self) -> dict[str, Any]:
        """Keep the key, or Django would delete the cookie by which the browser finds its data with its next proof."""
        self._is_withheld, self._record, self._before = True, None, {}
        return {}

    def _loaded(self, record: StoredData | None) -> dict[str, Any]:
        self._record = record
        if record is None:
            self._session_key, self._before = None, {}
            return {}
        self._before = _parts(record.data)
        data: dict[str, Any] = json.loads(record.data)
        return data

    def exists(self, session_key: str | None) -> bool:
        """Return whether there is data under a key."""
        return _run(_found(session_key)) is not None

    async def aexists(self, session_key: str | None) -> bool:
        """Do what `exists` does."""
        return await _arun(_found(session_key)) is not None

    # Writing

    def create(self) -> None:
        """Store the data under a new key."""
        self._begin_anew()
        self.save(must_create=True)
        self.modified = True

    async def acreate(self) -> None:
        """Do what `create` does."""
        self._begin_anew()
        await self.asave(must_create=True)
        self.modified = True

    def _begin_anew(self) -> None:
        token = VisitorToken.mint(new_ordered_id(_authority().clock()))
        self._record, self._before, self._session_key, self._is_withheld = None, {}, token.text(), False

    def save(self, must_create: bool = False) -> None:  # noqa: FBT001, FBT002 - Django's signature
        """Store the changes.

        Raises:
            UpdateError: the data was deleted meanwhile, by a log-out for example.
            CreateError: there is data under this key, and `must_create` asks for a new one.
            TooMuchData: the data is larger than the policy allows.
        """
        data = self._get_session(no_load=must_create)
        if self._is_withheld and not data:
            return
        if self._is_withheld or self.session_key is None:
            self.create()
            return
        now = _parts(json.dumps(data))
        self._record = _run(self._written(now, self.get_expiry_age(), must_create=must_create))
        self._before = now

    async def asave(self, must_create: bool = False) -> None:  # noqa: FBT001, FBT002
        """Do what `save` does."""
        data = await self._aget_session(no_load=must_create)
        if self._is_withheld and not data:
            return
        if self._is_withheld or self.session_key is None:
            await self.acreate()
            return
        now = _parts(json.dumps(data))
        self._record = await _arun(self._written(now, await self.aget_expiry_age(), must_create=must_create))
        self._before = now

    def _written(self, now: dict[str, bytes], age: float, *, must_create: bool) -> Coroutine[Any, Any, StoredData]:
        token, before = VisitorToken.parse(self.session_key or ""), self._before
        if must_create:
            return _added(token, Changes(now), age)
        changed = {key: text for key, text in now.items() if before.get(key) != text}
        return _changed(token, self._record, Changes(changed, frozenset(before.keys() - now.keys())), age)

    def belong_to(self, session_id: str, subject: str) -> None:
        """Move the data to a session that has just started. From now on it ends with the session."""
        data = self._get_session()
        left = None if self._is_withheld else self.session_key
        token = VisitorToken.mint(session_id)
        self._record = _run(_moved(token, left, subject, json.dumps(data), self.get_expiry_age()))
        self._session_key, self._before, self._is_withheld = token.text(), _parts(self._record.data), False
        self.modified = True

    def store_now(self) -> None:
        """Store what a view has changed while its response can still say that it failed. Raises what `save` raises, but
        for `UpdateError`, which Django's middleware answers.
        """
        if self.is_empty():
            return
        try:
            self.save()
        except UpdateError:
            return
        except DutchdoorError:
            self.modified = False
            del self._session_cache  # as it was when it was read, should Django's middleware save every request
            raise

    # Deleting

    def delete(self, session_key: str | None = None) -> None:
        """Delete the data under a key, or under this one."""
        _run(_removed(session_key or self._own_key()))

    async def adelete(self, session_key: str | None = None) -> None:
        """Do what `delete` does."""
        await _arun(_removed(session_key or self._own_key()))

    def _own_key(self) -> str | None:
        """Return the key, unless its data is not for this request."""
        key: str | None = None if self._is_withheld else self.session_key
        return key

    @classmethod
    def clear_expired(cls) -> None:
        """Delete expired records. The engine does so by itself, every hour."""
        _run(_tidied())

    @classmethod
    async def aclear_expired(cls) -> None:
        """Do what `clear_expired` does."""
        await _arun(_tidied())


def _run(work: Coroutine[Any, Any, T]) -> T:
    return gate().run(work)


async def _arun(work: Coroutine[Any, Any, T]) -> T:
    return await awaited(gate(), work)


def _authority() -> Authority:
    return engine_of(gate().gate).authority


def _parts(text: str) -> dict[str, bytes]:
    return {key: bytes(value) for key, value in _decoder.decode(text).items()}


# --- in the engine's thread ------------------------------------------------------------------------------------------


async def _for_request(key: str | None, session_id: str | None) -> StoredData | None:
    """Return the record under a key, for a request that has proved a session with this `session_id`; None for none.
    Raises `DeviceProofRequired`.
    """
    record = await _found(key)
    if record is None or not record.subject or session_id == record.id:
        return record
    # The data of another session is not for this request; and a copy of Django's cookie alone proves no key.
    known = await _signed_in(record.id) if session_id is None else None
    if known is None:
        return None
    await check_alone(engine_of(gate().gate), known)
    return record


async def _found(key: str | None) -> StoredData | None:
    """Return the record under a key. Session fixation: a key that was not issued here finds nothing."""
    try:
        token = VisitorToken.parse(key or "")
    except InvalidToken:
        return None
    authority = _authority()
    record = await authority.store.get(StoredData, token.id)
    if record is None or not token.matches(record.secret_hash) or authority.clock() >= record.expires_at:
        return None
    return None if record.subject and await _signed_in(record.id) is None else record


async def _signed_in(session_id: str) -> Known | None:
    with suppress(NotAuthenticated):
        return await gate().gate.of_session(session_id)
    return None


async def _added(token: VisitorToken, changes: Changes, age: float) -> StoredData:
    authority = _authority()
    text = applied(EMPTY, changes, authority.policy.session_data_at_most)
    record = StoredData(
        id=token.id, subject="", secret_hash=token.hash(), data=text, expires_at=authority.clock() + age
    )
    try:
        await authority.store.commit(Add(record))
    except Conflict:
        raise CreateError from None
    return record


async def _changed(token: VisitorToken, record: StoredData | None, changes: Changes, age: float) -> StoredData:
    authority = _authority()
    if record is not None and not changes and abs(authority.clock() + age - record.expires_at) < EXTENDS_AFTER:
        return record
    for _ in range(MERGES):
        if record is None:
            record = await authority.store.get(StoredData, token.id)
            if record is None or not token.matches(record.secret_hash):
                raise UpdateError
        text = applied(record.data, changes, authority.policy.session_data_at_most)
        written = replace(record, data=text, expires_at=authority.clock() + age)
        live: list[Change] = [ExpectLive(record.id, record.subject)] if record.subject else []
        try:
            await authority.store.commit(*live, Swap(written))
        except Conflict:  # another request wrote first, or the session has ended
            record = None
            continue
        return replace(written, revision=written.revision + 1)
    raise Unavailable("session data was written by too many requests at once")


async def _moved(token: VisitorToken, left: str | None, subject: str, text: str, age: float) -> StoredData:
    authority = _authority()
    text = applied(EMPTY, Changes(_parts(text)), authority.policy.session_data_at_most)
    before = await _found(left)
    for _ in range(MERGES):
        there = await authority.store.get(StoredData, token.id)
        made = StoredData(
            id=token.id, subject=subject, secret_hash=token.hash(), data=text, expires_at=authority.clock() + age
        )
        write: Change = Add(made) if there is None else Swap(replace(made, revision=there.revision))
        leaving = [] if before is None or before.id == token.id else [Remove(before)]
        try:
            await authority.store.commit(ExpectLive(token.id, subject), write, *leaving)
        except Conflict:
            if await authority.store.session(token.id) is None:
                raise UpdateError from None
            continue
        return made if there is None else replace(made, revision=there.revision + 1)
    raise Unavailable("session data was written by too many requests at once")


async def _removed(key: str | None) -> None:
    record = await _found(key)
    if record is not None:
        await _authority().store.commit(Remove(record))


async def _tidied() -> None:
    await engine_of(gate().gate).tidy()
