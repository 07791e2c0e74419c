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

__all__ = ["make_store"]

# By name and not by import: a store whose driver is not installed must cost nothing to those who do not use it.
_MEMBERS = {
    "memory": "dutchdoor.stores.memory",
    "sqlite": "dutchdoor.stores.sqlite",
}


def make_store(url: str) -> Store:
    """Make the store a URL names; it is opened later, by whoever uses it, in the process that uses it.

    Raises:
        Misconfigured: no such scheme, or a URL it cannot read.
    """
    scheme, colon, _ = url.partition(":")
    if not colon or scheme not in _MEMBERS:
        # The URL itself may hold a password: only what stands before the first colon is repeated, and not all of that.
        text = f"There is no store for the scheme {scheme[:20]!r}; there are {', '.join(sorted(_MEMBERS))}."
        raise Misconfigured(text, message=text)
    from_url: Callable[[str], Store] = import_module(_MEMBERS[scheme]).from_url
    return from_url(url)
