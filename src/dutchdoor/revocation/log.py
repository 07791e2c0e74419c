"""The revocation log: what was revoked, in the order of the commits.

A process that has the entries refuses a revoked token without a look-up. Epochs are counters, not clocks. A token with
a lower epoch than an entry requires was issued before the change; any other token was issued after it, however close in
time.

An entry of the kind `doubt` revokes nothing yet: its session or token is refused until its owner proves again who they
are (RFC 9470). The proof starts another session, whose id is not in doubt. Where the browser itself has proved its key,
a second entry of the same name lifts the doubt. Their numbers say which is the last word, and not their order: an even
number doubts, an odd one lifts, and the highest counts. A verifier that knows only doubts goes on refusing.

In memory and on the wire, an id is replaced by its name: 16 bytes of SHA-256 over the deployment's own salt, the kind
and the id. A verifier learns from the log that a user signed out, but which user only if it has seen the token. A name
costs a hash, so the names of frequent ids are cached.
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
    "is_doubt",
    "next_doubt",
]

Kind = Literal["session", "subject", "token", "client", "key", "doubt"]
_KINDS: Final[tuple[Kind, ...]] = ("session", "subject", "token", "client", "key", "doubt")
_SESSION, _SUBJECT, _TOKEN, _CLIENT, _KEY, _DOUBT = range(6)
OF_A_SUBJECT: Final = _SUBJECT
_CODES: Final[dict[Kind, int]] = {kind: code for code, kind in enumerate(_KINDS)}

NAME_BYTES: Final = 16
NAMES_REMEMBERED: Final = 4096
"""Cached ids of one kind in each of two generations, at about 250 bytes each."""
TOKENS_REMEMBERED: Final = 5000
"""Tokens in each of two generations: as many as a `TokenCache` holds by default, and the same tokens."""
MARKS_SHARED: Final = 16_384
ROOM_KEPT: Final = 1024
"""Dropped entries for which a table keeps its memory."""

COALESCE_ABOVE: Final = 16
"""Live entries of one subject. One more becomes an entry of the subject: otherwise a user could fill the memory of
every verifier by revoking their own sessions."""

FOR_EVER = math.inf


def is_doubt(number: int) -> bool:
    """Whether an entry of the kind `doubt` doubts by its number, and does not lift."""
    return number >= 0 and number % 2 == 0


def next_doubt(known: int, now: float) -> int:
    """Return the number of a new doubt, above the `known` one. The time is in it, because what is known is dropped from
    the log when it has expired, and a restored log may have lost it.
    """
    return max(int(now) // 2, known // 2 + 1) * 2


class Revocation(Struct, frozen=True, kw_only=True):
    """One entry. The store assigns `seq`: dense and in the order of commits; 0 before that."""

    kind: Kind
    id: str
    """A session id, a subject, a `jti`, a client id, or a `kid`; of a doubt a session id or a `jti`."""
    min_epoch: int = 0
    """For subjects and clients: the entry covers tokens with a lower epoch. For a doubt, its number."""
    expires_at: float
    """When the last token the entry covers has expired. For a key, infinity: the key's thief chooses `exp`."""
    seq: int = 0
    subject: str = ""
    """The subject of the session or token, so that the store can count a subject's entries. It is never sent to a
    verifier.
    """


class Entry(Struct, frozen=True, array_like=True, gc=False):
    """One entry as it travels: four values in a row."""

    kind: Annotated[int, Meta(ge=0, le=5)]
    name: Annotated[bytes, Meta(min_length=NAME_BYTES, max_length=NAME_BYTES)]
    min_epoch: Annotated[int, Meta(ge=0, le=2**53)]
    expires: Annotated[int, Meta(ge=0, le=2**53)]
    """Whole seconds since 1970, rounded up; 0 is never."""

    @property
    def of_a_key(self) -> bool:
        """Whether a holder of the key set must fetch it again."""
        return self.kind == _KEY


