"""Authentication of verifiers by key, and the limits for each key.

A poll needs no look-up: a key is cached for a minute. The removal of a key is an entry of the revocation log, like the
revocation of a session, and every node reads the log at every poll. So every node refuses a removed key, and the last
lease of the key has expired when the removal is fenced.

With a stolen key, an attacker reads hashes of revoked ids, and delays each fence by up to the maximum wait, because a
fence waits for the leases of the key. The attacker can also exhaust the limits of that key (waiting polls, polls per
second, leases), so that its service gets none: remove the key. Other keys are not affected.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from typing import Final, NamedTuple

from dutchdoor.errors import RateLimited
from dutchdoor.model.rate_limits import Limits, bucket_of
from dutchdoor.model.service_credentials import VerifierKey, VerifierSecret
from dutchdoor.revocation.lease_table import Holder
from dutchdoor.revocation.log import Named
from dutchdoor.revocation.messages import Poll
from dutchdoor.services.fencing import Fencing
from dutchdoor.services.sessions import Authority
from dutchdoor.web.http import UnknownVerifier
from dutchdoor.web.rate import LocalBuckets

__all__ = ["Followed", "Verifiers", "followed"]

REMEMBERED_FOR: Final = 60.0
"""Seconds for which a key is cached. The log keeps the entry of a removal much longer."""
HANGING_AT_MOST: Final = 3072
"""Waiting polls of one key: three quarters of the default connections of a process, so that a stolen key cannot block
users."""
PLACES_AT_MOST: Final = 16_384
"""Holders whose position in the log is kept, about 4 MB."""

_Place = tuple[int, int]


class Verifiers:
    """The cached keys and the limits of one process."""

    __slots__ = ("_authority", "_buckets", "_hanging", "_keys", "_limits", "_places")

    def __init__(self, authority: Authority, limits: Limits) -> None:
        self._authority, self._limits = authority, limits
        self._buckets = LocalBuckets()
        self._keys: dict[str, tuple[VerifierKey, float]] = {}
        self._hanging: Counter[str] = Counter()
        self._places: dict[Holder, _Place] = {}

    async def recognise(self, text: str) -> VerifierKey:
        """Return the record of this key. Raises `UnknownVerifier`, `Unavailable`."""
        secret = VerifierSecret.parse(text)
        now = self._authority.clock()
        key, read_at = self._keys.get(secret.id, (None, 0.0))
        if key is None or not 0 <= now - read_at < REMEMBERED_FOR:
            self._keys.pop(secret.id, None)
            key = await self._authority.store.get(VerifierKey, secret.id)
            if key is None:
                raise UnknownVerifier("no such key")
            self._keys[key.id] = key, now  # limited by the number of keys: unknown ids are not cached
        if not secret.matches(key.secret_hash):
            raise UnknownVerifier("a wrong secret")
        self.check_not_removed(key)
        return key

    def check_not_removed(self, key: VerifierKey) -> None:
        """Raise `UnknownVerifier` if the part of the log that this process has read contains the removal of the key."""
        if self._authority.fencing.log.covers(Named("", 0, None, "", key.id, "")):
            raise UnknownVerifier("the key was removed")

    def admit(self, poll: Poll, credential: str) -> None:
        """Count a poll that acknowledges nothing new. Raises `RateLimited`.

        A poll that acknowledges new entries is not counted: it is as rare as entries, and fences wait for it.
        """
        node = self._authority.fencing.node
        who, place = Holder(credential, poll.holder), (poll.log_epoch, poll.applied_seq)
        before = self._places.pop(who, None)
        if len(self._places) >= PLACES_AT_MOST:
            for old in list(self._places)[: PLACES_AT_MOST // 2]:
                del self._places[old]
        # A position beyond the head of this node, or in another log, is not trusted: a client can send any number.
        reached = place if poll.log_epoch == node.log_epoch and poll.applied_seq <= node.applied_seq else (0, 0)
        self._places[who] = reached if before is None else max(before, reached)
        if before is None or reached <= before:
            now = self._authority.clock()
            self._buckets.take([bucket_of(self._limits.poll_by_holder, f"{credential} {poll.holder}")], now)
            self._buckets.take([bucket_of(self._limits.ask_by_verifier_key, credential)], now)

    def count_question(self, credential: str) -> None:
        """Count an introspection by a verifier. Raises `RateLimited`."""
        self._buckets.take([bucket_of(self._limits.ask_by_verifier_key, credential)], self._authority.clock())

    @contextmanager
    def hanging(self, credential: str) -> Generator[None, None, None]:
        """Count a poll while it waits. Raises `RateLimited` if too many polls of the key wait."""
        if self._hanging[credential] >= HANGING_AT_MOST:
            raise RateLimited("waiting polls of one verifier key", retry_after=1.0)
        self._hanging[credential] += 1
        try:
            yield
        finally:
            self._hanging[credential] -= 1
            if not self._hanging[credential]:
                del self._hanging[credential]


class Followed(NamedTuple):
    """The processes that follow this node with one key, as a sum."""

    credential: str
    processes: int
    behind: int
    """Entries that the slowest process has not acknowledged."""
    lease_left: float
    """The longest remaining lease of a process, in seconds."""


def followed(fencing: Fencing) -> list[Followed]:
    """Sum up the followers by key, because a list of all processes could be long."""
    seq = fencing.node.applied_seq
    found: dict[str, Followed] = {}
    for each in fencing.followers():
        so_far = found.get(each.credential, Followed(each.credential, 0, 0, 0.0))
        found[each.credential] = Followed(
            each.credential,
            so_far.processes + 1,
            max(so_far.behind, seq - max(0, each.acked_seq)),
            max(so_far.lease_left, each.leased_for),
        )
    return list(found.values())
