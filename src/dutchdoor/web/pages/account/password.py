"""The section to change the password."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dutchdoor.credentials.password import PASSWORD
from dutchdoor.model.accounts import Credential
from dutchdoor.texts import mark
from dutchdoor.web import account_routes
from dutchdoor.web.api import Call, Handler, Page
from dutchdoor.web.http import Response
from dutchdoor.web.pages.account.section import Section
from dutchdoor.web.pages.forms import OwnForm
from dutchdoor.web.pages.site import ACCOUNT_PATH, Pages

__all__ = ["PasswordSection", "forms", "has_password"]


class PasswordSection(Section):
    """Changes the password, and ends every other sign-in with it."""

    name = "password"
    handlers = (account_routes.change_password,)
    fields = ("current_password", "new_password")
    did = "password_changed"
    says = {  # noqa: RUF012
        "password_changed": mark("Your password is changed. All other devices are signed out."),
        "password_removed": mark("Your account has no password any more. All other devices are signed out."),
    }

    async def values(self, call: Call) -> Mapping[str, Any]:
        account, _ = await call.holding()
        return {
            "minimum": call.authority.policy.password_minimum,
            "is_set": await has_password(call),
            "spare": await call.directory.giving_up.is_possible(account),
        }


def forms(pages: Pages) -> dict[Handler, Page]:
    return {account_routes.remove_password: GiveUpForm(pages)}


class GiveUpForm(OwnForm):
    """Gives up the password."""

    async def answer(self, call: Call, response: Response, fields: Mapping[str, str]) -> Response:  # noqa: ARG002
        return self.pages.go(f"{self.pages.base}{ACCOUNT_PATH}?done=password_removed", response)


async def has_password(call: Call) -> bool:
    """Return whether the caller's account has a password: one that was created by another log-in has none."""
    subject = call.actor
    return await call.authority.store.get(Credential, subject, PASSWORD, "") is not None