class Named(NamedTuple):
    """The ids in a token or a session that an entry may cover."""

    subject: str
    epoch: int
    session_id: str | None
    token_id: str
    client_id: str
    key_id: str


class Bearer(Protocol):
    """The claims of a verified token that an entry may name: `dutchdoor.jose.claims.Claims` is one."""

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
"""A token seen before, with the names of its session, subject, client and key. The token itself is compared, so an
issuer of two tokens with one `jti` gains nothing."""


class _Names:
    """The names of ids of one kind. Names in use are cached in two generations, as in `jose/token_cache.py`.

    Only ids from a token with a valid signature or from our own store are cached: an attacker's garbage fills nothing.
    """

    __slots__ = ("_new_hash", "_old", "_young")

    def __init__(self, salt: bytes, code: int) -> None:
        self._new_hash = hashlib.sha256(salt + bytes([code])).copy
        self._young: dict[str, bytes] = {}
        self._old: dict[str, bytes] = {}

    def fresh(self, id: str) -> bytes:
        """Name an id without caching it: for entries, each of which is named once."""
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


_NO_DOUBT: Final = (-1, 0.0)
_Mark: TypeAlias = tuple[int, float]
"""The epoch an entry requires, or the number of a doubt, and when the entry expires. Few differ, and equal pairs are
one object in memory."""


class _Tables(NamedTuple):
    """By name, one table per kind. A look-up reads this attribute once, because it is replaced to free memory."""

    sessions: dict[bytes, _Mark]
    subjects: dict[bytes, _Mark]
    tokens: dict[bytes, _Mark]
    clients: dict[bytes, _Mark]
    keys: dict[bytes, _Mark]
    doubts: dict[bytes, _Mark]


