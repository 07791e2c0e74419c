"""PostgreSQL 14 or newer: the system of record for any number of machines.

Every write is one statement, the call of a function in the schema (`schema/postgres`), and so is one transaction and
one round trip: a caller who is cancelled, a connection that breaks or a process that is killed leaves no transaction
open. Commits that wait at the same moment travel together and are flushed together. So do look-ups of sessions: those
of one turn of the event loop become one query.

    postgresql://user:password@host:port/database
        ?sslmode=verify-full&sslrootcert=/path   what to use over any network: without it TLS is taken where it is
                                                 offered, and nobody's certificate is looked at
        &pooling=transaction                     behind a proxy that hands out connections by the transaction

What else libpq knows means here what it means there, or is refused by its name.

Several hosts may be named, `host1,host2`: the one that is no standby is used. A standby is never read: leases and
sessions are read where they are committed.

Nobody waits longer than a second for a server that is not there. Look-ups have no more time than that. What may take
longer for a good reason, a slow disk or a large table, is watched over: as long as it takes, the server is asked beside
it whether it is there. A statement that takes too long is ended by the server, so that nothing goes on without us.

One event loop, the one that `open` runs in.
"""

# ruff: noqa: S608 - every statement here is put together from constants of this file; values are bound, always

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import math
import os
import re
import ssl
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache, partial
from importlib.resources import files
from itertools import chain
from operator import attrgetter
from types import MappingProxyType
from typing import Any, Generic, NamedTuple, TypeAlias, TypeVar
from urllib.parse import parse_qsl, urlencode, urlsplit

import asyncpg
import msgspec
from asyncpg.connect_utils import SessionAttribute
from asyncpg.exceptions import ClientConfigurationError, PostgresError
from msgspec import Struct

from dutchdoor.errors import Conflict, DutchdoorError, InvalidInput, Misconfigured, Unavailable
from dutchdoor.jose.signing_keys import StoredKey
from dutchdoor.model.accounts import Account, Credential
from dutchdoor.model.audit_events import AuditEvent
from dutchdoor.model.ids import encode, packed
from dutchdoor.model.oauth_clients import RegisteredClient
from dutchdoor.model.one_time_tokens import OneTimeToken
from dutchdoor.model.rate_limits import Bucket
from dutchdoor.model.sessions import Session
from dutchdoor.model.verifier_keys import VerifierKey
from dutchdoor.revocation.log import Kind as EntryKind
from dutchdoor.revocation.log import Revocation
from dutchdoor.revocation.node_messages import FIRST_EPOCH, LogHead, NodeRow, Renewed, Rows
from dutchdoor.stores.base import (
    WRITING,
    Add,
    Change,
    Committed,
    Discard,
    End,
    EndAll,
    Expect,
    ExpectRole,
    Forgive,
    Log,
    Remove,
    Revoke,
    Store,
    Swap,
    Take,
    joined,
    words,
)
from dutchdoor.stores.transfer import KINDS, LEFT, Kind, Level, LogState, Page, Stored, refuse_unless_whole

__all__ = ["PostgresStore", "from_url"]

_ANSWER_FOR = 0.8
"""Seconds a caller waits altogether, for a connection and its turn as well. Callers are promised a second."""
_STATEMENT_FOR = 0.65
"""Seconds after which the server gives a statement up: before we do, so that it says so and the connection lives."""
_COMMIT_FOR, _COMMIT_STATEMENT_FOR = 5.5, 5.0
"""The same two for a commit: a slow disk's flush is not an outage."""
_LOCK_FOR = 1.0
"""Seconds to wait for a row that another transaction holds. Ours hold one for milliseconds."""
_IDLE_FOR = 2.0
"""Seconds between two steps of a transaction behind a proxy: whoever vanished there still holds its locks."""
_SLOW, _PROBE_FOR = 0.1, 0.7
"""Seconds: after which an answer is slow, and the server is asked every so often whether it is there; and in which it
has to say so. Both together are less than the second that callers are promised."""
_CONNECT_FOR = 0.65
_NEXT_HOST_AFTER = 0.15
"""Seconds in which a host has to answer before the next one is tried beside it: a machine that is gone says nothing."""
_CONNECT_PATIENTLY_FOR = 5.0
"""The same for what is watched over while it waits, and for opening."""
_OPEN_FOR = 30.0
"""Seconds to wait for another process's migration."""
_SCAN_FOR = 300.0
"""Seconds for a look at every row of a kind."""
_LISTEN_EVERY = 1.0
"""Seconds between two looks whether the connection that listens is alive, and at the log itself."""
_POLL_EVERY = 0.1
"""Seconds between two looks at the log where nobody can listen."""
_LOOKUP_LANES, _READ_LANES, _COMMIT_LANES = 2, 2, 2
"""Connections. Behind a proxy, where a transaction takes four times as long, three times as many."""
_LOOKUPS_AT_MOST = 512
_BATCH_AT_MOST = 64
_WAITING_AT_MOST = 4096
_STEP = 4000
"""Rows that one step of a purge looks at: some ten milliseconds of the server's time."""
_PAGE = 2048
"""Entries of the log that one reading gives."""

_NAME = "dutchdoor"
"""What the names of our connections begin with, in `pg_stat_activity`: a move looks there for others."""
_LOCK = 0x64646F6F
"""First half of the advisory lock that migrations hold. 'ddoo' in ASCII; the limits' locks have it too."""
_CHANNEL = "dutchdoor"

T = TypeVar("T")
Row: TypeAlias = Any
"""A tuple of values, or the driver's record, which is unpacked like one."""
Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"
_Future: TypeAlias = "asyncio.Future[T]"
_Found: TypeAlias = "tuple[Session, Account] | None"

_FILES = ("sslrootcert", "sslcert", "sslkey", "sslcrl")
_DRIVERS = frozenset(
    {"host", "port", "user", "password", "passfile", "sslmode", *_FILES, "sslpassword", "sslnegotiation"}
    | {"ssl_min_protocol_version", "ssl_max_protocol_version", "krbsrvname", "gsslib"}
)
"""What the driver reads out of a URL as libpq does."""
_OURS = frozenset(
    {"pooling", "pgbouncer", "connect_timeout", "application_name", "fallback_application_name", "options"}
)
_AS_IT_IS: dict[str, frozenset[str]] = {
    "channel_binding": frozenset({"prefer", "disable"}),
    "gssencmode": frozenset({"prefer", "disable"}),
    "target_session_attrs": frozenset({"any", "read-write", "primary"}),
    "client_encoding": frozenset({"auto", "utf8", "utf-8"}),
    "load_balance_hosts": frozenset({"disable"}),
    "sslcompression": frozenset({"0"}),
    "sslsni": frozenset({"1"}),
    **dict.fromkeys(("keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count"), frozenset[str]()),
    "tcp_user_timeout": frozenset(),
}
"""Options of libpq that ask for what is done anyway, with the values that do; any value where none is named: a server
that vanishes is noticed within a second, sooner than any keep-alive tells.
"""
_INSTEAD = {
    "channel_binding": "The driver cannot bind a log-in to its TLS channel. Leave it out, and have the server's "
    "certificate checked instead: sslmode=verify-full&sslrootcert=system.",
    "target_session_attrs": "Only the server that takes writes is used. Leave it out.",
    "gssencmode": "The driver does not encrypt by GSSAPI. Leave it out, and use TLS: sslmode=verify-full.",
    "dbname": "Name the database behind the host: postgresql://host/database.",
    "ssl": "Write sslmode=require, or better sslmode=verify-full.",
    "schema": "The schema is always dutchdoor. Leave it out.",
}
_REFUSED = frozenset(
    {*_INSTEAD, *_AS_IT_IS, "database", "gssdelegation", "hostaddr", "max_protocol_version", "min_protocol_version"}
    | {"replication", "require_auth", "requirepeer", "service", "servicefile", "sslcertmode", "sslcrldir"}
    | {"sslkeylogfile", "connection_limit", "pool_timeout", "socket_timeout", "sslaccept", "statement_cache_size"}
)
"""What may be repeated of a URL that is refused: words that others document. An unknown word may be a part of a
password."""


