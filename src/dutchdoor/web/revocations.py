"""The poll: how verifiers follow the revocation log (docs/contributing/revocation-fence.md). One call, which is also
the acknowledgement of the answer before it, and asks for a lease.

By a verifier key alone, never by a cookie, and no other origin's page ever reads it. A poll that waits for news ends
when whoever sent it hangs up, and at once, without a lease, when this server is asked to stop.
"""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from dutchdoor.revocation.messages import Answer, Poll
from dutchdoor.web.api import Call, Route
from dutchdoor.web.body import Body
from dutchdoor.web.http import Response, json_response

__all__ = ["ROUTES"]

POLL_AT_MOST = 1024
"""Bytes. A poll has some 150."""


class PollBody(Poll, Body, frozen=True, kw_only=True):
    """A poll as it is read: nothing in it that is not known here."""

    # For the documentation, in which regular expressions are those of ECMAScript.
    holder: Annotated[
        str,
        Meta(
            min_length=16,
            max_length=64,
            pattern=r"\A[A-Za-z0-9_-]+\Z",
            extra_json_schema={"pattern": "^[A-Za-z0-9_-]+$"},
        ),
    ]


async def poll(call: Call) -> Response:
    body: PollBody = call.body
    verifiers, key = call.api.verifiers, call.verifier
    credential = "" if key is None else key.name
    verifiers.admit(body, credential)
    with verifiers.hanging(credential):
        answer = await call.authority.fencing.poll(body, credential=credential)
    if key is not None:
        verifiers.check_not_removed(key)  # it may have been while this hung
    return json_response(200, answer)


ROUTES = (
    Route(
        method="POST",
        path="/auth/revocations/poll",
        handler=poll,
        demands="verifier",
        body=PollBody,
        body_at_most=POLL_AT_MOST,
        hangs=True,
        gives=Answer,
        summary="Follow the revocation log: what is new, and a lease. Waits for news if it may.",
    ),
)
