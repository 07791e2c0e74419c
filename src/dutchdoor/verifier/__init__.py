"""The verifier: who a request is, by its access token alone, and whether that has been revoked.

    verify = Verifier("https://auth.example.com", audience="api")
    principal = verify(token)                   # in a thread of its own, as under WSGI
    principal = await verify.check(token)       # in asyncio

It follows the authority's revocation log under a lease (docs/contributing/revocation-fence.md), so that it refuses a
revoked token whose signature is right, and no request does any I/O for it. It starts at its first use, and survives an
authority that is down: without a lease it does what `stale` says.

This file holds the check. What waits or calls somebody is in `poller.py`, and is loaded when it is needed.
"""

from __future__ import annotations

import os
import sys
import time
import weakref
from collections.abc import Callable, Iterable
from functools import partial
from importlib import import_module
from threading import Lock
from typing import TYPE_CHECKING, Any, Final, Literal, NoReturn, Self, TypeAlias

from dutchdoor.errors import InvalidToken, Misconfigured, Misdirected, StaleClaims, Unavailable, UnknownKey
from dutchdoor.jose.access_token import AccessTokenVerifier
from dutchdoor.jose.claims import Claims
from dutchdoor.jose.jwk import Key, KeySet
from dutchdoor.jose.token_cache import TokenCache
from dutchdoor.model.policy import LONGEST_ACCESS
from dutchdoor.model.principal import Principal
from dutchdoor.model.verifier_keys import VerifierSecret
from dutchdoor.revocation.follower import Follower
from dutchdoor.verifier.origin import Origin

if TYPE_CHECKING:
    from dutchdoor.verifier.poller import Following
    from dutchdoor.verifier.threads import Waiting

__all__ = ["Follow", "Stale", "State", "Verifier", "elapsed"]

Follow: TypeAlias = Literal["background", "on demand"]
"""With a thread that follows all the time; or only while a request is there, in processes that run nothing between two
requests: the first one after a lease has run out polls, and leases are short."""

Stale: TypeAlias = Literal["introspect", "refuse"]
"""What to do without a lease: ask the authority about each token, or refuse every request."""

State: TypeAlias = Literal["new", "fresh", "stale", "closed"]

WAITS_FOR: Final = 3.0
"""Seconds that one request waits for the authority at most, all in all, when it has to."""
_NOBODYS: Final = KeySet([Key.from_secret(os.urandom(32), "HS256")])
"""Stands where keys will be. Its secret is known to nobody, and nothing is verified with it."""
_BOOTTIME: Final = getattr(time, "CLOCK_BOOTTIME", getattr(time, "CLOCK_MONOTONIC", None))

elapsed: Callable[[], float] = time.monotonic if _BOOTTIME is None else partial(time.clock_gettime, _BOOTTIME)
"""Seconds since some moment, those included in which the process was stopped or the machine slept: a clock that stood
still meanwhile would find an old lease still good."""


