"""The page that loads another one again: it gives a browser the occasion to prove its key.

A browser holds a request without a valid bound cookie until it has proved its key. Not so when a link of another site
leads here: that request comes without the cookie. A redirect does not help, since it is a part of the same navigation.
This page is of our own origin, and the navigation that it begins is held.

No loop: only a navigation that began elsewhere is sent here, and the next one begins here.
"""

from __future__ import annotations

from dutchdoor.web.api import Call, Route
from dutchdoor.web.http import Response
from dutchdoor.web.pages.site import Pages
from dutchdoor.web.sign_in_page import RELOAD_PATH, next_path

__all__ = ["routes"]


def routes(pages: Pages) -> list[Route]:
    async def show(call: Call) -> Response:
        # Open redirect: `next` is a path of this host, or the home page.
        return pages.lead_on(call.request, "reload", next_path(call.query.get("next"), pages.home))

    summary = "Load a page again, after the browser has proved its key."
    return [pages.page(RELOAD_PATH, show, query=("next",), bundled=False, summary=summary)]
