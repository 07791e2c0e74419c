"""What the pages say of a sign-in: whether it is bound to its device and, where it is not, why not."""

from __future__ import annotations

from dutchdoor.model.device_binding import OFFERED_WITHIN
from dutchdoor.model.sessions import Session
from dutchdoor.texts import mark
from dutchdoor.web.api import Call

__all__ = ["bound_or_why_not"]

BOUND = mark("bound to this device")
NOT_YET = mark("not bound to its device yet")
CANNOT = mark("not bound to its device: this browser cannot")
UNBOUND = mark("not bound to its device")


def bound_or_why_not(call: Call, session: Session) -> str:
    """Return the words for a live session of the list; "" where this server binds none."""
    if session.bound_key:
        return BOUND
    if call.authority.policy.device_binding == "off" or not call.cookies.secure:
        return ""
    # A browser that can is done in seconds. Of one that is not, no more is known than that it did not.
    if session.mode == "session":
        return NOT_YET if call.authority.clock() - session.proved_at < OFFERED_WITHIN else CANNOT
    return UNBOUND  # a program that proves no key, or the refresh cookie of a browser: a session does not say which
