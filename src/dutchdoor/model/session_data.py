"""Session data: what an application keeps on the server for one session, or for a visitor who has not signed in.

A record is a JSON object: a text for each key. What a request does to it is a set of changes to single keys, which are
applied to the newest record. So two requests at once that change different keys lose nothing; of two that change the
same key, the last one wins.

A visitor's record is found by a token in a cookie, of which only a hash is stored. *Session fixation:* a token that was
not issued here finds nothing, and nothing is ever stored under it.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, MutableMapping
from typing import TYPE_CHECKING, Any, NamedTuple

from msgspec import Raw, Struct
from msgspec.json import Decoder
from msgspec.json import encode as encode_json

from dutchdoor.errors import Misconfigured, TooMuchData
from dutchdoor.model.ids import Opaque, new_ordered_id
from dutchdoor.model.policy import DAY, Policy

if TYPE_CHECKING:
    from dutchdoor.model.sessions import Session  # not imported: a service that only verifies lacks its packages

__all__ = [
    "EMPTY",
    "Changes",
    "Form",
    "SessionData",
    "StoredData",
    "VisitorToken",
    "applied",
    "expiry_of_visitor",
    "for_session",
    "for_visitor",
    "joined",
]

EMPTY = "{}"


class StoredData(Struct, frozen=True, kw_only=True):
    """One record: under the id of a session, or under that of a `VisitorToken`."""

    id: str
    subject: str
    """The owner of the session; "" for a visitor."""
    secret_hash: bytes
    """The hash of the visitor's token; empty for a session, which no token may find."""
    data: str
    """A JSON object."""
    expires_at: float
    revision: int = 0

    def __repr__(self) -> str:
        return f"StoredData(id={self.id!r}, subject={self.subject!r})"


class VisitorToken(Opaque):
    """The content of a visitor's cookie: id and secret, 53 characters."""

    __slots__ = ()
    prefix = "ddv1_"


class Changes(Struct, frozen=True):
    """What a request did: keys that it set, each with its JSON, and keys that it deleted."""

    set: dict[str, bytes] = {}
    deleted: frozenset[str] = frozenset()

    def __bool__(self) -> bool:
        return bool(self.set or self.deleted)


class Form(NamedTuple):
    """How values become JSON, for a framework that keeps more than JSON can hold."""

    to_json: Callable[[Any], Any]
    from_json: Callable[[Any], Any]


