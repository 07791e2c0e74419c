"""The pages of links that change an account: another address, the former address again, a deleted account that is
kept, a second factor that is lost. Each is one form: a click, or a password too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from dutchdoor.mail.letters import (
    CHANGE_PATH,
    KEEP_FACTORS_PATH,
    KEEP_PATH,
    LOST_PATH,
    REMOVE_FACTORS_PATH,
    RESTORE_PATH,
)
from dutchdoor.texts import mark
from dutchdoor.web import life_routes, lost_factor_routes
from dutchdoor.web.api import Call, Handler, Page, Route
from dutchdoor.web.http import Response
from dutchdoor.web.pages.links import LinkForm, with_address
from dutchdoor.web.pages.site import Pages

__all__ = ["forms", "routes"]


class Linked(Struct, frozen=True, kw_only=True):
    """What one of these pages says, and what its form asks for."""

    path: str
    """Of the page, and of the endpoint that its form posts to."""
    handler: Handler
    heading: str
    words: str
    button: str
    password: str = ""
    """The field of a password that is chosen; "" for none."""
    otherwise: str
    """What to do if the link does not work any more."""
    done: str
    """The heading after it."""
    further: str = ""
    """What to do after it; "" to sign in."""


LINKED = (
    Linked(
        path=CHANGE_PATH,
        handler=life_routes.confirm_email,
        heading=mark("Confirm your new e-mail address"),
        words=mark("After that you sign in with this address. Confirm it only if the account is yours."),
        button=mark("Confirm the address"),
        otherwise=mark("Sign in, and change the address on the page of your account once more."),
        done=mark("Your e-mail address is changed."),
    ),
    Linked(
        path=RESTORE_PATH,
        handler=life_routes.restore_email,
        heading=mark("Undo the change of your e-mail address"),
        words=mark("This address signs you in again. You choose a new password, and everyone else is signed out."),
        button=mark("Undo the change"),
        password="new_password",
        otherwise=mark("If the account is in the hands of another person, ask those who run this site."),
        done=mark("The change is undone."),
    ),
    Linked(
        path=KEEP_PATH,
        handler=life_routes.keep,
        heading=mark("Keep your account"),
        words=mark("The account was deleted, and is to be erased. If you keep it, you can sign in again."),
        button=mark("Keep the account"),
        otherwise=mark("If your account is gone, ask those who run this site."),
        done=mark("Your account stays."),
    ),
    Linked(
        path=LOST_PATH,
        handler=lost_factor_routes.begin_removal,
        heading=mark("Begin the waiting time"),
        words=mark("Your second factor is lost, and the recovery codes too? After a waiting time, a link removes it."),
        button=mark("Begin the waiting time"),
        otherwise=mark("Sign in once more, and ask for another link at the second step."),
        done=mark("The waiting time has begun."),
        further=mark(
            "We sent two more mails. One says when the time is over: keep it, its link removes the factor then."
        ),
    ),
    Linked(
        path=KEEP_FACTORS_PATH,
        handler=lost_factor_routes.keep_factors,
        heading=mark("Keep the second factor"),
        words=mark("Someone says that the second factor of your account is lost. If it was not you, keep it."),
        button=mark("Keep the second factor"),
        otherwise=mark("It may be cancelled already. The page of your account says whether a removal is under way."),
        done=mark("The second factor stays."),
    ),
    Linked(
        path=REMOVE_FACTORS_PATH,
        handler=lost_factor_routes.remove_lost_factors,
        heading=mark("Remove the second factor"),
        words=mark("This removes every second factor of your account, and signs you out everywhere."),
        button=mark("Remove the second factor"),
        otherwise=mark("A sign-in or a new password has made it void. Sign in to ask for another one."),
        done=mark("The second factor is removed."),
    ),
)


def routes(pages: Pages) -> list[Route]:
    found: list[Route] = []
    for linked in LINKED:
        form = LinkedForm(pages, linked)
        found += [
            pages.page(linked.path, form.show, summary=f"Show the page of a link: {linked.heading}."),
            pages.page(
                f"{linked.path}/done", form.done, summary=f"Say that it is done, and offer to sign in: {linked.done}"
            ),
        ]
    return found


def forms(pages: Pages) -> dict[Handler, Page]:
    return {linked.handler: LinkedForm(pages, linked) for linked in LINKED}


class LinkedForm(LinkForm):
    """The form of one of these pages. It signs no one in: a link may have reached the mailbox of another person."""

    name = "linked"

    def __init__(self, pages: Pages, linked: Linked) -> None:
        super().__init__(pages)
        self.linked = linked

    def take(self, call: Call, fields: Mapping[str, str]) -> Mapping[str, object]:
        taken, chosen = super().take(call, fields), self.linked.password
        return {**taken, chosen: fields[chosen]} if fields.get(chosen) else taken

    async def answer(self, call: Call, response: Response, fields: Mapping[str, str]) -> Response:  # noqa: ARG002
        done = f"{self.pages.base}{self.linked.path}/done"
        return self.pages.go(done if self.linked.further else with_address(done, response), response)

    async def done(self, call: Call) -> Response:
        """Say that it is done."""
        return self.pages.show(call.request, "linked_done", linked=self.linked, **await self.pages.visitor(call))

    def values(self, call: Call) -> dict[str, Any]:
        return {**super().values(call), "linked": self.linked}
