"""The answer to a request that a guard refuses: a problem document, or for a browser that asked for a page, the way to
the page where people sign in.

    auth = Auth(app, sign_in_page="/login")

A browser that opens `/orders?page=2` without a session is sent to `/login?next=%2Forders%3Fpage%3D2`. The page sends
people back to `next_path(request.query_params.get("next"))`.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import quote

from dutchdoor.errors import DutchdoorError, NotAuthenticated, StepUpRequired
from dutchdoor.web.browser import opens_a_page
from dutchdoor.web.http import Request, Response
from dutchdoor.web.problems import problem
from dutchdoor.web.sign_in_page import factors_wanted, next_path, way_to_confirm, way_to_sign_in

__all__ = ["next_path", "refusal"]

AGAIN: Final = "&again=1"
"""Tells a sign-in page of the application that the session is there, and is not enough."""
_NO_STORE: Final = (b"cache-control", b"no-store")


def refusal(
    error: DutchdoorError, asked: Request, sign_in_page: str = "", root_path: str = "", confirm_page: str = ""
) -> Response:
    """Return the answer to a request that was refused with an `error`. `root_path` is where the application is mounted.

    A browser whose proof is too old or too weak is sent to the `confirm_page`, or to a sign-in page of the application.
    Nothing is redirected but a browser that opens a page: a script would follow, and take the page for its data.
    """
    if sign_in_page and isinstance(error, (NotAuthenticated, StepUpRequired)) and opens_a_page(asked, asked.method):
        back = quote(root_path + asked.path, safe="/")
        if asked.query:
            back = f"{back}?{asked.query.decode('latin-1')}"
        if isinstance(error, StepUpRequired):
            way = (
                way_to_confirm(confirm_page, back, error)
                if confirm_page
                else way_to_sign_in(sign_in_page, back, AGAIN + factors_wanted(error))
            )
        else:
            way = way_to_sign_in(sign_in_page, back)
        return Response(303, [(b"location", way), _NO_STORE])
    answer = problem(error)
    answer.headers = [*answer.headers, _NO_STORE]
    return answer
