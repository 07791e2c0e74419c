"""The network side of a verifier: follows the revocation log, fetches keys, and asks about single tokens.

`revocation.follower` decides, `connection.py` sends, and here a thread, or a request on demand, connects the two. The
child of a fork drops all of it and creates its own. In the child a lock held at the fork is never released, the thread
does not exist, and the connection belongs to the parent.
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import Callable
from random import random
from threading import BoundedSemaphore, Event, Lock, Thread
from typing import Final
from urllib.parse import quote_plus

import msgspec
from msgspec import Struct

from dutchdoor.errors import DutchdoorError, InvalidKey, Misdirected, Unavailable
from dutchdoor.jose.jwk import MAX_SET_BYTES, KeySet
from dutchdoor.model.service_credentials import VerifierSecret
from dutchdoor.revocation.follower import Follower
from dutchdoor.revocation.messages import Answer, Poll, Seen
from dutchdoor.verifier.connection import Refusal, Wire
from dutchdoor.verifier.origin import Origin

__all__ = ["Following"]

POLL_PATH, KEYS_PATH, ASK_PATH = "/auth/revocations/poll", "/.well-known/jwks.json", "/oauth2/introspect"

ANSWERED_WITHIN: Final = 2.5
"""Seconds an answer may take beyond the wait for news. A stopped node costs this much time. Then the poller tries
another connection, which may reach another node, while the lease is still valid."""
ANSWER_AT_MOST: Final = 4 * 1024 * 1024
"""Bytes. A page of 4,096 entries has some 250,000."""
ASKED_AT_MOST: Final = 64 * 1024

KEYS_EVERY: Final = 3600.0
"""Seconds after which keys are fetched again without a cause: a key that was withdrawn but not revoked must not stay
valid until this process stops."""
KEYS_AGAIN: Final = (0.25, 30.0)
"""Seconds until the next try after a failed fetch of keys: at first the one, doubled up to the other."""
UNKNOWN_EVERY: Final = 60.0
"""Seconds between two fetches caused by an unknown `kid`, which an attacker can make up."""

SETTLES_WITHIN: Final = 1.0
"""Seconds in which an authority that answers grants a lease. Until then a request waits for the lease, and its absence
is not logged.
"""

ASK_AT_ONCE: Final = 8
"""Questions about single tokens under way at a time, each on its own connection."""
ASK_A_SECOND, ASK_BURST = 100.0, 100.0
ASK_AGAIN: Final = 1.0
"""Seconds without questions after one that had no answer: not every waiting request should wait for its own
time-out.
"""
CLOSES_WITHIN: Final = 5.0

_log = logging.getLogger("dutchdoor.verifier")
_encode = msgspec.json.Encoder().encode
_read_answer = msgspec.json.Decoder(Answer).decode


class _Asked(Struct, frozen=True):
    """The fields of an introspection we use (RFC 7662). The token's claims are already known here."""

    active: bool


_read_asked = msgspec.json.Decoder(_Asked).decode


