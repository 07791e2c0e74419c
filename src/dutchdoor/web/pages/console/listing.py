"""What the lists of the console share: how long a page of one is, and the way to the next page."""

from __future__ import annotations

from urllib.parse import urlencode

__all__ = ["PAGE", "next_page"]

PAGE = 100
"""Rows of one page."""


def next_page(path: str, **query: str) -> str:
    """Return the address of the next page, below the base path; "" if its cursor, the last of `query`, is empty."""
    kept = {name: value for name, value in query.items() if value}
    last = next(reversed(query))
    return f"{path}?{urlencode(kept)}" if last in kept else ""
