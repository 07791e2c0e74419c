"""Rows: the statements of each kind, derived from its description, and how its records are written and read.

Rows are written as JSON, since a commit is one call; search values are sent as values.
"""

# ruff: noqa: S608 - every statement here is put together from constants and from descriptions; values are bound, always

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, Generic, TypeVar

from msgspec import Struct

from dutchdoor.errors import InvalidInput
from dutchdoor.model.accounts import Account, Credential
from dutchdoor.model.audit_events import AuditEvent
from dutchdoor.model.ids import encode, packed
from dutchdoor.model.sessions import Session
from dutchdoor.stores.base import joined, words
from dutchdoor.stores.kinds import ACCOUNTS, SESSIONS, Form, Kind, Kinds
from dutchdoor.stores.postgres.connection import Row

__all__ = [
    "ACCOUNT", "AUDIT_END", "EVENTS_AFTER", "KNOWN", "SESSIONS_OF", "SESSIONS_WITH_ACCOUNT", "Table", "Tables",
    "account_values", "read_account", "read_session", "read_text", "session_values", "stored_id", "text_of_id",
    "write_bytes", "write_record", "write_text",
]  # fmt: skip

R = TypeVar("R", bound=Struct)


def write_text(text: str) -> str:
    """Return text that PostgreSQL can hold: all but U+0000. Raises `InvalidInput` for half a surrogate pair."""
    if not text.isprintable():
        if "\0" in text or "\1" in text:
            text = text.replace("\1", "\1\2").replace("\0", "\1\1")
        try:
            text.encode()
        except UnicodeEncodeError:
            raise InvalidInput("a text holds half a character") from None
    return text


def read_text(text: str) -> str:
    return text.replace("\1\1", "\0").replace("\1\2", "\1") if "\1" in text else text


def write_bytes(value: bytes) -> str:
    return "\\x" + value.hex()


_NOT_OURS = bytes(17)


def stored_id(id: str) -> bytes:
    """Return an id as it is stored: 16 bytes where it is the canonical text of 16 bytes, else longer than ours."""
    return packed(id) or _NOT_OURS + id.encode(errors="surrogatepass")


def text_of_id(key: bytes) -> str:
    if len(key) == 16:  # noqa: PLR2004
        return encode(key)
    return key.removeprefix(_NOT_OURS).decode(errors="surrogatepass")


def write_record(record: Struct) -> dict[str, object]:
    """A record in JSON, its ids as text."""
    return {name: _write_value(getattr(record, name)) for name in record.__struct_fields__}


def _write_value(value: object) -> object:
    """A value in JSON. A float as its shortest text: PostgreSQL reads it to the bit, infinity included."""
    if isinstance(value, str):
        return write_text(value)
    if isinstance(value, bytes):
        return write_bytes(value)
    return str(value) if isinstance(value, float) else value


# --- accounts and sessions, which are read at every request ---------------------------------------------------------

SESSION = ", ".join(
    f"s.{name}"
    for name in (
        "id", "hybrid", "client_id", "scope", "secret_hash", "salt", "master_key_id", "epoch", "amr", "auth_time",
        "created_at", "last_seen_at", "idle_expires_at", "expires_at", "generation", "sibling", "parent_sibling",
        "rotated_at", "sibling_at", "fingerprint", "device", "address", "country", "ended_at", "end_reason", "revision",
    )
)  # fmt: skip
ACCOUNT = ", ".join(
    f"a.{name}"
    for name in (
        "subject", "email", "address", "name", "roles", "active", "email_verified_at", "epoch", "created_at",
        "revision",
    )
)  # fmt: skip
JOINED = f"SELECT {SESSION}, {ACCOUNT} FROM dutchdoor.sessions s JOIN dutchdoor.accounts_now a ON a.number = s.account"
SESSIONS_WITH_ACCOUNT = f"{JOINED} WHERE s.id = ANY ($1)"
SESSIONS_OF = f"{JOINED} WHERE a.subject = $1 AND s.ended_at IS NULL ORDER BY s.id DESC LIMIT $2"
"""By id, which is the order of creation and of the index: to return the newest three of ten thousand, it reads three.
"""

