"""The endpoint at which the browser answers for its session, before its owner is asked (`services/lifting.py`).

The script of the page `/auth/confirm` calls it, with the challenge of that page. It takes the cookie of the session and
its CSRF token, as any other request that changes something, and a signature by the key that the session began with.
"""

from __future__ import annotations

from dutchdoor.errors import DeviceKeyRefused
from dutchdoor.model.rate_limits import bucket_of
from dutchdoor.services.lifting import BROWSER_ANSWERS
from dutchdoor.web.api import Call, Route
from dutchdoor.web.http import Response
from dutchdoor.web.schemas import BrowserAnswer

__all__ = ["ANSWER_PATH", "ROUTES"]

ANSWER_PATH = "/auth/reauthenticate/browser"


async def answer_by_browser(call: Call) -> Response:
    """Lift the doubt about the session of the caller."""
    body: BrowserAnswer = call.body
    _, session = await call.holding()
    if session is None:
        raise DeviceKeyRefused("a stateless token keeps no key")
    call.api.refresh_rate.take([bucket_of(BROWSER_ANSWERS, session.id)], call.authority.clock())
    await call.authority.lift(session.id, body.challenge, body.signature, client=call.observed())
    call.authority.look_up_again(session.id)
    return Response(204)


ROUTES = (
    Route(
        method="POST",
        path=ANSWER_PATH,
        handler=answer_by_browser,
        demands="caller",
        by_refresh_cookie=True,
        in_doubt=True,
        body=BrowserAnswer,
        status=204,
        also=(403,),
        summary="For the script of our pages: answer for a session in doubt by the key of its browser.",
    ),
)