def from_url(url: str) -> Store:
    """Read `postgresql://user:password@host:port/database`, or `postgres://`, with the options named above.

    Raises:
        Misconfigured: it cannot be read, or asks for what cannot be done. Nothing of it is repeated but the names of
            options: it may hold a password.
    """
    try:
        parts = urlsplit(url)
        options = dict(parse_qsl(parts.query, keep_blank_values=True, strict_parsing=True)) if parts.query else {}
        _ = parts.port if "," not in parts.netloc else None
    except ValueError:
        options, parts = {"": ""}, None
    if _is_cut_short(url):
        text = (
            "In the database's URL a user name or a password holds a character that a URL takes for its own. "
            "Write / as %2F there, ? as %3F, # as %23, @ as %40, : as %3A, [ as %5B, ] as %5D and % as %25."
        )
        raise Misconfigured(text)
    for name in sorted(options.keys() & _REFUSED):
        fitting = _AS_IT_IS.get(name)
        if fitting is None or (fitting and options[name].lower() not in fitting):
            raise Misconfigured(
                f"{name} in the database's URL: {_INSTEAD.get(name, 'This is not supported. Leave it out.')}"
            )
    pooling = options.get("pooling", "transaction" if options.get("pgbouncer") == "true" else "session")
    wait = options.get("connect_timeout", "0")
    if (
        parts is None
        or not parts.path.strip("/")
        or pooling not in {"session", "transaction"}
        or options.get("pgbouncer", "true") not in {"true", "false"}
        or not _WHOLE_NUMBER.fullmatch(wait)
        or options.keys() - _DRIVERS - _OURS - _AS_IT_IS.keys()
    ):
        raise Misconfigured(
            "Write postgresql://user:password@host:port/database, then ?sslmode=verify-full and sslrootcert, sslcert, "
            "sslkey, sslcrl as libpq has them, and pooling=transaction behind a proxy that pools by transaction."
        )
    if options.get("sslrootcert") == "system":
        options["sslrootcert"] = _system_authorities(options.setdefault("sslmode", "verify-full"))
    for name in _FILES:
        if name in options and not os.access(options[name], os.R_OK):
            raise Misconfigured(
                f"{name} in the database's URL: there is no file {options[name]} that this user may read."
            )
    shown = options.get("application_name") or options.get("fallback_application_name") or _NAME
    settings = {"application_name": shown if shown.startswith(_NAME) else f"{_NAME} {shown}"}
    if "options" in options:
        settings["options"] = options["options"]
    query = urlencode({name: value for name, value in options.items() if name in _DRIVERS})
    return PostgresStore(
        parts._replace(query=query).geturl(),
        by_transaction=pooling == "transaction",
        # Less than two seconds are two, and none is no bound, as libpq has it.
        connect_for=max(2, int(wait)) if int(wait) > 0 else math.inf,
        settings=settings,
    )


_WHOLE_NUMBER = re.compile(r"-?[0-9]{1,9}")


def _system_authorities(sslmode: str) -> str:
    """Give the file of the certificates that this machine trusts. Raises `Misconfigured` as libpq refuses it: whoever
    can get a certificate from a public authority would pass for the server, were its name not checked.
    """
    file = ssl.get_default_verify_paths().cafile
    if sslmode != "verify-full":
        raise Misconfigured("sslrootcert=system in the database's URL: This needs sslmode=verify-full.")
    if file is None:
        raise Misconfigured("sslrootcert=system in the database's URL: This machine has no such file. Name one.")
    return file


def _is_cut_short(url: str) -> bool:
    """Tell whether what stands before the host goes on behind the first / ? or #, where a URL says that the host ends:
    the rest of a password would be taken for a database, and its beginning for a port.
    """
    address = url.partition("://")[2]
    ends = min((at for mark in "/?#" if (at := address.find(mark)) >= 0), default=len(address))
    path = address[ends:].partition("?")[0]
    return "@" in path or "#" in address or ("@" in address[ends:] and "@" not in address[:ends])