class Following:
    """A verifier's network side in one process, from its start, or fork, to its end.

    Args:
        origin: the authority to follow.
        key: the verifier key to send, or None.
        follower: what this process knows of the log.
        replace: called with a new follower when another log begins at the same address; `on_keys`, with a key set.
        elapsed: the clock of leases, which counts sleep; `clock` gives the time of day, by which entries expire.
    """

    def __init__(
        self,
        origin: Origin,
        key: VerifierSecret | None,
        follower: Follower,
        *,
        replace: Callable[[], Follower],
        on_keys: Callable[[KeySet], None],
        elapsed: Callable[[], float],
        clock: Callable[[], float],
        reports: Callable[[], tuple[Seen, ...]],
    ) -> None:
        self._origin, self._key, self._follower = origin, key, follower
        self._elapsed, self._clock, self._born = elapsed, clock, elapsed()
        self._replace, self._on_keys, self._reports = replace, on_keys, reports
        self._tls = ssl.create_default_context() if origin.secure else None
        self._in_background = not follower.on_demand
        self._salt = b""
        self._not_before, self._failed = 0.0, False
        self._said: str | None = None
        self._saying = Lock()
        self._misdirected: set[str] = set()
        # The round: polls, and fetches of keys that are due. One thread at a time.
        self._round, self._rounds = Lock(), 0
        self._poller = self._new_wire()
        self._thread: Thread | None = None
        self._closing = Event()
        self._begun = Event()
        # Keys
        self._fetching = Lock()
        self._jwks = b""
        self._keys_at, self._keys_again = 0.0, KEYS_AGAIN[0]
        self._unknown_at = 0.0
        self._keys_failed = True
        # Questions about single tokens
        self._turns = BoundedSemaphore(ASK_AT_ONCE)
        self._idle: list[Wire] = []
        self._busy: set[Wire] = set()
        self._asks, self._asks_at, self._ask_at = ASK_BURST, 0.0, 0.0
        self._counting = Lock()

    # --- its life -----------------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start to follow in the background, if it was created to do so."""
        if self._in_background and self._thread is None:
            self._thread = Thread(target=self._run, name="dutchdoor-verifier", daemon=True)
            self._thread.start()

    def close(self) -> None:
        """Abort everything under way, and close every connection. Waiting requests get `Unavailable`."""
        self._closing.set()
        self._begun.set()
        self._poller.cut()
        for wire in [*self._busy, *self._idle]:
            wire.cut()
        if self._thread is not None:
            self._thread.join(CLOSES_WITHIN)
        if self._round.acquire(timeout=CLOSES_WITHIN):  # a request that polls has its error, and releases the lock
            self._round.release()
        self._poller.close()
        while self._idle:
            self._idle.pop().close()

    def abandon(self) -> None:
        """In the child of a fork: only close this process's ends of the connections."""
        for wire in [self._poller, *self._busy, *self._idle]:
            wire.abandon()

    def has_begun(self) -> bool:
        """Whether there has been a lease, or a first failure to get one. Before that, a request waits for it."""
        return self._begun.is_set()

    def wait_until_begun(self, until: float) -> None:
        """Wait until there has been a lease, or a first failure to get one."""
        if self._in_background:
            self._begun.wait(max(0.0, until - self._elapsed()))

    # --- the log ------------------------------------------------------------------------------------------------------

    def catch_up(self, until: float) -> None:
        """Poll for a request that found no lease. Requests that arrive meanwhile wait for the same poll."""
        before = self._rounds
        if not self._round.acquire(timeout=max(0.0, until - self._elapsed())):
            return
        try:
            until = min(until, self._elapsed() + SETTLES_WITHIN)
            if self._rounds == before and self._elapsed() >= self._next_at():
                self._go_round(until)
                # Poll again while the node answers: a long log has pages, and a node may need a moment before it can
                # grant.
                while not self._is_settled() and self._next_at() < until and not self._rest():
                    self._go_round(until)
        finally:
            self._rounds += 1
            self._round.release()
            self._begun.set()

    def _rest(self) -> bool:
        """Wait until it is time for the next poll. Returns True if the poller is being closed."""
        return self._closing.wait(max(0.0, self._next_at() - self._elapsed()))

    def _is_settled(self) -> bool:
        """Whether there is a lease, or no node that could grant one."""
        return self._closing.is_set() or self._failed or self._follower.leased_for(self._elapsed()) > 0

    def wait_for(self, now: float) -> float:
        """Seconds after which the client may retry."""
        return max(1.0, self._next_at() - now)

    def _next_at(self) -> float:
        return max(self._follower.poll_at, self._not_before)

    def _run(self) -> None:
        while not self._rest():
            try:
                self._go_round(None)
            except Exception:  # noqa: BLE001 - whatever it is
                # A bug of ours. If the thread stopped silently, the verifier would have no lease for good.
                _log.exception("following the revocation log failed; trying again in 1 second")
                self._failed, self._not_before = True, self._elapsed() + 1.0
            if self._is_settled() or self._elapsed() - self._born > SETTLES_WITHIN:
                self._begun.set()

    def _go_round(self, until: float | None) -> None:
        """Fetch keys if it is time, then poll once."""
        now = self._elapsed()
        if now >= self._keys_at:
            # Short, because a fence may be waiting for the next poll.
            self._fetch_keys(self._poller, min(now + ANSWERED_WITHIN, until or now + ANSWERED_WITHIN))
        follower = self._follower
        poll = follower.poll(self._elapsed(), self._reports())
        end = self._elapsed() + poll.wait_ms / 1000 + ANSWERED_WITHIN
        try:
            text = self._poller.post(
                POLL_PATH,
                _encode(poll),
                "application/json",
                limit=ANSWER_AT_MOST,
                until=end if until is None else min(end, until),
            )
            answer = _read_answer(text)
        except (Unavailable, msgspec.MsgspecError, ValueError, RecursionError) as error:
            now = self._elapsed()
            self._failed = True
            follower.failed(poll, now)
            if isinstance(error, Unavailable) and error.retry_after > 1:
                self._not_before = now + error.retry_after * (0.5 + random())  # noqa: S311 - jitter
            self._say(self._why(error, "a poll's answer cannot be read"))
            return
        self._failed = False
        self._take(follower, poll, answer)

    def _take(self, follower: Follower, poll: Poll, answer: Answer) -> None:
        if answer.log_epoch and answer.salt != self._salt:
            if self._salt and answer.log_epoch <= follower.log_epoch:
                # Another database. (A restore begins a higher epoch.) The old log's numbers mean nothing in the new
                # one, and names made with the old salt would cover no token.
                _log.warning("the authority has another log: starting over")
                self._follower = self._replace()
                self._salt, self._keys_at = b"", 0.0
                return
            self._salt = answer.salt
        now = self._elapsed()
        if follower.take(poll, answer, now, self._clock()):
            self._keys_at = now
        if follower.leased_for(now):
            self._say("")
        elif now - self._born > SETTLES_WITHIN:
            self._say("the authority grants none")

    def _say(self, trouble: str) -> None:
        """Log that the lease is lost, or back: once each time, and not at every poll."""
        if trouble and self._follower.leased_for(self._elapsed()):
            return  # too early to log
        with self._saying:
            if self._said is not None and bool(self._said) == bool(trouble):
                return
            self._said = trouble
        if trouble:
            _log.warning("stale: no lease from %s: %s", self._origin.host, trouble)
        else:
            _log.info("fresh: following the revocation log of %s", self._origin.host)

    def say_misdirected(self, error: Misdirected) -> None:
        """Log once that a correctly signed token is refused for its issuer or audience. Most likely a setting is wrong,
        and the bearer learns only that the token is not valid.
        """
        with self._saying:
            if error.claim in self._misdirected:
                return
            self._misdirected.add(error.claim)
        name = {"iss": "issuer", "aud": "audience"}[error.claim]
        _log.warning(
            "refused a token: its %s is %.200r, and this verifier expects %.200r. If all are refused, correct the %s "
            "of Verifier(...), or the authority's public URL or audience",
            name, error.found, error.expected, name,
        )  # fmt: skip

    # --- keys ---------------------------------------------------------------------------------------------------------

    def may_find_keys(self) -> bool:
        """Whether a token with an unknown `kid` should wait: keys are being fetched, or may be fetched now."""
        return self._elapsed() >= self._unknown_at or self._fetching.locked()

    @property
    def could_not_look(self) -> bool:
        """Whether the last fetch of keys failed: then a token of an unknown key may be valid."""
        return self._keys_failed

    def find_keys(self, until: float) -> None:
        """Fetch keys for a token that names an unknown key, at most once a minute even under attack; or, when it is
        time, because there are no keys yet. Requests that arrive meanwhile wait for the same fetch.
        """
        before = self._jwks
        if not self._fetching.acquire(timeout=max(0.0, until - self._elapsed())):
            return
        try:
            now = self._elapsed()
            not_before = self._unknown_at if self._jwks else self._keys_at
            if self._jwks is not before or now < not_before or self._closing.is_set():
                return
            if self._jwks:
                self._unknown_at = now + UNKNOWN_EVERY
            wire = self._borrow()
            try:
                self._fetch(wire, until)
            finally:
                self._give_back(wire)
        finally:
            self._fetching.release()

    def _fetch_keys(self, wire: Wire, until: float) -> None:
        """Fetch keys because it is time, unless a request is already fetching them."""
        if self._fetching.acquire(blocking=False):
            try:
                self._fetch(wire, until)
            finally:
                self._fetching.release()

    def _fetch(self, wire: Wire, until: float) -> None:
        try:
            text = wire.get(KEYS_PATH, limit=MAX_SET_BYTES, until=until)
            if text != self._jwks:
                keys = KeySet.from_jwks(text)
                if keys.symmetric:
                    # A published secret is public: any reader could issue an administrator's token.
                    raise InvalidKey("the published key set holds a secret")
                self._on_keys(keys)
                self._jwks = text
        except DutchdoorError as error:
            if not self._keys_failed or not self._jwks:
                _log.warning("no keys from %s: %s", self._origin.host, self._why(error, error.reason))
            self._keys_failed = True
            # The old keys stay: the log reports the revoked ones.
            self._keys_at = self._elapsed() + self._keys_again * (0.5 + random())  # noqa: S311 - jitter
            self._keys_again = min(2 * self._keys_again, KEYS_AGAIN[1] if self._jwks else 2.0)
            return
        self._keys_failed = False
        self._keys_at, self._keys_again = self._elapsed() + KEYS_EVERY * (0.5 + random() / 2), KEYS_AGAIN[0]  # noqa: S311

    # --- one token ----------------------------------------------------------------------------------------------------

    def ask(self, token: str | bytes, until: float) -> bool:
        """Ask the authority whether a token is valid now. The answer is not cached.

        Raises:
            Unavailable: the authority did not answer, or too many questions are under way.
        """
        now = self._elapsed()
        self._count(now)
        if not self._turns.acquire(timeout=max(0.0, until - now)):
            raise Unavailable("too many questions about tokens at once")
        try:
            self._check_answering(self._elapsed())  # it may have stopped while we waited for our turn
            wire = self._borrow()
            try:
                text = token if isinstance(token, str) else token.decode("ascii")
                form = f"token={quote_plus(text)}&token_type_hint=access_token".encode("ascii")
                answer = wire.post(
                    ASK_PATH, form, "application/x-www-form-urlencoded", limit=ASKED_AT_MOST, until=until
                )
                return _read_asked(answer).active
            except (Unavailable, msgspec.MsgspecError, ValueError, RecursionError) as error:
                self._ask_at = self._elapsed() + ASK_AGAIN
                self._say(self._why(error, "the answer about a token cannot be read"))
                raise Unavailable(self._why(error, "the answer about a token cannot be read")) from None
            finally:
                self._give_back(wire)
        finally:
            self._turns.release()

    def _count(self, now: float) -> None:
        """Take one question out of the bucket. Raises `Unavailable` when it is empty."""
        self._check_answering(now)
        with self._counting:
            self._asks = min(ASK_BURST, self._asks + max(0.0, now - self._asks_at) * ASK_A_SECOND)
            self._asks_at = now
            if self._asks < 1:
                raise Unavailable("too many questions about tokens")
            self._asks -= 1

    def _check_answering(self, now: float) -> None:
        if now < self._ask_at:
            raise Unavailable("the authority did not answer a moment ago", retry_after=ASK_AGAIN)

    # --- connections --------------------------------------------------------------------------------------------------

    def _new_wire(self) -> Wire:
        return Wire(self._origin, self._key, tls=self._tls, elapsed=self._elapsed)

    def _borrow(self) -> Wire:
        try:
            wire = self._idle.pop()
        except IndexError:
            wire = self._new_wire()
        self._busy.add(wire)
        if self._closing.is_set():  # after adding it: either `close` sees the connection, or we see that it closed
            wire.cut()
        return wire

    def _give_back(self, wire: Wire) -> None:
        self._busy.discard(wire)
        self._idle.append(wire)
        if self._closing.is_set():
            wire.close()

    def _why(self, error: Exception, otherwise: str) -> str:
        if isinstance(error, Refusal) and error.status == 401:  # noqa: PLR2004
            found = (
                "It wants a verifier key: give the one that `dutchdoor verifier add` prints, as key= or in "
                "DUTCHDOOR_VERIFIER_KEY"
                if self._key is None
                else "The verifier key is wrong or was removed; see `dutchdoor verifier`"
            )
            return f"{error.reason}. {found}"
        if isinstance(error, Refusal) and error.status == 400:  # noqa: PLR2004
            return f"{error.reason}. Is the issuer the public URL of the server?"
        return error.reason if isinstance(error, DutchdoorError) else otherwise
