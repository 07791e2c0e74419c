"""The page of one's own account: its sections in order, and the endpoints that their forms post to."""

from __future__ import annotations

from collections.abc import Sequence

from dutchdoor.texts import mark
from dutchdoor.web.api import Call, Handler, Page, Route
from dutchdoor.web.http import Response
from dutchdoor.web.pages.account import passkeys, password, second_factor, set_aside
from dutchdoor.web.pages.account.about import EmailSection, NameSection
from dutchdoor.web.pages.account.data import DELETED_PATH, DeletionSection, ExportSection
from dutchdoor.web.pages.account.identities import IdentitiesSection
from dutchdoor.web.pages.account.passkeys import PasskeysSection
from dutchdoor.web.pages.account.password import PasswordSection
from dutchdoor.web.pages.account.second_factor import SecondFactorSection
from dutchdoor.web.pages.account.section import AccountPage, Section
from dutchdoor.web.pages.site import ACCOUNT_PATH, Pages

__all__ = ["forms", "routes"]

GROUPS: Sequence[tuple[str, Sequence[type[Section]]]] = (
    (mark("About you"), (NameSection, EmailSection)),
    (mark("Ways to sign in"), (PasswordSection, PasskeysSection, SecondFactorSection, IdentitiesSection)),
    (mark("Your data"), (ExportSection, DeletionSection)),
)
"""The sections of the page. A group without one is not shown."""


def routes(pages: Pages) -> list[Route]:
    show = AccountPage(pages, GROUPS).show

    async def deleted(call: Call) -> Response:
        return pages.show(call.request, "account_deleted", kept_for=call.authority.policy.keep_deleted_for)

    return [
        *passkeys.routes(pages),
        pages.own_page(ACCOUNT_PATH, show, query=("done",), summary="Show the page of one's own account."),
        pages.page(DELETED_PATH, deleted, summary="Say that an account was deleted."),
    ]


def forms(pages: Pages) -> dict[Handler, Page]:
    of_sections = {handler: each for each in AccountPage(pages, GROUPS).sections for handler in each.handlers}
    further = {**password.forms(pages), **passkeys.forms(pages), **second_factor.forms(pages), **set_aside.forms(pages)}
    return {**of_sections, **further}
