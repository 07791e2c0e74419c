"""Rows: the statements of each kind, derived from its description, and how its records are written and read."""

# ruff: noqa: S608 - every statement here is put together from constants and from descriptions; values are bound, always

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, Generic, TypeAlias, TypeVar

from msgspec import Struct

from dutchdoor.model.accounts import Account
from dutchdoor.model.audit_events import AuditEvent
from dutchdoor.model.ids import encode, packed
from dutchdoor.model.sessions import Session
from dutchdoor.stores.base import joined, words
from dutchdoor.stores.kinds import ACCOUNTS, SESSIONS, Form, Kind, Kinds

__all__ = [
    "ACCOUNT", "ADD_ACCOUNT", "ADD_EVENT", "ADD_SESSION", "EVENTS_AFTER", "SESSIONS_OF", "SESSION_WITH_ACCOUNT",
    "SWAP_ACCOUNT", "SWAP_AND_END", "SWAP_SESSION", "WITH_ROLE", "Row", "Table", "Tables", "account_values",
    "read_account", "read_session", "session_values", "stored_id", "text_of_id",
]  # fmt: skip

R = TypeVar("R", bound=Struct)
Row: TypeAlias = tuple[Any, ...]


def _marks(count: int) -> str:
    return ", ".join("?" * count)


def _to_marks(names: Sequence[str]) -> str:
    return ", ".join(f"{name} = ?" for name in names)


def stored_id(id: str) -> bytes | str:
    """Return an id as it is stored: 16 bytes where it is the canonical text of 16 bytes, else the text itself."""
    return packed(id) or id


def text_of_id(key: bytes | str) -> str:
    return key if isinstance(key, str) else encode(key)


# --- accounts and sessions, which are read at every request ---------------------------------------------------------

SESSION_COLUMNS = (
    "hybrid", "client_id", "scope", "secret_hash", "salt", "master_key_id", "epoch", "amr", "auth_time", "created_at",
    "last_seen_at", "idle_expires_at", "expires_at", "generation", "sibling", "parent_sibling", "rotated_at",
    "sibling_at", "fingerprint", "device", "address", "country", "end_reason",
)  # fmt: skip
"""All but id, account, ended_at and revision, which no swap writes as they stand."""
ACCOUNT_COLUMNS = (
    "email", "address", "name", "roles", "active", "email_verified_at", "epoch", "created_at", "folded",
)  # fmt: skip
"""All but number, subject and revision."""

SESSION = ", ".join(f"s.{name}" for name in ("id", *SESSION_COLUMNS, "ended_at", "revision"))
ACCOUNT = ", ".join(f"a.{name}" for name in ("subject", *ACCOUNT_COLUMNS[:-1], "revision"))
JOINED = f"SELECT {SESSION}, {ACCOUNT} FROM sessions s JOIN accounts a ON a.number = s.account"
SESSION_WITH_ACCOUNT = f"{JOINED} WHERE s.id = ?"
SESSIONS_OF = f"{JOINED} WHERE a.subject = ? AND s.ended_at IS NULL ORDER BY s.id DESC LIMIT ?"
"""By id, which is the order of creation and of the index: to return the newest three of ten thousand, it reads three.
"""
ADD_SESSION = (
    # Without an account the SELECT finds no row, and nothing is added.
    f"INSERT INTO sessions (account, id, ended_at, {', '.join(SESSION_COLUMNS)}, revision) "
    f"SELECT number, {_marks(len(SESSION_COLUMNS) + 2)}, 0 FROM accounts WHERE subject = ?"
)
SWAPPED = (
    "revision = revision + 1 WHERE id = ? AND revision = ? AND ended_at IS NULL "
    "AND account = (SELECT number FROM accounts WHERE subject = ?)"
)
SWAP_SESSION = f"UPDATE sessions SET {_to_marks(SESSION_COLUMNS)}, {SWAPPED}"
SWAP_AND_END = f"UPDATE sessions SET {_to_marks(SESSION_COLUMNS)}, ended_at = ?, {SWAPPED}"
WITH_ROLE = "a.roles <> '' AND a.active AND instr(' ' || a.roles || ' ', ?)"
"""The first part lets SQLite use the partial index."""
ADD_ACCOUNT = (
    f"INSERT INTO accounts (subject, {', '.join(ACCOUNT_COLUMNS)}, revision) "
    f"VALUES ({_marks(len(ACCOUNT_COLUMNS) + 1)}, 0)"
)
SWAP_ACCOUNT = (
    f"UPDATE accounts SET {_to_marks(ACCOUNT_COLUMNS)}, revision = revision + 1 WHERE subject = ? AND revision = ?"
)


