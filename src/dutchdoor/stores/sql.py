"""What the stores in SQL share: the statements and the reads that follow from the description of each kind.

A dialect of SQL has the rest in its own folder: how a value is sent, and how a commit is applied. The statements here
mark each value with `?`.
"""

# ruff: noqa: S608 - every statement here is put together from constants and from descriptions; values are bound, always

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from typing import Any, Final, Generic, TypeAlias, TypeVar

from msgspec import Struct
from msgspec.structs import astuple

from dutchdoor.model.accounts import Account
from dutchdoor.model.audit_events import AuditEvent, AuditSearch
from dutchdoor.model.ids import ordered_from
from dutchdoor.model.sessions import Session
from dutchdoor.revocation.log import Revocation
from dutchdoor.revocation.node_messages import Renewed
from dutchdoor.stores.account_words import LAST, folded, read_word_cursor, sought, write_cursor
from dutchdoor.stores.base import AccountStatus, joined, words
from dutchdoor.stores.kinds import ACCOUNTS, SESSIONS, Form, Kind, Kinds
from dutchdoor.stores.transfer import LEFT, Page

__all__ = [
    "ACCOUNT", "ACCOUNT_COLUMNS", "SESSION", "SESSION_COLUMNS", "Dialect", "Row", "SqlStore", "Table", "Tables",
    "account_values", "changed", "marks", "quoted", "read_account", "read_session", "renewed", "session_values",
    "where",
]  # fmt: skip

R = TypeVar("R", bound=Struct)
T = TypeVar("T", bound="Table[Any]")
Row: TypeAlias = Sequence[Any]


class Dialect(Struct, frozen=True, kw_only=True):
    """What the statements of two databases differ in."""

    schema: str = ""
    """What stands before the name of a table."""
    accounts: str
    """Accounts, as they are now."""
    position: str
    """The function that finds a text in a text."""
    stored_id: Callable[[str], bytes | str]
    text_of_id: Callable[[Any], str]

    @property
    def with_sessions(self) -> str:
        """Each session with its account: of a removed account, it finds none."""
        return (
            f"SELECT {SESSION}, {ACCOUNT} FROM {self.schema}sessions s JOIN {self.accounts} a ON a.number = s.account"
        )

    @property
    def with_role(self) -> str:
        """The condition for accounts that have a role, which is given between two spaces. Its first part lets the
        database use the partial index.
        """
        return f"a.roles <> '' AND a.active AND {self.position}(' ' || a.roles || ' ', ?) > 0"


# --- accounts and sessions, which are read at every request ---------------------------------------------------------

SESSION_COLUMNS: Final = (
    "hybrid", "client_id", "scope", "secret_hash", "salt", "master_key_id", "epoch", "amr", "auth_time", "created_at",
    "last_seen_at", "idle_expires_at", "expires_at", "generation", "sibling", "parent_sibling", "rotated_at",
    "sibling_at", "fingerprint", "device", "address", "country", "end_reason", "binding", "browser_key",
)  # fmt: skip
"""All but id, account, ended_at and revision, which no swap writes as they stand."""
ACCOUNT_COLUMNS: Final = (
    "email", "address", "name", "roles", "active", "email_verified_at", "epoch", "created_at", "folded",
)  # fmt: skip
"""All but number, subject and revision."""

_OF_STATUS: Final[Mapping[AccountStatus, str]] = {
    "any": "",
    "active": " AND a.active",
    "disabled": " AND NOT a.active",
    "unverified": " AND a.email_verified_at IS NULL AND a.email IS NOT NULL",
}
"""As the partial indexes have it."""
_NUMBERS: Final = 2**63
"""Above the numbers of all accounts."""

SESSION: Final = ", ".join(f"s.{name}" for name in ("id", *SESSION_COLUMNS, "ended_at", "revision"))
ACCOUNT: Final = ", ".join(f"a.{name}" for name in ("subject", *ACCOUNT_COLUMNS[:-1], "revision"))


