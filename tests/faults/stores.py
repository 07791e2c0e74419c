"""The stores a cluster is tried on."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

STORES = ["sqlite"]


@contextlib.contextmanager
def stored(kind: str) -> Iterator[dict[str, str]]:
    """A new and empty store of a kind, as arguments of `cluster`."""
    yield {}
