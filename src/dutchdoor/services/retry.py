"""Races: a verb reads, decides and commits. If another call committed in between, it does all of it again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from functools import wraps
from typing import Any, Final, ParamSpec, TypeVar

from dutchdoor.errors import Conflict, Unavailable

__all__ = ["ENDINGS", "RACES", "retried"]

RACES: Final = 8
"""Times a verb is tried. Each lost race is another call's progress, so more is contention, not luck."""
ENDINGS: Final = 64
"""Times a log-out is tried. One that gave up would leave a client signed in, and fifty of one account at once, of which
each has to raise its epoch, are all to end something.
"""

P = ParamSpec("P")
T = TypeVar("T")


def retried(attempts: int, doing: str) -> Callable[[Callable[P, Awaitable[T]]], Callable[P, Coroutine[Any, Any, T]]]:
    """Call a function again, from its first line, while it raises `Conflict`: nothing was written then.

    Args:
        attempts: how often at most.
        doing: what it was doing, in the reason of the `Unavailable` that ends them.
    """

    def decorate(attempt: Callable[P, Awaitable[T]]) -> Callable[P, Coroutine[Any, Any, T]]:
        @wraps(attempt)
        async def again(*args: P.args, **named: P.kwargs) -> T:
            for _ in range(attempts):
                try:
                    return await attempt(*args, **named)
                except Conflict:
                    continue
            raise Unavailable(f"{doing} kept losing races")

        return again

    return decorate
