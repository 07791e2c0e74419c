"""Pages with a form, which work without a script: the browser posts to the endpoint that programs use, and is sent on.

A page is shown by GET, and again with what was wrong. What a form posts is checked as JSON is: by the type of the
endpoint's body. Log-in CSRF: a page of another site cannot sign people in to an account of its own, because
`Api.answer` judges the origin of each form.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dutchdoor.errors import DutchdoorError, InvalidInput, WrongCredentials
from dutchdoor.model.policy import Mode
from dutchdoor.web.api import Call
from dutchdoor.web.http import Response
from dutchdoor.web.pages.site import Pages
from dutchdoor.web.problems import problem

__all__ = ["Form", "browser_mode"]


class Form:
    """A form of a page: what its template is called, and which fields keep their value when it is shown again."""

    name: str
    keeps: tuple[str, ...] = ("email", "next")

    def __init__(self, pages: Pages) -> None:
        self.pages = pages

    async def show(self, call: Call) -> Response:
        return self.pages.show(call.request, self.name, kept=self._kept(call.query), error=None, **self.values(call))

    def refuse(self, call: Call, error: DutchdoorError, fields: Mapping[str, str]) -> Response:
        answer = problem(error)
        kept = self._kept(fields)
        passed = tuple(header for header in answer.headers if header[0] == b"retry-after")
        wrong_login = self.pages.own_users and isinstance(error, WrongCredentials)
        words = "The login or the password is not right." if wrong_login else str(error)
        shown = {"words": words, "field": error.field if isinstance(error, InvalidInput) else ""}
        return self.pages.show(
            call.request, self.name, answer.status, passed, kept=kept, error=shown, **self.values(call)
        )

    def _kept(self, fields: Mapping[str, str]) -> dict[str, str]:
        return {name: fields.get(name, "") for name in self.keeps}

    def values(self, call: Call) -> dict[str, Any]:  # noqa: ARG002 - some pages say what depends on the request
        return {}


def browser_mode(call: Call) -> Mode:
    """A browser without a script can only keep a session cookie."""
    modes = call.authority.policy.modes
    return "session" if "session" in modes else call.authority.policy.default_mode
