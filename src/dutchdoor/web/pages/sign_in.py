"""The page to sign in, and the button to sign out."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from dutchdoor.errors import DeviceProofRequired, DutchdoorError, NotAuthenticated
from dutchdoor.texts import mark
from dutchdoor.web import auth_routes, passkey_routes
from dutchdoor.web.api import Call, Handler, Page, Route
from dutchdoor.web.http import Header, Response
from dutchdoor.web.pages.forms import Form, Posted, browser_mode, passkey_answer, wrong_of
from dutchdoor.web.pages.site import LOGIN_PATH, Pages
from dutchdoor.web.problems import problem

__all__ = ["forms", "routes"]


NO_SCRIPT = "no_script"
FORGET_PAGES: Header = (b"clear-site-data", b'"cache"')
"""For a browser without scripts: Chromium keeps whole pages for the back button, and shows them after a log-out. The
script of the pages prevents that otherwise."""
SIGNED_IN = "signed_in"
"""Says in an address that the browser was given a cookie just before."""
NO_COOKIES = mark(
    "If you have just signed in, your browser did not keep the cookie. Allow cookies for this site, and sign in again."
)


def routes(pages: Pages) -> list[Route]:
    show = SignInForm(pages).show
    return [
        pages.page(LOGIN_PATH, show, query=("next", SIGNED_IN), bundled=False, summary="Show the sign-in page."),
        pages.way_from("/auth/passkeys/login", LOGIN_PATH, bundled=False),
    ]


def forms(pages: Pages) -> dict[Handler, Page]:
    signing_out = SignOutForm(pages)
    return {
        auth_routes.login: SignInForm(pages),
        passkey_routes.sign_in: PasskeyForm(pages),
        auth_routes.logout: signing_out,
        auth_routes.logout_all: signing_out,
    }


class SignInForm(Form):
    """Sign in with an address and a password, and go on to where one came from."""

    name = "login"

    async def show(self, call: Call) -> Response:
        # A session that is there is enough.
        try:
            caller = await call.identify()
        except NotAuthenticated as error:
            if self.pages.reloads(call.request, error):
                return self.pages.to_reload(call.request, error)
            if isinstance(error, DeviceProofRequired):  # who meets the form once more reads why
                return self.explain(call, error.message)
            caller = None
        if caller is not None and caller.by_cookie:
            return self.pages.go(self.pages.after(call, call.query), Response(303))
        if SIGNED_IN in call.query:  # and the cookie of it is not there
            return self.explain(call, NO_COOKIES)
        return await super().show(call)

    def explain(self, call: Call, words: str) -> Response:
        """Show the form, and say why the browser is not signed in."""
        shown = {"words": words, "field": ""}
        return self.pages.show(call.request, self.name, kept=self.kept(call.query), error=shown, **self.values(call))

    def values(self, call: Call) -> dict[str, Any]:
        return {"by_mail": call.authority.policy.sign_in_by_mail, "must_bind": call.api.demands_binding}

    def take(self, call: Call, fields: Mapping[str, str]) -> Mapping[str, object]:
        taken: dict[str, object] = {name: fields[name] for name in ("email", "password") if name in fields}
        return {**taken, "mode": browser_mode(call)}

    async def answer(self, call: Call, response: Response, fields: Mapping[str, str]) -> Response:
        to = self.pages.after(call, fields)
        # A browser that sent no cookie of ours may keep none. It is asked once more, by way of this page.
        if browser_mode(call) == "session" and not call.cookies.any(call.request.cookie()):
            to = f"{self.pages.base}{LOGIN_PATH}?{urlencode({'next': to, SIGNED_IN: 1})}"
        return self.pages.go(to, response)


class PasskeyForm(SignInForm):
    """Sign in with a passkey, and go on to where one came from."""

    def take(self, call: Call, fields: Mapping[str, str]) -> Mapping[str, object]:
        return {"response": passkey_answer(fields), "mode": browser_mode(call)}

    def wrong(self, error: DutchdoorError) -> dict[str, Any]:
        return wrong_of(error)


class SignOutForm(Posted):
    """The button that ends the session of this browser. It goes on to `next`, or to where people sign in."""

    async def answer(self, call: Call, response: Response, fields: Mapping[str, str]) -> Response:
        gone = self.pages.go(self._after(call, fields), response)
        kept: list[Header] = [header for header in response.headers if header[0] == b"clear-site-data"]
        if NO_SCRIPT in fields and not kept:
            kept.append(FORGET_PAGES)
        return Response(gone.status, [*gone.headers, *kept], kind="page")

    async def refuse(self, call: Call, error: DutchdoorError, fields: Mapping[str, str]) -> Response:
        # Signed out already is what the button was for.
        if type(error) is NotAuthenticated:
            return self.pages.go(self._after(call, fields), Response(303))
        return self.pages.error(call.request, error, problem(error))

    def _after(self, call: Call, fields: Mapping[str, str]) -> str:
        return self.pages.after(call, fields) if "next" in fields else self.pages.sign_in_page
