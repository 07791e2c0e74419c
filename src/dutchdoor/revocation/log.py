"""The revocation log: what has ended before its time, in the order it was committed.

Whoever holds the entries needs no look-up to refuse a token that was revoked. Epochs are counters, not clocks: a token
that carries a lower epoch than an entry asks for was issued before the change, a token that does not was issued after,
however close together the two were.

In memory and on the wire an id is its name: 16 bytes of SHA-256 over a salt of the deployment's own, the kind and the
id. A verifier learns from the log that somebody signed out, and who it was only if it has seen the token. Names cost a
hash, so those of ids that come again and again are remembered.
"""

from __future__ import annotations

import hashlib
import math
import secrets
from collections.abc import Iterable
from itertools import islice
from typing import Annotated, Final, Literal, NamedTuple, Protocol, TypeAlias

from msgspec import Meta, Struct

__all__ = [
    "COALESCE_ABOVE",
    "FOR_EVER",
    "OF_A_SUBJECT",
    "Entry",
    "Kind",
    "Named",
    "Revocation",
    "RevocationLog",
    "coalesced",
]

Kind = Literal["session", "subject", "token", "client", "key"]
_KINDS: Final[tuple[Kind, ...]] = ("session", "subject", "token", "client", "key")
_SESSION, _SUBJECT, _TOKEN, _CLIENT, _KEY = range(5)
OF_A_SUBJECT: Final = _SUBJECT
_CODES: Final[dict[Kind, int]] = {kind: code for code, kind in enumerate(_KINDS)}

NAME_BYTES: Final = 16
NAMES_REMEMBERED: Final = 4096
"""Ids of one kind in each of two generations, at about 250 bytes each."""
TOKENS_REMEMBERED: Final = 5000
"""Tokens in each of two generations: as many as a `TokenCache` holds by itself, and they are the same."""
MARKS_SHARED: Final = 16_384
ROOM_KEPT: Final = 1024
"""Entries for which a table keeps room though they have gone."""

COALESCE_ABOVE: Final = 16
"""Live entries of one subject. One more becomes an entry of the subject, or anybody could fill the memory of every
verifier by ending his own sessions."""

FOR_EVER = math.inf


class Revocation(Struct, frozen=True, kw_only=True):
    """One entry. `seq` is given by the store: dense and in the order of commits; 0 before that."""

    kind: Kind
    id: str
    """A session id, a subject, a `jti`, a client id, or a `kid`."""
    min_epoch: int = 0
    """For subjects and clients: tokens with a lower epoch are covered."""
    expires_at: float
    """When the last token it covers has expired. For a key, infinity: its thief chooses `exp`."""
    seq: int = 0
    subject: str = ""
    """Whose session or token it is, so that the store can count them. It is told to nobody."""


class Entry(Struct, frozen=True, array_like=True, gc=False):
    """One entry as it travels: four values in a row."""

    kind: Annotated[int, Meta(ge=0, le=4)]
    name: Annotated[bytes, Meta(min_length=NAME_BYTES, max_length=NAME_BYTES)]
    min_epoch: Annotated[int, Meta(ge=0, le=2**53)]
    expires: Annotated[int, Meta(ge=0, le=2**53)]
    """Whole seconds since 1970, rounded up; 0 is never."""

    @property
    def of_a_key(self) -> bool:
        """Whether whoever holds a key set should look which keys are left."""
        return self.kind == _KEY


class Named(NamedTuple):
    """What a token or a session names, and an entry may cover."""

    subject: str
    epoch: int
    session_id: str | None
    token_id: str
    client_id: str
    key_id: str


class Bearer(Protocol):
    """What of a verified token's claims an entry may name: `dutchdoor.jose.claims.Claims` is one."""

    @property
    def sub(self) -> str: ...
    @property
    def epoch(self) -> int: ...
    @property
    def sid(self) -> str | None: ...
    @property
    def jti(self) -> str: ...
    @property
    def client_id(self) -> str: ...
    @property
    def kid(self) -> str: ...


_Marked: TypeAlias = tuple[Bearer, bytes | None, bytes, bytes, bytes]
"""A token seen before, with the names of its session, subject, client and key. The token itself is compared: whoever
made two with one `jti` gains nothing."""


