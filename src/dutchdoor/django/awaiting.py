"""Waiting for the engine in a coroutine of Django."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, TypeVar

from asgiref.sync import sync_to_async

from dutchdoor.guard.threads import SyncGate
from dutchdoor.services.calling import HOST

__all__ = ["awaited"]

T = TypeVar("T")


async def awaited(gate: SyncGate, work: Coroutine[Any, Any, T]) -> T:
    """Run `work` in the engine's thread, and await it here. What it calls of Django runs in the thread that this
    request has for that, with its transaction.
    """
    loop, is_over = asyncio.get_running_loop(), False

    def host(function: Callable[[], Any]) -> Awaitable[Any] | None:
        if is_over:
            return None
        return asyncio.wrap_future(asyncio.run_coroutine_threadsafe(sync_to_async(function)(), loop))

    token = HOST.set(host)
    try:
        waiting = gate.begin(work)
    finally:
        HOST.reset(token)
    try:
        return await asyncio.wrap_future(waiting)
    finally:
        is_over = True