class SessionData(MutableMapping[str, Any]):
    """The data of one session or visitor, as one request sees and changes it. Values are what JSON can hold.

    A changed value is found even where it is nested: each value that was read is compared with what was loaded.
    """

    __slots__ = (
        "_at_most",
        "_closed",
        "_deleted",
        "_loaded",
        "_values",
        "form",
        "record",
        "session_id",
        "subject",
        "token",
    )

    def __init__(
        self,
        record: StoredData | None,
        *,
        session_id: str = "",
        subject: str = "",
        token: VisitorToken | None = None,
        at_most: int,
    ) -> None:
        self.record, self.token = record, token
        self.session_id, self.subject = session_id, subject
        """Of a caller with a session; "" for a visitor."""
        self._at_most = at_most
        self._loaded: dict[str, bytes] = {} if record is None else _taken_apart(record.data)
        self._values: dict[str, Any] = {}
        self._deleted: set[str] = set()
        self._closed = ""
        self.form: Form | None = None

    def __getitem__(self, key: str) -> Any:
        if key not in self._values:
            if key in self._deleted:
                raise KeyError(key)
            value = json.loads(self._loaded[key])
            self._values[key] = value if self.form is None else self.form.from_json(value)
        return self._values[key]

    def __setitem__(self, key: str, value: Any) -> None:
        self._must_be_open()
        if not isinstance(key, str):
            raise TypeError(f"a key of session data is text, not {type(key).__name__}")
        if len(self._encoded(key, value)) > self._at_most:  # here, where the caller can answer it
            raise TooMuchData(self._at_most)
        self._values[key] = value
        self._deleted.discard(key)

    def __delitem__(self, key: str) -> None:
        self._must_be_open()
        if key not in self:
            raise KeyError(key)
        self._values.pop(key, None)
        if key in self._loaded:
            self._deleted.add(key)

    def __contains__(self, key: object) -> bool:
        return key in self._values or (key in self._loaded and key not in self._deleted)

    def __iter__(self) -> Iterator[str]:
        yield from [key for key in self._loaded if key not in self._deleted]
        yield from [key for key in self._values if key not in self._loaded]

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __repr__(self) -> str:
        return f"SessionData({', '.join(map(repr, self))})"  # no value: it may be a secret of the application

    def changes(self) -> Changes:
        """Return what this request did. Raises `TypeError` for a value that JSON cannot hold."""
        written = {key: self._encoded(key, value) for key, value in self._values.items()}
        return Changes(
            {key: text for key, text in written.items() if self._loaded.get(key) != text}, frozenset(self._deleted)
        )

    def move(self, session: Session) -> None:
        """Belong to a `session` that has just started: what this request has changed and still changes is stored
        there.
        """
        self.session_id, self.subject = session.id, session.subject
        self.record = self.token = None

    def stored(self, changes: Changes) -> None:
        """Take note that these changes have been stored."""
        self._loaded = {key: text for key, text in self._loaded.items() if key not in changes.deleted} | changes.set
        self._deleted -= changes.deleted

    def close(self, why: str) -> None:
        """Refuse changes from now on, since nothing would store them. The error says `why`."""
        self._closed = why

    @property
    def is_closed(self) -> bool:
        return bool(self._closed)

    def _must_be_open(self) -> None:
        if self._closed:
            raise Misconfigured(self._closed)

    def _encoded(self, key: str, value: Any) -> bytes:
        try:
            key.encode()  # half a surrogate pair, which no database holds
            plain = value if self.form is None else self.form.to_json(value)
            return json.dumps(plain, ensure_ascii=False, allow_nan=False, separators=(",", ":")).encode()
        except (TypeError, ValueError, RecursionError) as error:
            raise TypeError(f"session data {key!r} is not JSON: {error}") from None


def for_session(session: Session, data: str) -> StoredData:
    """Return the first record of a session. It lives as long as the session may."""
    return StoredData(id=session.id, subject=session.subject, secret_hash=b"", data=data, expires_at=session.expires_at)


def for_visitor(data: str, now: float, policy: Policy) -> tuple[StoredData, VisitorToken]:
    """Return the first record of a visitor, and the token for the cookie."""
    token = VisitorToken.mint(new_ordered_id(now))
    record = StoredData(
        id=token.id, subject="", secret_hash=token.hash(), data=data, expires_at=now + policy.visitor_data_for
    )
    return record, token


def expiry_of_visitor(record: StoredData, now: float, policy: Policy) -> float:
    """Return when a visitor's record that is in use expires: later than before once a day has passed, so that not every
    request writes it and sets the cookie anew.
    """
    lives_for = policy.visitor_data_for
    return now + lives_for if record.expires_at - now < lives_for - min(DAY, lives_for / 2) else record.expires_at


def applied(data: str, changes: Changes, at_most: int) -> str:
    """Apply changes to the newest data. Raises `TooMuchData`; data that was too large already may become smaller."""
    kept = {key: text for key, text in _taken_apart(data).items() if key not in changes.deleted}
    whole = _put_together({**kept, **changes.set})
    if len(whole) > at_most and len(whole) >= len(data.encode()):
        raise TooMuchData(at_most)
    return whole.decode()


def joined(texts: Iterable[str], at_most: int) -> str:
    """Join the data of several records; of one key, the last record's. A key that does not fit is left out: no sign-in
    may fail for what a visitor has put into a basket.
    """
    whole, size = dict[str, bytes](), 1
    for text in texts:
        for key, value in _taken_apart(text).items():
            old = whole.get(key)
            grown = size + (len(_put_together({key: value})) - 1 if old is None else len(value) - len(old))
            if grown <= at_most:
                whole[key], size = value, grown
    return _put_together(whole).decode()


_decoder = Decoder(dict[str, Raw])


def _taken_apart(data: str) -> dict[str, bytes]:
    return {key: bytes(text) for key, text in _decoder.decode(data).items()}


def _put_together(parts: Mapping[str, bytes]) -> bytes:
    return encode_json({key: Raw(text) for key, text in parts.items()})
