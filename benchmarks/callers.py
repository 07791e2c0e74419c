"""Callers that each wait for their answer before they ask again. Standard library only: the peers use it as well."""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

Operation = Callable[[int], Awaitable[object]]
"""One call of the caller with this number."""


async def at_once(operation: Operation, callers: int, seconds: float) -> dict[str, float]:
    """Let so many callers call for so long. Gives calls a second, and their latencies in milliseconds."""
    latencies: list[float] = []
    begun = time.perf_counter()
    until = begun + seconds

    async def caller(number: int) -> None:
        now = time.perf_counter()
        while now < until:
            await operation(number)
            then, now = now, time.perf_counter()
            latencies.append(now - then)

    await asyncio.gather(*(caller(number) for number in range(callers)))
    lasted = time.perf_counter() - begun
    latencies.sort()
    return {
        "rate": len(latencies) / lasted,
        "p50": latencies[len(latencies) // 2] * 1000,
        "p99": latencies[int(len(latencies) * 0.99)] * 1000,
    }


async def measured(
    operations: dict[str, Operation], callers: tuple[int, ...], seconds: float
) -> dict[str, dict[str, float]]:
    """Measure each operation with each number of callers, after a little of each that does not count."""
    found = {}
    for name, operation in operations.items():
        await at_once(operation, max(callers), seconds / 5)
        for count in callers:
            found[f"{name} {count}"] = await at_once(operation, count, seconds)
    return found


def asked() -> tuple[str, list[bytes], tuple[int, ...], float]:
    """Read what a worker was started with: a URL, a file of ids, numbers of callers, and seconds."""
    url, ids, callers, seconds = sys.argv[-4:]
    known = [bytes.fromhex(line) for line in Path(ids).read_text().split()]
    return url, known, tuple(map(int, callers.split(","))), float(seconds)


def tell(found: object) -> None:
    print(json.dumps(found))
