"""Stamps: the time and a MAC of it, for one purpose and one session. Nothing is stored for them.

All nodes derive the same keys from the master keys, so any node takes what another has made. The MAC covers the purpose
and the session: what was made for one never passes for another. A stamp is no secret, and proves no caller alone.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from typing import Final, Literal

from dutchdoor.errors import InvalidToken
from dutchdoor.model.ids import decode, encode
from dutchdoor.model.master_key import MasterKeys

__all__ = ["Purpose", "Stamps"]

Purpose = Literal["register", "refresh", "cookie", "doubt"]
"""A challenge for a registration, one for a refresh, and the bound cookie (`model/device_binding.py`); and a challenge
for the key of a browser whose session is in doubt (`services/lifting.py`)."""

_TIME_BYTES, _MAC_BYTES = 5, 16
_CHARS: Final = 28


class Stamps:
    """Makes and reads stamps.

    Args:
        master: the master keys. What older ones made is read, too: while they are exchanged, a node that knows the new
            one meets what others have made.
        issuer: returns the name of this server. A test server that has the master key of another one makes nothing that
            the other takes.
    """

    def __init__(self, master: MasterKeys, issuer: Callable[[], str]) -> None:
        self._keys, self._issuer = [key.derive("device binding") for key in master], issuer

    def made(self, purpose: Purpose, session_id: str, at: float) -> str:
        """Return a stamp: 28 characters of base64url."""
        time = int(at).to_bytes(_TIME_BYTES, "big")
        return encode(time + self._mac(self._keys[0], purpose, session_id, time))

    def time_of(self, text: str, purpose: Purpose, session_id: str) -> float | None:
        """Return when a stamp was made for a purpose and a session; None if it was not."""
        if len(text) != _CHARS:
            return None
        try:
            raw = decode(text)
        except InvalidToken:
            return None
        time, mac = raw[:_TIME_BYTES], raw[_TIME_BYTES:]
        for key in self._keys:
            if hmac.compare_digest(mac, self._mac(key, purpose, session_id, time)):
                return int.from_bytes(time, "big")
        return None

    def _mac(self, key: bytes, purpose: Purpose, session_id: str, time: bytes) -> bytes:
        return hmac.digest(key, f"{purpose} {session_id} {self._issuer()} ".encode() + time, "sha256")[:_MAC_BYTES]