class _Names:
    """The names of ids of one kind. Those that are in use are remembered: two generations, as in `jose/token_cache.py`.

    Only what a good signature vouched for, or our own store, is ever named, so a stranger's garbage fills nothing.
    """

    __slots__ = ("_new_hash", "_old", "_young")

    def __init__(self, salt: bytes, code: int) -> None:
        self._new_hash = hashlib.sha256(salt + bytes([code])).copy
        self._young: dict[str, bytes] = {}
        self._old: dict[str, bytes] = {}

    def fresh(self, id: str) -> bytes:
        """Name an id without remembering it: for entries, each of which is named once."""
        digest = self._new_hash()
        digest.update(id.encode())
        return digest.digest()[:NAME_BYTES]

    def __call__(self, id: str) -> bytes:
        name = self._young.get(id)
        if name is None:
            name = self._old.get(id) or self.fresh(id)
            if len(self._young) >= NAMES_REMEMBERED:
                self._old, self._young = self._young, {}
            self._young[id] = name
        return name


_Mark: TypeAlias = tuple[int, float]
"""The epoch an entry asks for and when it expires. Few differ, and equal ones are one object in memory."""


class _Tables(NamedTuple):
    """By name, one table a kind. Read once by each look-up, since it is replaced when memory is given back."""

    sessions: dict[bytes, _Mark]
    subjects: dict[bytes, _Mark]
    tokens: dict[bytes, _Mark]
    clients: dict[bytes, _Mark]
    keys: dict[bytes, _Mark]


