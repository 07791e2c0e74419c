"""What all pages of one site share: its name, how a page is answered, and where people go from one to the next."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any
from urllib.parse import urlsplit

from dutchdoor.errors import (
    DeviceProofRequired,
    DutchdoorError,
    NotAuthenticated,
    RateLimited,
    StepUpRequired,
    Unavailable,
)
from dutchdoor.issuers.issuer import Issuer
from dutchdoor.texts import mark
from dutchdoor.texts.languages import Language, Languages
from dutchdoor.web.api import ADMIN, Call, Handler, Route
from dutchdoor.web.browser import came_from_elsewhere, opens_a_page, sends_a_form
from dutchdoor.web.device_binding import OFFER
from dutchdoor.web.http import CsrfRefused, Header, Request, Response
from dutchdoor.web.pages.branding import Look
from dutchdoor.web.pages.rendering import render
from dutchdoor.web.problems import problem
from dutchdoor.web.sign_in_page import (
    CONFIRM_PATH,
    LOGIN_PATH,
    RELOAD_PATH,
    next_path,
    next_url,
    way_to_confirm,
    way_to_sign_in,
)

__all__ = [
    "ACCOUNT_PATH",
    "ACTIVITY_PATH",
    "CONFIRM_PATH",
    "CONSOLE_PATH",
    "DEVICES_PATH",
    "LOGIN_PATH",
    "REGISTER_PATH",
    "SETUP_PATH",
    "STEP_PATH",
    "Pages",
    "retry_after",
]

REGISTER_PATH, SETUP_PATH = "/auth/register", "/auth/setup"
STEP_PATH = f"{LOGIN_PATH}/step"
ACCOUNT_PATH, DEVICES_PATH, ACTIVITY_PATH = "/auth/account", "/auth/devices", "/auth/activity"
CONSOLE_PATH = "/admin"

DONE_FOR, LATEST = 300.0, 20
"""Seconds for which a page may say that something was done just now, and the events of the account that it looks at."""

MINUTE = 60

_HTML: Header = (b"content-type", b"text/html; charset=utf-8")

_TITLES: Mapping[int, str] = {
    400: mark("This request makes no sense here"),
    401: mark("Sign in"),
    403: mark("You may not do this"),
    404: mark("There is nothing here"),
    405: mark("This request makes no sense here"),
    409: mark("Something else came first"),
    413: mark("This is too much at once"),
    415: mark("This request makes no sense here"),
    422: mark("Something is not right"),
    429: mark("Too many attempts"),
    500: mark("Something went wrong"),
    503: mark("Out of reach for a moment"),
}
"""The heading of the page for each status of an error."""


class Pages:
    """Answers with pages of one site."""

    def __init__(
        self,
        *,
        product: str,
        base: str,
        home: str,
        sign_in_page: str,
        registration: bool,
        issuers: Sequence[Issuer],
        own_users: bool,
        own_roles: bool,
        console: bool,
        languages: Languages,
        look: Look,
        key_cookie: str,
    ) -> None:
        """`home` is where people go who came from nowhere, and `sign_in_page` where they sign in: here, or on a page of
        the application. `registration` says whether people create accounts without being signed in, and `issuers`
        by which other log-ins they come. The logins of an application with `own_users` need not be addresses.
        `own_roles` says that it also decides on the roles, and `console` whether administrators have pages here.
        `key_cookie` is the name of the cookie by which a browser brings a public key to a sign-in.
        """
        self.base, self.home, self.sign_in_page = base, home, sign_in_page
        self.own_users, self.own_roles, self.console, self.languages = own_users, own_roles, console, languages
        self._look = look
        self._values: dict[str, Any] = {
            "product": product,
            "base": base,
            "registration": registration,
            "issuers": issuers,
            "own_users": own_users,
            "console": console,
            "key_cookie": key_cookie,
        }

    def show(
        self, request: Request, name: str, status: int = 200, headers: tuple[Header, ...] = (), **values: Any
    ) -> Response:
        """Answer a request with a page, made of the template of this `name`, in the language of the request."""
        body = render(name, self.language(request), look=self._look, **self._values, path=request.path, **values)
        return Response(status, [_HTML, *headers], body, kind="page")

    def language(self, request: Request) -> Language:
        """Return the language that the browser asks for."""
        return self.languages.of(request.header_list(b"accept-language"))

    def lead_on(self, request: Request, name: str, url: str, *headers: Header, **values: Any) -> Response:
        """Show a page that leads on to an address, at once or by its link."""
        refresh: Header = (b"refresh", f"0;url={url}".encode("ascii"))
        return self.show(request, name, 200, (refresh, *headers), url=url, **values)

    async def show_own(
        self, call: Call, name: str, status: int = 200, headers: tuple[Header, ...] = (), **values: Any
    ) -> Response:
        """Show one of the pages of a person who is signed in, with the links from one to the other.

        Raises:
            NotAuthenticated: no session cookie proves who asks. A token shows nothing in a browser, and the buttons of
                its page would carry no CSRF token.
        """
        account, session = await call.holding()
        if session is None or not call.required.by_cookie:
            raise NotAuthenticated("no cookie proves this")
        return self.show(
            call.request,
            name,
            status,
            headers,
            who=account.address or account.name or account.subject,
            is_admin=call.required.principal.has_role(ADMIN),
            csrf_token=call.csrf_token(session.id),
            removal=await call.directory.lost_factors.waiting(account),
            aside=await call.directory.set_aside.of(account.subject),
            **values,
        )

    async def done(self, call: Call, said: Mapping[str, str]) -> str:
        """Return what a page says was done: the words of the audit event that `?done=` names, "" for none.

        Anyone can write a link to a page, so the page says only what the audit log says too.
        """
        name, now = call.query.get("done", ""), call.authority.clock()
        if name not in said:
            return ""
        # The newest alone, and not by name: however many events an account has, this reads a few of them.
        latest = await call.authority.store.events(subject=call.actor, limit=LATEST)
        return said[name] if any(each.name == name and each.at >= now - DONE_FOR for each in latest) else ""

    async def visitor(self, call: Call) -> dict[str, Any]:
        """Return what a page that anyone may see says of a person who is signed in: `who` it is, or "" for no one."""
        no_one = {"who": "", "is_admin": False, "csrf_token": ""}
        try:
            call.caller = await call.identify(by_refresh_cookie=True)
            if call.caller is None or not call.caller.by_cookie:
                return no_one
            account, session = await call.holding()
        except DutchdoorError:  # a dead cookie, or a store out of reach: the page is for them too
            return no_one
        return {
            "who": account.address or account.name or account.subject,
            "is_admin": call.caller.principal.has_role(ADMIN),
            "csrf_token": "" if session is None else call.csrf_token(session.id),
        }

    def page(
        self, path: str, show: Handler, *, summary: str, query: tuple[str, ...] = (), bundled: bool = True
    ) -> Route:
        """Return the route of a page that anyone may see. `bundled` says that it needs the bundled accounts."""
        return Route(method="GET", path=path, handler=show, query=query, bundled=bundled, summary=summary)

    def own_page(
        self,
        path: str,
        show: Handler,
        *,
        summary: str,
        query: tuple[str, ...] = (),
        fresh: bool = False,
        in_doubt: bool = False,
    ) -> Route:
        """Return the route of a page for a person who is signed in: who is not, is sent to sign in."""
        return Route(
            method="GET",
            path=path,
            handler=show,
            demands="caller",
            by_refresh_cookie=True,
            fresh=fresh,
            in_doubt=in_doubt,
            unproven=self.to_sign_in,
            query=query,
            summary=summary,
        )

    def way_from(self, endpoint: str, page: str, *, bundled: bool = True) -> Route:
        """Return a route from the path of an endpoint to its page. A form that was refused is shown at the path of the
        endpoint, and people load that path again.
        """

        async def go(_call: Call) -> Response:
            return Response(303, [(b"location", f"{self.base}{page}".encode())], kind="page")

        return self.page(endpoint, go, bundled=bundled, summary=f"Go to {page}.")

    def go(self, to: str, response: Response) -> Response:
        """Send the browser on, with the cookies that the endpoint has set, and its offer to bind them."""
        kept = [header for header in response.headers if header[0] in {b"set-cookie", OFFER}]
        return Response(303, [(b"location", to.encode("ascii")), *kept], kind="page")

    def after(self, call: Call, fields: Mapping[str, str]) -> str:
        """Return where people go who have signed in: to where they came from, if that is ours."""
        return next_url(fields.get("next"), call.api.site.cors.origins, self.home)

    def to_sign_in(self, call: Call, error: DutchdoorError) -> Response:
        """Send a browser without a session to the sign-in page, and from there back to the page it asked for; refuse a
        program. A form that was posted leads back to the page with the form: the session ended while it was open.
        """
        if self.reloads(call.request, error):
            return self.to_reload(call.request, error)
        if opens_a_page(call.request, call.request.method) or sends_a_form(call.request):
            way = way_to_sign_in(self.sign_in_page, self.page_of(call.request))
            return self.go(way.decode(), problem(error))
        return call.api.refusal(call.request, error)

    def reloads(self, request: Request, error: Exception) -> bool:
        """Whether a browser proves its key if it loads this page again: it came here from another site."""
        loads = opens_a_page(request, request.method) and came_from_elsewhere(request)
        return loads and isinstance(error, DeviceProofRequired)

    def to_reload(self, request: Request, error: Exception) -> Response:
        """Send a browser to the page that loads this one again."""
        way = way_to_sign_in(self.base + RELOAD_PATH, self.page_of(request))
        return self.go(way.decode(), problem(error))

    def error(self, request: Request, error: Exception, answer: Response) -> Response:
        """Return the page for an error in place of the `answer` that a program would get."""
        if self.reloads(request, error):
            return self.to_reload(request, error)
        if isinstance(error, StepUpRequired):
            way = way_to_confirm(self.base + CONFIRM_PATH, self.page_of(request), error)
            return Response(303, [(b"location", way)], kind="page")
        title, words, back = _TITLES.get(answer.status, _TITLES[500]), "", ""
        if isinstance(error, CsrfRefused):
            # Another account signed in in another tab, say: this form is the first one's, and did nothing.
            title, words = mark("This form has expired."), mark("It is too old, or another sign-in began meanwhile.")
            back = self.page_of(request)
        elif isinstance(error, DutchdoorError):
            words = error.message
        kept = [header for header in answer.headers if header[0] in {b"retry-after", b"allow", b"www-authenticate"}]
        return self.show(
            request,
            "error",
            answer.status,
            tuple(kept),
            title=title,
            words=words,
            wait=wait_of(error),
            back=back,
            number=answer.status,
        )

    def page_of(self, request: Request) -> str:
        """Return the path of the page that a person sees: the one asked for, or the one with the form that was sent."""
        if sends_a_form(request):
            seen = urlsplit(request.header(b"referer") or "")
            path, query = seen.path, seen.query
        else:
            path, query = self.base + request.path, request.query.decode("ascii", "replace")
        return next_path(f"{path}?{query}" if query else path, self.home)


def retry_after(answer: Response) -> tuple[Header, ...]:
    """Return the header of a refusal that its page passes on."""
    return tuple(header for header in answer.headers if header[0] == b"retry-after")


def wait_of(error: Exception) -> int:
    """Return after how many seconds to try again; 0 if that makes no difference. Whole minutes after the first, so that
    a page that says minutes is not too early.
    """
    if not isinstance(error, (RateLimited, Unavailable)) or not math.isfinite(error.retry_after):
        return 0
    seconds = max(1, math.ceil(error.retry_after))
    return seconds if seconds <= MINUTE else math.ceil(seconds / MINUTE) * MINUTE
