"""The stores a cluster is tried on: SQLite, PostgreSQL, and PostgreSQL with Valkey before it."""

from __future__ import annotations

import contextlib
import inspect
from collections.abc import Iterator
from importlib.util import find_spec

from tests.backing import a_valkey, new_database

from dutchdoor.stores import urls

STORES = ["sqlite"]
if find_spec(urls._MEMBERS.get("postgresql", "dutchdoor.stores.postgres")):
    STORES.append("postgres")
    if "redis_url" in inspect.signature(urls.make_store).parameters:
        STORES.append("valkey")
SERVERS = [kind for kind in STORES if kind != "sqlite"]
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
