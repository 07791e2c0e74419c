"""Reports: from which networks tokens are used at a service that only verifies, for the authority to compare.

A token is reported when it is seen for the first time, and when its network changes. The reports wait for the next
poll, bounded: what does not fit is dropped. A report carries the token itself, so that a verifier can report nothing of
a token that it was not given.
"""

from __future__ import annotations

from threading import Lock
from typing import Final

from dutchdoor.model.sightings import coarse_network
from dutchdoor.revocation.messages import SEEN_AT_MOST, Seen

__all__ = ["Reports"]

GENERATION: Final = 5000
"""Tokens in each of two generations, as in `jose/token_cache.py`."""
WAITING_AT_MOST: Final = 64
BYTES_AT_ONCE: Final = 12_000
"""Bytes of tokens in one poll: the authority bounds a poll's body."""


class Reports:
    """What waits to be reported, for one process and any number of threads."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._young: dict[str, str] = {}
        self._old: dict[str, str] = {}
        self._waiting: dict[str, Seen] = {}

    def see(self, token_id: str, token: str, address: str) -> None:
        """Note that a valid `token` with this `jti` came from an address."""
        network = coarse_network(address)
        if not network or (self._young.get(token_id) or self._old.get(token_id)) == network:
            return
        with self._lock:
            if len(self._young) >= GENERATION:
                self._young, self._old = {}, self._young
            self._young[token_id] = network
            if len(self._waiting) < WAITING_AT_MOST and len(token) <= BYTES_AT_ONCE:
                self._waiting[token_id] = Seen(token, network)

    def take(self) -> tuple[Seen, ...]:
        """Return what the next poll reports, once."""
        if not self._waiting:
            return ()
        taken: list[Seen] = []
        room = BYTES_AT_ONCE
        with self._lock:
            for token_id in [*self._waiting][:SEEN_AT_MOST]:
                room -= len(self._waiting[token_id].token)
                if room < 0:
                    break
                taken.append(self._waiting.pop(token_id))
        return tuple(taken)