def session_values(session: Session) -> Row:
    return (
        session.mode == "hybrid", session.client_id, session.scope, session.secret_hash, session.salt,
        session.master_key_id, session.epoch, joined(session.amr), session.auth_time, session.created_at,
        session.last_seen_at, session.idle_expires_at, session.expires_at, session.generation, session.sibling,
        session.parent_sibling, session.rotated_at, session.sibling_at, session.fingerprint, session.device,
        session.address, session.country, session.end_reason, session.binding, session.browser_key,
    )  # fmt: skip


def read_session(id: str, row: Row) -> tuple[Session, Account]:
    """Read a row of `SESSION` and `ACCOUNT`. The hottest lines here: one unpacking, and two calls with keywords in
    field order.
    """
    (
        _, hybrid, client_id, scope, secret_hash, salt, master_key_id, epoch, amr, auth_time, created_at,
        last_seen_at, idle_expires_at, expires_at, generation, sibling, parent_sibling, rotated_at, sibling_at,
        fingerprint, device, address, country, end_reason, binding, browser_key, ended_at, revision,
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
        binding=binding,
        browser_key=browser_key,
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
    return (
        account.email, account.address, account.name, joined(account.roles), account.active, account.email_verified_at,
        account.epoch, account.created_at, folded(account),
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


class Table(Generic[R]):
    """One kind's statements, put together once: a column for each field, by its name. Accounts and sessions have
    columns of their own.
    """

    def __init__(self, kind: Kind[R], dialect: Dialect) -> None:
        writers: dict[Form, Callable[[Any], Any]] = {"id": dialect.stored_id, "words": joined}
        readers: dict[Form, Callable[[Any], Any]] = {"id": dialect.text_of_id, "words": words, "bool": bool}
        self.kind, self.dialect = kind, dialect
        self.name = dialect.schema + quoted(kind.table)
        self.names: tuple[str, ...] = kind.record.__struct_fields__
        """The columns of `values`."""
        self.forms: dict[str, Form] = {column.name: column.form for column in kind.columns}
        self.rows = f"SELECT {', '.join(map(quoted, self.names))} FROM {self.name}"
        self._writers = {name: writers.get(form) for name, form in self.forms.items()}
        self._readers = [readers.get(form) for form in self.forms.values()]
        self.read: Callable[[Row], Any] = self._read
        if kind is ACCOUNTS:
            self.names = "subject", *ACCOUNT_COLUMNS, "revision"
            self.forms["folded"] = "text"
            self.rows, self.read = f"SELECT {ACCOUNT} FROM {dialect.accounts} a", read_account
        elif kind is SESSIONS:
            self.names = "id", "ended_at", *SESSION_COLUMNS, "revision", "subject"
            self.rows = dialect.with_sessions
            self.read = lambda row: read_session(dialect.text_of_id(row[0]), row)[0]
        self._by_key = self.rows + where(map(quoted, kind.key))

    def values(self, record: Struct) -> Row:
        """Return what is written of a record, in the order of `names`."""
        match record:
            case Session():
                key = self.dialect.stored_id(record.id)
                return key, record.ended_at, *session_values(record), record.revision, record.subject
            case Account():
                return record.subject, *account_values(record), record.revision
            case _:
                return changed(self._writers.values(), astuple(record))

    def written(self, values: Mapping[str, Any]) -> Row:
        """Return what is written of some values of a record."""
        return changed([self._writers[name] for name in values], values.values())

    def _read(self, row: Row) -> R:
        return self.kind.record(**dict(zip(self.names, changed(self._readers, row), strict=True)))

    def by_key(self, key: Sequence[str | int]) -> tuple[str, Row]:
        return self._by_key, self.written(self.kind.sought(key))

    def by_unique(self, values: Mapping[str, str | int]) -> tuple[str, Row]:
        # An empty value belongs to no record, and the partial index has none.
        texts = [name for name in self.kind.group(values) if self.forms[name] == "text"]
        return self._having(values, [f"{quoted(name)} <> ''" for name in texts])

    def listed(self, values: Mapping[str, str | int], after: Sequence[str | int], limit: int | None) -> tuple[str, Row]:
        """List the records that have some values."""
        self.kind.must_index(values)
        return self._page(values, self.kind.listing, after, limit)

    def page(self, after: Sequence[str | int], limit: int) -> tuple[str, Row]:
        """Read what is moved: rows behind a key, as they stand."""
        return self._page({}, self.kind.key, after, limit)

    def _page(
        self, values: Mapping[str, str | int], names: Sequence[str], after: Sequence[str | int], limit: int | None
    ) -> tuple[str, Row]:
        order, place = ", ".join(map(quoted, names)), dict(zip(names, after, strict=True)) if after else {}
        sql, given = self._having(values, [f"({order}) > ({marks(len(place))})"] if place else [])
        given = *given, *self.written(place)
        sql += f" ORDER BY {order}"
        return (sql, given) if limit is None else (f"{sql} LIMIT ?", (*given, limit))

    def _having(self, values: Mapping[str, str | int], more: Iterable[str] = ()) -> tuple[str, Row]:
        return self.rows + where(map(quoted, values), more), self.written(values)


class Tables(Generic[T]):
    """The tables of all kinds."""

    def __init__(self, kinds: Kinds, make: Callable[[Kind[Any]], T]) -> None:
        self.kinds = kinds
        self.by_name = {kind.table: make(kind) for kind in kinds.all}

    def of(self, kind: type[Struct]) -> T:
        """Return the table of a general kind."""
        return self.by_name[self.kinds.of(kind).table]


class SqlStore(Generic[T]):
    """The verbs of `Records`, `RevocationLog` and `Transfer` that are the same over each database."""

    kinds: Kinds
    _dialect: Dialect
    _tables: Tables[T]

    async def _rows(self, sql: str, values: Row, *, scan: bool = False) -> Sequence[Any]:
        """Read rows. `scan` says that it may take long."""
        raise NotImplementedError

    async def _records(self, table: Table[R], asked: tuple[str, Row], *, scan: bool = False) -> list[R]:
        return [table.read(row) for row in await self._rows(*asked, scan=scan)]

    async def _record(self, table: Table[R], asked: tuple[str, Row]) -> R | None:
        found = await self._records(table, asked)
        return found[0] if found else None

    async def _accounts(self, condition: str, *values: object) -> list[Account]:
        table: Table[Account] = self._tables.by_name["accounts"]
        return await self._records(table, (f"{table.rows} {condition} LIMIT ?", values), scan=True)

    async def account(self, subject: str) -> Account | None:
        table: Table[Account] = self._tables.by_name["accounts"]
        return await self._record(table, table.by_key((subject,)))

    async def account_by_email(self, email: str) -> Account | None:
        table: Table[Account] = self._tables.by_name["accounts"]
        return await self._record(table, table.by_unique({"email": email}))

    async def accounts(self, *, after: str = "", limit: int = 100) -> list[Account]:
        return await self._accounts("WHERE a.subject > ? ORDER BY a.subject", after, limit)

    async def newest_accounts(
        self, *, status: AccountStatus = "any", before: tuple[float, str] | None = None, limit: int = 100
    ) -> list[Account]:
        found = (
            f"WHERE (a.created_at, a.subject) < (?, ?){_OF_STATUS[status]} ORDER BY a.created_at DESC, a.subject DESC"
        )
        return await self._accounts(found, *(before or (math.inf, "")), limit)

    async def search_accounts(self, text: str, *, after: str = "", limit: int = 100) -> list[tuple[str, Account]]:
        begins = sought(text)
        if not begins:
            return []
        word, number = read_word_cursor(after, begins)
        start = word, number if type(number) is int and 0 < number < _NUMBERS else -1
        words = f"{self._dialect.schema}account_words"
        sql = (
            # The first of its words that begins with the text stands for an account. A subquery for each row, and no
            # join: the database must not read all words to find the few that are asked for.
            f"SELECT w.word, w.account, {ACCOUNT} FROM (SELECT v.word, v.account FROM {words} v "
            "WHERE (v.word, v.account) > (?, ?) AND v.word < ? "
            f"AND v.word = (SELECT min(u.word) FROM {words} u WHERE u.account = v.account AND u.word >= ?) "
            f"ORDER BY v.word, v.account LIMIT ?) w JOIN {self._dialect.accounts} a ON a.number = w.account "
            "ORDER BY w.word, w.account"
        )
        rows = await self._rows(sql, (*start, begins + LAST, begins, limit))
        return [(write_cursor(word, number), read_account(row)) for word, number, *row in rows]

    async def accounts_with_role(self, role: str, *, after: str = "", limit: int) -> list[Account]:
        found = f"WHERE {self._dialect.with_role} AND a.subject > ? ORDER BY a.subject"
        return await self._accounts(found, f" {role} ", after, limit)

    async def registered_before(self, at: float, *, after: str = "", limit: int = 100) -> list[Account]:
        found = (
            f"JOIN {self._dialect.schema}credentials c ON c.subject = a.subject "
            "WHERE c.method = 'registration' AND c.created_at < ? AND c.subject > ? "
            "AND a.email_verified_at IS NULL AND a.active AND a.roles = '' ORDER BY c.subject"
        )
        return await self._accounts(found, at, after, limit)

    async def get(self, kind: type[R], *key: str | int) -> R | None:
        table: Table[R] = self._tables.of(kind)
        return await self._record(table, table.by_key(key))

    async def find(self, kind: type[R], **unique: str | int) -> R | None:
        table: Table[R] = self._tables.of(kind)
        return await self._record(table, table.by_unique(unique))

    async def select(
        self, kind: type[R], *, after: Sequence[str | int] = (), limit: int | None = None, **values: str | int
    ) -> list[R]:
        table = self._tables.of(kind)
        return await self._records(table, table.listed(values, after, limit))

    async def events(
        self, *, subject: str = "", name: str = "", since: float = 0.0, before: str = "", limit: int = 100
    ) -> list[AuditEvent]:
        table = self._tables.by_name["events"]
        wanted: dict[str, object] = {"at >= ?": since}
        if subject:
            wanted["subject <> '' AND subject = ?"] = subject  # the first half: the partial index has it
        if name:
            wanted["name = ?"] = name
        if before:
            wanted["id < ?"] = self._dialect.stored_id(before)
        sql = f"{table.rows}{where((), wanted)} ORDER BY id DESC LIMIT ?"
        return await self._records(table, (sql, (*wanted.values(), limit)), scan=True)

    async def look_for_events(
        self, wanted: AuditSearch, *, before: str = "", limit: int = 100, look_at: int = 50_000
    ) -> tuple[list[AuditEvent], str]:
        table, stored_id = self._tables.by_name["events"], self._dialect.stored_id
        until = "" if wanted.until == math.inf else ordered_from(wanted.until)
        highs = [stored_id(each) for each in (until, before) if each]
        if len({type(high) for high in highs}) == 1:
            highs = [min(highs)]
        others: dict[str, object] = {
            f"{name} = ?": value
            for name, value in (("outcome", wanted.outcome), ("actor", wanted.actor), ("address", wanted.address))
            if value
        }
        low, last = stored_id(ordered_from(wanted.since)), None
        if others:
            condition, order, values = _newest(wanted, low, highs)
            sql = f"SELECT id FROM {table.name}{condition} ORDER BY {order} LIMIT 1 OFFSET ?"
            for (last,) in await self._rows(sql, (*values, look_at - 1), scan=True):
                low = last
        condition, order, values = _newest(wanted, low, highs, *others)
        sql = f"{table.rows}{condition} ORDER BY {order} LIMIT ?"
        found = await self._records(table, (sql, (*values, *others.values(), limit)), scan=True)
        if len(found) == limit:
            return found, found[-1].id
        return found, "" if last is None else self._dialect.text_of_id(last)

    async def count_events(self, names: Sequence[str], edges: Sequence[float]) -> dict[str, list[int]]:
        ids = [self._dialect.stored_id(ordered_from(edge)) for edge in edges]
        spans = list(pairwise(ids))
        one = f"(SELECT count(*) FROM {self._tables.by_name['events'].name} WHERE name = ? AND id >= ? AND id < ?)"
        sql = "SELECT " + ", ".join([one] * (len(names) * len(spans)))
        (row,) = await self._rows(
            sql, [value for name in names for span in spans for value in (name, *span)], scan=True
        )
        counts = [int(count) for count in row]
        return {name: counts[at * len(spans) : (at + 1) * len(spans)] for at, name in enumerate(names)}

    async def count_details(self, name: str, *, subject: str, since: float) -> dict[str, int]:
        low, wanted = self._dialect.stored_id(ordered_from(since)), AuditSearch(subject=subject, name=name)
        condition, _, values = _newest(wanted, low, ())
        sql = f"SELECT detail, count(*) FROM {self._tables.by_name['events'].name}{condition} GROUP BY detail"
        return {detail: int(count) for detail, count in await self._rows(sql, values)}

    async def live_revocations(self, subject: str, now: float) -> int:
        table = self._tables.by_name["revocations"].name
        ((count,),) = await self._rows(
            f"SELECT count(*) FROM {table} WHERE subject = ? AND expires_at > ?", (subject, now)
        )
        return int(count)

    async def counts(self) -> dict[str, int]:
        tables = self._tables.by_name
        each = ", ".join(f"(SELECT count(*) FROM {table.name})" for table in tables.values())
        (row,) = await self._rows(f"SELECT {each}", (), scan=True)
        return dict(zip(tables, row, strict=True))

    async def export(self, table: str, after: str | None = None, *, limit: int = 1000) -> Page:
        chosen = self._tables.by_name[table]
        behind = [] if after is None else json.loads(after)
        records = await self._records(chosen, chosen.page(behind, limit), scan=True)
        last = json.dumps(chosen.kind.key_of(records[-1])) if len(records) == limit else None
        return Page(records, last)

    async def _moving(self) -> dict[str, str | None]:
        return dict(await self._rows(f"SELECT kind, after FROM {self._dialect.schema}moving", ()))

    async def unfinished(self) -> Mapping[str, str | None] | None:
        noted = await self._moving()
        noted.pop(LEFT, None)
        return {table: noted[table] for table in self.kinds.tables if table in noted} if noted else None

    async def is_left(self) -> bool:
        return LEFT in await self._moving()


def _newest(wanted: AuditSearch, low: object, highs: Sequence[object], *more: str) -> tuple[str, str, list[object]]:
    """Return the condition, the order and the values that find events from one id up to others, the newest first.

    Where a name is wanted, ids are compared together with it: then only the index of both has the order, also for a
    plan that does not know the name. Otherwise a plan for a frequent name would read the whole log for a rare one. An
    account has few events, so its index comes first, and the name is compared as no index has it.
    """
    by_name = bool(wanted.name) and not wanted.subject
    place, name = ("(name, id) {} (?, ?)", [wanted.name]) if by_name else ("id {} ?", [])
    wheres = [place.format(">="), *[place.format("<")] * len(highs)]
    values: list[object] = [value for bound in (low, *highs) for value in (*name, bound)]
    if wanted.subject:
        wheres.append("subject <> '' AND subject = ?")  # the first half: the partial index has it
        values.append(wanted.subject)
    if wanted.name:
        wheres.append("name <= ?" if by_name else "name || '' = ?")
        values.append(wanted.name)
    return where((), [*wheres, *more]), "name DESC, id DESC" if by_name else "id DESC", values


def changed(forms: Iterable[Callable[[Any], Any] | None], values: Iterable[Any]) -> Row:
    return [value if form is None or value is None else form(value) for form, value in zip(forms, values, strict=True)]


def renewed(
    first: Row, log_epoch: int, after: int, entries: Sequence[Revocation], *, more: bool, **rest: Any
) -> Renewed:
    """Return the answer to a read of the log. The first row begins with the log's epoch, salt and head; `more` says
    whether there are more entries than these.
    """
    epoch, salt, head = first[:3]
    upto = entries[-1].seq if more else head
    after = after if epoch == log_epoch else 0
    return Renewed(log_epoch=epoch, salt=salt, after=after, entries=entries, upto=upto, head=head, **rest)


def quoted(name: str) -> str:
    return f'"{name}"'


def marks(count: int) -> str:
    return ", ".join("?" * count)


def where(names: Iterable[str], more: Iterable[str] = ()) -> str:
    """The condition that columns have values, and further conditions."""
    conditions = [*(f"{name} = ?" for name in names), *more]
    return f" WHERE {' AND '.join(conditions)}" if conditions else ""