_NEWEST = "FROM dutchdoor.sessions s WHERE s.account = a.number AND s.ended_at IS NULL ORDER BY s.id DESC LIMIT $2"
KNOWN = (
    f"SELECT {ACCOUNT}, ARRAY(SELECT s.created_at {_NEWEST}), ARRAY(SELECT s.address {_NEWEST}), "
    + ", ".join(f"c.{name}" for name in Credential.__struct_fields__)
    + " FROM dutchdoor.accounts_now a LEFT JOIN dutchdoor.credentials c ON c.subject = a.subject WHERE a.email = $1"
)
"""In one statement, and so of one moment: a password that was changed goes with the epoch that was raised for it."""

_OVER = "pg_snapshot_xmin(pg_current_snapshot())::text::bigint"
"""The number of the oldest transaction under way: all below it are over, and this statement sees those committed."""
_LOGS = "FROM dutchdoor.lineage l JOIN dutchdoor.revocation_log r ON r.one = 1"
AUDIT_END = f"SELECT l.audit_log, r.epoch, {_OVER} {_LOGS} WHERE l.one = 1"
EVENTS_AFTER = (
    f"SELECT l.audit_log, e.log_epoch, e.number, {', '.join(f'e.{name}' for name in AuditEvent.__struct_fields__)} "
    f"{_LOGS} LEFT JOIN LATERAL (SELECT * FROM dutchdoor.events t WHERE (t.log_epoch, t.number, t.id) > ($1, $2, $3) "
    f"AND (t.log_epoch < r.epoch OR t.number < {_OVER}) ORDER BY t.log_epoch, t.number, t.id LIMIT $4) e ON true "
    "WHERE l.one = 1 ORDER BY e.log_epoch, e.number, e.id"
)
"""Without an event, one row, which has none."""


def session_values(session: Session) -> dict[str, object]:
    return {
        "id": write_bytes(stored_id(session.id)),
        "hybrid": session.mode == "hybrid",
        "client_id": write_text(session.client_id),
        "scope": write_text(session.scope),
        "secret_hash": write_bytes(session.secret_hash),
        "salt": write_bytes(session.salt),
        "master_key_id": write_bytes(session.master_key_id),
        "epoch": session.epoch,
        "amr": write_text(joined(session.amr)),
        "auth_time": str(session.auth_time),
        "created_at": str(session.created_at),
        "last_seen_at": str(session.last_seen_at),
        "idle_expires_at": str(session.idle_expires_at),
        "expires_at": str(session.expires_at),
        "generation": session.generation,
        "sibling": session.sibling,
        "parent_sibling": session.parent_sibling,
        "rotated_at": str(session.rotated_at),
        "sibling_at": str(session.sibling_at),
        "fingerprint": write_text(session.fingerprint),
        "device": write_text(session.device),
        "address": write_text(session.address),
        "country": write_text(session.country),
        "ended_at": None if session.ended_at is None else str(session.ended_at),
        "end_reason": write_text(session.end_reason),
        "revision": session.revision,
    }


def read_session(row: Row) -> tuple[Session, Account]:
    """Read a row of `JOINED`. The hottest lines here: one unpacking, and two calls with keywords in field order."""
    (
        key, hybrid, client_id, scope, secret_hash, salt, master_key_id, epoch, amr, auth_time, created_at,
        last_seen_at, idle_expires_at, expires_at, generation, sibling, parent_sibling, rotated_at, sibling_at,
        fingerprint, device, address, country, ended_at, end_reason, revision,
        *account,
    ) = row  # fmt: skip
    owner = read_account(account)
    session = Session(
        id=text_of_id(key),
        subject=owner.subject,
        mode="hybrid" if hybrid else "session",
        client_id=read_text(client_id),
        scope=read_text(scope),
        secret_hash=secret_hash,
        salt=salt,
        master_key_id=master_key_id,
        epoch=epoch,
        amr=words(read_text(amr)),
        auth_time=auth_time,
        created_at=created_at,
        last_seen_at=last_seen_at,
        idle_expires_at=idle_expires_at,
        expires_at=expires_at,
        generation=generation,
        sibling=sibling,
        parent_sibling=parent_sibling,
        rotated_at=rotated_at,
        sibling_at=sibling_at,
        fingerprint=read_text(fingerprint),
        device=read_text(device),
        address=read_text(address),
        country=read_text(country),
        ended_at=ended_at,
        end_reason=read_text(end_reason),
        revision=revision,
    )
    return session, owner


