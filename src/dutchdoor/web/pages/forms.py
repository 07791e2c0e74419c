"""Pages with a form, which work without a script: the browser posts to the endpoint that programs use, and is sent on.

A page is shown by GET, and again with what was wrong. What a form posts is checked as JSON is: by the type of the
endpoint's body. Log-in CSRF: a page of another site cannot sign people in to an account of its own, because
`Api.answer` judges the origin of each form.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

import msgspec

from dutchdoor.errors import DutchdoorError, InvalidInput, NotAuthenticated, SignInUnfinished, WrongCredentials
from dutchdoor.model.policy import Mode
from dutchdoor.model.sign_in import PENDING_FOR
from dutchdoor.texts import mark
from dutchdoor.web import auth_routes
from dutchdoor.web.api import Call
from dutchdoor.web.http import Response
from dutchdoor.web.pages.site import LOGIN_PATH, STEP_PATH, Pages, retry_after, wait_of
from dutchdoor.web.problems import problem
from dutchdoor.web.schemas import Login

__all__ = ["Form", "OwnForm", "browser_mode", "passkey_answer", "signed_in", "to_next_step", "wrong_of"]


class Posted:
    """A form that posts to an endpoint of the API."""

    takes: tuple[str, ...] = ()
    """The fields that the endpoint gets as they are, if the form has them."""

    def __init__(self, pages: Pages) -> None:
        self.pages = pages

    def take(self, call: Call, fields: Mapping[str, str]) -> Mapping[str, object]:  # noqa: ARG002 - for every form
        return {name: fields[name] for name in self.takes if name in fields}


class Form(Posted):
    """A form of a page: what its template is called, and which fields keep their value when it is shown again."""

    name: str
    keeps: tuple[str, ...] = ("email", "next")

    async def show(self, call: Call) -> Response:
        return self.pages.show(call.request, self.name, kept=self.kept(call.query), error=None, **self.values(call))

    async def refuse(self, call: Call, error: DutchdoorError, fields: Mapping[str, str]) -> Response:
        if isinstance(error, SignInUnfinished):
            return to_next_step(self.pages, call, error, fields)
        answer = problem(error)
        kept = self.kept(fields)
        passed = retry_after(answer)
        return self.pages.show(
            call.request, self.name, answer.status, passed, kept=kept, error=self.wrong(error), **self.values(call)
        )

    def wrong(self, error: DutchdoorError) -> dict[str, Any]:
        """Return what the page shows of an error."""
        wrong_login = self.pages.own_users and isinstance(error, WrongCredentials)
        return wrong_of(error, mark("The login or the password is not right.") if wrong_login else "")

    def kept(self, fields: Mapping[str, str]) -> dict[str, str]:
        return {name: fields.get(name, "") for name in self.keeps}

    def values(self, call: Call) -> dict[str, Any]:  # noqa: ARG002 - some pages say what depends on the request
        return {}


class OwnForm(Posted):
    """A form on a page of a person who is signed in. A subclass says what it takes, and where it goes on to."""

    async def refuse(self, call: Call, error: DutchdoorError, fields: Mapping[str, str]) -> Response:  # noqa: ARG002
        """Send those whose session has ended to sign in, and those who must prove again to do so; to the others, show
        the page of the error.
        """
        if isinstance(error, NotAuthenticated) and not isinstance(error, WrongCredentials):
            return self.pages.to_sign_in(call, error)
        return self.pages.error(call.request, error, problem(error))


def wrong_of(error: DutchdoorError, words: str = "") -> dict[str, Any]:
    """Return what a form shows of an error: its words and code, the field that is wrong, and the seconds to wait."""
    return {
        "words": words or error.message,
        "field": error.field if isinstance(error, InvalidInput) else "",
        "code": error.code,
        "wait": wait_of(error),
    }


def passkey_answer(fields: Mapping[str, str]) -> Any:
    """Return what a passkey answered, which the script of a page puts into a field. Raises `InvalidInput`."""
    try:
        return msgspec.json.decode(fields.get("response", ""))
    except msgspec.DecodeError:
        raise InvalidInput(mark("This is not the answer of a passkey for this site."), field="response") from None


def browser_mode(call: Call) -> Mode:
    """A browser without a script can only keep a session cookie."""
    modes = call.authority.policy.modes
    return "session" if "session" in modes else call.authority.policy.default_mode


async def signed_in(pages: Pages, call: Call, fields: Mapping[str, str], to: str) -> Response:
    """Sign a browser in with the address and password that it has just chosen, and send it on. If that fails, it goes
    to the sign-in page: the account is made.
    """
    call.body = Login(email=fields["email"], password=fields["password"], mode=browser_mode(call))
    try:
        return pages.go(to, await auth_routes.login(call))
    except SignInUnfinished as error:
        return to_next_step(pages, call, error, fields)
    except DutchdoorError:
        return pages.go(pages.base + LOGIN_PATH, Response(303))


def to_next_step(pages: Pages, call: Call, error: SignInUnfinished, fields: Mapping[str, str]) -> Response:
    """Send a browser on to the next step of its sign-in, whose token is in a cookie of that browser."""
    query = "?" + urlencode({"next": fields["next"]}) if fields.get("next") else ""
    waits = Response(303, [call.cookies.step.set(error.token, max_age=PENDING_FOR)])
    return pages.go(f"{pages.base}{STEP_PATH}{query}", waits)
