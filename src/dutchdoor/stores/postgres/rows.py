"""What PostgreSQL's statements have of their own, and how values are sent to it.

Rows are written as JSON, since a commit is one call; search values are sent as values.
"""

# ruff: noqa: S608 - every statement here is put together from constants and from descriptions; values are bound, always

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from itertools import count
from typing import Any, Final, TypeAlias, TypeVar

from msgspec import Struct

from dutchdoor.errors import InvalidInput
from dutchdoor.model.accounts import Account, Credential
from dutchdoor.model.audit_events import AuditEvent
from dutchdoor.model.ids import encode, packed
from dutchdoor.model.sessions import Session
from dutchdoor.stores import sql
from dutchdoor.stores.kinds import Form, Kind
from dutchdoor.stores.postgres.connection import Row
from dutchdoor.stores.sql import ACCOUNT, Dialect, changed, quoted

__all__ = [
    "AUDIT_END", "EVENTS_AFTER", "EVENTS_AFTER_OF", "KNOWN", "POSTGRES", "SESSIONS_OF", "SESSIONS_WITH_ACCOUNT",
    "Table", "Tables", "numbered", "read_row", "read_session", "read_text", "stored_id", "text_of_id", "write_bytes",
    "write_record", "write_text",
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
    if isinstance(value, str):
        return write_text(value)
    return str(value) if isinstance(value, float) else value


def read_row(row: Row) -> list[Any]:
    """A row as it was written."""
    return [read_text(value) if type(value) is str and "\1" in value else value for value in row]


POSTGRES: Final = Dialect(
    schema="dutchdoor.",
    accounts="dutchdoor.accounts_now",
    position="strpos",
    stored_id=stored_id,
    text_of_id=text_of_id,
)


@lru_cache(256)
def numbered(statement: str) -> str:
    """Number the values of a statement, each of which is marked with `?`."""
    number = count(1)
    return re.sub(r"\?", lambda _: f"${next(number)}", statement)


# --- accounts and sessions, which are read at every request ---------------------------------------------------------

SESSIONS_WITH_ACCOUNT = f"{POSTGRES.with_sessions} WHERE s.id = ANY ($1)"
SESSIONS_OF = f"{POSTGRES.with_sessions} WHERE a.subject = $1 AND s.ended_at IS NULL ORDER BY s.id DESC LIMIT $2"
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
_EVENTS_AFTER = (
    f"SELECT l.audit_log, e.log_epoch, e.number, {', '.join(f'e.{name}' for name in AuditEvent.__struct_fields__)} "
    f"{_LOGS} LEFT JOIN LATERAL (SELECT * FROM dutchdoor.events t WHERE (t.log_epoch, t.number, t.id) > ($1, $2, $3) "
    f"AND (t.log_epoch < r.epoch OR t.number < {_OVER}) AND t.id >= $5 %s "
    "ORDER BY t.log_epoch, t.number, t.id LIMIT $4) e ON true WHERE l.one = 1 ORDER BY e.log_epoch, e.number, e.id"
)
EVENTS_AFTER, EVENTS_AFTER_OF = _EVENTS_AFTER % "", _EVENTS_AFTER % "AND t.subject = $6"
"""Without an event, one row, which has none."""


def read_session(row: Row) -> tuple[Session, Account]:
    """Read a row of `SESSIONS_WITH_ACCOUNT` or `SESSIONS_OF`."""
    return sql.read_session(text_of_id(row[0]), read_row(row))


# --- every kind -----------------------------------------------------------------------------------------------------


_JSON: Final[dict[Form, Callable[[Any], str]]] = {
    "text": write_text, "id": write_bytes, "bytes": write_bytes, "float": str, "words": write_text,
}  # fmt: skip
"""How a value is written in JSON. A float as its shortest text: PostgreSQL reads it to the bit, infinity included."""


class Table(sql.Table[R]):
    """With the rows in JSON, and the purge."""

    def __init__(self, kind: Kind[R]) -> None:
        super().__init__(kind, POSTGRES)
        self._json = {name: _JSON.get(self.forms.get(name, "bool")) for name in self.names}

    def write(self, record: R) -> dict[str, object]:
        """A record in JSON."""
        return dict(zip(self.names, changed(self._json.values(), self.values(record)), strict=True))

    def write_some(self, values: Mapping[str, Any]) -> dict[str, object]:
        """Some values of a record in JSON."""
        return dict(zip(values, changed([self._json[name] for name in values], self.written(values)), strict=True))

    def purged(self, step: int, *, begun: bool) -> str:
        """Delete what has expired among the next rows in the order of their keys, and return the last key that was
        seen.

        The condition is checked again for each row, because a row may have changed since; a row that is being written
        stays.
        """
        keys, instant = ", ".join(map(quoted, self.kind.key)), quoted(self.kind.expires)
        place = ", ".join(f"${n}" for n, _ in enumerate(self.kind.key, 2))
        behind = f"WHERE ({keys}) > ({place})" if begun else ""
        last = ", ".join(f"{quoted(name)} DESC" for name in self.kind.key)
        same = " AND ".join(f"t.{quoted(name)} = free.{quoted(name)}" for name in self.kind.key)
        return (
            f"WITH seen AS (SELECT {keys}, {instant} FROM {self.name} {behind} ORDER BY {keys} LIMIT {step}), "
            f"free AS (SELECT {keys} FROM {self.name} WHERE ({keys}) IN (SELECT {keys} FROM seen WHERE {instant} < $1) "
            f"AND {instant} < $1 FOR UPDATE SKIP LOCKED), "
            f"gone AS (DELETE FROM {self.name} t USING free WHERE {same} RETURNING 1) "
            "SELECT (SELECT count(*) FROM gone), l.* FROM (SELECT 1) one "
            f"LEFT JOIN (SELECT {keys} FROM seen ORDER BY {last} LIMIT 1) l ON true"
        )


Tables: TypeAlias = sql.Tables[Table[Any]]