class Verifier:
    """Checks access tokens of one authority. Share one among all threads and tasks of a process.

    Args:
        issuer: the authority's public URL, as its tokens spell it. Plain HTTP only on this machine.
        audience: who we are: one name or several, of which a token must be for at least one. The issuer itself if not
            given, as is the authority's default.
        key: what `dutchdoor verifier add` printed; else the environment's DUTCHDOOR_VERIFIER_KEY. None is needed where
            the authority is a development server on this machine.
        stale: what to do without a lease. `introspect` asks the authority about each token, within bounds; `refuse`
            answers `Unavailable`.
        follow: in the background, or on demand.
        leeway: seconds by which wall clocks may differ, at most 60.

    Raises:
        Misconfigured: one of these is not what it should be.
    """

    def __init__(
        self,
        issuer: str,
        *,
        audience: str | Iterable[str] | None = None,
        key: str | None = None,
        stale: Stale = "introspect",
        follow: Follow = "background",
        leeway: float = 10.0,
    ) -> None:
        if stale not in ("introspect", "refuse"):
            raise Misconfigured('stale is "introspect" or "refuse".')
        if follow not in ("background", "on demand"):
            raise Misconfigured('follow is "background" or "on demand".')
        self.issuer, self._origin = issuer, Origin.of(issuer)
        self._key = _read_key(os.environ.get("DUTCHDOOR_VERIFIER_KEY", "") if key is None else key)
        # The keys come later. What is wrong with the rest is said now.
        self._verify = AccessTokenVerifier(
            keys=_NOBODYS, issuer=issuer, audience=issuer if audience is None else audience, leeway=leeway,
            longest=LONGEST_ACCESS,
        )  # fmt: skip
        self._cache = TokenCache(self._verify)
        self._has_keys = False
        self._recognise: Callable[[str | bytes, float], tuple[Claims, Principal]] = _without_keys
        self._stale: Stale = stale
        self._on_demand = follow == "on demand"
        self._follower = self._new_follower()
        self._judge = self._follower.judge
        self._closed = False
        # What belongs to this process alone: see `_forked`.
        self._lock = Lock()
        self._following: Following | None = None
        self._threads_held: Waiting | None = None
        _alive.add(self)

    def __call__(self, token: str | bytes) -> Principal:
        """Check a `token`, and give who its bearer is. In the ordinary case it does no I/O and takes no lock.

        Without a lease or keys it may wait for the authority, some seconds at most; never in a thread that runs an
        event loop, where it raises `Unavailable` instead: there, use `check`.

        Raises:
            InvalidToken: it is malformed, forged, expired, for somebody else, or revoked.
            StaleClaims: what it says is out of date, and a refresh may bring a good one. It is an `InvalidToken`.
            Unavailable: it cannot be told now. Answer 503, never 401: nobody is signed out by an outage.
        """
        try:
            return self._check_here(token)
        except Misdirected as error:
            self._say(error)
            raise

    def _say(self, error: Misdirected) -> None:
        if self._following is not None:
            self._following.say_misdirected(error)

    def _check_here(self, token: str | bytes) -> Principal:
        principal = self._at_once(token)
        if principal is None:
            # Whoever runs a loop has loaded this module; nobody else has to.
            if "asyncio" in sys.modules and _waiting().in_event_loop():
                self._begin()
                raise Unavailable("not in an event loop: use `await verifier.check(token)`")
            principal = self._waiting_for_it(token)
        return principal

    async def check(self, token: str | bytes) -> Principal:
        """Check a `token`, as calling does. What has to wait does so in a thread of its own, and blocks no loop.

        Raises:
            InvalidToken: as calling.
            StaleClaims: as calling.
            Unavailable: as calling.
        """
        try:
            principal = self._at_once(token)
            if principal is None:
                principal = await self._threads().for_(partial(self._waiting_for_it, token))
        except Misdirected as error:
            self._say(error)
            raise
        return principal

    # --- what is seen from outside ------------------------------------------------------------------------------------

    @property
    def state(self) -> State:
        """`fresh` with a lease, `stale` without, `new` before the first use, `closed` after the last."""
        if self._closed:
            return "closed"
        if self.lease_left:
            return "fresh"
        return "new" if self._following is None else "stale"

    @property
    def lease_left(self) -> float:
        """Seconds left of the lease; 0 when there is none."""
        return self._follower.leased_for(elapsed())

    @property
    def applied_seq(self) -> int:
        """How far the revocation log has been read."""
        return self._follower.applied_seq

    @property
    def entries(self) -> int:
        """How many live entries of the log are in memory."""
        return len(self._follower)

    def __repr__(self) -> str:
        return f"<Verifier {self.issuer} {self.state}>"

    # --- beginning and end --------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to follow, and wait a moment until there are keys and a lease, or it is known that there are none yet.
        Not needed: the first check does the same.
        """
        following = self._begin()
        until = elapsed() + WAITS_FOR
        if self._on_demand:
            following.catch_up(until)
        else:
            following.wait_until_begun(until)

    def close(self) -> None:
        """End following, and leave no thread and no connection behind. What is checked after is `Unavailable`."""
        with self._lock:
            self._closed = True
            following, threads = self._following, self._threads_held
        if following is not None:
            following.close()
        if threads is not None:
            threads.close()
        self._follower.forked()  # no lease: what is checked from now on has nobody to hear of revocations from
        self._following = self._threads_held = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        await self._threads().for_(self.start)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Do what `close` does, without keeping the event loop waiting."""
        await _waiting().in_a_thread(self.close)

    def _begin(self) -> Following:
        """Give what follows, begun at first use. Raises `Unavailable` when closed."""
        if self._following is not None:
            return self._following
        with self._lock:
            if self._closed:
                raise Unavailable("the verifier is closed")
            if self._following is None:
                self._following = self._new_following()
            return self._following

    def _new_following(self) -> Following:
        module: Any = import_module("dutchdoor.verifier.poller")
        following: Following = module.Following(
            self._origin, self._key, self._follower,
            replace=self._another_log, on_keys=self._take_keys, elapsed=elapsed, clock=time.time,
        )  # fmt: skip
        following.start()
        return following

    def _threads(self) -> Waiting:
        with self._lock:
            if self._closed:
                raise Unavailable("the verifier is closed")
            threads: Waiting = self._threads_held or _waiting().Waiting()
            self._threads_held = threads
            return threads

    def _forked(self) -> None:
        """In the child, before any other code runs there. Takes no lock: whoever held it is not here."""
        following = self._following
        self._lock, self._following, self._threads_held = Lock(), None, None
        self._cache.renew_lock()
        self._follower.forked()
        if following is not None:
            following.abandon()

    def _new_follower(self) -> Follower:
        return Follower(on_demand=self._on_demand)

    def _another_log(self) -> Follower:
        self._follower = self._new_follower()
        self._judge = self._follower.judge
        return self._follower

    def _take_keys(self, keys: KeySet) -> None:
        self._verify.keys = keys
        self._recognise, self._has_keys = self._cache.recognise, True

    # --- judging ------------------------------------------------------------------------------------------------------

    def _at_once(self, token: str | bytes) -> Principal | None:
        """Check a token by what is known here; None if that takes waiting for somebody."""
        now = elapsed()  # before the lease is looked at, not after
        try:
            claims, principal = self._recognise(token, time.time())
        except UnknownKey:
            following = self._following
            if following is None or not self._has_keys or following.may_find_keys():
                return None
            self._refuse_unknown(following)
        verdict = self._judge(claims, now)
        if verdict == "accepted":
            return principal
        if verdict != "stale":
            _refuse(verdict)
        following = self._following
        if following is None or not following.has_begun() or self._on_demand or self._stale == "introspect":
            return None
        return self._without_lease(following, token, claims, principal, 0.0)

    def _waiting_for_it(self, token: str | bytes) -> Principal:
        """Check a token, waiting for keys, a lease, or the authority's word about it."""
        following = self._begin()
        until = elapsed() + WAITS_FOR
        following.wait_until_begun(until)
        claims, principal = self._recognise_waiting(following, token, until)
        verdict = self._judge(claims, elapsed())
        if verdict == "stale" and self._on_demand:
            following.catch_up(until)
            verdict = self._judge(claims, elapsed())
        if verdict == "accepted":
            return principal
        if verdict != "stale":
            _refuse(verdict)
        return self._without_lease(following, token, claims, principal, until)

    def _recognise_waiting(self, following: Following, token: str | bytes, until: float) -> tuple[Claims, Principal]:
        if not self._has_keys:
            following.find_keys(until)
            if not self._has_keys:
                raise Unavailable("no keys yet", retry_after=following.wait_for(elapsed()))
        try:
            return self._recognise(token, time.time())
        except UnknownKey:
            following.find_keys(until)
        try:
            return self._recognise(token, time.time())
        except UnknownKey:
            self._refuse_unknown(following)

    def _refuse_unknown(self, following: Following) -> NoReturn:
        if following.could_not_look:
            # It may be good: nobody is to be signed out because keys could not be fetched.
            raise Unavailable("an unknown key, and no new ones to be had", retry_after=following.wait_for(elapsed()))
        raise UnknownKey("no key of this kid")

    def _without_lease(
        self, following: Following, token: str | bytes, claims: Claims, principal: Principal, until: float
    ) -> Principal:
        """Do what was asked for without a lease."""
        if self._stale == "refuse":
            raise Unavailable("no lease", retry_after=following.wait_for(elapsed()))
        if not following.ask(token, until):
            raise InvalidToken("the authority says that it is not good")
        # Heard of meanwhile, perhaps, by the log.
        verdict = self._judge(claims, elapsed())
        if verdict in ("revoked", "outdated"):
            _refuse(verdict)
        return principal


def _without_keys(_token: str | bytes, _now: float) -> NoReturn:
    raise UnknownKey("no keys yet")


def _refuse(verdict: str) -> NoReturn:
    if verdict == "outdated":
        raise StaleClaims("the subject's epoch has risen")
    raise InvalidToken("revoked")


def _read_key(text: str) -> VerifierSecret | None:
    try:
        return VerifierSecret.parse(text) if text else None
    except InvalidToken:
        raise Misconfigured("A verifier key begins with ddv1_, and is what `dutchdoor verifier add` printed.") from None


def _waiting() -> Any:
    return import_module("dutchdoor.verifier.threads")


# --- forks ------------------------------------------------------------------------------------------------------------

_alive: weakref.WeakSet[Verifier] = weakref.WeakSet()


def _forked() -> None:
    for verifier in list(_alive):
        verifier._forked()  # noqa: SLF001 - it is this file's


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