class PostgresStore:
    """See `dutchdoor.stores.base.Store`. Make and open one in each process, after forking.

    `by_transaction` is for a proxy that gives each transaction another connection: nothing is kept in one then, and
    nobody listens. A round trip becomes four. `connect_for` bounds the seconds in which a connection is made, which are
    few anyway; `settings` are the server's for each connection.
    """

    first_epoch = FIRST_EPOCH

    def __init__(
        self,
        url: str,
        *,
        by_transaction: bool = False,
        connect_for: float = math.inf,
        settings: Mapping[str, str] = MappingProxyType({"application_name": _NAME}),
    ) -> None:
        self._make = _Connector(url, by_transaction=by_transaction, connect_for=connect_for, settings=settings)
        self._is_open = False
        # Made by `open`.
        self._lanes: list[_Lane] = []
        self._lookups: _Lookups
        self._reads: _Reads
        self._commits: _Batches[Committed]
        self._hits: _Batches[tuple[float, str]]
        self._scans: _Reads
        self._probe: _Reads
        self._watch: _Watch

    # --- opening and closing ------------------------------------------------------------------------------------------

    @property
    def newest_log(self) -> int:
        return self._make.newest_log

    async def open(self, *, to_move: bool = False) -> None:
        """Connect, and migrate the schema `dutchdoor`.

        Raises:
            Misconfigured: the role or the database cannot be used, the database was migrated by a newer program, or a
                move into it is not finished.
            Conflict: it is opened to be moved, and somebody else is connected to it.
            Unavailable: no server that is not a standby is to be reached.
        """
        if self._is_open:
            return
        await _prepare(self._make, to_move=to_move)
        probe = self._probe = _Reads(self._some(1), _PROBE_FOR)
        self._lookups = _Lookups(self._some(_LOOKUP_LANES), _ANSWER_FOR)
        self._reads = _Reads(self._some(_READ_LANES), _ANSWER_FOR)
        self._scans = _Reads(self._some(1, statement_for=_SCAN_FOR), _SCAN_FOR, probe)
        committing = self._some(_COMMIT_LANES, statement_for=_COMMIT_STATEMENT_FOR)
        self._commits = _Batches(committing, _COMMIT_FOR, probe, _COMMIT, _committed)
        self._hits = _Batches(self._some(1, statement_for=_COMMIT_STATEMENT_FOR), _COMMIT_FOR, probe, _HIT, tuple)
        self._watch = _Watch(self._make)
        self._is_open = True

    def _some(self, count: int, *, statement_for: float = _STATEMENT_FOR) -> list[_Lane]:
        if self._make.by_transaction and count > 1:
            count *= 3
        lanes = [_Lane(self._make, statement_for) for _ in range(count)]
        self._lanes += lanes
        return lanes

    async def close(self) -> None:
        """Finish what is under way, then let go. A look at every row of a kind is given up: it may take minutes."""
        if not self._is_open:
            return
        self._is_open = False
        await self._watch.close()
        self._scans.give_up(Unavailable("store is not open"))
        for group in (self._lookups, self._commits, self._hits, self._reads, self._scans, self._probe):
            await group.close()
        lanes, self._lanes = self._lanes, []
        await asyncio.gather(*[lane.close() for lane in lanes])

    def _must_be_open(self) -> None:
        if not self._is_open:
            raise Unavailable("store is not open")

    # --- writing ------------------------------------------------------------------------------------------------------

    async def commit(self, *changes: Change) -> Committed:
        self._must_be_open()
        return await self._commits.put(*_job(changes))

    # --- reading ------------------------------------------------------------------------------------------------------

    async def _all(self, sql: str, *values: object) -> list[Row]:
        self._must_be_open()
        return await self._reads.fetch(sql, *values)

    async def _one(self, sql: str, *values: object) -> Row | None:
        rows = await self._all(sql, *values)
        return rows[0] if rows else None

    async def _scan(self, sql: str, *values: object) -> list[Row]:
        """Ask what may take long, and look meanwhile whether the server is there."""
        self._must_be_open()
        return await self._scans.fetch(sql, *values)

    async def session(self, session_id: str) -> tuple[Session, Account] | None:
        self._must_be_open()
        return await self._lookups.ask(_key(session_id))

    async def sessions_of(self, subject: str, *, limit: int | None = None) -> list[Session]:
        return [_session_and_account(row)[0] for row in await self._all(_SESSIONS_OF, _text(subject), limit)]

    async def account(self, subject: str) -> Account | None:
        row = await self._one(f"SELECT {_ACCOUNT} FROM dutchdoor.accounts_now a WHERE a.subject = $1", _text(subject))
        return None if row is None else _account(row)

    async def account_by_email(self, email: str) -> Account | None:
        row = await self._one(f"SELECT {_ACCOUNT} FROM dutchdoor.accounts_now a WHERE a.email = $1", _text(email))
        return None if row is None else _account(row)

    async def accounts(self, *, search: str = "", after: str = "", limit: int = 100) -> list[Account]:
        # `position` and not LIKE: it has no wildcards to escape.
        sql = (
            f"SELECT {_ACCOUNT} FROM dutchdoor.accounts_now a WHERE a.subject > $1 AND position($2 IN a.folded) > 0 "
            "ORDER BY a.subject LIMIT $3"
        )
        return [_account(row) for row in await self._scan(sql, _text(after), _text(search.casefold()), limit)]

    async def accounts_with_role(self, role: str, *, limit: int) -> list[Account]:
        sql = (
            f"SELECT {_ACCOUNT} FROM dutchdoor.accounts_now a WHERE a.roles <> '' AND a.active "
            "AND position($1 IN ' ' || a.roles || ' ') > 0 ORDER BY a.subject LIMIT $2"
        )
        return [_account(row) for row in await self._scan(sql, f" {_text(role)} ", limit)]

    async def registered_before(self, at: float, *, after: str = "", limit: int = 100) -> list[Account]:
        sql = (
            f"SELECT {_ACCOUNT} FROM dutchdoor.credentials c JOIN dutchdoor.accounts_now a ON a.subject = c.subject "
            "WHERE c.method = 'registration' AND c.created_at < $1 AND c.subject > $2 "
            "AND a.email_verified_at IS NULL AND a.active AND a.roles = '' ORDER BY c.subject LIMIT $3"
        )
        return [_account(row) for row in await self._scan(sql, at, _text(after), limit)]

    async def credential(self, subject: str, method: str, handle: str = "") -> Credential | None:
        sql = f"{_select(Credential, 'credentials')} WHERE subject = $1 AND method = $2 AND handle = $3"
        row = await self._one(sql, _text(subject), _text(method), _text(handle))
        return None if row is None else _record(Credential, row)

    async def one_time_token(self, id: str) -> OneTimeToken | None:
        row = await self._one(f"{_select(OneTimeToken, 'one_time_tokens')} WHERE id = $1", _key(id))
        return None if row is None else _record(OneTimeToken, row, id=id)

    async def keys(self) -> list[StoredKey]:
        return [_record(StoredKey, row) for row in await self._all(f"{_select(StoredKey, 'keys')} ORDER BY number")]

    async def client(self, id: str) -> RegisteredClient | None:
        row = await self._one(f"{_select(RegisteredClient, 'clients')} WHERE id = $1", _text(id))
        return None if row is None else _record(RegisteredClient, row)

    async def clients(self) -> list[RegisteredClient]:
        rows = await self._all(f"{_select(RegisteredClient, 'clients')} ORDER BY id")
        return [_record(RegisteredClient, row) for row in rows]

    async def verifier_key(self, id: str) -> VerifierKey | None:
        row = await self._one(f"{_select(VerifierKey, 'verifiers')} WHERE id = $1", _text(id))
        return None if row is None else _record(VerifierKey, row)

    async def verifier_keys(self) -> list[VerifierKey]:
        rows = await self._all(f"{_select(VerifierKey, 'verifiers')} ORDER BY name")
        return [_record(VerifierKey, row) for row in rows]

    async def events(
        self, *, subject: str = "", name: str = "", since: float = 0.0, before: str = "", limit: int = 100
    ) -> list[AuditEvent]:
        where: list[str] = ["at >= $1"]
        values: list[object] = [since]
        if subject:
            values.append(_text(subject))
            where.append(f"subject <> '' AND subject = ${len(values)}")  # the first half: the partial index has it
        if name:
            values.append(_text(name))
            where.append(f"name = ${len(values)}")
        if before:
            values.append(_key(before))
            where.append(f"id < ${len(values)}")
        values.append(limit)
        order = f"ORDER BY id DESC LIMIT ${len(values)}"
        rows = await self._scan(f"{_select(AuditEvent, 'events')} WHERE {' AND '.join(where)} {order}", *values)
        return [_record(AuditEvent, row, id=_id(row[0])) for row in rows]

    # --- the revocation log, and the nodes that follow it -------------------------------------------------------------

    def head(self) -> LogHead | None:
        """None: it takes a question to the server."""
        return None

    def watch(self, woken: Callable[[], None]) -> Callable[[], None]:
        self._must_be_open()
        return self._watch.add(woken)

    async def read_log(self, log_epoch: int, after: int) -> Renewed:
        rows = await self._all("SELECT * FROM dutchdoor.read_log_1($1, $2, $3)", log_epoch, after, _PAGE + 1)
        return _renewed(rows, log_epoch, after)

    async def live_revocations(self, subject: str, now: float) -> int:
        sql = "SELECT count(*) FROM dutchdoor.revocations WHERE subject = $1 AND expires_at > $2"
        ((count,),) = await self._all(sql, _text(subject), now)
        return int(count)

    async def begin_log_epoch(self, now: float) -> int:
        ((begun,),) = await self._scan("SELECT dutchdoor.begin_log_epoch_1($1)", int(now * 1000))
        return int(begun)

    async def node_register(self, row: NodeRow) -> None:
        await self._all("SELECT dutchdoor.node_register_1($1)", _json(_row(row)).decode())

    async def node_renew(self, row: NodeRow, after: int) -> Renewed:
        sql = "SELECT * FROM dutchdoor.node_renew_1($1, $2, $3)"
        rows = await self._all(sql, _json(_row(row)).decode(), after, _PAGE + 1)
        there, nodes = rows[0][:2]
        return _renewed([found[2:] for found in rows], row.log_epoch, after, there=there, nodes=_nodes(nodes))

    async def node_rows(self) -> Rows:
        sql = "SELECT l.epoch, (SELECT jsonb_agg(n) FROM dutchdoor.nodes n) FROM dutchdoor.revocation_log l"
        ((log_epoch, nodes),) = await self._all(sql)
        return Rows(log_epoch=log_epoch, rows=_nodes(nodes))

    async def node_forget(self, id: str, stamp: str) -> None:
        await self._all("DELETE FROM dutchdoor.nodes WHERE id = $1 AND stamp = $2", _text(id), _text(stamp))

    # --- limits, upkeep -----------------------------------------------------------------------------------------------

    async def hit(self, buckets: Sequence[Bucket], now: float) -> tuple[float, str]:
        self._must_be_open()
        if not buckets:
            return 0.0, ""
        return await self._hits.put(_json({"now": str(now), "buckets": [_bucket(one) for one in buckets]}), (0, ""))

    async def try_writing(self, now: float) -> None:
        await self.hit([WRITING], now)

    async def purge(self, *, before: float, events_before: float) -> int:
        """Look at a few thousand rows at a time, in the order of their keys, so that nothing waits long for it."""
        deleted = 0
        for table, key, least, instant, until in (
            ("sessions", "id", b"", "expires_at", before),
            ("one_time_tokens", "id", b"", "expires_at", before),
            ("limits", "key", "", "tat", before),
            ("revocations", "seq", -1, "expires_at", before),
            ("events", "id", b"", "at", events_before),
        ):
            # Asked again of each row, which may have been written since; one that is being written is left.
            step = (
                f"WITH seen AS (SELECT {key}, {instant} FROM dutchdoor.{table} WHERE {key} > $1 ORDER BY {key} "
                f"LIMIT {_STEP}), free AS (SELECT {key} FROM dutchdoor.{table} WHERE {key} IN "
                f"(SELECT {key} FROM seen WHERE {instant} < $2) AND {instant} < $2 FOR UPDATE SKIP LOCKED), "
                f"gone AS (DELETE FROM dutchdoor.{table} t USING free WHERE t.{key} = free.{key} RETURNING 1) "
                f"SELECT (SELECT {key} FROM seen ORDER BY {key} DESC LIMIT 1), (SELECT count(*) FROM gone)"
            )
            last: object = least
            while last is not None:
                ((last, count),) = await self._scan(step, last, until)
                deleted += count
        return deleted

    async def counts(self) -> dict[str, int]:
        each = ", ".join(f"(SELECT count(*) FROM dutchdoor.{kind})" for kind in KINDS)
        (row,) = await self._scan(f"SELECT {each}")
        return {str(kind): count for kind, count in zip(KINDS, row, strict=True)}

    # --- moving -------------------------------------------------------------------------------------------------------

    async def page(self, kind: Kind, after: str | None = None, *, limit: int = 1000) -> Page:
        stored = _STORED[kind]
        keys, where, values = ", ".join(stored.key), "", list[object]()
        if after is not None:
            values = json.loads(after)
            if stored.has_id:
                values = [_key(str(values[0]))]
            values = [_text(value) if isinstance(value, str) else value for value in values]
            where = f"WHERE ({keys}) > ({', '.join(f'${n}' for n in range(1, len(values) + 1))})"
        rows = await self._scan(f"{stored.select} {where} ORDER BY {keys} LIMIT ${len(values) + 1}", *values, limit)
        records = [stored.read(row) for row in rows]
        last = [getattr(records[-1], name.rpartition(".")[2]) for name in stored.key] if len(rows) == limit else None
        return Page(records, None if last is None else json.dumps(last))

    async def unfinished(self) -> Mapping[Kind, str | None] | None:
        noted: dict[str, str | None] = {kind: after for kind, after in await self._all(_MOVING) if kind != LEFT}
        return {kind: noted[kind] for kind in KINDS if kind in noted} if noted else None

    async def begin_move(self, log: LogState) -> None:
        await self._scan("SELECT dutchdoor.begin_move_1($1, $2, $3)", log.log_epoch, log.salt, log.seq)
        self._make.newest_log = 0  # the log that is brought may be older than the one that was here

    async def take_in(self, kind: Kind, page: Page) -> None:
        write = _STORED[kind].write
        rows = _json([write(record) for record in page.records]).decode()
        await self._scan("SELECT dutchdoor.take_in_1($1, $2, $3)", kind, rows, page.after)

    async def end_move(self, now: float, event: AuditEvent) -> int:
        row = _json([_STORED["events"].write(event)]).decode()
        ((begun,),) = await self._scan("SELECT dutchdoor.end_move_1($1, $2)", int(now * 1000), row)
        return int(begun)

    async def is_left(self) -> bool:
        return any(kind == LEFT for kind, _ in await self._all(_MOVING))

    async def leave(self) -> None:
        await self._scan("SELECT dutchdoor.leave_1(true)")

    async def take_back(self) -> None:
        await self._scan("SELECT dutchdoor.leave_1(false)")


_MOVING = "SELECT kind, after FROM dutchdoor.moving"


# --- connections ------------------------------------------------------------------------------------------------------