class RevocationLog:
    """The live entries, in memory: at 10^6 entries some 110 bytes each. One per process. Entries are only added, and
    dropped when every token they cover has expired.

    One thread at a time may add and drop entries while any number of threads look up.
    """

    __slots__ = ("_cursors", "_marks", "_names", "_old", "_peaks", "_tables", "_young", "applied_seq", "salt")

    def __init__(self, salt: bytes | None = None) -> None:
        self.applied_seq = 0
        self.salt = secrets.token_bytes(16) if salt is None else salt
        """The salt of every name. A deployment has one salt, so that a node and its verifiers compute the same
        names.
        """
        self._names = tuple(_Names(self.salt, code) for code in range(len(_KINDS)))
        self._tables = _Tables({}, {}, {}, {}, {}, {})
        self._marks: dict[_Mark, _Mark] = {}
        self._young: dict[str, _Marked] = {}
        self._old: dict[str, _Marked] = {}
        self._peaks = [0] * len(_KINDS)
        self._cursors = [0] * len(_KINDS)

    def __len__(self) -> int:
        return sum(len(table) for table in self._tables)

    def apply(self, entries: Iterable[Revocation]) -> list[Entry]:
        """Apply entries, and return them in wire form. Applying an entry twice changes nothing; no call undoes a
        revocation.
        """
        taken: list[Entry] = []
        seq = self.applied_seq
        for entry in entries:
            code = _CODES[entry.kind]
            expires = 0 if entry.expires_at == FOR_EVER else max(1, math.ceil(entry.expires_at))
            taken.append(Entry(code, self._names[code].fresh(entry.id), entry.min_epoch, expires))
            seq = max(seq, entry.seq)
        self.take(taken)
        self.applied_seq = seq  # after the entries: a thread that reads this number finds the entries up to it
        return taken

    def take(self, entries: Iterable[Entry]) -> None:
        """Apply entries in wire form."""
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
        """Return whether any entry covers one of these names."""
        return self.covering(named) is not None

    def covering(self, named: Named) -> Kind | None:
        """Return the kind of an entry that covers one of these names, or None. An entry of the subject is returned only
        if no other entry matches: then the session, if there is one, may be live, and a refresh may bring a valid
        token.
        """
        sessions, subjects, tokens, clients, keys, _ = self._tables
        name_session, name_subject, name_token, name_client, name_key, _ = self._names
        subject, epoch, session_id, token_id, client_id, key_id = named
        # A kind without entries costs no hash.
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
        """`covering`, for a token that is checked repeatedly: the second time costs no hash. It also returns `doubt`,
        if nothing else covers the token.
        """
        marked = self._young.get(token.jti)
        if marked is None or marked[0] is not token:
            marked = self._mark(token)
        _, session, subject, client, key = marked
        sessions, subjects, tokens, clients, keys, doubts = self._tables
        if session is not None and session in sessions:
            return "session"
        if tokens and self._names[_TOKEN](token.jti) in tokens:
            return "token"
        if key in keys:
            return "key"
        if client in clients:
            return "client"
        mark = subjects.get(subject)
        if mark is not None and token.epoch < mark[0]:
            return "subject"
        if doubts and is_doubt(doubts.get(self._names[_DOUBT](token.sid or token.jti), _NO_DOUBT)[0]):
            return "doubt"
        return None

    def doubts(self, id: str) -> bool:
        """Return whether a session, or a token without one, is in doubt."""
        return is_doubt(self.doubt_of(id))

    def doubt_of(self, id: str) -> int:
        """Return the number of the last doubt of a session or a token, or of what has lifted it; -1 for none."""
        doubts = self._tables.doubts
        return doubts.get(self._names[_DOUBT](id), _NO_DOUBT)[0] if doubts else -1

    def _mark(self, token: Bearer) -> _Marked:
        marked = self._old.get(token.jti)
        if marked is None or marked[0] is not token:
            name_session, name_subject, _, name_client, name_key, _ = self._names
            session = None if token.sid is None else name_session.fresh(token.sid)
            subject = name_subject.fresh(token.sub)
            marked = token, session, subject, name_client(token.client_id), name_key(token.kid)
        if len(self._young) >= TOKENS_REMEMBERED:
            self._old, self._young = self._young, {}
        self._young[token.jti] = marked
        return marked

    def entry(self, kind: int, name: bytes) -> Entry | None:
        """Return an entry as it is now, or None if it was dropped."""
        mark = self._tables[kind].get(name)
        return None if mark is None else Entry(kind, name, mark[0], 0 if mark[1] == FOR_EVER else int(mark[1]))

    def drop_expired(self, now: float, keep_for: float, *, look_at: int | None = None) -> None:
        """Drop entries that expired more than `keep_for` seconds ago. They are kept that long because wall clocks
        differ.

        `look_at` bounds the work of one call: so many entries of each kind, from where the last call stopped.
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
        # A dictionary never gives memory back. So new ones replace the old ones as a whole: a look-up that began in the
        # old ones still finds every live entry there.
        if shrunk:
            self._tables = _Tables(*(dict(table) for table in self._tables))
            self._peaks = [len(table) for table in self._tables]


def coalesced(entry: Revocation, *, subject: str, epoch: int, live: int, expires_at: float) -> Revocation:
    """Return the entry to write for one more session or token of a subject: `entry` itself, or, above `COALESCE_ABOVE`
    live entries, an entry of the subject. The latter needs the account's epoch raised in the same transaction.

    The subject's other sessions stay live: their access tokens become stale, and the next refresh brings a valid one.
    The writer of entries decides this, not a reader, because only the writer knows the subject of a session.

    Args:
        subject: the subject whose session or token `entry` revokes.
        epoch: the account's epoch as it was read.
        live: unexpired entries of this subject, of any kind.
        expires_at: when the last token that may have been issued to the subject by now has expired.
    """
    if live < COALESCE_ABOVE or entry.kind not in {"session", "token"}:
        return entry
    return Revocation(kind="subject", id=subject, min_epoch=epoch + 1, expires_at=expires_at)
