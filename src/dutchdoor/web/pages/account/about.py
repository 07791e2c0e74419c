"""The sections about the person: the name, which can be changed here, and the address."""

from __future__ import annotations

from dutchdoor.texts import mark
from dutchdoor.web import account_routes
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
    """Shows the address."""

    name = "email"