class _Connector:
    """Makes connections to one database. The URL may hold a password, and stays here."""

    def __init__(self, url: str, *, by_transaction: bool, connect_for: float, settings: Mapping[str, str]) -> None:
        self._urls = _hosts(url)
        self._connect_for, self._settings = connect_for, settings
        self._losing: set[asyncio.Task[Connection]] = set()
        self.by_transaction = by_transaction
        self.known: tuple[str, ...] = ()
        """Names of the migrations that this program has, once they are known to be applied."""
        self.newest_log = 0
        """The epoch of the newest log that a connection has been told of, before it was used."""
        self.lost_at = 0.0
        """When some connection last broke or was silent, by the loop's clock. What took it may have taken others
        with it, and one that is idle does not notice: none from before is used again.
        """
        self.moved_at = 0.0
        """When another host of several was found to be the one to use: who still waits for the one before waits in
        vain.
        """

    async def __call__(self, statement_for: float, *, within: float = _CONNECT_FOR) -> Connection:
        """Connect. Raises `Unavailable`, or `Misconfigured` for what no waiting will change."""
        connection: Connection
        within = min(within, self._connect_for)
        try:
            async with asyncio.timeout(within):
                connection = await self._to_any(statement_for, within)
        except Exception as exc:  # noqa: BLE001 - a driver has many ways to fail, and its text may hold the URL
            raise _meant(exc) from None
        return connection

    async def _to_any(self, statement_for: float, within: float) -> Connection:
        """Connect to the first host that can be used, beginning with the last that could be. One that was replaced
        cannot be, however fast it answers.
        """
        tasks: dict[asyncio.Task[Connection], str] = {}
        used: asyncio.Task[Connection] | None = None
        try:
            for url in self._urls:
                tasks[asyncio.ensure_future(self._to(url, statement_for, within))] = url
                is_last = len(tasks) == len(self._urls)
                going = {task for task in tasks if not task.done()}
                while going and used is None:
                    ended, going = await asyncio.wait(
                        going, timeout=None if is_last else _NEXT_HOST_AFTER, return_when=asyncio.FIRST_COMPLETED
                    )
                    used = next((task for task in ended if task.exception() is None), None)
                    if not is_last:
                        break
                if used is not None:
                    if tasks[used] != self._urls[0]:
                        self.moved_at = self.lost_at = asyncio.get_running_loop().time()
                    self._urls = [url := tasks[used], *(each for each in self._urls if each != url)]
                    return used.result()
            raise next(exc for task in tasks if (exc := task.exception()) is not None)
        finally:
            for task in tasks:
                if task is not used:
                    self._losing.add(task)
                    task.add_done_callback(self._lost)
                    task.cancel()

    def _lost(self, task: asyncio.Task[Connection]) -> None:
        self._losing.discard(task)
        if not task.cancelled() and task.exception() is None:
            task.result().terminate()

    async def _to(self, url: str, statement_for: float, within: float) -> Connection:
        # A proxy would not hand settings on, and would have to be told to let them through.
        settings = {} if self.by_transaction else {**_SETTINGS, **_timeouts(statement_for)}
        # A proxy may have a standby behind it at any time: `_begin` looks then.
        anything = self.by_transaction and len(self._urls) == 1
        connection = await asyncpg.connect(
            url,
            timeout=within + 1,
            statement_cache_size=0 if self.by_transaction else 100,
            server_settings={**self._settings, **settings},
            target_session_attrs=SessionAttribute.any if anything else SessionAttribute.primary,
        )
        try:
            if self.known:
                await self._check(connection)
        except BaseException:
            connection.terminate()
            raise
        return connection

    async def attend(self, connection: Connection, begin: str) -> int:
        """Tell which log this server is on, in a transaction that began or begins with this, once it is committed.

        Without values a statement is one message, and its answer is no more than how many rows it has: one if the
        log is not the one that was known.
        """
        whole, log_epoch = "false" if begin else "true", self.newest_log
        attend = f"{begin}SELECT FROM dutchdoor.attend_1({whole}, {log_epoch:d})"
        if await connection.execute(attend) != "SELECT 0":
            log_epoch = await connection.fetchval("SELECT epoch FROM dutchdoor.revocation_log")
        if log_epoch < self.newest_log:  # it still answers, and may acknowledge what no other server will know
            raise Unavailable("postgres: this server was replaced by another")
        return log_epoch

    def hear(self, log_epoch: int) -> None:
        """Take note of which log is the newest."""
        if log_epoch > self.newest_log:
            if self.newest_log:  # the other connections may lead to the server that was replaced
                self.lost_at = asyncio.get_running_loop().time()
            self.newest_log = log_epoch

    async def _check(self, connection: Connection) -> None:
        """See who answers, before anything is asked or told.

        A program of the next version may have migrated while we were away, in a way that leaves us behind. And a server
        that was promoted may lack what another one acknowledged: then a new log begins here, as after a restore. A
        server that takes writes keeps its timeline for as long as it keeps a connection.
        """
        await connection.execute(_begin(_STATEMENT_FOR))
        newer = await connection.fetch(
            "SELECT name FROM dutchdoor.migrations WHERE NOT additive AND name <> ALL ($1)", self.known
        )
        told = self.newest_log if newer else await self.attend(connection, "")
        await connection.execute("COMMIT")
        self.hear(told)
        if newer:
            raise Unavailable(f"the database is newer than this program: it has had {newer[0][0]}")


def _hosts(url: str) -> list[str]:
    """Give a URL for each host of one. The driver would wait for a silent one until there is no time left."""
    parts = urlsplit(url)
    login, at, hosts = parts.netloc.rpartition("@")
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    if "host" in options:
        parts = parts._replace(netloc=login + at)  # the option counts, as it does for libpq
        names = options.pop("host").split(",")
        ports = options.pop("port", "").split(",")
        ports = ports * len(names) if len(ports) == 1 else ports
        if len(ports) != len(names):
            return [url]  # the driver says what is wrong
        own = [{"host": name, **({"port": port} if port else {})} for name, port in zip(names, ports, strict=True)]
        return [parts._replace(query=urlencode({**options, **each})).geturl() for each in own]
    return [parts._replace(netloc=f"{login}{at}{host}").geturl() for host in hosts.split(",")]


_SETTINGS = {
    "default_transaction_isolation": "read committed",
    "idle_in_transaction_session_timeout": "5000",
    "jit": "off",
    "search_path": "",
    # Every statement here is planned once and for all, and looks up by an index, however small the table was then.
    "plan_cache_mode": "force_generic_plan",
    "enable_seqscan": "off",
    # So that the server lets go of what belonged to a machine that is gone, and stops working for it.
    "client_connection_check_interval": "1000",
    "tcp_keepalives_idle": "5",
    "tcp_keepalives_interval": "2",
    "tcp_keepalives_count": "3",
    "tcp_user_timeout": "10000",
}


class _Lane:
    """One connection, made when it is needed and again when it broke, for one statement at a time."""

    def __init__(self, connect: _Connector, statement_for: float) -> None:
        self._connect, self._statement_for = connect, statement_for
        self._connection: Connection | None = None
        self._connecting: asyncio.Task[Connection] | None = None
        self._made_at = 0.0
        self._silent: int | None = None
        """The server's process that did not answer in time, and may not be able to end."""

    async def _reconnect(self) -> Connection:
        at_most = _CONNECT_FOR if self._statement_for <= _STATEMENT_FOR else _CONNECT_PATIENTLY_FOR
        connecting = self._connecting = asyncio.ensure_future(self._connect(self._statement_for, within=at_most))
        try:
            await asyncio.wait([connecting])  # `drop` may cancel it, and not us
        finally:
            connecting.cancel()
            self._connecting = None
        if connecting.cancelled():
            raise Unavailable("postgres: no answer")
        connection = self._connection = connecting.result()
        if self._silent is not None:
            # Nothing ends one whose commit waits for a standby. With another in its place each time, those would take
            # all connections there are, and looking up would be out of reach too.
            if await connection.fetchval(_WAITS_FOR_A_STANDBY, self._silent):
                self.drop()
                raise Unavailable("postgres: a commit waits for its standby")
            self._silent = None
        return connection

    async def fetch(self, sql: str, *values: object, within: float) -> list[Row]:
        """Run one statement, which is one transaction. Raises `Unavailable`, `Conflict` or `InvalidInput`."""
        loop = asyncio.get_running_loop()
        deadline = loop.call_later(within, self._too_late)  # what is awaited fails then
        try:
            if self._made_at <= self._connect.lost_at:
                self.drop()
            connection = self._connection
            if connection is None or connection.is_closed():
                self._made_at = loop.time()
                connection = await self._reconnect()
            if not self._connect.by_transaction:
                return await connection.fetch(sql, *values)
            # An unnamed statement is prepared and run in two messages. Between them a proxy might hand us somebody
            # else's connection, and somebody else's statement with it; inside a transaction it does not. The server
            # behind it may be another one than a moment ago.
            told = await self._connect.attend(connection, f"{_begin(self._statement_for)}; ")
            rows = await connection.fetch(sql, *values)
            await connection.execute("COMMIT")
            self._connect.hear(told)
            return rows
        except PostgresError as exc:
            if _is_fatal(exc):  # also what the driver says of a connection that was dropped because it was silent
                self._connect.lost_at = loop.time()
            if self._connect.by_transaction or _is_fatal(exc):
                self.drop()
            raise _meant(exc) from None
        except DutchdoorError:
            self.drop()
            raise
        except Exception as exc:  # noqa: BLE001 - a driver has many ways to fail
            self.drop()
            self._connect.lost_at = loop.time()
            raise _meant(exc) from None
        except BaseException:
            self.drop()
            raise
        finally:
            deadline.cancel()

    def _too_late(self) -> None:
        if self._connection is not None and not self._connect.by_transaction and self._silent is None:
            self._silent = self._connection.get_server_pid()
        self.drop()

    @property
    def was_left_behind(self) -> bool:
        """Whether it is older than the move to another host."""
        return self._connection is not None and self._made_at <= self._connect.moved_at

    def drop(self) -> None:
        """Cut the connection, whatever state it is in: a new one is in none."""
        if self._connecting is not None:
            self._connecting.cancel()
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None

    async def close(self) -> None:
        if self._connection is not None:
            with contextlib.suppress(Exception):
                await self._connection.close(timeout=_CONNECT_FOR)
            self.drop()