def account_values(account: Account) -> dict[str, object]:
    folded = "\n".join((account.email or "", account.address or "", account.name)).casefold()
    return {
        "subject": write_text(account.subject),
        "email": None if account.email is None else write_text(account.email),
        "address": None if account.address is None else write_text(account.address),
        "name": write_text(account.name),
        "roles": write_text(joined(account.roles)),
        "active": account.active,
        "email_verified_at": None if account.email_verified_at is None else str(account.email_verified_at),
        "epoch": account.epoch,
        "created_at": str(account.created_at),
        "revision": account.revision,
        "folded": write_text(folded),
    }


def read_account(row: Row) -> Account:
    subject, email, address, name, roles, active, email_verified_at, epoch, created_at, revision = row
    return Account(
        subject=read_text(subject),
        email=None if email is None else read_text(email),
        address=None if address is None else read_text(address),
        name=read_text(name),
        roles=words(read_text(roles)),
        status="active" if active else "disabled",
        email_verified_at=email_verified_at,
        epoch=epoch,
        created_at=created_at,
        revision=revision,
    )


# --- every kind -----------------------------------------------------------------------------------------------------

_WRITE: Final[dict[Form, Callable[[Any], object]]] = {
    "text": write_text,
    "id": lambda text: write_bytes(stored_id(text)),
    "bytes": write_bytes,
    "int": int,
    "float": str,
    "bool": bool,
    "words": lambda names: write_text(joined(names)),
}
"""In JSON. A float as its shortest text: PostgreSQL reads it to the bit, infinity included."""
_BIND: Final[dict[Form, Callable[[Any], object]]] = {"text": write_text, "id": stored_id}
_READ: Final[dict[Form, Callable[[Any], Any]]] = {
    "text": read_text,
    "id": text_of_id,
    "words": lambda text: words(read_text(text)),
}


