"""Forms that need the one-time token of a link, whether the link came by mail or was printed by the server.

The token is in the fragment of the link, after the `#`: a browser sends that part to no server, so no log of a proxy
and no Referer has it. The script fills it into the form and removes it from the address bar and the history. Without a
script, the person pastes the link into the form. Opening the link uses nothing up: mail filters open links too.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote, unquote

import msgspec

from dutchdoor.errors import DutchdoorError, InvalidToken
from dutchdoor.model.one_time_tokens import OneTimeSecret
from dutchdoor.texts import mark
from dutchdoor.web.api import Call
from dutchdoor.web.http import Response
from dutchdoor.web.pages.forms import Form, wrong_of

__all__ = ["LINK_AT_MOST", "LinkForm", "find_token", "with_address"]

LINK_AT_MOST = 4000
"""Characters of a pasted link. Mail filters wrap a link in a longer one of their own."""

_TOKEN = re.compile(rf"{OneTimeSecret.prefix}[A-Za-z0-9_-]{{48}}(?![A-Za-z0-9_-])")
_INCOMPLETE = mark("This is not a complete link. Copy the whole link, with the part after the #, and paste it here.")
_DEAD = mark("This link does not work any more: it was used, it is too old, or there is a newer one.")


class IncompleteLink(InvalidToken):
    """There is no token in what was pasted, or half of one."""


def find_token(text: str) -> str:
    """Return the token in a pasted link, code or piece of a mail; "" if there is none. A mail program may have broken
    the link into lines.
    """
    if len(text) > LINK_AT_MOST:
        return ""
    text = unquote(text)
    found = _TOKEN.search(text) or _TOKEN.search("".join(text.split()))
    return found[0] if found else ""


class LinkForm(Form):
    """A form with the token of a link. A token that can still be used stays in the form when it is shown again."""

    keeps: tuple[str, ...] = ("token",)

    def take(self, call: Call, fields: Mapping[str, str]) -> Mapping[str, object]:  # noqa: ARG002 - for every form
        token = find_token(fields.get("token", ""))
        if not token:
            raise IncompleteLink("no one-time token in the form")
        return {"token": token}

    def values(self, call: Call) -> dict[str, Any]:
        """Return what a page needs that takes a new password, as most of them do."""
        return {"password_minimum": call.authority.policy.password_minimum}

    async def refuse(self, call: Call, error: DutchdoorError, fields: Mapping[str, str]) -> Response:
        token = "" if isinstance(error, InvalidToken) else find_token(fields.get("token", ""))
        return await super().refuse(call, error, {**fields, "token": token})

    def wrong(self, error: DutchdoorError) -> dict[str, Any]:
        if not isinstance(error, InvalidToken):
            return super().wrong(error)
        # One reason for all: another would tell a guesser which tokens there were.
        words = _INCOMPLETE if isinstance(error, IncompleteLink) else _DEAD
        return {**wrong_of(error, words), "field": "token"}


def with_address(path: str, response: Response) -> str:
    """Return the way to a page with a form to sign in, which the script fills with the address of the account. The
    address is in the fragment: no log has it.
    """
    address = msgspec.json.decode(response.body)["user"]["email"]
    return f"{path}#{quote(address, safe='@')}" if address else path