EVENT = ", ".join(AuditEvent.__struct_fields__)
ADD_EVENT = f"INSERT INTO events ({EVENT}, log_epoch, number) VALUES ({_marks(len(AuditEvent.__struct_fields__) + 2)})"
EVENTS_AFTER = (
    f"SELECT log_epoch, number, {EVENT} FROM events WHERE (log_epoch, number, id) > (?, ?, ?) "
    "ORDER BY log_epoch, number, id LIMIT ?"
)


def session_values(session: Session) -> Row:
    return (
        session.mode == "hybrid", session.client_id, session.scope, session.secret_hash, session.salt,
        session.master_key_id, session.epoch, joined(session.amr), session.auth_time, session.created_at,
        session.last_seen_at, session.idle_expires_at, session.expires_at, session.generation, session.sibling,
        session.parent_sibling, session.rotated_at, session.sibling_at, session.fingerprint, session.device,
        session.address, session.country, session.end_reason,
    )  # fmt: skip


def read_session(id: str, row: Row) -> tuple[Session, Account]:
    """Read a row of `JOINED`. The hottest lines here: one unpacking, and two calls with keywords in field order."""
    (
        _, hybrid, client_id, scope, secret_hash, salt, master_key_id, epoch, amr, auth_time, created_at,
        last_seen_at, idle_expires_at, expires_at, generation, sibling, parent_sibling, rotated_at, sibling_at,
        fingerprint, device, address, country, end_reason, ended_at, revision,
        subject, email, address_typed, name, roles, active, email_verified_at, account_epoch, account_created_at,
        account_revision,
    ) = row  # fmt: skip
    session = Session(
        id=id,
        subject=subject,
        mode="hybrid" if hybrid else "session",
        client_id=client_id,
        scope=scope,
        secret_hash=secret_hash,
        salt=salt,
        master_key_id=master_key_id,
        epoch=epoch,
        amr=words(amr),
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
        fingerprint=fingerprint,
        device=device,
        address=address,
        country=country,
        ended_at=ended_at,
        end_reason=end_reason,
        revision=revision,
    )
    account = Account(
        subject=subject,
        email=email,
        address=address_typed,
        name=name,
        roles=words(roles),
        status="active" if active else "disabled",
        email_verified_at=email_verified_at,
        epoch=account_epoch,
        created_at=account_created_at,
        revision=account_revision,
    )
    return session, account


def account_values(account: Account) -> Row:
    folded = "\n".join((account.email or "", account.address or "", account.name)).casefold()
    return (
        account.email, account.address, account.name, joined(account.roles), account.active, account.email_verified_at,
        account.epoch, account.created_at, folded,
    )  # fmt: skip


def read_account(row: Row) -> Account:
    subject, email, address, name, roles, active, email_verified_at, epoch, created_at, revision = row
    return Account(
        subject=subject,
        email=email,
        address=address,
        name=name,
        roles=words(roles),
        status="active" if active else "disabled",
        email_verified_at=email_verified_at,
        epoch=epoch,
        created_at=created_at,
        revision=revision,
    )


# --- every kind -----------------------------------------------------------------------------------------------------


_WRITE: Final[dict[Form, Callable[[Any], Any]]] = {"id": stored_id, "words": joined}
_READ: Final[dict[Form, Callable[[Any], Any]]] = {"id": text_of_id, "words": words, "bool": bool}


