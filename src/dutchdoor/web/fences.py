"""What every call that revokes says at its end: whether what was revoked is refused everywhere already.

200 when it is fenced. 202 when not: it is committed, this server and every node refuse it, and the last verifier will
within `fenced_in_ms`. Asking for the same again gives the state of the fence. `Prefer: wait=N` waits longer.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, NamedTuple

from dutchdoor.model.accounts import Account
from dutchdoor.services.sessions import Ended
from dutchdoor.web.api import Call
from dutchdoor.web.http import Header, Response, json_response
from dutchdoor.web.prefer_header import wait_of
from dutchdoor.web.schemas import ChangedUser, Fence, user_view

__all__ = ["Fenced", "fence", "fence_of_user", "wait_for"]

WAIT_FOR: Final = 0.25
"""Seconds, unless the caller prefers another time. Verifiers that follow answer in milliseconds; a page that waits for
a log-out should not wait for one that was stopped."""


class Fenced(NamedTuple):
    """How the fence of a revocation stands when the answer is written."""

    fenced: bool
    in_ms: int | None
    """Milliseconds until it holds at the latest, rounded up; None: nothing bounds it."""
    headers: tuple[Header, ...]

    @property
    def status(self) -> int:
        return 200 if self.fenced else 202


async def wait_for(call: Call, done: Ended) -> Fenced:
    """Wait for the fence of what was ended, for as long as the caller would."""
    preferred = wait_of(call.request.header_list(b"prefer"))
    fencing, watching = call.authority.fencing, call.api.fences
    started = fencing.now()
    watching.waiting += 1
    try:
        found = await fencing.fence(done, wait=WAIT_FOR if preferred is None else preferred)
    finally:
        watching.waiting -= 1
    watching.told(found.state, fencing.now() - started)
    due_in = found.due_in(fencing.now())
    return Fenced(
        found.fenced,
        math.ceil(due_in * 1000) if math.isfinite(due_in) else None,
        () if preferred is None else ((b"preference-applied", b"wait=%d" % preferred),),
    )


async def fence_of_user(call: Call, done: Ended, account: Account, headers: Sequence[Header] = ()) -> Response:
    """Answer a call that changed an account, and thereby ended something."""
    fenced = await wait_for(call, done)
    shown = ChangedUser(user_view(account), fenced.fenced, fenced.in_ms)
    return json_response(fenced.status, shown, (*headers, *fenced.headers))


async def fence(call: Call, done: Ended, headers: Sequence[Header] = ()) -> Response:
    """Answer a call that ended something."""
    fenced = await wait_for(call, done)
    shown = Fence(fenced.fenced, fenced.in_ms, done.count)
    return json_response(fenced.status, shown, (*headers, *fenced.headers))
