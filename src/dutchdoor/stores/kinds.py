"""Kinds of record, each described once.

A description says what a record is and how it is found. Every store derives the rest from it: the columns, the
statements that add, swap, take, remove and read it, the purge, the removal together with its account or with the end
of its session, and the move to another store. A new kind is one description and one migration for each dialect of SQL:

    BADGE = Kind(record=Badge, table="badges", unique=(("number",),), owner="subject")

    kinds = KINDS.plus(BADGE, migrations=Path(__file__).parent / "migrations")
    store = SqliteStore("door.db", kinds=kinds)

`docs/contributing/stores.md` shows the migrations. Accounts, sessions, audit events, the revocation log and the levels
of limits are described here too, for moving and purging. They have statements of their own: every request reads them,
or they obey laws of their own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from types import NoneType, UnionType
from typing import (
    Any,
    Final,
    Generic,
    Literal,
    NamedTuple,
    TypeAlias,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

from msgspec import Struct

from dutchdoor.jose.signing_keys import StoredKey
from dutchdoor.model.accounts import Account, Credential
from dutchdoor.model.audit_events import AuditEvent
from dutchdoor.model.departures import Departure
from dutchdoor.model.deployment import Deployment
from dutchdoor.model.issuer_sessions import IssuerSession
from dutchdoor.model.one_time_tokens import OneTimeToken
from dutchdoor.model.service_credentials import RegisteredClient, VerifierKey
from dutchdoor.model.session_data import StoredData
from dutchdoor.model.sessions import Session
from dutchdoor.model.sightings import Sightings
from dutchdoor.model.webhooks import Lane, Webhook
from dutchdoor.revocation.log import Revocation
from dutchdoor.stores.migrations import Dialect, Migration, read_migrations

__all__ = [
    "ACCOUNTS",
    "EVENTS",
    "KINDS",
    "LIMITS",
    "REVOCATIONS",
    "SESSIONS",
    "Column",
    "Form",
    "Kind",
    "Kinds",
    "Level",
]

R = TypeVar("R", bound=Struct)

Form: TypeAlias = Literal["text", "id", "bytes", "int", "float", "bool", "words"]
"""How a field is written. An `id` is stored as 16 bytes where it is the text of 16 bytes; `words` are joined by
spaces."""

_FORMS: Final[dict[object, Form]] = {str: "text", bytes: "bytes", int: "int", float: "float", bool: "bool"}
_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,50}")
_ARGUMENTS: Final = frozenset({"kind", "after", "limit"})
"""Names of the parameters of `select`."""


class Column(NamedTuple):
    name: str
    form: Form
    optional: bool


class Kind(Struct, Generic[R], frozen=True, kw_only=True):
    """One kind of record. Only a record with a field `revision` may be swapped.

    Raises:
        TypeError: the description does not fit the record.
    """

    record: type[R]
    """A frozen `msgspec.Struct` of str, int, float, bytes, bool and tuple[str, ...], each of which may be None."""
    table: str
    key: tuple[str, ...] = ("id",)
    unique: tuple[tuple[str, ...], ...] = ()
    """Values that at most one record has. A group in which a value is None or empty belongs to no record."""
    indexes: tuple[tuple[str, ...], ...] = ()
    """Fields that `select` and `Discard` may name, together or the first few of them. Key, unique values, owner and
    session are indexes as well.
    """
    owner: str = ""
    """The field with the subject of the account whose removal also removes this record."""
    session: str = ""
    """The field with the id of the session whose end also removes this record."""
    ids: tuple[str, ...] = ()
    """Fields that hold ids issued here, which are stored as 16 bytes."""
    expires: str = ""
    """The field with the instant after which `purge` deletes the record."""
    order: tuple[str, ...] = ()
    """How records are listed, if not by key."""

    def __post_init__(self) -> None:
        by_name = {column.name: column for column in self.columns}
        named = {*self.key, *self.ids, *self.listing, *(name for group in self.indexed for name in group)}
        named |= {name for name in (self.owner, self.session, self.expires) if name}
        wrong = {name for name in named if name not in by_name} | {
            name for name in (self.table, *by_name) if not _NAME.fullmatch(name)
        }

        def refuse_unless(names: Sequence[str], forms: set[Form], *, optional: bool = False) -> None:
            wrong.update(
                name
                for name in names
                if name in by_name and (by_name[name].form not in forms or (by_name[name].optional and not optional))
            )

        refuse_unless((*self.key, *self.listing), {"text", "id", "int"})
        refuse_unless([name for group in self.unique for name in group], {"text", "int"}, optional=True)
        refuse_unless([name for group in self.indexes for name in group], {"text", "id", "int"}, optional=True)
        refuse_unless([self.owner], {"text"})
        refuse_unless([self.session], {"id"})
        refuse_unless([self.expires], {"float"})
        refuse_unless(["revision"], {"int"})
        wrong |= {name for group in self.indexed for name in group} & _ARGUMENTS
        if wrong or not self.key:
            raise TypeError(f"{self.record.__name__} does not fit its description: {', '.join(sorted(wrong))}")

    @property
    def columns(self) -> tuple[Column, ...]:
        """One for each field, in the fields' order."""
        return _columns(self.record, self.ids)

    @property
    def has_revision(self) -> bool:
        return "revision" in self.record.__struct_fields__

    @property
    def listing(self) -> tuple[str, ...]:
        """The fields that records are listed by: no two records have the same values in all of them."""
        return (*self.order, *(name for name in self.key if name not in self.order))

    @property
    def indexed(self) -> tuple[tuple[str, ...], ...]:
        return (self.key, *self.unique, *self.indexes, *[(name,) for name in (self.owner, self.session) if name])

    def key_of(self, record: R) -> tuple[Any, ...]:
        return tuple([getattr(record, name) for name in self.key])

    def claims(self, record: R) -> Iterator[tuple[tuple[str, ...], tuple[Any, ...]]]:
        """Return the unique values that a record has."""
        for group in self.unique:
            values = tuple([getattr(record, name) for name in group])
            if None not in values and "" not in values:
                yield group, values

    def sought(self, key: Sequence[str | int]) -> dict[str, str | int]:
        """Return the values of a key by name. Raises `TypeError` for too many or too few."""
        if len(key) != len(self.key):
            raise TypeError(f"the key of {self.table} is {', '.join(self.key)}")
        return dict(zip(self.key, key, strict=True))

    def group(self, values: Mapping[str, object]) -> tuple[str, ...]:
        """Return the group of unique fields that these values belong to. Raises `TypeError` if there is none."""
        for group in self.unique:
            if values.keys() == set(group):
                return group
        raise TypeError(f"{', '.join(values)} is not unique in {self.table}")

    def must_index(self, values: Mapping[str, object]) -> None:
        """Raise `TypeError` for fields that no index begins with: a search for them would read the whole table."""
        if not any(values.keys() == set(group[: len(values)]) for group in self.indexed):
            raise TypeError(f"{self.table} has no index that begins with {', '.join(values)}")