class Table(Generic[R]):
    """One kind's statements, put together once: a column for each field, by its name."""

    def __init__(self, kind: Kind[R]) -> None:
        self.kind = kind
        self.name = f"dutchdoor.{_quoted(kind.table)}"
        self.key = [*map(_quoted, kind.key)]
        self.rows = f"SELECT {', '.join([_quoted(column.name) for column in kind.columns])} FROM {self.name}"
        self._forms: dict[str, Form] = {column.name: column.form for column in kind.columns}
        self._readers = [_READ.get(column.form) for column in kind.columns]

    def write(self, record: R) -> dict[str, object]:
        """A record in JSON."""
        return self.written({name: getattr(record, name) for name in record.__struct_fields__})

    def written(self, values: Mapping[str, Any]) -> dict[str, object]:
        """Some values of a record in JSON."""
        return {name: None if value is None else _WRITE[self._forms[name]](value) for name, value in values.items()}

    def read(self, row: Row) -> R:
        values = [
            value if read is None or value is None else read(value)
            for read, value in zip(self._readers, row, strict=True)
        ]
        return self.kind.record(**dict(zip(self.kind.record.__struct_fields__, values, strict=True)))

    def by_key(self, key: Sequence[str | int]) -> tuple[str, list[object]]:
        return self._asked(self.kind.sought(key))

    def by_unique(self, values: Mapping[str, str | int]) -> tuple[str, list[object]]:
        # An empty value belongs to no record, and the partial index has none.
        claimed = [f"{_quoted(name)} <> ''" for name in self.kind.group(values) if self._forms[name] == "text"]
        return self._asked(values, claimed)

    def listed(
        self, values: Mapping[str, str | int], after: Sequence[str | int], limit: int | None
    ) -> tuple[str, list[object]]:
        """List the records that have some values."""
        self.kind.must_index(values)
        return self._page(values, self.kind.listing, [*map(_quoted, self.kind.listing)], after, limit)

    def page(self, after: Sequence[str | int], limit: int) -> tuple[str, list[object]]:
        """Read what is moved: rows behind a key, as they stand."""
        return self._page({}, self.kind.key, self.key, after, limit)

    def _page(
        self,
        values: Mapping[str, str | int],
        names: Sequence[str],
        columns: Sequence[str],
        after: Sequence[str | int],
        limit: int | None,
    ) -> tuple[str, list[object]]:
        order, behind, place = ", ".join(columns), list[str](), list[object]()
        if after:
            place = self._bound(dict(zip(names, after, strict=True)))
            behind = [f"({order}) > ({_numbered(len(values) + 1, len(place))})"]
        sql, bound = self._asked(values, behind)
        return f"{sql} ORDER BY {order} LIMIT ${len(bound) + len(place) + 1}", [*bound, *place, limit]

    def _asked(self, values: Mapping[str, str | int], more: Iterable[str] = ()) -> tuple[str, list[object]]:
        conditions = [*(f"{_quoted(name)} = ${n}" for n, name in enumerate(values, 1)), *more]
        where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
        return self.rows + where, self._bound(values)

    def _bound(self, values: Mapping[str, str | int]) -> list[object]:
        return [_BIND.get(self._forms[name], _as_it_is)(value) for name, value in values.items()]

    def purged(self, step: int, *, begun: bool) -> str:
        """Delete what has expired among the next rows in the order of their keys, and return the last key that was
        seen.

        The condition is checked again for each row, because a row may have changed since; a row that is being written
        stays.
        """
        keys, instant = ", ".join(map(_quoted, self.kind.key)), _quoted(self.kind.expires)
        behind = f"WHERE ({keys}) > ({_numbered(2, len(self.kind.key))})" if begun else ""
        last = ", ".join(f"{_quoted(name)} DESC" for name in self.kind.key)
        same = " AND ".join(f"t.{_quoted(name)} = free.{_quoted(name)}" for name in self.kind.key)
        return (
            f"WITH seen AS (SELECT {keys}, {instant} FROM {self.name} {behind} ORDER BY {keys} LIMIT {step}), "
            f"free AS (SELECT {keys} FROM {self.name} WHERE ({keys}) IN (SELECT {keys} FROM seen WHERE {instant} < $1) "
            f"AND {instant} < $1 FOR UPDATE SKIP LOCKED), "
            f"gone AS (DELETE FROM {self.name} t USING free WHERE {same} RETURNING 1) "
            "SELECT (SELECT count(*) FROM gone), l.* FROM (SELECT 1) one "
            f"LEFT JOIN (SELECT {keys} FROM seen ORDER BY {last} LIMIT 1) l ON true"
        )


class _Accounts(Table[Account]):
    """With the epoch and the revision that they have now."""

    def __init__(self) -> None:
        super().__init__(ACCOUNTS)
        self.rows, self.key = f"SELECT {ACCOUNT} FROM dutchdoor.accounts_now a", ["a.subject"]

    def write(self, record: Account) -> dict[str, object]:
        return account_values(record)

    def read(self, row: Row) -> Account:
        return read_account(row)


class _Sessions(Table[Session]):
    """With the number of the account: no read returns a session whose account was removed."""

    def __init__(self) -> None:
        super().__init__(SESSIONS)
        self.rows, self.key = JOINED, ["s.id"]

    def write(self, record: Session) -> dict[str, object]:
        return {**session_values(record), "subject": write_text(record.subject)}

    def read(self, row: Row) -> Session:
        return read_session(row)[0]


class Tables:
    """The tables of all kinds."""

    def __init__(self, kinds: Kinds) -> None:
        self.kinds = kinds
        self.by_name: dict[str, Table[Any]] = {kind.table: Table(kind) for kind in kinds.all}
        self.by_name |= {"accounts": _Accounts(), "sessions": _Sessions()}

    def of(self, kind: type[R]) -> Table[R]:
        """Return the table of a general kind."""
        return self.by_name[self.kinds.of(kind).table]


def _quoted(name: str) -> str:
    return f'"{name}"'


def _numbered(first: int, count: int) -> str:
    return ", ".join(f"${n}" for n in range(first, first + count))


def _as_it_is(value: object) -> object:
    return value
