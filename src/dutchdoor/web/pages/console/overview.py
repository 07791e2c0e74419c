"""The first page of the console."""

from __future__ import annotations

from dutchdoor.web.api import Call, Route
from dutchdoor.web.http import Response
from dutchdoor.web.pages.console.frame import Console
from dutchdoor.web.pages.site import CONSOLE_PATH

__all__ = ["routes"]


def routes(console: Console) -> list[Route]:
    async def show(call: Call) -> Response:
        return console.show(call, "overview")

    return [console.page(CONSOLE_PATH, show, summary="Show the first page of the console.")]