@lru_cache(256)
def _columns(record: type[Struct], ids: tuple[str, ...]) -> tuple[Column, ...]:
    hints = get_type_hints(record)
    return tuple(_column(name, hints[name], is_id=name in ids) for name in record.__struct_fields__)


def _column(name: str, hint: Any, *, is_id: bool) -> Column:
    parts: tuple[Any, ...] = get_args(hint) if get_origin(hint) in {Union, UnionType} else (hint,)
    plain, *others = [part for part in parts if part is not NoneType]
    form: Form | None
    if get_origin(plain) is Literal:
        form = "text" if all(isinstance(value, str) for value in get_args(plain)) else None
    else:
        form = "words" if plain == tuple[str, ...] else _FORMS.get(plain)
    if others or form is None or (is_id and form != "text"):
        raise TypeError(f"no column can hold {name}: {hint}")
    return Column(name, "id" if is_id else form, NoneType in parts)


class Level(Struct, frozen=True, kw_only=True):
    """How full one bucket of a limit is. `dutchdoor.model.rate_limits` says what `tat` means."""

    key: str
    tat: float


ACCOUNTS: Final = Kind(record=Account, table="accounts", key=("subject",), unique=(("email",),))
SESSIONS: Final = Kind(record=Session, table="sessions", ids=("id",), expires="expires_at")
REVOCATIONS: Final = Kind(record=Revocation, table="revocations", key=("seq",), expires="expires_at")
EVENTS: Final = Kind(record=AuditEvent, table="events", ids=("id",), expires="at")
LIMITS: Final = Kind(record=Level, table="limits", key=("key",), expires="tat")

