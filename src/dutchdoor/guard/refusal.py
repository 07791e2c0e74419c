"""The answer to a request that a guard refuses: a problem document, or for a browser that asked for a page, the way to
the page where people sign in.

    auth = Auth(app, sign_in_page="/login")

A browser that opens `/orders?page=2` without a session is sent to `/login?next=%2Forders%3Fpage%3D2`. The page sends
people back to `next_path(request.query_params.get("next"))`.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import quote

from dutchdoor.errors import DeviceProofRequired, DutchdoorError, NotAuthenticated, StepUpRequired
from dutchdoor.guard.gates import Gate
from dutchdoor.web.browser import came_from_elsewhere, opens_a_page
from dutchdoor.web.http import Request, Response
from dutchdoor.web.problems import problem
from dutchdoor.web.sign_in_page import factors_wanted, next_path, way_to_confirm, way_to_sign_in

__all__ = ["loads_again", "next_path", "refusal"]

AGAIN: Final = "&again=1"
"""Tells a sign-in page of the application that the session is there, and is not enough."""
_NO_STORE: Final = (b"cache-control", b"no-store")


def loads_again(asked: Request) -> bool:
    """Whether a browser opens a page and was led here from elsewhere, so that it could not prove its key. Who it is is
    looked at before the page is made, or the page would not know a person who is signed in.
    """
    return came_from_elsewhere(asked) and opens_a_page(asked, asked.method)


def refusal(
    error: DutchdoorError,
    asked: Request,
    gate: Gate,
    root_path: str = "",
    *,
    sign_in_page: str = "",
    confirm_page: str = "",
) -> Response:
    """Return the answer to a request that was refused with an `error`. `root_path` is where the application is mounted.
    Where the `gate` names no pages, people sign in on `sign_in_page`, and prove again who they are on `confirm_page`.

    A browser whose proof is too old or too weak is sent to the confirm page, or to a sign-in page of the application.
    One that came from another site, and so could not prove its key, is sent to the reload page. Nothing is redirected
    but a browser that opens a page: a script would follow, and take the page for its data.
    """
    sign_in_page, confirm_page = gate.sign_in_page or sign_in_page, gate.confirm_page or confirm_page
    reloads = gate.reload_page and isinstance(error, DeviceProofRequired) and loads_again(asked)
    leads = reloads or (sign_in_page and isinstance(error, (NotAuthenticated, StepUpRequired)))
    if leads and opens_a_page(asked, asked.method):
        back = quote(root_path + asked.path, safe="/")
        if asked.query:
            back = f"{back}?{asked.query.decode('latin-1')}"
        if reloads:
            way = way_to_sign_in(gate.reload_page, back)
        elif isinstance(error, StepUpRequired):
            way = (
                way_to_confirm(confirm_page, back, error)
                if confirm_page
                else way_to_sign_in(sign_in_page, back, AGAIN + factors_wanted(error))
            )
        else:
            way = way_to_sign_in(sign_in_page, back)
        # A bound cookie that was not accepted is cleared, or the browser fetches no other.
        cleared = [header for header in problem(error).headers if header[0] == b"set-cookie"]
        return Response(303, [(b"location", way), *cleared, _NO_STORE])
    answer = problem(error)
    answer.headers = [*answer.headers, _NO_STORE]
    return answer
