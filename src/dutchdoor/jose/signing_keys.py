"""The key ring: which of our keys signs, which still verify, and when the next one is due.

A key's state follows from its times and from nothing else, so that every process that reads the same rows agrees:

    upcoming   published, so that every cached key set learns it, but signs nothing yet
    signing    signs; the newest one where two could
    verifying  signs no more; tokens it signed are still accepted
    retired    neither; its tokens have all expired
    revoked    killed by hand: nothing it signed is accepted, whatever its `exp` says

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
from dutchdoor.model.policy import LONGEST_ACCESS, Policy

__all__ = ["CLOCK_SLACK", "KeyRing", "KeyState", "StoredKey", "new_key", "revoked", "state_of", "with_states"]

KeyState = Literal["upcoming", "signing", "verifying", "retired", "revoked"]

CLOCK_SLACK = 300.0
"""Seconds by which verifiers' clocks may be off: a key verifies this much longer than its last token lives."""


class StoredKey(Struct, frozen=True, kw_only=True):
    """A key as stored. `number` counts up from 1 and is unique, so that of two processes that rotate at once one
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
    """When a symmetric key was handed to a verifier: whoever holds it can mint anyone, so our own API accepts it no
    more.
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
    """Give keys, the oldest first, with the state of each among all of them: of several of one algorithm whose time it
    is, the newest signs, and the others only verify.
    """
    signing = {key.alg: key.kid for key in keys if state_of(key, now) == "signing"}
    return [
        (key, "verifying" if state_of(key, now) == "signing" and signing[key.alg] != key.kid else state_of(key, now))
        for key in keys
    ]


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
    """Our keys at one moment: private parts opened once, at loading. Immutable; a change is a new ring."""

    def __init__(self, rows: Iterable[StoredKey], master: MasterKeys, *, now: float = -math.inf) -> None:
        """Raises `InvalidKey` when a row that is of use from `now` on does not open with the configured master keys.

        Others may stay closed: a master key that leaked is dropped once everything it sealed is dead.
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
        """Give the key of an algorithm that signs now: the newest of those whose time it is. Raises `Misconfigured` if
        there is none.
        """
        for row in reversed(self.rows):
            if row.alg == alg and state_of(row, now) == "signing" and row.kid in self._keys:
                return self._keys[row.kid]
        raise Misconfigured("No key signs at this time: the ring was not rotated.")

    def published(self, now: float) -> list[Key]:
        """The public face (RFC 7517): every key that signs, will sign or may still verify.

        Upcoming ones too, and for our own checks as well: a process that read the rows before a key's time has it then.
        """
        shown = {"upcoming", "signing", "verifying"}
        # One that was too old to be opened, and is young again because the clock stepped back, stays closed.
        return [self._public[row.kid] for row in self.rows if state_of(row, now) in shown and row.kid in self._public]

    def own(self, now: float, *, symmetric: bool) -> list[Key]:
        """The keys that our own API accepts, of one kind.

        A secret that was handed to a verifier is not among them: whoever verifies with it could mint an administrator.
        """
        handed_out = {row.kid for row in self.rows if row.exported_at is not None}
        return [key for key in self.published(now) if key.symmetric == symmetric and key.kid not in handed_out]

    def due(self, now: float, policy: Policy, alg: str) -> float | None:
        """Tell when the next key of an algorithm must begin to sign, if it is time to make it; None while it is not.

        A first key, and one that follows a revoked one, begins at once, by every clock there is: nobody can sign in
        before it does, and a key that is only upcoming is of no use until then.
        """
        able = [row for row in self.rows if row.alg == alg and state_of(row, now) in {"upcoming", "signing"}]
        if not any(state_of(row, now) == "signing" for row in able):
            return now - CLOCK_SLACK
        last = max(row.signs_until for row in able)
        return last - policy.access_for if now >= last - policy.key_publish_for else None

    @property
    def next_number(self) -> int:
        return self.rows[-1].number + 1 if self.rows else 1