_GENERAL: Final[tuple[Kind[Any], ...]] = (
    Kind(
        record=Credential,
        table="credentials",
        key=("subject", "method", "handle"),
        unique=(("method", "handle"),),
        owner="subject",
    ),
    Kind(
        record=OneTimeToken,
        table="one_time_tokens",
        indexes=(("subject", "purpose"),),
        owner="subject",
        ids=("id",),
        expires="expires_at",
    ),
    Kind(record=StoredData, table="session_data", owner="subject", session="id", ids=("id",), expires="expires_at"),
    Kind(
        record=IssuerSession,
        table="issuer_sessions",
        indexes=(("issuer", "issuer_subject"), ("issuer", "issuer_sid")),
        owner="subject",
        session="id",
        ids=("id",),
        expires="expires_at",
    ),
    Kind(record=Sightings, table="sightings", owner="subject", session="id", ids=("id",), expires="expires_at"),
    Kind(record=Departure, table="departures", key=("subject",), owner="subject"),
    Kind(record=StoredKey, table="keys", key=("kid",), unique=(("number",),), order=("number",)),
    Kind(record=RegisteredClient, table="clients"),
    Kind(record=Deployment, table="deployment"),
    Kind(record=VerifierKey, table="verifiers", unique=(("name",),), order=("name",)),
    Kind(record=Webhook, table="webhooks"),
    # Without an owner: the events of an account that is erased are still to be delivered.
    Kind(record=Lane, table="webhook_lanes", key=("webhook", "subject")),
)


class Kinds:
    """The kinds that a store keeps. Immutable: `plus` returns a new object."""

    def __init__(self, general: Sequence[Kind[Any]] = _GENERAL, folders: Sequence[Path] = ()) -> None:
        self.general = tuple(general)
        """Kinds whose description alone says how they are added, swapped, taken, removed and read."""
        self.all: tuple[Kind[Any], ...] = (ACCOUNTS, SESSIONS, *self.general, REVOCATIONS, EVENTS, LIMITS)
        """In the order in which they are moved: a session needs its account."""
        self.by_table = {kind.table: kind for kind in self.all}
        self._by_record = {kind.record: kind for kind in self.general}
        self._folders = tuple(folders)
        if len(self.by_table) < len(self.all) or len(self._by_record) < len(self.general):
            raise TypeError("two kinds have one table, or one record")

    def __reduce__(self) -> tuple[type[Kinds], tuple[Any, ...]]:
        """For a process that gets a store's kinds from another: accounts and sessions are the same objects there."""
        return Kinds, (self.general, self._folders)

    def plus(self, *kinds: Kind[Any], migrations: Path) -> Kinds:
        """Add kinds of your own, with a folder that has their migrations in `sqlite/` and `postgres/`."""
        return Kinds((*self.general, *kinds), (*self._folders, migrations))

    def of(self, record: type[R]) -> Kind[R]:
        """Return the description of a general kind. Raises `TypeError` for any other type."""
        kind = self._by_record.get(record)
        if kind is None:
            raise TypeError(f"{record.__name__} is not kept")
        return kind

    @property
    def tables(self) -> tuple[str, ...]:
        return tuple(self.by_table)

    def migrations(self, dialect: Dialect) -> list[Migration]:
        return read_migrations(dialect, self._folders)


KINDS: Final = Kinds()
"""The kinds of this package."""
