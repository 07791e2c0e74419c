"""A cache of verified tokens: the next request with the same token costs a hash instead of a signature check.

The cache holds only tokens that were valid: an attacker's garbage finds no entry and leaves none. Its key is the
SHA-256 of the token, so that only the exact token matches and no bearer token stays in memory after its request. At a
hit, the times are checked again, and the keys must be the same. The caller checks revocation, at every call.

The cache has two generations. An entry that is used moves to the young generation. When the young generation is full or
five minutes old, the old one is dropped and the young one becomes the old one. So expired and unused entries leave in
one step, without a search, and a flood of new tokens cannot push out a token that is in use.

Deliberately left out: caching of refusals (unbounded, and a token refused now may be valid in a second), and revocation
by a token's digest (an ECDSA signature can be altered and stay valid, so a token has more than one spelling).
"""

from __future__ import annotations

import hashlib
from threading import Lock
from typing import Final, TypeAlias

from msgspec.structs import force_setattr

from dutchdoor.errors import InvalidToken, Misconfigured
from dutchdoor.jose.access_token import AccessTokenVerifier
from dutchdoor.jose.claims import MAX_TOKEN, Claims, principal_of
from dutchdoor.model.principal import Principal

__all__ = ["GENERATION_FOR", "TokenCache"]

GENERATION_FOR: Final = 300.0
"""Seconds after which the young generation becomes the old one. An unused entry is gone after twice this time."""
MIN_ENTRIES: Final = 2
MAX_ENTRIES: Final = 10_000_000

_Known: TypeAlias = tuple[Claims, Principal]
"""A token's claims, and its bearer's principal, built once."""

_new_hash = hashlib.sha256().copy  # cheaper than making one


class TokenCache:
    """A verifier with a cache. Safe to share between threads.

    Args:
        verify: verifies a token that is not in the cache.
        entries: how many tokens at most, at about 1 kB each.
    """

    __slots__ = ("_grows_old_at", "_half", "_held", "_leeway", "_lock", "_verify")

    def __init__(self, verify: AccessTokenVerifier, *, entries: int = 10_000) -> None:
        """Raises `Misconfigured` unless `entries` is 2 to 10,000,000."""
        if not MIN_ENTRIES <= entries <= MAX_ENTRIES:
            raise Misconfigured("A cache of verified tokens has 2 to 10,000,000 entries.")
        self._verify, self._leeway, self._half = verify, verify.leeway, entries // 2
        self._lock, self._grows_old_at = Lock(), 0.0
        young: dict[bytes, _Known] = {}
        old: dict[bytes, _Known] = {}
        # Replaced as a whole, so that a reader never sees keys together with tokens that other keys verified.
        self._held = (verify.keys, young, old)

    def recognise(self, token: str | bytes, now: float) -> _Known:
        """Verify a token, or find it in the cache, and return its claims and principal. The caller checks revocation,
        at every call.

        Raises:
            InvalidToken: as for the verifier.
        """
        try:
            if len(token) > MAX_TOKEN:
                raise InvalidToken("longer than any token")
            digest = _new_hash()
            digest.update(token.encode() if type(token) is str else token)  # type: ignore[arg-type]
            name = digest.digest()
        except (AttributeError, TypeError, ValueError):
            raise InvalidToken("a token is text") from None
        keys, young, _ = self._held
        known = young.get(name)
        if known is None or now >= known[0].exp + self._leeway or self._verify.keys is not keys:
            return self._elsewhere(token, name, now)
        return known

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._held = (self._verify.keys, {}, {})

    def __len__(self) -> int:
        _, young, old = self._held
        return len(young) + len(old)

    def renew_lock(self) -> None:
        """After a fork, the child needs a new lock: the thread that held the old one does not exist there."""
        self._lock = Lock()

    def _elsewhere(self, token: str | bytes, name: bytes, now: float) -> _Known:
        """Find a token in the old generation, or verify it; then keep it in the young one."""
        keys = self._verify.keys  # read first: a token that older keys verified never joins those of newer keys
        held_keys, _, old = self._held
        known = old.get(name) if held_keys is keys else None
        if known is None or now >= known[0].exp + self._leeway:
            claims = self._verify.verify(token, now)
            # These two are equal in all entries. Sharing them saves an eighth of an entry's size.
            force_setattr(claims, "iss", self._verify.issuer)
            if type(claims.aud) is str:
                force_setattr(claims, "aud", self._verify.audience.get(claims.aud, claims.aud))
            known = claims, principal_of(claims)
        with self._lock:
            held_keys, young, old = self._held
            if held_keys is not keys:
                young, old = {}, {}
            elif len(young) >= self._half or now >= self._grows_old_at:
                young, old = {}, young
            if not young:
                self._grows_old_at = now + GENERATION_FOR
                if self._verify.keys is keys:
                    self._held = (keys, young, old)
            young[name] = known
        return known
