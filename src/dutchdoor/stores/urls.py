"""From URLs to a store: a new backend adds one line here.

memory:                           gone when the process ends: for trying out and for tests
sqlite:///dutchdoor.db            a file beside the working directory
sqlite:////srv/door.db            a file with an absolute path: four slashes, the spelling other Python libraries use
postgresql://door:pw@host/door    a server; several nodes may share it. postgres:// is the same

Redis or Valkey may stand beside any of them, as one server, behind Sentinel or as a cluster: see `stores/redis.py`.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator
from importlib import import_module
from typing import Any, Protocol
from urllib.parse import parse_qs, urlsplit

from dutchdoor.errors import Misconfigured, Unavailable
from dutchdoor.stores.base import Copies, Store

__all__ = ["CopyingStore", "is_in_memory", "make_store", "naming", "with_redis"]

# By name and not by import: a deployment must not pay for the driver of a store that it does not use.
_MEMBERS = {
    "memory": "dutchdoor.stores.memory",
    "sqlite": "dutchdoor.stores.sqlite",
    "postgresql": "dutchdoor.stores.postgres",
    "postgres": "dutchdoor.stores.postgres",
}


class CopyingStore(Store, Copies, Protocol):
    """A store that may have copies of sessions beside it."""


def make_store(url: str, redis_url: str = "", *, key: bytes = b"") -> Store:
    """Create the store that a URL names. Its user opens it later, in the process that uses it. What `redis_url` names
    stands beside it: see `with_redis`.

    Raises:
        Misconfigured: no such scheme, a URL that is not valid, or a driver that is not installed.
    """
    scheme, colon, _ = url.partition(":")
    if not colon or scheme not in _MEMBERS:
        # The URL may hold a password: only the part before the first colon is repeated, and not all of that.
        text = f"There is no store for the scheme {scheme[:20]!r}; there are {', '.join(sorted(_MEMBERS))}."
        if scheme.startswith("postgres"):  # postgresql+asyncpg://: the spelling of other libraries
            text += " Write postgresql://."
        elif "://" not in url:
            text = "A database is a URL that begins with sqlite:/// or postgresql://."
        raise Misconfigured(text)
    from_url: Callable[[str], Store] = _member(_MEMBERS[scheme], scheme).from_url
    store = from_url(url)
    return with_redis(store, redis_url, key=key) if redis_url else store


def is_in_memory(database: str | Store) -> bool:
    """Whether a URL names a store that is gone when the process ends, and needs no file."""
    return isinstance(database, str) and database.partition(":")[0] == "memory"


def with_redis(store: Store, url: str, *, key: bytes = b"") -> CopyingStore:
    """Put the Redis or Valkey that a URL names beside a store, which stays the record of everything.

    `key` seals what is kept there: 32 secret bytes that all nodes have. Without one, copies of sessions serve only this
    process.

    Raises:
        Misconfigured: a URL that is not valid, or the driver is not installed.
    """
    around: Callable[..., CopyingStore] = _member("dutchdoor.stores.redis", "redis").around
    return around(store, url, key=key)


@contextlib.contextmanager
def naming(url: str) -> Generator[None, None, None]:
    """Name the server or the file, where the database, its driver or the network reported a failure."""
    try:
        yield
    except (Misconfigured, Unavailable) as exc:
        kind, _, what = exc.reason.partition(": ")
        named = {"postgres": f"PostgreSQL at {_place(url)}", "sqlite": f"SQLite in {url.removeprefix('sqlite:///')}"}
        if kind not in named:
            raise
        raise type(exc)(f"{named[kind]}: {what}") from exc


def _place(url: str) -> str:
    """Where a URL leads, without the credentials."""
    parts = urlsplit(url)
    hosts = parse_qs(parts.query).get("host", [parts.netloc.rpartition("@")[2]])[0]
    return f"{hosts or 'localhost'}, database {parts.path.strip('/')}"


def _member(module: str, extra: str) -> Any:
    try:
        return import_module(module)
    except ModuleNotFoundError as exc:
        if exc.name is None or exc.name.startswith("dutchdoor"):
            raise
        extra = {"postgresql": "postgres"}.get(extra, extra)
        text = f"{exc.name} is not installed, which this store needs: pip install 'dutchdoor[{extra}]'"
        raise Misconfigured(text) from exc
