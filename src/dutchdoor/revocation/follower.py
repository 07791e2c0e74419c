"""A follower: what a verifier knows of the log, and whether that is enough to accept a token.

It does no I/O, reads no clock and starts no thread. Its owner sends its polls, passes it the answers, and asks it about
every token whose signature and claims are valid. `now` is always a reading of one elapsed-time clock that counts sleep.
Read that clock *before* asking, at any time since the request came.
"""

from __future__ import annotations

import random
import secrets
from collections.abc import Callable
from typing import Final, Literal, NamedTuple, TypeAlias

from dutchdoor.revocation.lease import WAITS_FOR
from dutchdoor.revocation.log import Bearer, RevocationLog
from dutchdoor.revocation.messages import Answer, Poll, Seen

__all__ = ["Follower", "Verdict"]

Verdict: TypeAlias = Literal["accepted", "revoked", "outdated", "doubted", "stale"]

_AGAIN: Final = (0.1, 2.0)
"""Seconds before the next poll after an answer without news or none: at first the one, doubled up to the other."""
_SWEEP: Final = 16_384
"""Entries checked for expiry with each answer: some milliseconds of work at most."""


class _Known(NamedTuple):
    """A lease and the entries that belong to it, read in one step: never a lease with the entries of another moment."""

    until: float
    log: RevocationLog


class _Sent(NamedTuple):
    poll: Poll
    at: float


class Follower:
    """What one process knows. Any number of threads may `judge`; one thread at a time may poll and take answers.

    Args:
        on_demand: whether it polls only when a request finds it stale.
        kept_for: seconds an entry is kept after its `expires_at`, the same as at the node.
        new_id: creates the holder's id: random, never the same twice.
        draw: returns a number between 0 and 1, for jitter.
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
        """Elapsed time before which no poll is sent: the node does not answer, or grants no lease."""

    def judge(self, token: Bearer, now: float) -> Verdict:
        """Return whether a token with a valid signature may be accepted.

        `revoked`, `outdated` and `doubted` are certain, with or without a lease. `outdated` means that the claims have
        changed: a refresh may bring a valid token. `doubted` means that its owner must prove again who they are. For
        `stale`, the verifier's policy decides.
        """
        # Read together and once. If the entries were read first, the lease could run out, the revocation be fenced, and
        # a new lease arrive before the lease is checked: a revoked token would pass.
        until, log = self._known
        kind = log.covering_token(token)
        if kind is None:
            return "accepted" if now < until else "stale"
        if kind == "doubt":
            return "doubted"
        # A token without a session cannot be refreshed.
        return "outdated" if kind == "subject" and token.sid is not None else "revoked"

    def leased_for(self, now: float) -> float:
        """Seconds left of the lease; 0 when there is none."""
        return max(0.0, self._known.until - now)

    def __len__(self) -> int:
        return len(self._known.log)

    def poll(self, now: float, seen: tuple[Seen, ...] = ()) -> Poll:
        """Return the next poll; call this right before sending it. Answers to earlier polls are dropped from now on.
        `seen` is where tokens were used.
        """
        poll = Poll(
            holder=self.holder,
            log_epoch=self.log_epoch,
            applied_seq=self.applied_seq,
            wait_ms=self._wait_ms,
            seen=seen,
        )
        self._sent = _Sent(poll, now)
        return poll

    def take(self, poll: Poll, answer: Answer, now: float, wall_now: float) -> bool:
        """Apply an answer to the last poll; drop any other. Returns True when a key was revoked: the caller must then
        fetch the key set again and check cached tokens again.

        Args:
            poll: the poll it answers.
            answer: decoded from the wire, so its types are right.
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
        """Note that a poll had no answer, or an unreadable one."""
        if self._sent is not None and self._sent.poll is poll:
            self._sent = None
            self._pace(now, useful=False)

    def forked(self) -> None:
        """Start anew in the child of a fork, before any other code runs there: the child does not see what the parent
        acknowledges from now on.
        """
        self.holder = self._new_id()
        self._sent, self.poll_at = None, 0.0
        self._known = _Known(-1.0, self._known.log)

    def _apply(self, answer: Answer, sent_at: float) -> bool:
        """Apply the entries first, then record them as applied, then take the lease. Returns False if the answer was of
        no use.
        """
        if answer.log_epoch < self.log_epoch or not answer.log_epoch:
            return False  # a node that does not know of a restore yet, or has read nothing
        until, log = self._known
        progress = answer.log_epoch > self.log_epoch
        if progress:
            # Another log: known revocations stay, and no token is accepted until the new log has been read.
            until = -1.0
            if answer.salt != log.salt:
                log = RevocationLog(answer.salt)
            self._known = _Known(until, log)
            self.log_epoch, self.applied_seq = answer.log_epoch, 0
        if answer.after_seq > self.applied_seq:
            return False  # entries are missing in between
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
        """When a lease begins: the moment the poll was sent. The grantor's count starts later, so it never ends
        first.
        """
        return sent_at

    def _pace(self, now: float, *, useful: bool) -> None:
        if useful:
            self._again_in, self.poll_at = _AGAIN[0], now
        else:
            self.poll_at = now + self._again_in * (0.5 + self._draw())
            self._again_in = min(2 * self._again_in, _AGAIN[1])
