"""A follower: what a verifier knows of the log, and whether that is good enough to accept a token by.

It does no I/O, reads no clock and starts no thread. Its owner sends the polls it makes, hands it the answers, and asks
it about every token that has verified. `now` is always a reading of one elapsed-time clock that counts sleep; read it
*before* asking, at any time since the request came.
"""

from __future__ import annotations

import random
import secrets
from collections.abc import Callable
from typing import Final, Literal, NamedTuple, TypeAlias

from dutchdoor.revocation.lease import WAITS_FOR
from dutchdoor.revocation.log import Bearer, RevocationLog
from dutchdoor.revocation.messages import Answer, Poll

__all__ = ["Follower", "Verdict"]

Verdict: TypeAlias = Literal["accepted", "revoked", "outdated", "stale"]

_AGAIN: Final = (0.1, 2.0)
"""Seconds before asking again when an answer brought nothing or none came: at first, and doubled up to this."""
_SWEEP: Final = 16_384
"""Entries looked at for expiry with each answer: some milliseconds at most."""


class _Known(NamedTuple):
    """A lease and the entries it is about, read in one step: never a lease with the entries of another moment."""

    until: float
    log: RevocationLog


class _Sent(NamedTuple):
    poll: Poll
    at: float


class Follower:
    """What one process knows. Any number of threads may `judge`; polls and answers are one thread's at a time.

    Args:
        on_demand: whether it polls only when a request finds it stale.
        kept_for: seconds an entry outlives its `expires_at`, as at the node.
        new_id: makes the holder's id: random, never the same twice.
        draw: gives a number between 0 and 1, for jitter.
    """

    def __init__(
        self,
        *,
        on_demand: bool = False,
        wait_for: float = WAITS_FOR,
        kept_for: float = 600.0,
        new_id: Callable[[], str] = lambda: secrets.token_urlsafe(16),
        draw: Callable[[], float] = random.random,
    ) -> None:
        self.on_demand = on_demand
        self.log_epoch = 0
        self.applied_seq = 0
        self._wait_ms = 0 if on_demand else int(wait_for * 1000)
        self._kept_for, self._new_id, self._draw = kept_for, new_id, draw
        self.holder = new_id()
        self._known = _Known(-1.0, RevocationLog())
        self._sent: _Sent | None = None
        self._again_in = _AGAIN[0]
        self.poll_at = 0.0
        """Elapsed time before which no poll is to be sent: somebody does not answer, or has nothing to give."""

    def judge(self, token: Bearer, now: float) -> Verdict:
        """Say whether a token that has verified may be accepted.

        `revoked` and `outdated` are certain, lease or no lease; `outdated` means that claims have changed, and that a
        refresh may bring a good one. `stale` is for the policy to decide.
        """
        # Together and once. Were the entries read first, then the lease could run out, the revocation be fenced, and a
        # new lease come before it is looked at.
        until, log = self._known
        kind = log.covering_token(token)
        if kind is None:
            return "accepted" if now < until else "stale"
        # Without a session there is nothing to refresh.
        return "outdated" if kind == "subject" and token.sid is not None else "revoked"

    def leased_for(self, now: float) -> float:
        """Seconds left of the lease; 0 when there is none."""
        return max(0.0, self._known.until - now)

    def __len__(self) -> int:
        return len(self._known.log)

    def poll(self, now: float) -> Poll:
        """Make the next poll; call it right before sending. The answer to an earlier one is no longer wanted."""
        poll = Poll(
            holder=self.holder,
            log_epoch=self.log_epoch,
            applied_seq=self.applied_seq,
            wait_ms=self._wait_ms,
        )
        self._sent = _Sent(poll, now)
        return poll

    def take(self, poll: Poll, answer: Answer, now: float, wall_now: float) -> bool:
        """Take an answer to the last poll; any other is dropped. True when a key was killed: the key set is to be
        fetched again, and what a cache of verified tokens holds is to be judged again.

        Args:
            poll: what it answers.
            answer: read from the wire, and so of the right types.
            now: elapsed time.
            wall_now: the time of day, by which entries expire.
        """
        sent = self._sent
        if sent is None or sent.poll is not poll:
            return False
        self._sent = None
        useful = self._apply(answer, sent.at)
        self._known.log.drop_expired(wall_now, self._kept_for, look_at=_SWEEP)
        self._pace(now, useful=useful)
        return any(entry.of_a_key for entry in answer.entries)

    def failed(self, poll: Poll, now: float) -> None:
        """No answer came to a poll, or none that could be read."""
        if self._sent is not None and self._sent.poll is poll:
            self._sent = None
            self._pace(now, useful=False)

    def forked(self) -> None:
        """Begin a life of its own, in the child of a fork, before any other code of it runs. What the parent
        acknowledges from now on, the child has not seen.
        """
        self.holder = self._new_id()
        self._sent, self.poll_at = None, 0.0
        self._known = _Known(-1.0, self._known.log)

    def _apply(self, answer: Answer, sent_at: float) -> bool:
        """Apply entries first, then say that they are, then take the lease. False when nothing came of it."""
        if answer.log_epoch < self.log_epoch or not answer.log_epoch:
            return False  # a node that has not heard of a restore, or of anything
        until, log = self._known
        progress = answer.log_epoch > self.log_epoch
        if progress:
            # Another log: what was known as ended stays so, and nothing is trusted until the new one has been read.
            until = -1.0
            if answer.salt != log.salt:
                log = RevocationLog(answer.salt)
            self._known = _Known(until, log)
            self.log_epoch, self.applied_seq = answer.log_epoch, 0
        if answer.after_seq > self.applied_seq:
            return False  # there is a gap
        self._take_in(log, answer)
        progress |= answer.upto_seq > self.applied_seq
        self.applied_seq = max(self.applied_seq, answer.upto_seq)
        if answer.lease_ms and answer.reaches_head:
            self._known = _Known(max(until, self._runs_from(sent_at) + answer.lease_ms / 1000), log)
            return True
        return progress

    def _take_in(self, log: RevocationLog, answer: Answer) -> None:
        log.take(answer.entries)

    def _runs_from(self, sent_at: float) -> float:
        """When a lease begins: the moment the poll was sent. The grantor counts from later, and so never shorter."""
        return sent_at

    def _pace(self, now: float, *, useful: bool) -> None:
        if useful:
            self._again_in, self.poll_at = _AGAIN[0], now
        else:
            self.poll_at = now + self._again_in * (0.5 + self._draw())
            self._again_in = min(2 * self._again_in, _AGAIN[1])