class Table(Generic[R]):
    """One kind's statements, put together once: a column for each field, by its name."""

    def __init__(self, kind: Kind[R]) -> None:
        self.kind = kind
        self.name = _quoted(kind.table)
        self.key = [*map(_quoted, kind.key)]
        names = [_quoted(column.name) for column in kind.columns]
        self._writers = [_WRITE.get(column.form) for column in kind.columns]
        self._readers = [_READ.get(column.form) for column in kind.columns]
        self._write = {column.name: _WRITE.get(column.form) for column in kind.columns}
        self.rows = f"SELECT {', '.join(names)} FROM {self.name}"
        self.add = f"INSERT INTO {self.name} ({', '.join(names)}) VALUES ({_marks(len(names))})"
        self.put = _or_update(self.add, self.key, names)
        """Replaces the row of its key, and no other: a row that has a unique value of it causes a conflict."""
        swapped = [name for name in names if name not in {*self.key, '"revision"'}]
        self._swapped = [column.name for column in kind.columns if _quoted(column.name) in swapped]
        self.swap = (
            f"UPDATE {self.name} SET {_to_marks([*swapped])}, revision = revision + 1 {_where([*self.key, 'revision'])}"
        )

    def values(self, record: R) -> Row:
        """Write a record for `add` and `put`."""
        given = [getattr(record, name) for name in record.__struct_fields__]
        return tuple(
            [
                value if write is None or value is None else write(value)
                for write, value in zip(self._writers, given, strict=True)
            ]
        )

    def read(self, row: Row) -> R:
        values = [
            value if read is None or value is None else read(value)
            for read, value in zip(self._readers, row, strict=True)
        ]
        return self.kind.record(**dict(zip(self.kind.record.__struct_fields__, values, strict=True)))

    def written(self, values: Mapping[str, Any]) -> Row:
        """Write some values of a record."""
        return tuple(
            [
                value if (write := self._write[name]) is None or value is None else write(value)
                for name, value in values.items()
            ]
        )

    def added(self, record: R) -> tuple[str, Row]:
        """Insert a record, with revision 0 whatever it says."""
        if not self.kind.has_revision:
            return self.add, self.values(record)
        names = record.__struct_fields__
        given = self.values(record)
        return self.add, tuple([0 if name == "revision" else value for name, value in zip(names, given, strict=True)])

    def replaced(self, record: R) -> tuple[str, Row]:
        """Replace a record of the same revision, or change no row."""
        if not self.kind.has_revision:
            raise TypeError(f"{type(record).__name__} is not swapped")
        names = (*self._swapped, *self.kind.key, "revision")
        return self.swap, self.written({name: getattr(record, name) for name in names})

    def deleted(self, values: Mapping[str, Any]) -> tuple[str, Row]:
        """Delete the records that have some values."""
        self.kind.must_index(values)
        return f"DELETE FROM {self.name} {_where(map(_quoted, values))}", self.written(values)

    def deleted_by_key(self, record: R) -> tuple[str, Row]:
        return self.deleted({name: getattr(record, name) for name in self.kind.key})

    def by_key(self, key: Sequence[str | int]) -> tuple[str, Row]:
        return f"{self.rows} {_where(self.key)}", self.written(self.kind.sought(key))

    def by_unique(self, values: Mapping[str, str | int]) -> tuple[str, Row]:
        # An empty value belongs to no record, and the partial index has none.
        claimed = [f"{_quoted(name)} <> ''" for name in self.kind.group(values)]
        return f"{self.rows} {_where(map(_quoted, values), claimed)}", self.written(values)

    def listed(self, values: Mapping[str, Any], after: Sequence[str | int], limit: int | None) -> tuple[str, Row]:
        """List the records that have some values."""
        self.kind.must_index(values)
        order = ", ".join(map(_quoted, self.kind.listing))
        behind = [f"({order}) > ({_marks(len(after))})"] if after else []
        place = self.written(dict(zip(self.kind.listing, after, strict=True))) if after else ()
        sql = f"{self.rows} {_where(map(_quoted, values), behind)} ORDER BY {order} LIMIT ?"
        return sql, (*self.written(values), *place, -1 if limit is None else limit)

    def page(self, after: Sequence[str | int] | None, limit: int) -> tuple[str, Row]:
        """Read what is moved: rows behind a key, as they stand."""
        keys = ", ".join(self.key)
        behind = [] if after is None else [f"({keys}) > ({_marks(len(after))})"]
        place = () if after is None else self.written(dict(zip(self.kind.key, after, strict=True)))
        return f"{self.rows} {_where((), behind)} ORDER BY {keys} LIMIT ?", (*place, limit)


class _Accounts(Table[Account]):
    """With a number that stays when a move replaces the row: its sessions refer to the account by it."""

    def __init__(self) -> None:
        super().__init__(ACCOUNTS)
        self.rows, self.key = f"SELECT {ACCOUNT} FROM accounts a", ["a.subject"]
        names = ("subject", *ACCOUNT_COLUMNS, "revision")
        self.put = _or_update(
            f"INSERT INTO accounts ({', '.join(names)}) VALUES ({_marks(len(names))})", ["subject"], names
        )

    def values(self, record: Account) -> Row:
        return (record.subject, *account_values(record), record.revision)

    def read(self, row: Row) -> Account:
        return read_account(row)


class _Sessions(Table[Session]):
    """With the number of the account: no read returns a session whose account was removed."""

    def __init__(self) -> None:
        super().__init__(SESSIONS)
        self.rows, self.key = JOINED, ["s.id"]
        names = ("account", "id", "ended_at", *SESSION_COLUMNS, "revision")
        self.put = _or_update(
            f"INSERT INTO sessions ({', '.join(names)}) SELECT number, {_marks(len(names) - 1)} FROM accounts "
            "WHERE subject = ?",
            ["id"],
            names,
        )

    def values(self, record: Session) -> Row:
        return (
            stored_id(record.id), record.ended_at, *session_values(record), record.revision, record.subject,
        )  # fmt: skip

    def read(self, row: Row) -> Session:
        return read_session(text_of_id(row[0]), row)[0]


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


def _where(names: Iterable[str], more: Iterable[str] = ()) -> str:
    conditions = [*(f"{name} = ?" for name in names), *more]
    return f"WHERE {' AND '.join(conditions)}" if conditions else ""


def _or_update(insert: str, key: Sequence[str], names: Sequence[str]) -> str:
    updates = ", ".join(f"{name} = excluded.{name}" for name in names if name not in key)
    return f"{insert} ON CONFLICT ({', '.join(key)}) DO UPDATE SET {updates}"
