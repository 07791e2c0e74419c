"""Device Bound Session Credentials (W3C, webappsec-dbsc): what is decided about the key of a browser.

A browser keeps a private key that cannot leave its device. Beside the long-lived cookie of a session it gets a bound
cookie, which lives minutes, and a new one only for a proof of its key. Then a copy of both cookies is worth nothing
minutes later.

    none --register--> offered --refresh--> confirmed

An `offered` key may be replaced, and demands nothing: the answer to a registration can be lost, and a browser that does
not understand the answer says nothing. Only its first refresh shows that it has the session, and confirms the key. From
then on every request needs the bound cookie, for good.

Everything here is a decision of what was read and of `now`. The attacks, and which rule stops each:

*Copied cookies.* The bound cookie runs out, and the thief has no key (`judge`, `on_refresh`).
*A thief who brings a key.* A confirmed key is never replaced. Another one means that the session has two holders: it
ends (`on_registration`).
*A copied proof.* What it brings lives from the time of the challenge, not of the proof: it ends when the first one
does.
*Locking the owner out.* Only a proof by a key, with a challenge of ours, changes anything.
"""

from __future__ import annotations

from typing import Final, Literal, NamedTuple, TypeAlias

from msgspec.structs import replace

from dutchdoor.model.bindings import Binding
from dutchdoor.model.policy import DeviceBinding
from dutchdoor.model.sessions import Session

__all__ = [
    "ALGORITHMS", "BOUND_FOR", "CHALLENGE_FOR", "FIRST_FOR", "OFFERED_WITHIN", "ON_THE_WAY", "Challenge", "Confirmed",
    "Gone", "Known", "Late", "OtherKey", "Refresh", "Registration", "Rival", "Taken", "Unusable", "Verdict",
    "has_proved_since", "is_offered", "is_within", "judge", "kept_for", "may_be_bound_soon", "on_refresh",
    "on_registration",
]  # fmt: skip

ALGORITHMS: Final = ("ES256", "RS256")
"""What the key of a browser signs with, the preferred one first. Platforms without elliptic curves have RSA."""
CHALLENGE_FOR: Final = 300.0
"""Seconds for which a challenge is taken."""
BOUND_FOR: Final = 600.0
"""Seconds for which a bound cookie is taken, from the time of the challenge that it was given for."""
EARLY: Final = 20.0
"""Seconds by which a browser gives up a bound cookie earlier: a request that left with it may be on its way."""
FIRST_FOR: Final = 110.0
"""Seconds that a browser keeps its first one. With less than two minutes left, it fetches another one beside its next
request: that confirms the key, and no request waits.
"""
OFFERED_WITHIN: Final = 600.0
"""Seconds from a sign-in in which the browser is asked to register a key."""
AGAIN_AFTER: Final = 30.0
"""Seconds after which it is asked again: registering takes that long where a chip makes the key."""
REGISTERED_WITHIN: Final = 900.0
"""Seconds from a sign-in in which a key is taken. A browser does it in seconds: later, it is more likely a thief."""
UNBOUND_FOR: Final = 60.0
"""Seconds from a sign-in for which a browser is let in without a key, where the policy demands one."""
ON_THE_WAY: Final = 10.0
"""Seconds from the confirmation of a key for which requests are served without a bound cookie: they had left the
browser before it got one. A page sends many at once after a sign-in.
"""
ONE_MOMENT: Final = 10
"""Seconds between challenges that requests of one browser may have got side by side: it registers a key for each."""
LAST_USE_LATE: Final = 60.0
"""Seconds after which another node knows of the last use of a session."""
CLOCKS_APART: Final = 300.0
"""Seconds by which the clock of another node may be ahead."""


def is_within(at: float, now: float, seconds: float) -> bool:
    """Whether what was made `at` a time is taken now, for so many `seconds`, by a node whose clock may be behind."""
    return -CLOCKS_APART <= now - at < seconds


def kept_for(at: float, now: float) -> float:
    """Return the seconds for which a browser keeps a bound cookie whose challenge was made `at` a time."""
    return max(1.0, min(at, now) + BOUND_FOR - EARLY - now)


def is_offered(session: Session, policy: DeviceBinding, now: float, *, anew: bool, has_cookie: bool) -> bool:
    """Whether an answer asks the browser to register a key.

    Args:
        session: the session of the long-lived cookie.
        policy: which sign-ins are bound.
        anew: whether the answer sets that cookie for a new sign-in.
        has_cookie: whether the request has brought a valid bound cookie: then the browser has registered, whatever this
            node remembers, and another key would count as a thief's.
    """
    if policy == "off" or has_cookie:
        return False
    binding = None if session.binding is None else Binding.parse(session.binding)
    if binding is not None and (binding.state == "confirmed" or not binding.is_of_browser):
        return False
    return anew or AGAIN_AFTER <= now - session.proved_at < OFFERED_WITHIN


# --- registering a key ------------------------------------------------------------------------------------------------


