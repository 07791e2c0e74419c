"""What a PostgreSQL URL says."""

from __future__ import annotations

import math
import os
import re
import ssl
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import parse_qsl, urlencode, urlsplit

from dutchdoor.errors import Misconfigured

__all__ = ["NAME", "Place", "hosts", "read_url"]

NAME = "dutchdoor"
"""The prefix of the names of our connections in `pg_stat_activity`: a move looks there for other processes."""


class Place(NamedTuple):
    """The parameters of a store."""

    url: str
    """As the driver reads it."""
    by_transaction: bool
    connect_for: float
    settings: Mapping[str, str]


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
"""Options of libpq that ask for what is done anyway, with the values that do; any value where none is named: a store
notices a server that vanishes within a second, sooner than any keep-alive.
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
"""What a message may repeat of a URL that is refused: documented words. An unknown word may be a part of a password."""


def read_url(url: str) -> Place:
    """Read `postgresql://user:password@host:port/database`, or `postgres://`, with the options named in this package.

    Raises:
        Misconfigured: the URL is not valid, or asks for what is not supported. The message repeats only the names of
            options: the rest may hold a password.
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
    shown = options.get("application_name") or options.get("fallback_application_name") or NAME
    settings = {"application_name": shown if shown.startswith(NAME) else f"{NAME} {shown}"}
    if "options" in options:
        settings["options"] = options["options"]
    query = urlencode({name: value for name, value in options.items() if name in _DRIVERS})
    login, at, listed = parts.netloc.rpartition("@")
    # The driver would take what follows the first @, a part of a password, for the host.
    escaped = login.replace("@", "%40") + at + listed
    return Place(
        parts._replace(query=query, netloc=escaped).geturl(),
        by_transaction=pooling == "transaction",
        # Less than two seconds becomes two, and 0 means no limit, as in libpq.
        connect_for=max(2, int(wait)) if int(wait) > 0 else math.inf,
        settings=settings,
    )


_WHOLE_NUMBER = re.compile(r"-?[0-9]{1,9}")


def _system_authorities(sslmode: str) -> str:
    """Return the file of the certificates that this machine trusts. Raises `Misconfigured` as libpq refuses it. Without
    a check of the name, anyone who can get a certificate from a public authority could impersonate the server.
    """
    file = ssl.get_default_verify_paths().cafile
    if sslmode != "verify-full":
        raise Misconfigured("sslrootcert=system in the database's URL: This needs sslmode=verify-full.")
    if file is None:
        raise Misconfigured("sslrootcert=system in the database's URL: This machine has no such file. Name one.")
    return file


def _is_cut_short(url: str) -> bool:
    """Return whether the part before the host continues after the first / ? or #, which end the host in a URL. Then the
    rest of a password would be taken for a database, and its beginning for a port.
    """
    address = url.partition("://")[2]
    ends = min((at for mark in "/?#" if (at := address.find(mark)) >= 0), default=len(address))
    path = address[ends:].partition("?")[0]
    return "@" in path or "#" in address or ("@" in address[ends:] and "@" not in address[:ends])


def hosts(url: str) -> list[str]:
    """Return a URL for each host of one. The driver would wait for a silent host until no time is left."""
    parts = urlsplit(url)
    login, at, hosts = parts.netloc.rpartition("@")
    options = dict(parse_qsl(parts.query, keep_blank_values=True))
    if "host" in options:
        parts = parts._replace(netloc=login + at)  # the option applies, as in libpq
        names = options.pop("host").split(",")
        ports = options.pop("port", "").split(",")
        ports = ports * len(names) if len(ports) == 1 else ports
        if len(ports) != len(names):
            return [url]  # the driver reports what is wrong
        own = [{"host": name, **({"port": port} if port else {})} for name, port in zip(names, ports, strict=True)]
        return [parts._replace(query=urlencode({**options, **each})).geturl() for each in own]
    return [parts._replace(netloc=f"{login}{at}{host}").geturl() for host in hosts.split(",")]
