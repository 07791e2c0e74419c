"""The stores a cluster is tried on: SQLite, PostgreSQL, and PostgreSQL with Valkey beside it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from tests.backing import a_valkey, new_database

STORES = ["sqlite", "postgres", "valkey"]
SERVERS = ["postgres", "valkey"]
"""Those that are a network away, and can be cut off."""


@contextlib.contextmanager
def stored(kind: str) -> Iterator[dict[str, str]]:
    """A new and empty store of a kind, as arguments of `cluster`."""
    if kind == "sqlite":
        yield {}
    elif kind == "postgres":
        with new_database() as url:
            yield {"database": url}
    else:
        with new_database() as url, a_valkey() as valkey:
            yield {"database": url, "redis": valkey.url}
