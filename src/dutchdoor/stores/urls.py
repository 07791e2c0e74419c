"""From a URL to a store: the one line that a new place to keep things adds here.

memory:                    gone when the process ends: for trying out and for tests
sqlite:///dutchdoor.db     a file beside the working directory
sqlite:////srv/door.db     a file with an absolute path: four slashes, the spelling other Python libraries use
"""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module

from dutchdoor.errors import Misconfigured
from dutchdoor.store import Store

__all__ = ["open_store"]

# By name and not by import: a store whose driver is not installed must cost nothing to those who do not use it.
_MEMBERS = {
    "memory": "dutchdoor.stores.memory",
    "sqlite": "dutchdoor.stores.sqlite",
}


async def open_store(url: str) -> Store:
    """Make the store a URL names, and open it.

    Raises:
        Misconfigured: no such scheme, a URL it cannot read, or a database it must not touch.
        Unavailable: the place is out of reach.
    """
    scheme, colon, _ = url.partition(":")
    if not colon or scheme not in _MEMBERS:
        # The URL itself may hold a password: only what stands before the first colon is repeated, and not all of that.
        raise Misconfigured(f"no store for the scheme {scheme[:20]!r}; there are {', '.join(sorted(_MEMBERS))}")
    from_url: Callable[[str], Store] = import_module(_MEMBERS[scheme]).from_url
    store = from_url(url)
    await store.open()
    return store
