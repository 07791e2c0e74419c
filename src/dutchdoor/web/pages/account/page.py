"""The page of one's own account: its sections in order, and the endpoints that their forms post to."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from dutchdoor.texts import mark
from dutchdoor.web.api import Handler, Page, Route
from dutchdoor.web.pages.account.about import EmailSection, NameSection
from dutchdoor.web.pages.account.password import PasswordSection
from dutchdoor.web.pages.account.section import AccountPage, Section
from dutchdoor.web.pages.site import ACCOUNT_PATH, Pages

__all__ = ["forms", "routes"]

GROUPS: Sequence[tuple[str, Sequence[type[Section]]]] = (
    (mark("About you"), (NameSection, EmailSection)),
    (mark("Ways to sign in"), (PasswordSection,)),
    (mark("Your data"), ()),
)
"""The sections of the page. A group without one is not shown."""


def routes(pages: Pages) -> list[Route]:
    own = partial(Route, path=ACCOUNT_PATH, demands="caller", unproven=pages.to_sign_in, query=("done",))
    return [own(method="GET", handler=AccountPage(pages, GROUPS).show, summary="Show the page of one's own account.")]


def forms(pages: Pages) -> dict[Handler, Page]:
    return {handler: section for section in AccountPage(pages, GROUPS).sections for handler in section.handlers}
