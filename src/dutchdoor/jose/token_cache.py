"""Tokens that were verified a moment ago, so that the next request with one of them costs a hash instead of a
signature.

Only exact tokens that verified are in it: an attacker's garbage finds nothing here and leaves nothing behind. It is
keyed by SHA-256 of the token, so that equality is exact, and no bearer token lies in memory longer than its request.
A hit is judged like a first sight: by the time, and by whether the keys are still the same. Revocation is judged by
the caller, at every call.

It has two generations. What is used moves to the young one; when that is full or five minutes old, the old one is
forgotten and the young one grows old. So what expired or is no longer used leaves by itself, in one step and without a
search, and a flood of fresh tokens cannot push out one that is in use.

Deliberately left out: caching of refusals (unbounded, and a token refused now may be valid in a second), and revocation
by a token's digest (an ECDSA signature can be altered and still hold, so a token has more than one spelling).
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
"""Seconds after which a generation grows old. An entry that nobody uses is gone after twice this."""
MIN_ENTRIES: Final = 2
MAX_ENTRIES: Final = 10_000_000

_Known: TypeAlias = tuple[Claims, Principal]
"""What a token says, and who its bearer is: made once."""

_new_hash = hashlib.sha256().copy  # cheaper than making one


class TokenCache:
    """A verifier with a memory. Safe to share between threads.

    Args:
        verify: what verifies a token seen for the first time.
        entries: how many tokens at most, at about 1 kB each.
    """

    __slots__ = ("_grows_old_at", "_half", "_held", "_leeway", "_lock", "_verify")

    def __init__(self, verify: AccessTokenVerifier, *, entries: int = 10_000) -> None:
        """Raises `Misconfigured` for a number of entries that is no bound."""
        if not MIN_ENTRIES <= entries <= MAX_ENTRIES:
            raise Misconfigured("A cache of verified tokens has 2 to 10,000,000 entries.")
        self._verify, self._leeway, self._half = verify, verify.leeway, entries // 2
        self._lock, self._grows_old_at = Lock(), 0.0
        young: dict[bytes, _Known] = {}
        old: dict[bytes, _Known] = {}
        # Replaced as a whole, so that a reader sees keys and what they verified together.
        self._held = (verify.keys, young, old)

    def recognise(self, token: str | bytes, now: float) -> _Known:
        """Verify a token, or recognise it, and give its claims and whom it speaks for. Whether they have been revoked
        is for the caller to judge, at every call.

        Raises:
            InvalidToken: as the verifier.
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
        """In the child of a fork, where nobody is left who could let go of the old one."""
        self._lock = Lock()

    def _elsewhere(self, token: str | bytes, name: bytes, now: float) -> _Known:
        """Find a token in the old generation, or verify it; then keep it in the young one."""
        keys = self._verify.keys  # read before verifying: what older keys verified never gets among what these did
        held_keys, _, old = self._held
        known = old.get(name) if held_keys is keys else None
        if known is None or now >= known[0].exp + self._leeway:
            claims = self._verify.verify(token, now)
            # These two are equal in every entry. Sharing them saves an eighth of its size.
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