class Taken(NamedTuple):
    """The key is taken, and is to be written."""

    binding: Binding


class Known(NamedTuple):
    """The session has this key already: the same answer again, and nothing to write. HTTP stacks repeat a request whose
    answer was lost.
    """

    binding: Binding


class Rival(NamedTuple):
    """Another key is confirmed: the session has two holders, and ends."""


class Late(NamedTuple):
    """Another key was confirmed a moment ago, for an offer of the same moment, or the sign-in is too long ago. The key
    is refused, and nothing ends.
    """

    why: str


class Unusable(NamedTuple):
    """The session is bound otherwise, or this server binds none."""

    why: str


Registration: TypeAlias = Taken | Known | Rival | Late | Unusable


def on_registration(session: Session, offered: Binding, policy: DeviceBinding, now: float) -> Registration:
    """Decide about a key that a browser has proved with a valid challenge of this session, as an `offered` binding."""
    known = None if session.binding is None else Binding.parse(session.binding)
    if known is not None and not known.is_of_browser:
        return Unusable("the session is bound to the key of a program")
    if known is not None and known.thumbprint == offered.thumbprint:
        return Known(known)
    if known is not None and known.state == "confirmed":
        # Requests that were answered side by side have each got a challenge, and a browser answers each with a key. No
        # one has asked for a key since: a challenge of another moment was kept by someone else.
        if abs(known.offered_at - offered.offered_at) <= ONE_MOMENT:
            return Late("another key of the same moment was confirmed first")
        return Rival()
    if policy == "off":
        return Unusable("this server binds no sign-ins")
    if now - session.proved_at >= REGISTERED_WITHIN:
        return Late("the sign-in is too long ago")
    return Taken(offered)


# --- fetching a bound cookie ------------------------------------------------------------------------------------------


class Challenge(NamedTuple):
    """The browser has to sign a challenge first."""


class Confirmed(NamedTuple):
    """The proof is right. `is_new` says that it is the first one: the binding is to be written."""

    binding: Binding
    is_new: bool


class OtherKey(NamedTuple):
    """The proof is by another key than the confirmed one."""


class Gone(NamedTuple):
    """The browser should forget what it has registered: the session has no such key."""


Refresh: TypeAlias = Challenge | Confirmed | OtherKey | Gone
Proof = Literal["none", "wrong", "right"]
"""`none` also with a challenge that is not ours, or too old; `wrong` by another key."""


def on_refresh(session: Session, proof: Proof) -> Refresh:
    """Decide about a browser that asks for a bound cookie of a live session, whose long-lived cookie it has."""
    known = None if session.binding is None else Binding.parse(session.binding)
    if known is None or not known.is_of_browser:
        return Gone()
    if proof == "none":
        return Challenge()
    if proof == "wrong":
        # Of two registrations at once, the browser may have kept the other one. It is not bound yet: it forgets that
        # one, and is asked again.
        return Gone() if known.state == "offered" else OtherKey()
    return Confirmed(replace(known, state="confirmed"), known.state == "offered")


# --- each request -----------------------------------------------------------------------------------------------------

Verdict = Literal["serve", "prove", "unbound"]


def judge(session: Session, policy: DeviceBinding, now: float, *, has_cookie: bool) -> Verdict:
    """Decide about a request with the long-lived cookie of a live session: `serve` it, let the browser `prove` its key
    first, or refuse it as `unbound`. `has_cookie` says whether it brings a valid bound cookie of this session.
    """
    binding = None if session.binding is None else Binding.parse(session.binding)
    if binding is not None and not binding.is_of_browser:
        return "serve"  # each request proves the key by itself
    if binding is not None and binding.state == "confirmed":
        return "serve" if has_cookie or abs(now - binding.confirmed_at) < ON_THE_WAY else "prove"
    if policy == "required" and not has_cookie and now - session.proved_at >= UNBOUND_FOR:
        return "unbound"
    return "serve"


def may_be_bound_soon(session: Session, policy: DeviceBinding, now: float) -> bool:
    """Whether the key of a browser may be confirmed for a session that needs none yet. A node remembers it for
    `ON_THE_WAY` only: until the key is demanded anywhere, each has read it again.
    """
    if session.mode != "session":
        return False  # each refresh reads the session
    if session.binding is not None:
        return Binding.parse(session.binding).state == "offered"
    return policy != "off" and now - session.proved_at < REGISTERED_WITHIN


# --- what a proof says of where a session is used ---------------------------------------------------------------------


def has_proved_since(session: Session, last_use: float, now: float) -> bool:
    """Whether the client of a live session, whose request is served `now`, has proved its key since a `last_use` in
    another place: then the device itself has moved. A program proves it with each request. Of a browser, both cookies
    may be copies, for as long as the shorter one lives.
    """
    if session.bound_to:
        return True
    return session.bound_key != "" and now - last_use >= BOUND_FOR + LAST_USE_LATE
