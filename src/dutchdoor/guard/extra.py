"""The error for a package that is not installed: it names the extra that brings it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["extra"]


@contextmanager
def extra(name: str) -> Iterator[None]:
    """Import what an adapter needs inside this. Raises `ImportError` that names the extra for a missing package."""
    try:
        yield
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("dutchdoor"):
            raise
        text = f"dutchdoor.{name} needs {error.name}, which is not installed: pip install 'dutchdoor[{name}]'"
        raise ImportError(text, name=error.name) from error