class RevocationLog:
    """The live entries, in memory: at 10^6 of them some 110 bytes each. One per process; entries are only ever added,
    and dropped when they can concern no token.

    One thread at a time may add and drop, while any number look up.
    """

    __slots__ = ("_cursors", "_marks", "_names", "_old", "_peaks", "_tables", "_young", "applied_seq", "salt")

    def __init__(self, salt: bytes | None = None) -> None:
        self.applied_seq = 0
        self.salt = secrets.token_bytes(16) if salt is None else salt
        """What goes into every name. A deployment has one, so that a node and its verifiers mean the same."""
        self._names = tuple(_Names(self.salt, code) for code in range(len(_KINDS)))
        self._tables = _Tables({}, {}, {}, {}, {})
        self._marks: dict[_Mark, _Mark] = {}
        self._young: dict[str, _Marked] = {}
        self._old: dict[str, _Marked] = {}
        self._peaks = [0] * len(_KINDS)
        self._cursors = [0] * len(_KINDS)

    def __len__(self) -> int:
        return sum(len(table) for table in self._tables)

    def apply(self, entries: Iterable[Revocation]) -> list[Entry]:
        """Take entries in, and give them as they travel. Applying one twice changes nothing; nothing is ever
        un-revoked.
        """
        taken: list[Entry] = []
        seq = self.applied_seq
        for entry in entries:
            code = _CODES[entry.kind]
            expires = 0 if entry.expires_at == FOR_EVER else max(1, math.ceil(entry.expires_at))
            taken.append(Entry(code, self._names[code].fresh(entry.id), entry.min_epoch, expires))
            seq = max(seq, entry.seq)
        self.take(taken)
        self.applied_seq = seq  # after the entries: who reads it finds what it promises
        return taken

    def take(self, entries: Iterable[Entry]) -> None:
        """Take in entries that travelled."""
        for entry in entries:
            if entry.kind == _CLIENT and not entry.min_epoch:
                continue
            table = self._tables[entry.kind]
            epoch, expires = table.get(entry.name, (0, 0.0))
            mark = max(epoch, entry.min_epoch), max(expires, entry.expires or FOR_EVER)
            table[entry.name] = self._marks.setdefault(mark, mark)
        if len(self._marks) > MARKS_SHARED:
            self._marks = {}

    def covers(self, named: Named) -> bool:
        """Tell whether any entry covers what these names name."""
        return self.covering(named) is not None

    def covering(self, named: Named) -> Kind | None:
        """Give the kind of an entry that covers what these names name, or None. An entry of the subject is given only
        where there is no other: then its session, if it has one, may live, and a fresh token is to be had.
        """
        sessions, subjects, tokens, clients, keys = self._tables
        name_session, name_subject, name_token, name_client, name_key = self._names
        subject, epoch, session_id, token_id, client_id, key_id = named
        # A kind of which there is no entry costs no hash.
        if sessions and session_id and name_session(session_id) in sessions:
            return "session"
        if tokens and token_id and name_token(token_id) in tokens:
            return "token"
        if keys and key_id and name_key(key_id) in keys:
            return "key"
        if clients and client_id and name_client(client_id) in clients:
            return "client"
        if subjects:
            mark = subjects.get(name_subject(subject))
            if mark is not None and epoch < mark[0]:
                return "subject"
        return None

    def covering_token(self, token: Bearer) -> Kind | None:
        """`covering`, for a token that is asked about again and again: the second time costs no hash."""
        marked = self._young.get(token.jti)
        if marked is None or marked[0] is not token:
            marked = self._mark(token)
        _, session, subject, client, key = marked
        sessions, subjects, tokens, clients, keys = self._tables
        if session is not None and session in sessions:
            return "session"
        if tokens and self._names[_TOKEN](token.jti) in tokens:
            return "token"
        if key in keys:
            return "key"
        if client in clients:
            return "client"
        mark = subjects.get(subject)
        return "subject" if mark is not None and token.epoch < mark[0] else None

    def _mark(self, token: Bearer) -> _Marked:
        marked = self._old.get(token.jti)
        if marked is None or marked[0] is not token:
            name_session, name_subject, _, name_client, name_key = self._names
            session = None if token.sid is None else name_session.fresh(token.sid)
            subject = name_subject.fresh(token.sub)
            marked = token, session, subject, name_client(token.client_id), name_key(token.kid)
        if len(self._young) >= TOKENS_REMEMBERED:
            self._old, self._young = self._young, {}
        self._young[token.jti] = marked
        return marked

    def entry(self, kind: int, name: bytes) -> Entry | None:
        """Give an entry as it stands now, or None when it was dropped."""
        mark = self._tables[kind].get(name)
        return None if mark is None else Entry(kind, name, mark[0], 0 if mark[1] == FOR_EVER else int(mark[1]))

    def drop_expired(self, now: float, keep_for: float, *, look_at: int | None = None) -> None:
        """Forget entries that expired more than `keep_for` seconds ago: wall clocks differ, and one entry more costs
        nothing.

        `look_at` bounds the work of one call: so many entries of each kind, going on where the last call stopped.
        """
        before = now - keep_for
        shrunk = False
        for kind, table in enumerate(self._tables):
            if not table:
                continue
            at = self._cursors[kind] if look_at is not None else 0
            seen = 0
            gone = []
            for name, (_, expires) in islice(table.items(), at, None if look_at is None else at + look_at):
                seen += 1
                if expires <= before:
                    gone.append(name)
            self._peaks[kind] = max(self._peaks[kind], len(table))
            for name in gone:
                del table[name]
            at += seen - len(gone)
            self._cursors[kind] = 0 if at >= len(table) else at
            shrunk |= len(table) < self._peaks[kind] // 4 and self._peaks[kind] > ROOM_KEPT
        # A dictionary keeps the room it once had. New ones are made, and put in place as a whole: a look-up that began
        # in the old ones finds there everything it has to.
        if shrunk:
            self._tables = _Tables(*(dict(table) for table in self._tables))
            self._peaks = [len(table) for table in self._tables]


def coalesced(entry: Revocation, *, subject: str, epoch: int, live: int, expires_at: float) -> Revocation:
    """Give the entry to write for one more session or token of a subject: itself, or above `COALESCE_ABOVE` live ones
    an entry of the subject, which needs its epoch raised in the same transaction.

    The subject's other sessions live on: their access tokens are stale, and the next refresh brings one that is not. It
    is decided where entries are written, and not where they are read, because only there are sessions known to be
    somebody's.

    Args:
        subject: whose session or token `entry` ends.
        epoch: the account's epoch as it was read.
        live: entries of this subject that have not expired, of whatever kind.
        expires_at: when the last token has expired that may have been issued to the subject by now.
    """
    if live < COALESCE_ABOVE or entry.kind not in {"session", "token"}:
        return entry
    return Revocation(kind="subject", id=subject, min_epoch=epoch + 1, expires_at=expires_at)
