"""What a piece of work costs: seconds of this process's processor, in the cheapest of a few tries. A collection of
garbage, or another thread, falls on one of them and costs more than most work.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable

TRIES = 5


def cost(work: Callable[[], object]) -> float:
    """Do something a few times."""
    return min(_one(work) for _ in range(TRIES))


def _one(work: Callable[[], object]) -> float:
    before = time.process_time()
    work()
    return time.process_time() - before


async def cost_of(work: Callable[[], Awaitable[object]]) -> float:
    """Await something a few times."""
    spent = []
    for _ in range(TRIES):
        before = time.process_time()
        await work()
        spent.append(time.process_time() - before)
    return min(spent)
