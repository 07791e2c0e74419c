"""The sections about the person: the name and the address, which can be changed here."""

from __future__ import annotations

from dutchdoor.texts import mark
from dutchdoor.web import account_routes, life_routes
from dutchdoor.web.pages.account.section import Section

__all__ = ["EmailSection", "NameSection"]


class NameSection(Section):
    """Shows and changes the name."""

    name = "name"
    handlers = (account_routes.change_name,)
    fields = keeps = ("name",)
    did = "name_changed"
    says = {"name_changed": mark("Your name is changed.")}  # noqa: RUF012


class EmailSection(Section):
    """Shows the address, and asks for another one, which its mailbox confirms."""

    name = "email"
    handlers = (life_routes.change_email,)
    fields = keeps = ("email",)
    did = "email_change_requested"
    says = {  # noqa: RUF012
        "email_change_requested": mark(
            "We sent a mail to the new address. Your account has it as soon as you follow the link in that mail."
        )
    }
