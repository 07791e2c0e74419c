"""Verifiers at the door: whose key it is, and how much whoever has it may ask.

A poll costs no look-up: a key that was found is remembered for a minute. Removing one is an entry of the revocation log
as much as ending a session is, and every node reads the log at every poll; so a removed key is refused wherever the log
is followed, and its last lease has run out when the removal is fenced.

What a stolen key is worth: the names of ids that ended, which are hashes; and waiting, since every fence waits for the
leases it holds, a guarded lease at most. A stolen key can also use up what is bounded here (polls that hang, polls a
second, leases), and then the service whose key it was has none: remove the key. Other keys are not touched.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from typing import Final, NamedTuple

from dutchdoor.errors import RateLimited
from dutchdoor.model.policy import LONGEST_ACCESS
from dutchdoor.model.rate_limits import Limits, bucket_of
from dutchdoor.model.verifier_keys import VerifierKey, VerifierSecret
from dutchdoor.revocation.lease_table import Holder
from dutchdoor.revocation.log import Named, Revocation
from dutchdoor.revocation.messages import Poll
from dutchdoor.services.fencing import Fencing
from dutchdoor.services.sessions import Authority
from dutchdoor.web.http import UnknownVerifier
from dutchdoor.web.rate import LocalBuckets

__all__ = ["Followed", "Verifiers", "followed", "removal_of"]

REMEMBERED_FOR: Final = 60.0
"""Seconds. Far less than the entry that tells of a removal is kept."""
HANGING_AT_MOST: Final = 3072
"""Polls of one key that wait at a time: three quarters of the connections of a process, unless it is told otherwise, so
that a stolen key leaves room for people."""
PLACES_AT_MOST: Final = 16_384
"""Holders of which it is known how far they have come, some 4 MB."""

_Place = tuple[int, int]


def removal_of(key: VerifierKey, now: float) -> Revocation:
    """The entry that tells nodes of a key's removal, to be committed with it. No token has a verifier key's id for its
    client, so it covers no token.
    """
    return Revocation(kind="client", id=key.id, min_epoch=1, expires_at=now + LONGEST_ACCESS)


class Verifiers:
    """The keys and the bounds of one process."""

    __slots__ = ("_authority", "_buckets", "_hanging", "_keys", "_limits", "_places")

    def __init__(self, authority: Authority, limits: Limits) -> None:
        self._authority, self._limits = authority, limits
        self._buckets = LocalBuckets()
        self._keys: dict[str, tuple[VerifierKey, float]] = {}
        self._hanging: Counter[str] = Counter()
        self._places: dict[Holder, _Place] = {}

    async def recognise(self, text: str) -> VerifierKey:
        """Tell whose key this is. Raises `UnknownVerifier`, `Unavailable`."""
        secret = VerifierSecret.parse(text)
        now = self._authority.clock()
        key, read_at = self._keys.get(secret.id, (None, 0.0))
        if key is None or not 0 <= now - read_at < REMEMBERED_FOR:
            self._keys.pop(secret.id, None)
            key = await self._authority.store.get(VerifierKey, secret.id)
            if key is None:
                raise UnknownVerifier("no such key")
            self._keys[key.id] = key, now  # as many as there are keys: an id that is not ours is never kept
        if not secret.matches(key.secret_hash):
            raise UnknownVerifier("a wrong secret")
        self.check_not_removed(key)
        return key

    def check_not_removed(self, key: VerifierKey) -> None:
        """Raises `UnknownVerifier` if the log, as far as this process has read it, tells of the key's removal."""
        if self._authority.fencing.log.covers(Named("", 0, None, "", key.id, "")):
            raise UnknownVerifier("the key was removed")

    def admit(self, poll: Poll, credential: str) -> None:
        """Count a poll that tells nothing new: one that acknowledges more than its holder's last is as rare as entries
        of the log are, and the sooner it comes the sooner a fence holds.

        Raises `RateLimited`.
        """
        node = self._authority.fencing.node
        who, place = Holder(credential, poll.holder), (poll.log_epoch, poll.applied_seq)
        before = self._places.pop(who, None)
        if len(self._places) >= PLACES_AT_MOST:
            for old in list(self._places)[: PLACES_AT_MOST // 2]:
                del self._places[old]
        # What lies beyond our own head, or in another log, cannot have come from here, and might be any number.
        reached = place if poll.log_epoch == node.log_epoch and poll.applied_seq <= node.applied_seq else (0, 0)
        self._places[who] = reached if before is None else max(before, reached)
        if before is None or reached <= before:
            now = self._authority.clock()
            self._buckets.take([bucket_of(self._limits.poll_by_holder, f"{credential} {poll.holder}")], now)
            self._buckets.take([bucket_of(self._limits.ask_by_verifier_key, credential)], now)

    def count_question(self, credential: str) -> None:
        """Count a token that a verifier asks about. Raises `RateLimited`."""
        self._buckets.take([bucket_of(self._limits.ask_by_verifier_key, credential)], self._authority.clock())

    @contextmanager
    def hanging(self, credential: str) -> Generator[None, None, None]:
        """Count a poll while it hangs. Raises `RateLimited` for one too many."""
        if self._hanging[credential] >= HANGING_AT_MOST:
            raise RateLimited("polls of one verifier key that hang", retry_after=1.0)
        self._hanging[credential] += 1
        try:
            yield
        finally:
            self._hanging[credential] -= 1
            if not self._hanging[credential]:
                del self._hanging[credential]


class Followed(NamedTuple):
    """All processes that follow here with one key, together."""

    credential: str
    processes: int
    behind: int
    """Entries that the slowest has not acknowledged."""
    lease_left: float
    """Seconds; the longest."""


def followed(fencing: Fencing) -> list[Followed]:
    """Sum up who follows, by key: there are as many holders as processes out there, and no list of those is short."""
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
