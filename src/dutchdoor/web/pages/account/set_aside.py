"""The question that every page of a person asks after a reset: are these yours? Its forms stand in `own.html`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from dutchdoor.texts import mark
from dutchdoor.web import set_aside_routes
from dutchdoor.web.api import Call, Handler, Page
from dutchdoor.web.http import Response
from dutchdoor.web.pages.forms import OwnForm
from dutchdoor.web.pages.site import ACCOUNT_PATH, Pages

__all__ = ["SAYS", "forms"]

SAYS: Final[Mapping[str, str]] = {"way_kept": mark("It is yours, and works again.")}
"""What the page of the account says after it. What is removed is said by the sections."""


class DecideForm(OwnForm):
    """Keeps or removes one."""

    def __init__(self, pages: Pages, *, keeps: bool) -> None:
        super().__init__(pages)
        self.keeps = keeps

    def take(self, call: Call, fields: Mapping[str, str]) -> Mapping[str, object]:  # noqa: ARG002 - for every form
        return {"id": fields.get("id", "")}

    async def answer(self, call: Call, response: Response, fields: Mapping[str, str]) -> Response:  # noqa: ARG002
        return self.pages.go(f"{self.pages.base}{ACCOUNT_PATH}{'?done=way_kept' if self.keeps else ''}", response)


def forms(pages: Pages) -> dict[Handler, Page]:
    return {
        set_aside_routes.keep_aside: DecideForm(pages, keeps=True),
        set_aside_routes.remove_aside: DecideForm(pages, keeps=False),
    }