_WAITS_FOR_A_STANDBY = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE pid = $1 AND wait_event = 'SyncRep')"


def _timeouts(statement_for: float) -> dict[str, str]:
    lock_for = _LOCK_FOR if statement_for <= _COMMIT_STATEMENT_FOR else statement_for
    return {"statement_timeout": f"{statement_for * 1000:.0f}", "lock_timeout": f"{lock_for * 1000:.0f}"}


def _begin(statement_for: float) -> str:
    """Begin a transaction. A standby refuses what says READ WRITE.

    Behind a proxy nothing else is set: what others may put into `public` would be found before our own operators are.
    """
    idle_for = f"{_IDLE_FOR * 1000:.0f}"
    settings = {**_timeouts(statement_for), "idle_in_transaction_session_timeout": idle_for, "search_path": "''"}
    chosen = [f"SET LOCAL {name} = {value}" for name, value in settings.items()]
    return "; ".join(["BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE", *chosen])


_CONFLICTS = frozenset({"DD001", "23505", "40001", "40P01"})
_INVALID = ("22", "54")
_HOPELESS = frozenset({"28000", "28P01", "3D000", "42501", "42704"})


def _meant(exc: BaseException) -> DutchdoorError:
    """What an exception of the driver or the network is to those who use a store. It is raised from none: the original
    holds values of rows, such as an e-mail address that is taken, and a log of it would show them.
    """
    if isinstance(exc, DutchdoorError):
        return exc
    if isinstance(exc, TimeoutError):
        return Unavailable("postgres: no answer")
    if isinstance(exc, PostgresError):
        state, text = exc.sqlstate or "", str(exc.args[0])  # without the lines after it, DETAIL and HINT
        if state in _CONFLICTS:
            return Conflict(f"postgres: {state}")
        if state.startswith(_INVALID):  # its text repeats the value
            return InvalidInput(f"postgres: {state} {type(exc).__name__}")
        if "unsupported startup parameter" in text:  # PgBouncer, in any mode
            return _Refusal(f"postgres: {text}: behind a proxy that pools add ?pooling=transaction to the URL")
        if state == "42501":
            text += ". The role has to own the schema dutchdoor, or be allowed to create it (GRANT CREATE ON DATABASE)"
        if state in _HOPELESS:
            return _Refusal(f"postgres: {text}")
        return Unavailable(f"postgres: {state} {text}")
    if isinstance(exc, ssl.SSLError):
        return Unavailable(f"postgres: TLS: {exc.reason}")
    if isinstance(exc, ClientConfigurationError):
        # Of the driver's texts only those that hold no more than a path are repeated.
        text = str(exc.args[0])
        known = text.startswith(("`sslmode` parameter", "root certificate file"))
        if text.startswith("root certificate"):
            text += ": name the authority's certificate with sslrootcert=FILE in the URL"
        return _Refusal(f"postgres: {text if known else 'the URL cannot be used as it is'}")
    if isinstance(exc, ConnectionRefusedError):
        return Unavailable("postgres: nobody listens there")
    if isinstance(exc, OSError):
        # Without a number it is the driver's own: a server that speaks no TLS.
        return Unavailable(f"postgres: {exc.strerror or (exc if type(exc) is ConnectionError else type(exc).__name__)}")
    return Unavailable(f"postgres: {type(exc).__name__}")


class _Refusal(Unavailable):
    """The server knows us not, or forbids it. While opening, no waiting helps; later it may have been repaired."""


def _is_fatal(exc: PostgresError) -> bool:
    """Whether the server has closed the connection, or will."""
    return str(getattr(exc, "severity_en", "")) in {"FATAL", "PANIC"} or (exc.sqlstate or "").startswith(("08", "57P"))


class _Group:
    """Lanes, and the tasks that run on them. A caller waits for a future, and may leave: nothing else is cancelled.

    With a `probe`, callers may wait for longer than a second. Once one has waited for a while, the server is asked on
    another connection whether it is there, and if it is not, all are told.
    """

    def __init__(self, lanes: Sequence[_Lane], answer_for: float, probe: _Reads | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        self._lanes, self._answer_for, self._probe = lanes, answer_for, probe
        self._idle = list(lanes)
        self._tasks: set[asyncio.Task[None]] = set()
        self._is_due = False
        self._waiting: dict[_Future[Any], float] = {}
        self._doubt: asyncio.TimerHandle | asyncio.Task[None] | None = None

    async def _answer(self, future: _Future[T]) -> T:
        """Wait for the answer of some lane, within what callers were promised."""
        deadline = self._loop.call_later(self._answer_for, _give_up, future)
        if self._probe is not None:
            self._waiting[future] = self._loop.time()
            if self._doubt is None:
                self._doubt = self._loop.call_later(_SLOW, self._look)
        try:
            return await future
        finally:
            deadline.cancel()
            self._waiting.pop(future, None)

    def _look(self) -> None:
        self._doubt = None
        if self._waiting:
            waited = self._loop.time() - next(iter(self._waiting.values()))  # the oldest comes first
            if waited < _SLOW:
                self._doubt = self._loop.call_later(_SLOW - waited, self._look)
            else:
                self._doubt = self._loop.create_task(self._ask_whether_it_is_there())

    async def _ask_whether_it_is_there(self) -> None:
        assert self._probe is not None  # noqa: S101 - nobody waits here otherwise
        try:
            await self._probe.fetch("SELECT 1")
        except Unavailable as exc:
            self.give_up(exc)
        else:
            for lane in self._lanes:
                if lane.was_left_behind:
                    lane.drop()
        self._doubt = self._loop.call_later(_SLOW, self._look)

    def give_up(self, why: Unavailable) -> None:
        """Tell all who wait, and wait for nothing."""
        for lane in self._lanes:
            lane.drop()
        _answer(list(self._waiting), why)

    def _soon(self) -> None:
        """Begin in the next turn of the loop, with all that this one brings."""
        if self._idle and not self._is_due:
            self._is_due = True
            task = self._loop.create_task(self._run(self._idle.pop()))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _run(self, lane: _Lane) -> None:
        try:
            self._is_due = False
            while self._has_work():
                await self._work(lane)
        finally:
            self._idle.append(lane)

    def _recruit(self) -> None:
        """Let another lane take what is left, if there is any."""
        if self._has_work():
            self._soon()

    def _has_work(self) -> bool:
        raise NotImplementedError

    async def _work(self, lane: _Lane) -> None:
        raise NotImplementedError

    async def close(self) -> None:
        """Wait for what is under way, which ends in time."""
        while self._tasks:
            await asyncio.wait(self._tasks)
        if self._doubt is not None:
            self._doubt.cancel()
            if isinstance(self._doubt, asyncio.Task):
                await asyncio.wait([self._doubt])


class _Lookups(_Group):
    """Look-ups of sessions: all that wait when a lane is free become one query."""

    def __init__(self, lanes: Sequence[_Lane], answer_for: float) -> None:
        super().__init__(lanes, answer_for)
        self._asked: dict[bytes, list[_Future[_Found]]] = {}
        self._deadline: asyncio.TimerHandle

    async def ask(self, key: bytes) -> _Found:
        if not self._asked:
            self._deadline = self._loop.call_later(self._answer_for, _give_up_all, self._asked)
            self._soon()
        elif len(self._asked) >= _WAITING_AT_MOST:
            raise Unavailable("postgres: too many look-ups wait for the database")
        future: _Future[_Found] = self._loop.create_future()
        self._asked.setdefault(key, []).append(future)
        return await future

    def _has_work(self) -> bool:
        return bool(self._asked)

    async def _work(self, lane: _Lane) -> None:
        asked, self._asked = self._asked, {}
        deadline = self._deadline
        try:
            rows = await lane.fetch(_SESSIONS_WITH_ACCOUNT, list(asked), within=self._answer_for)
        except DutchdoorError as exc:
            _answer(chain.from_iterable(asked.values()), exc)
        else:
            for row in rows:
                _answer(asked.pop(row[0]), _session_and_account(row))
            _answer(chain.from_iterable(asked.values()), None)
        finally:
            deadline.cancel()


class _Reads(_Group):
    """Queries one by one."""

    def __init__(self, lanes: Sequence[_Lane], answer_for: float, probe: _Reads | None = None) -> None:
        super().__init__(lanes, answer_for, probe)
        self._asked: deque[tuple[_Future[list[Row]], str, tuple[object, ...]]] = deque()

    async def fetch(self, sql: str, *values: object) -> list[Row]:
        if len(self._asked) >= _WAITING_AT_MOST:
            raise Unavailable("postgres: too many queries wait for the database")
        future: _Future[list[Row]] = self._loop.create_future()
        self._asked.append((future, sql, values))
        self._soon()
        return await self._answer(future)

    def _has_work(self) -> bool:
        return bool(self._asked)

    async def _work(self, lane: _Lane) -> None:
        future, sql, values = self._asked.popleft()
        if future.done():
            return
        self._recruit()
        try:
            rows = await lane.fetch(sql, *values, within=self._answer_for)
        except DutchdoorError as exc:
            _answer([future], exc)
        else:
            _answer([future], rows)


class _Job(Generic[T]):
    """One commit, or one attempt against limits, that waits for its turn."""

    __slots__ = ("future", "order", "payload")

    def __init__(self, payload: bytes, order: _Order | None, future: _Future[T]) -> None:
        self.payload, self.order, self.future = payload, order, future


class _Batches(_Group, Generic[T]):
    """Jobs: all that wait when a lane is free become one transaction, but those that go alone.

    The jobs of a batch are put in an order that all processes have, so that two batches which come upon the same rows
    do not wait for each other. They are of different callers, none of whom knows of the other: any order is right.
    """

    def __init__(
        self,
        lanes: Sequence[_Lane],
        answer_for: float,
        probe: _Reads,
        sql: str,
        read: Callable[[Row], T | Conflict],
    ) -> None:
        super().__init__(lanes, answer_for, probe)
        self._sql, self._read = sql, read
        self._together: list[_Job[T]] = []
        self._alone: deque[_Job[T]] = deque()

    async def put(self, payload: bytes, order: _Order | None) -> T:
        if len(self._together) + len(self._alone) >= _WAITING_AT_MOST:
            raise Unavailable("postgres: too many commits wait for the database")
        future: _Future[T] = self._loop.create_future()
        (self._alone if order is None else self._together).append(_Job(payload, order, future))
        self._soon()
        return await self._answer(future)

    def _has_work(self) -> bool:
        return bool(self._together or self._alone)

    async def _work(self, lane: _Lane) -> None:
        # Whoever gave up need not be served after all; after an outage they are many.
        if self._alone:
            batch = [self._alone.popleft()]
        else:
            batch = self._together[:_BATCH_AT_MOST]
            del self._together[:_BATCH_AT_MOST]
        batch = [job for job in batch if not job.future.done()]
        batch.sort(key=attrgetter("order"))
        if not batch:
            return
        self._recruit()
        try:
            await self._send(lane, batch)
        except (Conflict, InvalidInput) as exc:
            # Nothing of it was written. One of them found out late that it was impossible: the others must not suffer.
            if len(batch) == 1:
                _answer([batch[0].future], exc)
                return
            for job in batch:
                if not job.future.done():
                    try:
                        await self._send(lane, [job])
                    except DutchdoorError as its_own:
                        _answer([job.future], its_own)
        except DutchdoorError as exc:
            _answer([job.future for job in batch], exc)

    async def _send(self, lane: _Lane, batch: Sequence[_Job[T]]) -> None:
        payload = b"[" + b",".join([job.payload for job in batch]) + b"]"
        rows = await lane.fetch(self._sql, payload.decode(), within=self._answer_for)
        for job, row in zip(batch, rows, strict=True):
            _answer([job.future], self._read(row))


def _answer(futures: Iterable[_Future[Any]], outcome: object) -> None:
    for future in futures:
        if future.done():  # cancelled, or gave up
            continue
        if isinstance(outcome, Exception):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)


