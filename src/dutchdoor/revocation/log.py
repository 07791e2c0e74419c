"""The revocation log: what has ended before its time, in the order it was committed.

Whoever holds the entries needs no look-up to refuse a token that was revoked. Epochs are counters, not clocks: a token
that carries a lower epoch than an entry asks for was issued before the change, a token that does not was issued after,
however close together the two were.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Literal, NamedTuple

from msgspec import Struct

__all__ = ["Kind", "Named", "Revocation", "RevocationLog"]

Kind = Literal["session", "subject", "token", "client", "key"]


class Revocation(Struct, frozen=True, kw_only=True):
    """One entry. `seq` is given by the store: dense and in the order of commits; 0 before that."""

    kind: Kind
    id: str
    """A session id, a subject, a `jti`, a client id, or a `kid`."""
    min_epoch: int = 0
    """For subjects and clients: tokens with a lower epoch are covered."""
    expires_at: float
    """When the last token it covers has expired. For a key, infinity: its thief chooses `exp`."""
    seq: int = 0


FOR_EVER = math.inf


class Named(NamedTuple):
    """What a token or a session names, and an entry may cover."""

    subject: str
    epoch: int
    session_id: str | None
    token_id: str
    client_id: str
    key_id: str


class RevocationLog:
    """The live entries, in memory. One per process; entries are only ever added, and dropped when they can concern no
    token.
    """

    __slots__ = ("_dead", "_epochs", "applied_seq")

    def __init__(self) -> None:
        self.applied_seq = 0
        self._dead: dict[tuple[Kind, str], float] = {}
        self._epochs: dict[tuple[Kind, str], tuple[int, float]] = {}

    def __len__(self) -> int:
        return len(self._dead) + len(self._epochs)

    def apply(self, entries: Iterable[Revocation]) -> None:
        """Take entries in. Applying one twice changes nothing; nothing is ever un-revoked."""
        for entry in entries:
            key = entry.kind, entry.id
            if entry.kind in {"subject", "client"}:
                epoch, expires_at = self._epochs.get(key, (0, 0.0))
                self._epochs[key] = max(epoch, entry.min_epoch), max(expires_at, entry.expires_at)
            else:
                self._dead[key] = max(self._dead.get(key, 0.0), entry.expires_at)
            self.applied_seq = max(self.applied_seq, entry.seq)

    def covers(self, named: Named) -> bool:
        """Tell whether any entry covers what these names name."""
        dead, epochs = self._dead, self._epochs
        if not dead and not epochs:
            return False
        return (
            ("session", named.session_id) in dead
            or ("token", named.token_id) in dead
            or ("key", named.key_id) in dead
            or named.epoch < epochs.get(("subject", named.subject), (0, 0.0))[0]
            or epochs.get(("client", named.client_id), (0, 0.0))[0] > 0
        )

    def drop_expired(self, now: float, keep_for: float) -> None:
        """Forget entries that expired more than `keep_for` seconds ago: wall clocks differ, and one entry more costs
        nothing.
        """
        self._dead = {key: at for key, at in self._dead.items() if at + keep_for > now}
        self._epochs = {key: (epoch, at) for key, (epoch, at) in self._epochs.items() if at + keep_for > now}
