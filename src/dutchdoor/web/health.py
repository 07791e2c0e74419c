"""The state of this server: the reasons of responses with 503, and readiness.

Any client can cause both, as often as it likes (denial of service). So the same reason is logged once a second, and one
check of the store answers all probes of a second.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Sequence
from typing import Final

from dutchdoor.errors import Unavailable
from dutchdoor.model.service_credentials import RegisteredClient
from dutchdoor.services.hooks import notify
from dutchdoor.services.sessions import Authority

__all__ = ["SOURCES", "Outages", "Readiness"]

LOG_EVERY: Final = 1.0
"""Seconds between two log lines with the same reason."""
REASONS_AT_MOST: Final = 64
LOOK_EVERY: Final = 1.0
"""Seconds for which one check of the store answers all probes."""
LOOK_FOR: Final = 1.5
"""Seconds in which the store must answer: less than the 2 or 3 for which probes wait."""

_SOURCES: Final = {"sqlite": "sqlite", "postgres": "postgres", "redis": "redis", "mail not sent": "mail"}
_OTHER: Final = "other"
SOURCES: Final = (*_SOURCES.values(), _OTHER)
"""What a response with 503 may be counted for."""

_log = logging.getLogger("dutchdoor")


class Outages:
    """What was out of reach when requests were refused with 503."""

    def __init__(self, now: Callable[[], float], listeners: Sequence[Callable[[str], None]]) -> None:
        self._now, self._listeners = now, listeners
        self._logged: dict[str, tuple[float, int]] = {}

    def note(self, error: Unavailable) -> None:
        # The message of a server or a driver may have several lines, but a log event is one line.
        reason = "".join(c if c.isprintable() else " " for c in error.reason) or type(error).__name__
        notify(self._listeners, _SOURCES.get(reason.partition(":")[0], _OTHER))
        now = self._now()
        at, unlogged = self._logged.get(reason, (-math.inf, 0))
        if now - at < LOG_EVERY:
            self._logged[reason] = at, unlogged + 1
            return
        if len(self._logged) >= REASONS_AT_MOST:
            self._logged = {each: kept for each, kept in self._logged.items() if now - kept[0] < LOG_EVERY}
            if len(self._logged) >= REASONS_AT_MOST:
                return
        self._logged[reason] = now, 0
        more = f" (and {unlogged} more times since it was last logged)" if unlogged else ""
        _log.error("requests are refused with 503: %s%s", reason, more)


class Readiness:
    """Whether a key signs and the store can be read and written, and whether another node may stop now."""

    def __init__(self, authority: Authority) -> None:
        self._authority = authority
        self._look: asyncio.Task[None] | None = None
        self._began = self._not_before = -math.inf

    def hold(self, seconds: float) -> None:
        """Report this node as not ready for `seconds`, until the proxy in front has noticed that it is back."""
        self._not_before = self._authority.fencing.now() + seconds

    def handing_over(self) -> bool:
        """Whether this node serves, but the proxy in front may not have noticed yet that it started, or stops."""
        return self._authority.fencing.now() < self._not_before

    async def check(self) -> None:
        """Check the store, at most once a second. Raises `Unavailable`."""
        now = self._authority.fencing.now()
        if self._look is None or (self._look.done() and now - self._began >= LOOK_EVERY):
            self._look, self._began = asyncio.create_task(self._look_at_the_store()), now
        done, _ = await asyncio.wait([self._look], timeout=max(0.0, self._began + LOOK_FOR - now))
        if not done:
            raise Unavailable(f"the store has not answered a readiness probe within {LOOK_FOR} s")
        error = self._look.exception()
        if error is not None:
            # A new exception for each probe: raising the same one again would make its traceback longer each time.
            raise Unavailable(error.reason if isinstance(error, Unavailable) else f"readiness: {type(error).__name__}")

    async def _look_at_the_store(self) -> None:
        authority = self._authority
        await authority.jwks()  # reads the keys if that is due
        if not authority.can_sign():
            raise Unavailable("no key signs")
        await authority.store.select(RegisteredClient, limit=1)
        await authority.store.try_writing(authority.clock())
