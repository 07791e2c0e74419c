"""The response of every call that revokes: whether every verifier refuses the revoked session or token already.

200: fenced. 202: not fenced yet. The revocation is committed, every node of the server refuses the session or token,
and the last verifier refuses it within `fenced_in_ms`. Repeating the call returns the state of the fence.
`Prefer: wait=N` waits longer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from dutchdoor.model.accounts import Account
from dutchdoor.services.hooks import notify
from dutchdoor.stores.base import Revoked
from dutchdoor.web.api import Call
from dutchdoor.web.http import Header, Response, json_response
from dutchdoor.web.prefer_header import wait_of
from dutchdoor.web.schemas import ChangedUser, Fence, user_view

__all__ = ["applied", "fence", "fence_of_user", "status_of", "wait_for"]

WAIT_FOR: Final = 0.25
"""Default wait in seconds. Verifiers that follow the log answer in milliseconds. A page that waits for a log-out should
not wait for a verifier that is down."""


async def wait_for(call: Call, done: Revoked) -> Fence:
    """Wait for the fence of a revocation, as long as the caller prefers, and return its state."""
    preferred = wait_of(call.request.header_list(b"prefer"))
    fencing, hooks = call.authority.fencing, call.authority.hooks
    started = fencing.now()
    call.api.waiting_for_fences += 1
    try:
        found = await fencing.fence(done, wait=WAIT_FOR if preferred is None else preferred)
    finally:
        call.api.waiting_for_fences -= 1
    notify(hooks.fence_waited, found.state, fencing.now() - started)
    return Fence(found.fenced, found.due_in_ms(fencing.now()))


def status_of(shown: Fence) -> int:
    return 200 if shown.fenced else 202


def applied(call: Call) -> tuple[Header, ...]:
    """Return the header for the preference that was applied, if the request had one."""
    preferred = wait_of(call.request.header_list(b"prefer"))
    return () if preferred is None else ((b"preference-applied", b"wait=%d" % preferred),)


async def fence_of_user(call: Call, done: Revoked, account: Account, headers: Sequence[Header] = ()) -> Response:
    """Answer a call that changed an account and revoked its tokens."""
    found = await wait_for(call, done)
    shown = ChangedUser(user_view(account), found.fenced, found.fenced_in_ms)
    return json_response(status_of(found), shown, (*headers, *applied(call)))


async def fence(call: Call, done: Revoked, headers: Sequence[Header] = ()) -> Response:
    """Answer a call that revoked sessions or tokens."""
    shown = await wait_for(call, done)
    shown.ended = done.count
    return json_response(status_of(shown), shown, (*headers, *applied(call)))
