"""The page to sign in, and the button to sign out."""

from __future__ import annotations

from collections.abc import Mapping

from dutchdoor.errors import DutchdoorError, NotAuthenticated
from dutchdoor.web import auth_routes
from dutchdoor.web.api import Call, Handler, Page, Route
from dutchdoor.web.http import Header, Response
from dutchdoor.web.pages.forms import Form, browser_mode
from dutchdoor.web.pages.site import LOGIN_PATH, Pages
from dutchdoor.web.problems import problem

__all__ = ["forms", "routes"]


def routes(pages: Pages) -> list[Route]:
    show = SignInForm(pages).show
    return [Route(method="GET", path=LOGIN_PATH, handler=show, summary="Show the sign-in page.", query=("next",))]


def forms(pages: Pages) -> dict[Handler, Page]:
    return {auth_routes.login: SignInForm(pages), auth_routes.logout: SignOutForm(pages)}


class SignInForm(Form):
    """Sign in with an address and a password, and go on to where one came from."""

    name = "login"

    async def show(self, call: Call) -> Response:
        # A session that is there is enough.
        try:
            caller = await call.identify()
        except NotAuthenticated:
            caller = None
        if caller is not None and caller.by_cookie:
            return self.pages.go(self.pages.after(call, call.query), Response(303))
        return await super().show(call)

    def take(self, call: Call, fields: Mapping[str, str]) -> Mapping[str, object]:
        taken: dict[str, object] = {name: fields[name] for name in ("email", "password") if name in fields}
        return {**taken, "mode": browser_mode(call)}

    async def answer(self, call: Call, response: Response, fields: Mapping[str, str]) -> Response:
        return self.pages.go(self.pages.after(call, fields), response)


class SignOutForm:
    """The button that ends the session of this browser."""

    def __init__(self, pages: Pages) -> None:
        self.pages = pages

    def take(self, call: Call, fields: Mapping[str, str]) -> Mapping[str, object]:  # noqa: ARG002 - for every form
        return {}

    async def answer(self, call: Call, response: Response, fields: Mapping[str, str]) -> Response:  # noqa: ARG002
        gone = self.pages.go(self.pages.sign_in_page, response)
        kept: list[Header] = [header for header in response.headers if header[0] == b"clear-site-data"]
        return Response(gone.status, [*gone.headers, *kept], kind="page")

    async def refuse(self, call: Call, error: DutchdoorError, fields: Mapping[str, str]) -> Response:  # noqa: ARG002
        # Signed out already is what the button was for.
        if type(error) is NotAuthenticated:
            return self.pages.go(self.pages.sign_in_page, Response(303))
        return self.pages.error(call.request, error, problem(error))