def _give_up(future: _Future[Any]) -> None:
    _answer([future], Unavailable("postgres: no answer"))


def _give_up_all(asked: dict[bytes, list[_Future[_Found]]]) -> None:
    _answer(chain.from_iterable(asked.values()), Unavailable("postgres: no answer"))


class _Watch:
    """The connection that listens, as long as anybody watches; or a look at the log now and then where none can."""

    def __init__(self, connect: _Connector) -> None:
        self._connect = connect
        self._woken: dict[object, Callable[[], None]] = {}
        self._task: asyncio.Task[None] | None = None

    def add(self, woken: Callable[[], None]) -> Callable[[], None]:
        watcher = object()
        self._woken[watcher] = woken
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._run())

        def unwatch() -> None:
            self._woken.pop(watcher, None)
            if not self._woken and self._task is not None:
                self._task.cancel()
                self._task = None

        return unwatch

    async def close(self) -> None:
        task, self._task = self._task, None
        self._woken = {}
        if task is not None:
            task.cancel()
            await asyncio.wait([task])

    def _wake(self, *_: object) -> None:
        for woken in list(self._woken.values()):
            woken()

    async def _run(self) -> None:
        while True:
            with contextlib.suppress(Unavailable):
                await (self._poll() if self._connect.by_transaction else self._listen())
            await asyncio.sleep(_POLL_EVERY)

    async def _listen(self) -> None:
        """Wake at each notice; and look at the log now and then, which tells whether the connection is alive at all."""
        made_at = asyncio.get_running_loop().time()
        connection = await self._connect(_STATEMENT_FOR)
        try:
            async with asyncio.timeout(_ANSWER_FOR):
                await connection.add_listener(_CHANNEL, self._wake)
            seen: Row | None = None  # whatever came before we listened was missed
            while made_at > self._connect.lost_at:
                async with asyncio.timeout(_ANSWER_FOR):
                    head = await connection.fetchrow(_HEAD)
                if head != seen:
                    seen = head
                    self._wake()
                await asyncio.sleep(_LISTEN_EVERY)
        except Exception as exc:
            raise Unavailable("postgres: nobody listens") from exc
        finally:
            connection.terminate()

    async def _poll(self) -> None:
        lane = _Lane(self._connect, _STATEMENT_FOR)
        try:
            seen: Row | None = None
            while True:
                (head,) = await lane.fetch(_HEAD, within=_ANSWER_FOR)
                if head != seen:
                    seen = head
                    self._wake()
                await asyncio.sleep(_POLL_EVERY)
        finally:
            lane.drop()


_HEAD = "SELECT epoch, seq FROM dutchdoor.revocation_log"


# --- changes ----------------------------------------------------------------------------------------------------------
#
# A job is JSON: what is to be applied, in order; and beside it what has to come last in a transaction, since everybody
# waits for it: entries of the log, and limits.

_Order: TypeAlias = tuple[int, str]
"""Where a job stands in its batch: jobs that share an account first, then those that write a session, then others."""

_COMMIT = "SELECT possible, ended, seq, log_epoch, longest_lease FROM dutchdoor.commit_1($1)"
_HIT = "SELECT retry_after, refused_by FROM dutchdoor.hit_1($1)"

_json = msgspec.json.encode


def _committed(row: Row) -> Committed | Conflict:
    possible, ended, seq, log_epoch, longest = row
    if not possible:
        return Conflict("row is not there, or was written since it was read")
    return Committed(seq, ended, log_epoch, longest)


def _job(changes: Sequence[Change]) -> tuple[bytes, _Order | None]:
    job: dict[str, Any] = {"changes": [_change(one) for one in changes if not isinstance(one, Revoke | Forgive)]}
    entries = [_row(one.entry) for one in changes if isinstance(one, Revoke)]
    if entries:
        job["revoke"] = entries
    forgiven = [one for one in changes if isinstance(one, Forgive)]
    if forgiven:
        job["back"] = [_bucket(bucket) for one in forgiven for bucket in one.give_back]
        job["forget"] = [_text(bucket.key) for one in forgiven for bucket in one.forget]
    order = _order(changes)
    if order is None:
        job["whole"] = True
        locks = _locks(changes)
        if locks:
            job["locks"] = locks
    return _json(job), order


def _order(changes: Sequence[Change]) -> _Order | None:
    """Give the place in a batch, or None for a job that goes alone.

    A job may share its transaction if it is impossible only before it has written anything, and takes at most one lock
    that others might wait for, or that of an account it shares and nothing then.
    """
    order: _Order = 9, ""
    may_be_impossible = True
    for change in changes:
        match change:
            case Revoke() | Forgive():
                pass
            case Log():
                may_be_impossible = False
            case _ if not may_be_impossible:
                return None
            case Expect(subject) if order[0] == 9:  # noqa: PLR2004 - nothing came before it
                order = 0, subject
            case Add(Session()) if order[0] in {0, 9}:
                order, may_be_impossible = (0, order[1]), False
            case Swap(Session(id=id)) | End(id) if order[0] == 9:  # noqa: PLR2004
                order, may_be_impossible = (1, _hex(_key(id))), False
            case Take(id) if order[0] == 9:  # noqa: PLR2004
                order, may_be_impossible = (2, _hex(_key(id))), False
            case _:
                return None
    return order


