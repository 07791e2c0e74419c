"""A streamed response ends with the session that asked for it."""

from __future__ import annotations

import asyncio
import errno
import functools
from collections.abc import AsyncIterable, AsyncIterator
from typing import Any

from django.http import HttpResponseBase

from dutchdoor.django.visit import Visit
from dutchdoor.errors import DutchdoorError
from dutchdoor.guard.asgi_connections import LOOKS_EVERY
from dutchdoor.guard.gates import Known
from dutchdoor.guard.wsgi import while_valid

__all__ = ["ends_with_session"]


def ends_with_session(visit: Visit, response: HttpResponseBase) -> HttpResponseBase:
    """Check the proof before each piece of a stream."""
    known = visit.seen
    stream: Any = response
    if known is None or not stream.streaming:
        return response
    is_bounded = "Content-Length" in response
    pieces = stream.streaming_content
    if stream.is_async:
        stream.streaming_content = _awhile_valid(pieces, visit, known, is_bounded=is_bounded)
    else:
        stream.streaming_content = while_valid(
            pieces, functools.partial(visit.gate.check, known), is_bounded=is_bounded
        )
    return response


async def _awhile_valid(
    pieces: AsyncIterable[bytes], visit: Visit, known: Known, *, is_bounded: bool
) -> AsyncIterator[bytes]:
    """Do what `while_valid` does. A stream without pieces ends, too."""
    coming = aiter(pieces)
    try:
        while True:
            piece = asyncio.ensure_future(anext(coming))
            try:
                while True:
                    done, _ = await asyncio.wait({piece}, timeout=LOOKS_EVERY)
                    if not await _holds(visit, known):
                        if is_bounded:
                            raise BrokenPipeError(errno.EPIPE, "the session has ended")
                        return
                    if done:
                        break
                yield piece.result()
            except StopAsyncIteration:
                return
            finally:
                piece.cancel()
    finally:
        close = getattr(coming, "aclose", None)
        if close is not None:
            await close()


async def _holds(visit: Visit, known: Known) -> bool:
    gate = visit.gate.gate
    try:
        if not gate.check_at_once(known):
            await visit.arun(gate.check(known))
    except DutchdoorError:
        return False
    return True
