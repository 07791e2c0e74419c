"""The verifier: finds the principal of a request from its access token, and refuses revoked tokens.

    verify = Verifier("https://auth.example.com", audience="api")
    principal = verify(token)                   # in a worker thread, as under WSGI
    principal = await verify.check(token)       # in asyncio

It follows the authority's revocation log under a lease (docs/contributing/revocation-fence.md). So it refuses a revoked
token with a valid signature, without I/O in the request. It starts at its first use, and goes on while the authority is
down: without a lease it does what `stale` says.

This file holds the check. Code that waits or calls the authority is in `poller.py`, which is loaded when needed.
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
from typing import TYPE_CHECKING, Any, Final, Literal, NoReturn, Self, TypeAlias, get_args

from dutchdoor.errors import (
    InvalidToken,
    Misconfigured,
    Misdirected,
    SessionInDoubt,
    StaleClaims,
    Unavailable,
    UnknownKey,
)
from dutchdoor.jose.access_token import AccessTokenVerifier
from dutchdoor.jose.claims import Claims
from dutchdoor.jose.dpop import DpopProof, Proofs
from dutchdoor.jose.jwk import Key, KeySet
from dutchdoor.jose.token_cache import TokenCache
from dutchdoor.model.choices import check_choice
from dutchdoor.model.durations import Duration, read_duration
from dutchdoor.model.policy import LONGEST_ACCESS
from dutchdoor.model.principal import Principal
from dutchdoor.model.service_credentials import VerifierSecret
from dutchdoor.model.spelling import spelt
from dutchdoor.revocation.follower import Follower
from dutchdoor.verifier.origin import Origin, check_public_url

if TYPE_CHECKING:
    from dutchdoor.revocation.messages import Seen
    from dutchdoor.verifier.poller import Following
    from dutchdoor.verifier.reports import Reports
    from dutchdoor.verifier.threads import Waiting

__all__ = ["Follow", "Stale", "State", "Verifier", "elapsed"]

Follow: TypeAlias = Literal["background", "on demand"]
"""`background`: a thread follows all the time. `on demand`: for processes that run nothing between two requests; the
first request after the lease has run out polls, and leases are short."""

Stale: TypeAlias = Literal["introspect", "refuse"]
"""What the verifier does without a lease: ask the authority about each token, or refuse every request."""

State: TypeAlias = Literal["new", "fresh", "stale", "closed"]

WAITS_FOR: Final = 3.0
"""The most seconds that one request waits for the authority, in all."""
_NO_KEYS: Final = KeySet([Key.from_secret(os.urandom(32), "HS256")])
"""A placeholder until keys are fetched. Its secret is random and discarded, and no token is verified with it."""
_BOOTTIME: Final = getattr(time, "CLOCK_BOOTTIME", getattr(time, "CLOCK_MONOTONIC", None))

elapsed: Callable[[], float] = time.monotonic if _BOOTTIME is None else partial(time.clock_gettime, _BOOTTIME)
"""Elapsed seconds, including those in which the process was stopped or the machine slept: by a clock that stood still
meanwhile, an old lease would still be valid."""


class Thawing:
    """Elapsed seconds for a process that is frozen between two calls.

    A machine that is paused as a whole, or restored from a snapshot, may have a clock of elapsed seconds that stood
    still. The time of day did not: each step of it forward counts as time that passed. If a clock was only set forward,
    that costs a poll. A step back changes nothing.
    """

    __slots__ = ("_ahead",)

    def __init__(self) -> None:
        self._ahead = time.time() - elapsed()

    def __call__(self) -> float:
        now = elapsed()
        self._ahead = ahead = max(self._ahead, time.time() - now)
        return now + ahead


class Verifier:
    """Checks access tokens of one authority. Share one among all threads and tasks of a process.

    Args:
        issuer: the authority's public URL, as its tokens spell it. Plain HTTP only on this machine.
        audience: this service's name, or several; a token must be for at least one. If not given, the issuer, which is
            the authority's default too.
        key: the key that `dutchdoor verifier add` printed; else the environment's DUTCHDOOR_VERIFIER_KEY. A development
            server on this machine needs no key.
        stale: what to do without a lease. `introspect` asks the authority about each token, within bounds; `refuse`
            raises `Unavailable`.
        follow: in the background, or on demand.
        leeway: seconds by which wall clocks may differ, at most 60.
        public_url: the URL at which clients reach this service, such as `https://orders.example.com`. Tokens that are
            bound to a key (DPoP) come with a proof that names it. Without it, an adapter takes them on this machine
            only: a `Host` header is what the client says.
        reports: whether the authority learns from which networks tokens are used here, with the polls that are sent
            anyway (`seen`, and each adapter by itself). Only where clients call this service themselves: other
            services in between look like data centres.

    Raises:
        Misconfigured: one of the arguments is not valid.
    """

    @spelt
    def __init__(
        self,
        issuer: str,
        *,
        audience: str | Iterable[str] | None = None,
        key: str | None = None,
        stale: Stale = "introspect",
        follow: Follow = "background",
        leeway: Duration = 10.0,
        public_url: str | None = None,
        reports: bool = False,
    ) -> None:
        check_choice(stale, get_args(Stale), "stale")
        check_choice(follow, get_args(Follow), "follow")
        self.issuer, self._origin = issuer, Origin.of(issuer)
        self._key = _read_key(os.environ.get("DUTCHDOOR_VERIFIER_KEY", "") if key is None else key)
        # The keys are fetched later. This reports faults in the other arguments now.
        self._verify = AccessTokenVerifier(
            keys=_NO_KEYS, issuer=issuer, audience=issuer if audience is None else audience,
            leeway=read_duration(leeway, "leeway"), longest=LONGEST_ACCESS,
        )  # fmt: skip
        self.public_url = None if public_url is None else check_public_url(public_url)
        # The workers of a service have one key, and so they take each other's nonces. Without one, this is development
        # on one machine: they have no secret in common, and a nonce only says the time.
        self._proofs = Proofs((issuer if self._key is None else self._key.text()).encode())
        self._cache = TokenCache(self._verify)
        self._has_keys = False
        self._recognise: Callable[[str | bytes, float], tuple[Claims, Principal]] = _without_keys
        self._stale: Stale = stale
        self._on_demand = follow == "on demand"
        # Functions are frozen between two calls. A thread that follows notices a pause by its hanging poll.
        self._elapsed: Callable[[], float] = Thawing() if self._on_demand else elapsed
        self._follower = self._new_follower()
        self._judge = self._follower.judge
        self._closed = False
        self._reports: Reports | None = None
        if reports:
            module: Any = import_module("dutchdoor.verifier.reports")
            self._reports = module.Reports()
        # State of this process only: see `_forked`.
        self._lock = Lock()
        self._following: Following | None = None
        self._threads_held: Waiting | None = None
        _alive.add(self)

    def __call__(self, token: str | bytes, proof: DpopProof | None = None) -> Principal:
        """Check a `token`, and return its bearer's principal. In the ordinary case it does no I/O and takes no lock.

        `proof` is what came with it: `DpopProof(header, method=..., url=...)` for `Authorization: DPoP`, and None for
        `Authorization: Bearer`.

        Without a lease or keys it may wait for the authority, some seconds at most. In a thread that runs an event loop
        it never waits, but raises `Unavailable`: use `check` there.

        Raises:
            InvalidToken: the token is malformed, forged, expired, for another audience, or revoked.
            StaleClaims: its claims are out of date, and a refresh may bring a valid token. It is an `InvalidToken`.
            DpopRequired, InvalidDpopProof: it is bound to a key, and the proof is missing or not valid. They are
                `InvalidToken`, too.
            UseDpopNonce: the proof needs a newer nonce. Answer 401 with it in the header `DPoP-Nonce`.
            SessionInDoubt: it was used in a way that its owner must explain, by proving again who they are (RFC 9470).
                It is an `InvalidToken`, too.
            Unavailable: the token cannot be checked now. Answer 503, never 401: an outage must not sign users out.
        """
        principal = self.again(token)
        if proof is not None or principal.bound_to:
            self._proofs.check(principal.bound_to, proof, token, time.time())
        return principal

    def again(self, token: str | bytes) -> Principal:
        """Do what a call does with a `token`, but for the proof of its key: for a connection that stays open, whose
        first request has proved it. Raises what a call raises.
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
            # A process that runs a loop has loaded this module; others need not load it.
            if "asyncio" in sys.modules and _waiting().in_event_loop():
                self._begin()
                raise Unavailable("not in an event loop: use `await verifier.check(token)`")
            principal = self._waiting_for_it(token)
        return principal

    async def check(self, token: str | bytes, proof: DpopProof | None = None) -> Principal:
        """Check a `token` and its `proof`, as a call does. A check that must wait runs in a worker thread and blocks no
        event loop.

        Raises:
            InvalidToken: as for a call.
            StaleClaims: as for a call.
            DpopRequired, InvalidDpopProof, UseDpopNonce: as for a call.
            SessionInDoubt: as for a call.
            Unavailable: as for a call.
        """
        principal = await self.check_again(token)
        if proof is not None or principal.bound_to:
            self._proofs.check(principal.bound_to, proof, token, time.time())
        return principal

    async def check_again(self, token: str | bytes) -> Principal:
        """Do what `again` does with a `token`, without blocking the event loop."""
        try:
            principal = self._at_once(token)
            if principal is None:
                principal = await self._threads().for_(partial(self._waiting_for_it, token))
        except Misdirected as error:
            self._say(error)
            raise
        return principal

    def seen(self, token: str | bytes, principal: Principal, address: str) -> None:
        """Note that a valid `token` of a `principal` came from the IP `address` of a client, if this verifier reports.
        Nothing waits for it.
        """
        if self._reports is not None:
            self._reports.see(principal.token_id, token if isinstance(token, str) else token.decode("ascii"), address)

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
        return self._follower.leased_for(self._elapsed())

    @property
    def applied_seq(self) -> int:
        """The `seq` up to which the revocation log has been read."""
        return self._follower.applied_seq

    @property
    def entries(self) -> int:
        """The number of live log entries in memory."""
        return len(self._follower)

    def __repr__(self) -> str:
        return f"<Verifier {self.issuer} {self.state}>"

    # --- beginning and end --------------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin to follow. Wait a moment until there are keys and a lease, or a first attempt to get them has failed.
        This call is optional: the first check does the same.
        """
        following = self._begin()
        until = self._elapsed() + WAITS_FOR
        if self._on_demand:
            following.catch_up(until)
        else:
            following.wait_until_begun(until)

    def close(self) -> None:
        """Stop following, and leave no thread and no connection behind. Later checks raise `Unavailable`."""
        with self._lock:
            self._closed = True
            following, threads = self._following, self._threads_held
        if following is not None:
            following.close()
        if threads is not None:
            threads.close()
        self._follower.forked()  # no lease: nothing reports revocations to later checks
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
        """Do what `close` does, without blocking the event loop."""
        await _waiting().in_a_thread(self.close)

    def _begin(self) -> Following:
        """Return the poller, started at first use. Raises `Unavailable` when closed."""
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
            replace=self._another_log, on_keys=self._take_keys, elapsed=self._elapsed, clock=time.time,
            reports=_nothing if self._reports is None else self._reports.take,
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
        """Runs in the child of a fork, before any other code there. Takes no lock: the thread that held it does not
        exist here.
        """
        following = self._following
        self._lock, self._following, self._threads_held = Lock(), None, None
        self._cache.renew_lock()
        self._proofs.renew_lock()
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
        """Check a token by what this process knows; None if the check must wait for the authority."""
        now = self._elapsed()  # before the lease is looked at, not after
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
        """Check a token, waiting for keys, a lease, or the authority's answer about it."""
        following = self._begin()
        until = self._elapsed() + WAITS_FOR
        following.wait_until_begun(until)
        claims, principal = self._recognise_waiting(following, token, until)
        verdict = self._judge(claims, self._elapsed())
        if verdict == "stale" and self._on_demand:
            following.catch_up(until)
            verdict = self._judge(claims, self._elapsed())
        if verdict == "accepted":
            return principal
        if verdict != "stale":
            _refuse(verdict)
        return self._without_lease(following, token, claims, principal, until)

    def _recognise_waiting(self, following: Following, token: str | bytes, until: float) -> tuple[Claims, Principal]:
        if not self._has_keys:
            following.find_keys(until)
            if not self._has_keys:
                raise Unavailable("no keys yet", retry_after=following.wait_for(self._elapsed()))
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
            # The token may be valid: a failure to fetch keys must not sign a user out.
            raise Unavailable(
                "an unknown key; fetching new keys failed", retry_after=following.wait_for(self._elapsed())
            )
        raise UnknownKey("no key of this kid")

    def _without_lease(
        self, following: Following, token: str | bytes, claims: Claims, principal: Principal, until: float
    ) -> Principal:
        """Do what `stale` says."""
        if self._stale == "refuse":
            raise Unavailable("no lease", retry_after=following.wait_for(self._elapsed()))
        if not following.ask(token, until):
            raise InvalidToken("the authority says that it is not valid")
        # The log may have reported it meanwhile.
        verdict = self._judge(claims, self._elapsed())
        if verdict not in ("accepted", "stale"):
            _refuse(verdict)
        return principal


def _nothing() -> tuple[Seen, ...]:
    return ()


def _without_keys(_token: str | bytes, _now: float) -> NoReturn:
    raise UnknownKey("no keys yet")


def _refuse(verdict: str) -> NoReturn:
    if verdict == "outdated":
        raise StaleClaims("the subject's epoch has risen")
    if verdict == "doubted":
        raise SessionInDoubt("its session is in doubt")
    raise InvalidToken("revoked")


def _read_key(text: str) -> VerifierSecret | None:
    try:
        return VerifierSecret.parse(text) if text else None
    except InvalidToken:
        raise Misconfigured("A verifier key begins with ddv1_; `dutchdoor verifier add` prints it.") from None


def _waiting() -> Any:
    return import_module("dutchdoor.verifier.threads")


# --- forks ------------------------------------------------------------------------------------------------------------

_alive: weakref.WeakSet[Verifier] = weakref.WeakSet()


def _forked() -> None:
    for verifier in list(_alive):
        verifier._forked()  # noqa: SLF001 - it is this file's


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forked)