def _locks(changes: Sequence[Change]) -> dict[str, object]:
    """What a job that goes alone will change, if the rows are or may be several: to be locked in one order."""
    accounts: dict[str, bool] = {}
    sessions: list[str] = []
    sessions_of: list[str] = []
    for change in changes:
        match change:
            case Swap(Account(subject=subject)) | Remove(Account(subject=subject)):
                accounts[_text(subject)] = True
            case Expect(subject):
                accounts.setdefault(_text(subject), False)
            case EndAll(subject):
                accounts[_text(subject)] = True
                sessions_of.append(_text(subject))
            case Swap(Session(id=id)) | End(id):
                sessions.append(_hex(_key(id)))
            case _:
                pass
    # What belongs to an account, a token or a credential, is locked after it, in whatever order the changes are.
    locking = sum(not isinstance(change, Add | Log | Revoke | Forgive) for change in changes)
    if not (accounts or sessions) or (locking <= 1 and not sessions_of):
        return {}
    return {"accounts": accounts, "sessions": sessions, "sessions_of": sessions_of}


def _change(change: Change) -> dict[str, Any]:  # noqa: C901, PLR0912 - one branch for a kind of change
    match change:
        case Swap(Session() as session):
            return {"do": "swap session", "subject": _text(session.subject), "row": _session_values(session)}
        case Add(Session() as session):
            row = {**_session_values(session), "revision": 0}
            return {"do": "add session", "subject": _text(session.subject), "row": row}
        case Log(event):
            return {"do": "log", "row": {**_row(event), "id": _hex(_key(event.id))}}
        case ExpectRole(role):
            return {"do": "expect role", "role": f" {_text(role)} "}
        case Expect(subject, epoch):
            return {"do": "expect", "subject": _text(subject), "epoch": epoch}
        case End(id, reason, at):
            return {"do": "end", "id": _hex(_key(id)), "reason": _text(reason), "at": str(at)}
        case EndAll(subject, reason, at, keep):
            kept = None if keep is None else _hex(_key(keep))
            return {
                "do": "end all", "subject": _text(subject), "reason": _text(reason), "at": str(at), "keep": kept,
            }  # fmt: skip
        case Take(id):
            return {"do": "take", "id": _hex(_key(id))}
        case Discard(subject, purpose):
            return {"do": "discard", "subject": _text(subject), "purpose": purpose}
        case Add(Account() as account):
            return {"do": "add account", "row": _account_values(account)}
        case Swap(Account() as account):
            return {"do": "swap account", "row": _account_values(account)}
        case Remove(Account(subject=subject)):
            return {"do": "remove account", "subject": _text(subject)}
        case Add(OneTimeToken() as token):
            return {"do": "add one-time token", "row": {**_row(token), "id": _hex(_key(token.id))}}
        case Add(record):
            return {"do": f"add {_KINDS[type(record)]}", "row": {**_row(record), "revision": 0}}
        case Swap(record):
            return {"do": f"swap {_KINDS[type(record)]}", "row": _row(record)}
        case Remove(Credential() as credential):
            return {"do": "remove credential", **_row(credential)}
        case Remove(RegisteredClient(id=id) | VerifierKey(id=id)):
            return {"do": f"remove {_KINDS[type(change.record)]}", "id": _text(id)}
    raise TypeError(f"{type(change).__name__} is not a change")


_KINDS: dict[type[Struct], str] = {
    Credential: "credential",
    StoredKey: "key",
    RegisteredClient: "client",
    VerifierKey: "verifier",
}


def _bucket(bucket: Bucket) -> dict[str, object]:
    limit = bucket.limit
    kind = {"kept_for": str(limit.kept_for)} if limit.is_ceiling else {"interval": str(limit.interval)}
    return {"key": _text(bucket.key), "name": limit.name, "burst": limit.burst, **kind}


# --- records and rows -------------------------------------------------------------------------------------------------
#
# Most kinds of record have a column for each field, by its name. Sessions and accounts are stored otherwise.

R = TypeVar("R", bound=Struct)


def _row(record: Struct) -> dict[str, object]:
    return {name: _value(getattr(record, name)) for name in record.__struct_fields__}


def _value(value: object) -> object:
    """A value in JSON. A float as its shortest text: PostgreSQL reads it to the bit, infinity included."""
    if isinstance(value, str):
        return _text(value)
    if isinstance(value, bytes):
        return _hex(value)
    return str(value) if isinstance(value, float) else value


def _record(kind: type[R], row: Row, **instead: object) -> R:
    values = {
        name: _plain(value) if isinstance(value, str) else value
        for name, value in zip(kind.__struct_fields__, row, strict=True)
    }
    return kind(**{**values, **instead})


@lru_cache
def _select(kind: type[Struct], table: str) -> str:
    return f"SELECT {', '.join(kind.__struct_fields__)} FROM dutchdoor.{table}"


def _text(text: str) -> str:
    """Write what PostgreSQL's text can hold: all but U+0000. Raises `InvalidInput` for half a character."""
    if not text.isprintable():
        if "\0" in text or "\1" in text:
            text = text.replace("\1", "\1\2").replace("\0", "\1\1")
        try:
            text.encode()
        except UnicodeEncodeError:
            raise InvalidInput("a text holds half a character") from None
    return text


def _plain(text: str) -> str:
    return text.replace("\1\1", "\0").replace("\1\2", "\1") if "\1" in text else text


def _hex(value: bytes) -> str:
    return "\\x" + value.hex()


_NOT_OURS = bytes(17)


def _key(id: str) -> bytes:
    """Give an id as it is stored: 16 bytes where it is the canonical text of 16 bytes, else longer than any of ours."""
    return packed(id) or _NOT_OURS + id.encode(errors="surrogatepass")


def _id(key: bytes) -> str:
    if len(key) == 16:  # noqa: PLR2004
        return encode(key)
    return key.removeprefix(_NOT_OURS).decode(errors="surrogatepass")


_SESSION = ", ".join(
    f"s.{name}"
    for name in (
        "id", "hybrid", "client_id", "scope", "secret_hash", "salt", "master_key_id", "epoch", "amr", "auth_time",
        "created_at", "last_seen_at", "idle_expires_at", "expires_at", "generation", "sibling", "parent_sibling",
        "rotated_at", "sibling_at", "fingerprint", "device", "address", "country", "ended_at", "end_reason", "revision",
    )
)  # fmt: skip
_ACCOUNT = ", ".join(
    f"a.{name}"
    for name in (
        "subject", "email", "address", "name", "roles", "active", "email_verified_at", "epoch", "created_at",
        "revision",
    )
)  # fmt: skip
_JOINED = (
    f"SELECT {_SESSION}, {_ACCOUNT} FROM dutchdoor.sessions s JOIN dutchdoor.accounts_now a ON a.number = s.account"
)
_SESSIONS_WITH_ACCOUNT = f"{_JOINED} WHERE s.id = ANY ($1)"
_SESSIONS_OF = f"{_JOINED} WHERE a.subject = $1 AND s.ended_at IS NULL ORDER BY s.id DESC LIMIT $2"
"""By id, which is the order of birth and the index's: to give the newest three of ten thousand it reads three."""


def _session_values(session: Session) -> dict[str, object]:
    return {
        "id": _hex(_key(session.id)),
        "hybrid": session.mode == "hybrid",
        "client_id": _text(session.client_id),
        "scope": _text(session.scope),
        "secret_hash": _hex(session.secret_hash),
        "salt": _hex(session.salt),
        "master_key_id": _hex(session.master_key_id),
        "epoch": session.epoch,
        "amr": _text(joined(session.amr)),
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
        "fingerprint": _text(session.fingerprint),
        "device": _text(session.device),
        "address": _text(session.address),
        "country": _text(session.country),
        "ended_at": None if session.ended_at is None else str(session.ended_at),
        "end_reason": _text(session.end_reason),
        "revision": session.revision,
    }


def _session_and_account(row: Row) -> tuple[Session, Account]:
    """Read a row of `_JOINED`. The hottest lines here: one unpacking, and two calls with keywords in field order."""
    (
        key, hybrid, client_id, scope, secret_hash, salt, master_key_id, epoch, amr, auth_time, created_at,
        last_seen_at, idle_expires_at, expires_at, generation, sibling, parent_sibling, rotated_at, sibling_at,
        fingerprint, device, address, country, ended_at, end_reason, revision,
        *account,
    ) = row  # fmt: skip
    owner = _account(account)
    session = Session(
        id=_id(key),
        subject=owner.subject,
        mode="hybrid" if hybrid else "session",
        client_id=_plain(client_id),
        scope=_plain(scope),
        secret_hash=secret_hash,
        salt=salt,
        master_key_id=master_key_id,
        epoch=epoch,
        amr=words(_plain(amr)),
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
        fingerprint=_plain(fingerprint),
        device=_plain(device),
        address=_plain(address),
        country=_plain(country),
        ended_at=ended_at,
        end_reason=_plain(end_reason),
        revision=revision,
    )
    return session, owner


def _account_values(account: Account) -> dict[str, object]:
    folded = "\n".join((account.email or "", account.address or "", account.name)).casefold()
    return {
        "subject": _text(account.subject),
        "email": None if account.email is None else _text(account.email),
        "address": None if account.address is None else _text(account.address),
        "name": _text(account.name),
        "roles": _text(joined(account.roles)),
        "active": account.active,
        "email_verified_at": None if account.email_verified_at is None else str(account.email_verified_at),
        "epoch": account.epoch,
        "created_at": str(account.created_at),
        "revision": account.revision,
        "folded": _text(folded),
    }


