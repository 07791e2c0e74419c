"""The key ring: which of our keys signs, which keys still verify, and when the next key is due.

A key's state follows only from its times, so that all processes that read the same rows agree:

    upcoming   published, so that every cached key set learns it, but signs nothing yet
    signing    signs; the newest one where two could
    verifying  signs no more; tokens it signed are still accepted
    retired    neither; its tokens have all expired
    revoked    by an administrator: no token it signed is accepted, whatever its `exp` says

Kids are never reused. Private parts are sealed with a master key that lives outside the database.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Literal

from msgspec import Struct
from msgspec.structs import replace

from dutchdoor.errors import InvalidKey, Misconfigured
from dutchdoor.jose.jwk import Key
from dutchdoor.model.master_key import MasterKeys
from dutchdoor.model.policy import CLOCK_SLACK, LONGEST_ACCESS, Policy

__all__ = ["KeyRing", "KeyState", "StoredKey", "new_key", "revoked", "state_of", "waiting", "with_states"]

KeyState = Literal["upcoming", "signing", "verifying", "retired", "revoked"]


class StoredKey(Struct, frozen=True, kw_only=True):
    """A key as stored. `number` counts up from 1 and is unique, so that only one of two processes that rotate at once
    wins.
    """

    kid: str
    number: int
    alg: str
    sealed: bytes
    """The private part, sealed under the kid."""
    created_at: float
    signs_at: float
    signs_until: float
    verifies_until: float
    revoked_at: float | None = None
    exported_at: float | None = None
    """When a symmetric key was given to a verifier. The holder can issue tokens for any account, so our own API no
    longer accepts the key.
    """
    revision: int = 0

    def __repr__(self) -> str:
        return f"StoredKey(kid={self.kid!r}, alg={self.alg!r})"


def state_of(key: StoredKey, now: float) -> KeyState:
    if key.revoked_at is not None:
        return "revoked"
    if now < key.signs_at:
        return "upcoming"
    if now < key.signs_until:
        return "signing"
    return "verifying" if now < key.verifies_until else "retired"


def with_states(keys: Sequence[StoredKey], now: float) -> list[tuple[StoredKey, KeyState]]:
    """Return the keys, oldest first, each with its state. If several keys of one algorithm may sign, the newest signs
    and the others only verify.
    """
    signing = {key.alg: key.kid for key in keys if state_of(key, now) == "signing"}
    return [
        (key, "verifying" if state_of(key, now) == "signing" and signing[key.alg] != key.kid else state_of(key, now))
        for key in keys
    ]


def waiting(keys: Iterable[StoredKey], alg: str, now: float) -> StoredKey | None:
    """Return the key of an algorithm that is published and does not sign yet, or None."""
    return next((row for row in keys if row.alg == alg and state_of(row, now) == "upcoming"), None)


def new_key(key: Key, master: MasterKeys, *, number: int, signs_at: float, now: float, policy: Policy) -> StoredKey:
    """Seal a new private key into a row that begins to sign at `signs_at`."""
    signs_until = signs_at + policy.key_sign_for
    return StoredKey(
        kid=key.kid,
        number=number,
        alg=key.alg,
        sealed=master.current.seal(key.private_bytes(), key.kid),
        created_at=now,
        signs_at=signs_at,
        signs_until=signs_until,
        verifies_until=signs_until + LONGEST_ACCESS + CLOCK_SLACK,
    )


def revoked(key: StoredKey, now: float) -> StoredKey:
    return replace(key, revoked_at=now)


class KeyRing:
    """Our keys at one moment, private parts opened once, when they are loaded. Immutable: a change is a new ring."""

    def __init__(self, rows: Iterable[StoredKey], master: MasterKeys, *, now: float = -math.inf) -> None:
        """Raises `InvalidKey` when a row that is of use from `now` on does not open with the configured master keys.

        Other rows may stay sealed: a leaked master key is removed once everything it sealed has retired.
        """
        self.rows = tuple(sorted(rows, key=lambda row: row.number))
        self._keys: dict[str, Key] = {}
        for row in self.rows:
            try:
                private = master.open(row.sealed, row.kid)
            except InvalidKey:
                if state_of(row, now) in {"retired", "revoked"}:
                    continue
                raise
            self._keys[row.kid] = Key.from_private_bytes(row.alg, private, kid=row.kid)
        self._public = {kid: key.public() for kid, key in self._keys.items()}

    def signing(self, now: float, alg: str) -> Key:
        """Return the key of an algorithm that signs now: the newest that may sign. Raises `Misconfigured` if there is
        none.
        """
        for row in reversed(self.rows):
            if row.alg == alg and state_of(row, now) == "signing" and row.kid in self._keys:
                return self._keys[row.kid]
        raise Misconfigured("No key signs at this time: the ring was not rotated.")

    def published(self, now: float) -> list[Key]:
        """The public key set (RFC 7517): every key that signs, will sign or may still verify.

        Upcoming keys are included, also for our own checks: a process that read the rows early then already has the
        key.
        """
        shown = {"upcoming", "signing", "verifying"}
        # A key that had retired when the ring was loaded stays sealed, even if the clock steps back.
        return [self._public[row.kid] for row in self.rows if state_of(row, now) in shown and row.kid in self._public]

    def own(self, now: float, *, symmetric: bool) -> list[Key]:
        """The keys of one kind that our own API accepts.

        A secret that was given to a verifier is not among them: that verifier could issue an administrator's token.
        """
        handed_out = {row.kid for row in self.rows if row.exported_at is not None}
        return [key for key in self.published(now) if key.symmetric == symmetric and key.kid not in handed_out]

    def due(self, now: float, policy: Policy, alg: str) -> float | None:
        """Return when the next key of an algorithm must begin to sign, or None while it is too early to create that
        key.

        A first key, and the successor of a revoked key, signs at once by every node's clock: no user can sign in before
        it does. Any other key is published for `key_publish_for` before it signs. A policy with a shorter
        `key_sign_for` than the present key was created with replaces that key as early as the policy says.
        """
        able = [row for row in self.rows if row.alg == alg and state_of(row, now) in {"upcoming", "signing"}]
        if not any(state_of(row, now) == "signing" for row in able):
            return now - CLOCK_SLACK
        ends = max(row.signs_until for row in able) - policy.access_for
        due = min(ends, max(row.signs_at for row in able) + policy.key_sign_for - policy.access_for)
        return None if now < due - policy.key_publish_for else min(ends, max(due, now + policy.key_publish_for))

    @property
    def next_number(self) -> int:
        return self.rows[-1].number + 1 if self.rows else 1
