"""Pages with a form, which work without a script: the browser posts to the endpoint that programs use, and is sent on.

A page is shown by GET, and again with what was wrong. What a form posts is checked as JSON is: by the type of the
endpoint's body. Log-in CSRF: a page of another site cannot sign people in to an account of its own, because
`Api.answer` judges the origin of each form.
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

from dutchdoor.errors import DutchdoorError, InvalidInput, NotAuthenticated, WrongCredentials
from dutchdoor.model.policy import Mode
from dutchdoor.web import auth_routes
from dutchdoor.web.api import Call
from dutchdoor.web.browser import next_url
from dutchdoor.web.http import CsrfRefused, Header, Response
from dutchdoor.web.pages import render
from dutchdoor.web.problems import problem
from dutchdoor.web.schemas import Login

__all__ = ["LOGIN_PATH", "REGISTER_PATH", "Pages", "RegistrationForm", "SignInForm"]

LOGIN_PATH, REGISTER_PATH = "/auth/login", "/auth/register"

_HTML: Header = (b"content-type", b"text/html; charset=utf-8")


class Pages:
    """What all pages of one site say: its name, its base path, and where people go from here."""

    def __init__(self, *, product: str, base: str, home: str, registration: bool, own_users: bool) -> None:
        """`home` is where people go who came from nowhere. `registration` says whether people create accounts without
        being signed in. The logins of an application with `own_users` need not be addresses.
        """
        self.base, self.home, self.own_users = base, home, own_users
        self._values: dict[str, Any] = {
            "product": product,
            "base": base,
            "registration": registration,
            "own_users": own_users,
        }

    def show(self, name: str, status: int = 200, headers: tuple[Header, ...] = (), **values: Any) -> Response:
        """Return a page."""
        body = render(name, **self._values, **values)
        return Response(status, [_HTML, *headers], body, kind="page")

    def go(self, to: str, response: Response) -> Response:
        """Send the browser on, with the cookies that the endpoint has set."""
        cookies = [header for header in response.headers if header[0] == b"set-cookie"]
        return Response(303, [(b"location", to.encode("ascii")), *cookies], kind="page")

    def after(self, call: Call, fields: Mapping[str, str]) -> str:
        """Return where people go who have signed in: to where they came from, if that is ours."""
        return next_url(fields.get("next"), call.api.site.cors.origins, self.home)

    def error(self, error: Exception, answer: Response) -> Response:
        """Return the page for an error in place of the `answer` that a program would get."""
        words = str(error) if isinstance(error, DutchdoorError) and not isinstance(error, CsrfRefused) else ""
        if isinstance(error, CsrfRefused):
            words = "This form has expired. Go back, load the page again, and send it once more."
        title = HTTPStatus(answer.status).phrase
        kept = [header for header in answer.headers if header[0] in {b"retry-after", b"allow", b"www-authenticate"}]
        return self.show("error", answer.status, tuple(kept), title=title, words=words, number=answer.status)


class _Form:
    """A form of a page: what it is called, and which fields keep their value when it is shown again."""

    name: str
    keeps: tuple[str, ...] = ("email", "next")

    def __init__(self, pages: Pages) -> None:
        self.pages = pages

    async def show(self, call: Call) -> Response:
        return self.pages.show(self.name, kept=self._kept(call.query), error=None, **self.values(call))

    def refuse(self, call: Call, error: DutchdoorError, fields: Mapping[str, str]) -> Response:
        answer = problem(error)
        kept = self._kept(fields)
        passed = tuple(header for header in answer.headers if header[0] == b"retry-after")
        wrong_login = self.pages.own_users and isinstance(error, WrongCredentials)
        words = "The login or the password is not right." if wrong_login else str(error)
        shown = {"words": words, "field": error.field if isinstance(error, InvalidInput) else ""}
        return self.pages.show(self.name, answer.status, passed, kept=kept, error=shown, **self.values(call))

    def _kept(self, fields: Mapping[str, str]) -> dict[str, str]:
        return {name: fields.get(name, "") for name in self.keeps}

    def values(self, call: Call) -> dict[str, Any]:  # noqa: ARG002 - some pages say what depends on the request
        return {}


class SignInForm(_Form):
    """Sign in with an address and a password, and go on to where one came from."""

    name = "login"

    async def show(self, call: Call) -> Response:
        # A session that is there is enough, unless the page that sent the browser here asks for a new proof.
        if "again" not in call.query:
            try:
                caller = await call.identify()
            except NotAuthenticated:
                caller = None
            if caller is not None and caller.by_cookie:
                return self.pages.go(self.pages.after(call, call.query), Response(303))
        return await super().show(call)

    def take(self, call: Call, fields: Mapping[str, str]) -> Mapping[str, object]:
        taken: dict[str, object] = {name: fields[name] for name in ("email", "password") if name in fields}
        return {**taken, "mode": _mode(call)}

    async def answer(self, call: Call, response: Response, fields: Mapping[str, str]) -> Response:
        return self.pages.go(self.pages.after(call, fields), response)


class RegistrationForm(_Form):
    """Create an account, and sign in with it unless its address must be confirmed first."""

    name = "register"
    keeps = ("email", "name", "next")

    def take(self, call: Call, fields: Mapping[str, str]) -> Mapping[str, object]:  # noqa: ARG002
        return {name: fields[name] for name in ("email", "password", "name") if fields.get(name)}

    async def answer(self, call: Call, response: Response, fields: Mapping[str, str]) -> Response:
        if response.status == HTTPStatus.ACCEPTED:
            return self.pages.go(f"{self.pages.base}{REGISTER_PATH}/sent", response)
        call.body = Login(email=fields["email"], password=fields["password"], mode=_mode(call))
        return self.pages.go(self.pages.after(call, fields), await auth_routes.login(call))

    def values(self, call: Call) -> dict[str, Any]:
        return {"password_minimum": call.authority.policy.password_minimum}

    async def sent(self, _call: Call) -> Response:
        """Show what happens next."""
        return self.pages.show("registered")


def _mode(call: Call) -> Mode:
    """A browser without a script can only keep a session cookie."""
    modes = call.authority.policy.modes
    return "session" if "session" in modes else call.authority.policy.default_mode