def _account(row: Row) -> Account:
    subject, email, address, name, roles, active, email_verified_at, epoch, created_at, revision = row
    return Account(
        subject=_plain(subject),
        email=None if email is None else _plain(email),
        address=None if address is None else _plain(address),
        name=_plain(name),
        roles=words(_plain(roles)),
        status="active" if active else "disabled",
        email_verified_at=email_verified_at,
        epoch=epoch,
        created_at=created_at,
        revision=revision,
    )


def _renewed(
    rows: Sequence[Row], log_epoch: int, after: int, *, there: bool = True, nodes: Sequence[NodeRow] = ()
) -> Renewed:
    """Read rows of `read_log_1`, of which one more was asked for than a page has."""
    epoch, salt, head, at = rows[0][:4]
    entries = [_entry(*row[4:]) for row in rows[:_PAGE] if row[4] is not None]
    return Renewed(
        there=there,
        log_epoch=epoch,
        salt=salt,
        after=after if epoch == log_epoch else 0,
        entries=entries,
        upto=entries[-1].seq if len(rows) > _PAGE else head,
        head=head,
        rows=nodes,
        at=at,
    )


def _entry(seq: int, kind: EntryKind, id: str, min_epoch: int, expires_at: float, subject: str) -> Revocation:
    return Revocation(
        seq=seq, kind=kind, id=_plain(id), min_epoch=min_epoch, expires_at=expires_at, subject=_plain(subject)
    )


def _nodes(rows: str | None) -> list[NodeRow]:
    return [] if rows is None else msgspec.json.decode(rows, type=list[NodeRow])


# --- records as they stand, for moving --------------------------------------------------------------------------------


class _Stored(NamedTuple):
    """How one kind of record is read as it stands, and written."""

    select: str
    key: tuple[str, ...]
    read: Callable[[Row], Stored]
    write: Callable[[Any], dict[str, object]]
    has_id: bool = False
    """Whether the key is an id, which `_key` stores."""


def _as_it_stands(kind: type[Any], table: str, *key: str) -> _Stored:
    names: tuple[str, ...] = kind.__struct_fields__
    return _Stored(f"SELECT {', '.join(names)} FROM dutchdoor.{table}", key, partial(_record, kind), _row)


def _with_id(kind: type[Any], table: str) -> _Stored:
    return _as_it_stands(kind, table, "id")._replace(
        read=lambda row: _record(kind, row, id=_id(row[0])),
        write=lambda record: {**_row(record), "id": _hex(_key(record.id))},
        has_id=True,
    )


_STORED: dict[Kind, _Stored] = {
    "accounts": _Stored(f"SELECT {_ACCOUNT} FROM dutchdoor.accounts_now a", ("a.subject",), _account, _account_values),
    "credentials": _as_it_stands(Credential, "credentials", "subject", "method", "handle"),
    "sessions": _Stored(
        _JOINED,
        ("s.id",),
        lambda row: _session_and_account(row)[0],
        lambda session: {**_session_values(session), "subject": _text(session.subject)},
        has_id=True,
    ),
    "one_time_tokens": _with_id(OneTimeToken, "one_time_tokens"),
    "keys": _as_it_stands(StoredKey, "keys", "kid"),
    "clients": _as_it_stands(RegisteredClient, "clients", "id"),
    "verifiers": _as_it_stands(VerifierKey, "verifiers", "id"),
    "revocations": _as_it_stands(Revocation, "revocations", "seq"),
    "events": _with_id(AuditEvent, "events"),
    "limits": _as_it_stands(Level, "limits", "key"),
}


# --- the schema -------------------------------------------------------------------------------------------------------


class _Migration(Struct, frozen=True):
    """A numbered file, never changed once released. Additive: programs that do not know it can go on."""

    name: str
    text: str

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def is_additive(self) -> bool:
        return self.text.startswith("-- additive: yes\n")


def _migrations() -> list[_Migration]:
    """Every migration, in order."""
    folder = files("dutchdoor.stores").joinpath("schema", "postgres")
    found = [_Migration(file.name, file.read_text("utf-8")) for file in folder.iterdir() if file.name.endswith(".sql")]
    return sorted(found, key=attrgetter("name"))


async def _prepare(connect: _Connector, *, to_move: bool) -> None:
    """Look whether the server can be used, and bring the schema up to date."""
    migrations = _migrations()
    try:
        connection = await connect(_OPEN_FOR, within=_CONNECT_PATIENTLY_FOR)
        try:
            async with asyncio.timeout(_OPEN_FOR):
                await _check_server(connection)
                for migration in migrations:
                    await _migrate(connection, migration, migrations)
                await _check_whole(connection, to_move=to_move)
        except Exception as exc:  # noqa: BLE001 - a driver has many ways to fail
            raise _meant(exc) from None
        finally:
            connection.terminate()
    except _Refusal as exc:
        raise Misconfigured(exc.reason) from exc
    connect.known = tuple(migration.name for migration in migrations)


async def _check_server(connection: Connection) -> None:
    await connection.execute(_begin(_OPEN_FOR))
    row = await connection.fetchrow(
        "SELECT current_setting('server_version_num')::integer, current_setting('server_encoding')"
    )
    assert row is not None  # noqa: S101 - a SELECT without FROM gives one row
    version, encoding = row
    if version < 140000:  # noqa: PLR2004
        raise Misconfigured("postgres: version 14 or newer is needed")
    if encoding != "UTF8":
        raise Misconfigured(
            f"postgres: the encoding is {encoding}: create the database with ENCODING 'UTF8' TEMPLATE template0"
        )
    await connection.execute("COMMIT")


async def _check_whole(connection: Connection, *, to_move: bool) -> None:
    """Half of the records would refuse people, and believe sessions that have ended elsewhere."""
    await connection.execute(_begin(_OPEN_FOR))
    if not to_move:
        refuse_unless_whole([kind for kind, _ in await connection.fetch(_MOVING)], "this database")
    if to_move and await connection.fetch(
        "SELECT FROM pg_stat_activity WHERE datname = current_database() AND application_name LIKE 'dutchdoor%' "
        "AND pid <> pg_backend_pid() AND backend_type = 'client backend'"
    ):
        text = "Another process has this database open. Stop all servers and commands that use it, and run this again."
        raise Conflict(text, message=text)
    await connection.execute("COMMIT")


async def _migrate(connection: Connection, migration: _Migration, migrations: Sequence[_Migration]) -> None:
    """Apply a file in one transaction with the note that it was: killed anywhere, it was or it was not."""
    await connection.execute(_begin(_OPEN_FOR))
    applied = await _applied(connection, migrations)
    if migration.name not in applied:
        # Under the lock once more, since another process may have been here a moment ago. A snapshot is taken by each
        # statement, and so after the lock.
        await connection.execute(f"SELECT pg_advisory_xact_lock({_LOCK}, 0)")
        applied = await _applied(connection, migrations)
    if migration.name not in applied:
        if not applied:
            await _found(connection)
        await connection.execute(migration.text)
        await connection.execute(
            "INSERT INTO dutchdoor.migrations VALUES ($1, $2, $3)",
            migration.name,
            migration.sha256,
            migration.is_additive,
        )
    await connection.execute("COMMIT")


async def _applied(connection: Connection, migrations: Sequence[_Migration]) -> set[str]:
    """Names of what was applied. Raises `Misconfigured` if this program and this database do not fit."""
    if _MIGRATIONS not in await _relations(connection):
        return set()
    rows = await connection.fetch("SELECT name, sha256, additive FROM dutchdoor.migrations")
    known = {migration.name: migration.sha256 for migration in migrations}
    for name, digest, additive in rows:
        if name not in known and not additive:
            raise Misconfigured(f"postgres: the database is newer than this program: it has had {name}")
        if known.get(name, digest) != digest:
            raise Misconfigured(
                f"postgres: {name} is not the migration this database has had: a released one was changed"
            )
    return {name for name, _, _ in rows}


_MIGRATIONS = "migrations"


async def _relations(connection: Connection) -> set[str]:
    """What there is in the schema. Read from the tables of the catalogue and not by `to_regclass`, which remembers that
    there was nothing, though another process has made it while we waited for the lock.
    """
    rows = await connection.fetch(
        "SELECT c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
        "WHERE n.nspname = 'dutchdoor'"
    )
    return {name for (name,) in rows}


async def _found(connection: Connection) -> None:
    """Make the schema, which an operator may have made for us, and the list of what was done to it."""
    if not await connection.fetch("SELECT 1 FROM pg_namespace WHERE nspname = 'dutchdoor'"):
        await connection.execute("CREATE SCHEMA dutchdoor")
    elif await _relations(connection):
        raise Misconfigured("postgres: the schema dutchdoor belongs to another application")
    await connection.execute(
        'CREATE TABLE dutchdoor.migrations (name text COLLATE "C" PRIMARY KEY, sha256 text COLLATE "C" NOT NULL, '
        "additive boolean NOT NULL)"
    )
