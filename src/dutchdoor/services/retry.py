"""Races: a verb reads, decides and commits. If another call committed in between, it does all of it again."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine
from functools import wraps
from typing import Any, Final, ParamSpec, TypeVar

from dutchdoor.errors import Conflict, Unavailable

__all__ = ["ENDINGS", "RACES", "retried"]

RACES: Final = 8
"""How often a verb is tried. Each lost race is another call's progress, so more losses mean contention, not bad luck.
"""
ENDINGS: Final = 64
"""How often a log-out is tried. If it gave up, a client would stay signed in. Fifty log-outs of one account at once,
each of which raises its epoch, must all succeed.
"""

P = ParamSpec("P")
T = TypeVar("T")


def retried(attempts: int, doing: str) -> Callable[[Callable[P, Awaitable[T]]], Callable[P, Coroutine[Any, Any, T]]]:
    """Call a function again, from its first line, while it raises `Conflict`: nothing was written in that case.

    Args:
        attempts: how often at most.
        doing: what the verb was doing, for the message of the `Unavailable` that is raised in the end.
    """

    def decorate(attempt: Callable[P, Awaitable[T]]) -> Callable[P, Coroutine[Any, Any, T]]:
        @wraps(attempt)
        async def again(*args: P.args, **named: P.kwargs) -> T:
            for _ in range(attempts):
                try:
                    return await attempt(*args, **named)
                except Conflict:
                    continue
            raise Unavailable(f"{doing} lost too many races: other requests changed the same records")

        return again

    return decorate
