"""The section to change the password."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dutchdoor.texts import mark
from dutchdoor.web import account_routes
from dutchdoor.web.api import Call
from dutchdoor.web.pages.account.section import Section

__all__ = ["PasswordSection"]


class PasswordSection(Section):
    """Changes the password, and ends every other sign-in with it."""

    name = "password"
    handlers = (account_routes.change_password,)
    fields = ("current_password", "new_password")
    did = "password_changed"
    says = {"password_changed": mark("Your password is changed. All other devices are signed out.")}  # noqa: RUF012

    async def values(self, call: Call) -> Mapping[str, Any]:
        return {"minimum": call.authority.policy.password_minimum}
