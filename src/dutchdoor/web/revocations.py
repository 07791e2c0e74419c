"""The poll, with which verifiers follow the revocation log (docs/contributing/revocation-fence.md). A poll also
acknowledges the previous answer and asks for a lease.

A poll needs a verifier key, never a cookie, and pages of other origins cannot read it. A waiting poll ends when the
client hangs up. When the server is asked to stop, it answers waiting polls at once, without a lease.
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
"""Limit for the body of a poll, in bytes. A poll has about 150."""


class PollBody(Poll, Body, frozen=True, kw_only=True):
    """The body of a poll. Unknown fields are refused."""

    # `extra_json_schema` is for the documentation, where regular expressions are those of ECMAScript.
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
        verifiers.check_not_removed(key)  # an administrator may have removed the key while the poll waited
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
        summary="Follow the revocation log: get new entries and a lease. A long poll, if the client allows it to wait.",
    ),
)
