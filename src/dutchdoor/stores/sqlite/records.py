"""What SQLite's statements have of their own, for accounts, sessions and records of each kind."""

# ruff: noqa: S608 - every statement here is put together from constants and from descriptions; values are bound, always

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final, TypeAlias, TypeVar

from msgspec import Struct

from dutchdoor.model.audit_events import AuditEvent
from dutchdoor.model.ids import encode, packed
from dutchdoor.stores import sql
from dutchdoor.stores.kinds import SESSIONS, Kind
from dutchdoor.stores.sql import ACCOUNT_COLUMNS, SESSION_COLUMNS, Dialect, Row, marks, quoted, where

__all__ = [
    "ADD_ACCOUNT", "ADD_EVENT", "ADD_SESSION", "EVENTS_AFTER", "EVENTS_AFTER_OF", "SESSIONS_OF", "SESSION_WITH_ACCOUNT",
    "SQLITE", "SWAP_ACCOUNT", "SWAP_AND_END", "SWAP_SESSION", "Table", "Tables", "stored_id", "text_of_id",
]  # fmt: skip

R = TypeVar("R", bound=Struct)


def _to_marks(names: Iterable[str]) -> str:
    return ", ".join(f"{name} = ?" for name in names)


def stored_id(id: str) -> bytes | str:
    """Return an id as it is stored: 16 bytes where it is the canonical text of 16 bytes, else the text itself."""
    return packed(id) or id


def text_of_id(key: bytes | str) -> str:
    return key if isinstance(key, str) else encode(key)


SQLITE: Final = Dialect(accounts="accounts", position="instr", stored_id=stored_id, text_of_id=text_of_id)

# --- accounts and sessions, which are read at every request ---------------------------------------------------------

SESSION_WITH_ACCOUNT = f"{SQLITE.with_sessions} WHERE s.id = ?"
SESSIONS_OF = f"{SQLITE.with_sessions} WHERE a.subject = ? AND s.ended_at IS NULL ORDER BY s.id DESC LIMIT ?"
"""By id, which is the order of creation and of the index: to return the newest three of ten thousand, it reads three.
"""
ADD_SESSION = (
    # Without an account the SELECT finds no row, and nothing is added.
    f"INSERT INTO sessions (account, id, ended_at, {', '.join(SESSION_COLUMNS)}, revision) "
    f"SELECT number, {marks(len(SESSION_COLUMNS) + 2)}, 0 FROM accounts WHERE subject = ?"
)
SWAPPED = (
    "revision = revision + 1 WHERE id = ? AND revision = ? AND ended_at IS NULL "
    "AND account = (SELECT number FROM accounts WHERE subject = ?)"
)
SWAP_SESSION = f"UPDATE sessions SET {_to_marks(SESSION_COLUMNS)}, {SWAPPED}"
SWAP_AND_END = f"UPDATE sessions SET {_to_marks(SESSION_COLUMNS)}, ended_at = ?, {SWAPPED}"
ADD_ACCOUNT = (
    f"INSERT INTO accounts (subject, {', '.join(ACCOUNT_COLUMNS)}, revision) "
    f"VALUES ({marks(len(ACCOUNT_COLUMNS) + 1)}, 0)"
)
SWAP_ACCOUNT = (
    f"UPDATE accounts SET {_to_marks(ACCOUNT_COLUMNS)}, revision = revision + 1 WHERE subject = ? AND revision = ?"
)

EVENT = ", ".join(AuditEvent.__struct_fields__)
ADD_EVENT = f"INSERT INTO events ({EVENT}, log_epoch, number) VALUES ({marks(len(AuditEvent.__struct_fields__) + 2)})"
_AFTER = f"SELECT log_epoch, number, {EVENT} FROM events WHERE (log_epoch, number, id) > (?, ?, ?) AND id >= ?"
_IN_ORDER = "ORDER BY log_epoch, number, id LIMIT ?"
EVENTS_AFTER = f"{_AFTER} {_IN_ORDER}"
EVENTS_AFTER_OF = f"{_AFTER} AND subject = ? {_IN_ORDER}"

# --- every kind -----------------------------------------------------------------------------------------------------


class Table(sql.Table[R]):
    """With the statements that write."""

    def __init__(self, kind: Kind[R]) -> None:
        super().__init__(kind, SQLITE)
        key, names = [*map(quoted, kind.key)], [*map(quoted, self.names)]
        self.add = f"INSERT INTO {self.name} ({', '.join(names)}) VALUES ({marks(len(names))})"
        if kind is SESSIONS:
            # With the number of the account, which stays when a move replaces the account's row.
            names[-1] = "account"
            self.add = (
                f"INSERT INTO {self.name} ({', '.join(names)}) SELECT {marks(len(names) - 1)}, number FROM accounts "
                "WHERE subject = ?"
            )
        self.put = f"{self.add} ON CONFLICT ({', '.join(key)}) DO UPDATE SET " + ", ".join(
            f"{name} = excluded.{name}" for name in names if name not in key
        )
        """Replaces the row of its key, and no other: a row that has a unique value of it causes a conflict."""
        self._swapped = [name for name in self.names if name not in {*kind.key, "revision"}]
        self.swap = (
            f"UPDATE {self.name} SET {_to_marks(map(quoted, self._swapped))}, revision = revision + 1"
            f"{where([*key, 'revision'])}"
        )

    def added(self, record: R) -> tuple[str, Row]:
        """Insert a record, with revision 0 whatever it says."""
        values = zip(self.names, self.values(record), strict=True)
        return self.add, [0 if name == "revision" else value for name, value in values]

    def replaced(self, record: R) -> tuple[str, Row]:
        """Replace a record of the same revision, or change no row."""
        if not self.kind.has_revision:
            raise TypeError(f"{type(record).__name__} is not swapped")
        names = (*self._swapped, *self.kind.key, "revision")
        return self.swap, self.written({name: getattr(record, name) for name in names})

    def deleted(self, values: Mapping[str, Any]) -> tuple[str, Row]:
        """Delete the records that have some values."""
        self.kind.must_index(values)
        return f"DELETE FROM {self.name}{where(map(quoted, values))}", self.written(values)

    def deleted_by_key(self, record: R) -> tuple[str, Row]:
        return self.deleted({name: getattr(record, name) for name in self.kind.key})


Tables: TypeAlias = sql.Tables[Table[Any]]
