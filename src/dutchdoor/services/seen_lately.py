"""What this process saw of each session lately: an unchanged sighting costs a look into memory, and nothing else.

The key is what the request carried as it came: the address of the connection, the forwarding headers and the
User-Agent. Nothing is parsed, and a client that changes one of them is looked at again. So is one whose headers are
longer than those of any browser: remembered as they came, those of a few accounts would fill the memory.
"""

from __future__ import annotations

from typing import Final, TypeAlias

from dutchdoor.model.sightings import AGAIN_AFTER

__all__ = ["CARRIED_AT_MOST", "GENERATION", "Carried", "SeenLately"]

Carried: TypeAlias = tuple[bytes | str | None, ...]
"""What a request carried of its client, as it came."""

GENERATION: Final = 4096
"""Sessions in each of two generations, at about 500 bytes each, as in `jose/token_cache.py`."""
AT_MOST: Final = 4
"""Clients of one session that are remembered besides the newest."""
CARRIED_AT_MOST: Final = 1024
"""Characters of what is remembered of a request. Browsers carry some 200, with two proxies in front."""


class _Seen:
    __slots__ = ("before", "carried", "used_at")

    def __init__(self, carried: Carried, now: float) -> None:
        self.carried, self.used_at = carried, now
        self.before: dict[Carried, float] = {}


class SeenLately:
    """A bounded memory, for one process and any number of threads."""

    __slots__ = ("_old", "_young")

    def __init__(self) -> None:
        self._young: dict[str, _Seen] = {}
        self._old: dict[str, _Seen] = {}

    def is_same(self, id: str, carried: Carried, now: float) -> bool:
        """Return whether a session is used as it was used last, or as it was looked at within the minute."""
        held = self._young.get(id) or self._old.get(id)
        if held is None:
            return False
        if held.carried == carried:
            held.used_at = now
            return True
        at = held.before.get(carried)
        return at is not None and 0 <= now - at < AGAIN_AFTER

    def used_at(self, id: str) -> float:
        """Return when a session was last used as it was used before; 0 if this process does not know."""
        held = self._young.get(id) or self._old.get(id)
        return 0.0 if held is None else held.used_at

    def keep(self, id: str, carried: Carried, now: float) -> None:
        """Remember a use that was looked at, unless its request carried too much."""
        if sum(len(each) for each in carried if each is not None) > CARRIED_AT_MOST:
            return
        held = self._young.get(id) or self._old.get(id)
        fresh = _Seen(carried, now)
        if held is not None:
            kept = {**held.before, held.carried: now, carried: now}
            fresh.before = dict(list(kept.items())[-AT_MOST:])
        if len(self._young) >= GENERATION:
            self._young, self._old = {}, self._young
        self._young[id] = fresh
