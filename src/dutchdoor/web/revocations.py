"""The poll, with which verifiers follow the revocation log (docs/contributing/revocation-fence.md). A poll also
acknowledges the previous answer and asks for a lease.

A poll needs a verifier key, never a cookie, and pages of other origins cannot read it. A waiting poll ends when the
client hangs up. When the server is asked to stop, it answers waiting polls at once, without a lease.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Annotated

from msgspec import Meta

from dutchdoor.errors import NotAuthenticated, RateLimited, Unavailable
from dutchdoor.model.http_client import observe
from dutchdoor.revocation.messages import Answer, Poll, Seen
from dutchdoor.web.api import Call, Route
from dutchdoor.web.body import Body
from dutchdoor.web.http import Response, json_response

__all__ = ["ROUTES"]

POLL_AT_MOST = 16_384
"""Limit for the body of a poll, in bytes. A poll has about 150, and the tokens of what it reports."""
REPORTED_AT_ONCE = 4
"""Polls whose reports are looked at at one time. Those of more are dropped: the next change is reported again."""

_looking: set[asyncio.Task[None]] = set()
_log = logging.getLogger("dutchdoor.web")


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
    if body.seen and call.authority.watches and len(_looking) < REPORTED_AT_ONCE:
        # Beside the poll: its answer must not wait for the store.
        task = asyncio.get_running_loop().create_task(_look(call, body.seen, credential))
        _looking.add(task)
        task.add_done_callback(_looking.discard)
    with verifiers.hanging(credential):
        answer = await call.authority.fencing.poll(body, credential=credential)
    if key is not None:
        verifiers.check_not_removed(key)  # an administrator may have removed the key while the poll waited
    return json_response(200, answer)


async def _look(call: Call, reported: tuple[Seen, ...], credential: str) -> None:
    """Look at where tokens were used at a verifier. Each report counts as a question about a token, and its token must
    be valid: a verifier can put in doubt only what it was given, and end nothing.
    """
    site = call.api.site
    for seen in reported:
        try:
            call.api.verifiers.count_question(credential)
            address = seen.network.partition("/")[0]
            client = observe(address, "", devices=site.devices, countries=site.countries)
            await call.authority.sight_at_verifier(seen.token, client)
        except RateLimited:
            return
        except (NotAuthenticated, Unavailable):
            continue  # it is refused already, or is now
        except Exception:  # noqa: BLE001 - no caller waits
            _log.exception("could not look at what a verifier reported")


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
