"""The section to change the password."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dutchdoor.credentials.password import PASSWORD
from dutchdoor.model.accounts import Credential
from dutchdoor.texts import mark
from dutchdoor.web import account_routes
from dutchdoor.web.api import Call
from dutchdoor.web.pages.account.section import Section

__all__ = ["PasswordSection", "has_password"]


class PasswordSection(Section):
    """Changes the password, and ends every other sign-in with it."""

    name = "password"
    handlers = (account_routes.change_password,)
    fields = ("current_password", "new_password")
    did = "password_changed"
    says = {"password_changed": mark("Your password is changed. All other devices are signed out.")}  # noqa: RUF012

    async def values(self, call: Call) -> Mapping[str, Any]:
        return {"minimum": call.authority.policy.password_minimum, "is_set": await has_password(call)}


async def has_password(call: Call) -> bool:
    """Return whether the caller's account has a password: one that was created by another log-in has none."""
    subject = call.actor
    return await call.authority.store.get(Credential, subject, PASSWORD, "") is not None
