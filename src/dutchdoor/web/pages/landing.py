"""The page at the root of the server: what this is, where to sign in, and who is signed in."""

from __future__ import annotations

from dutchdoor.web.api import Call, Route
from dutchdoor.web.http import Response
from dutchdoor.web.pages.site import Pages

__all__ = ["routes"]


def routes(pages: Pages) -> list[Route]:
    show, summary = LandingPage(pages).show, "Say what this is and where to sign in."
    return [pages.page("/", show, bundled=False, summary=summary)]


class LandingPage:
    def __init__(self, pages: Pages) -> None:
        self.pages = pages

    async def show(self, call: Call) -> Response:
        docs = any(route.path == "/docs" for route in call.api.routes)
        return self.pages.show(call.request, "landing", docs=docs, **await self.pages.visitor(call))
