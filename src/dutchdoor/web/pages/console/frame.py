"""What the pages of the console share: who sees them, the way from one to the next, and how an act is done.

A page is shown by GET. Each act is one POST of a form with the CSRF token of its session, by an administrator who has
signed in a short time ago, and it is in the audit log. The answer is a 303 to a page that says what was done.
"""

from __future__ import annotations

import math
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeAlias
from urllib.parse import urlencode

from dutchdoor.errors import DutchdoorError, NotAuthenticated, StepUpRequired
from dutchdoor.model.accounts import Account
from dutchdoor.model.sessions import Session
from dutchdoor.texts import mark
from dutchdoor.web.api import Call, Handler, Route
from dutchdoor.web.body import Body
from dutchdoor.web.http import Response
from dutchdoor.web.pages.site import CONSOLE_PATH, Pages, retry_after
from dutchdoor.web.problems import problem
from dutchdoor.web.schemas import Fence

__all__ = ["INVITATIONS_PATH", "NOTICES", "PLACES", "Console", "Nothing"]

INVITATIONS_PATH = f"{CONSOLE_PATH}/invitations"
"""The page that an application with users of its own does not have."""

PLACES: tuple[tuple[str, str], ...] = (
    (CONSOLE_PATH, mark("Overview")),
    (f"{CONSOLE_PATH}/accounts", mark("Accounts")),
    (INVITATIONS_PATH, mark("Invitations")),
    (f"{CONSOLE_PATH}/clients", mark("Clients")),
    (f"{CONSOLE_PATH}/verifiers", mark("Verifiers")),
    (f"{CONSOLE_PATH}/webhooks", mark("Webhooks")),
    (f"{CONSOLE_PATH}/keys", mark("Keys")),
    (f"{CONSOLE_PATH}/events", mark("Audit log")),
    (f"{CONSOLE_PATH}/settings", mark("Settings")),
)
"""The links at the top of each page: where they lead, and their words."""

NOTICES: Mapping[str, str] = {
    "account-created": mark("The account was created, and the link was mailed."),
    "account-disabled": mark("The account was disabled."),
    "account-deleted": mark("The account was deleted."),
    "factor-removed": mark("The second factor was removed."),
    "identity-unlinked": mark("The other log-in was unlinked."),
    "account-enabled": mark("The account was enabled."),
    "roles-changed": mark("The roles were changed."),
    "reset-mailed": mark("The link to a new password was mailed."),
    "signed-out": mark("The account was signed out everywhere."),
    "session-ended": mark("The sign-in was ended."),
    "invitation-sent": mark("The invitation was mailed."),
    "invitation-withdrawn": mark("The invitation was withdrawn."),
    "client-removed": mark("The client was removed."),
    "verifier-removed": mark("The verifier key was removed."),
    "all-signed-out": mark("All accounts were signed out everywhere."),
    "webhook-tested": mark("The endpoint took the test message."),
    "webhook-enabled": mark("What waits is sent now."),
    "webhook-removed": mark("The webhook was removed."),
    "key-created": mark("The next key is published. It signs when its time has come."),
    "key-revoked": mark("The key was revoked."),
}
"""What an act has done, in words, by the word in the address of the page that says it. Content spoofing: a link shows
one of these texts, and none that its author wrote."""

_NOTICE = ("done", "within")
Again: TypeAlias = Callable[[Call, DutchdoorError, Mapping[str, str]], Awaitable[Response | None]]
_MILLISECONDS = re.compile(r"[0-9]{1,8}")


class Nothing(Body, frozen=True):
    """The form of a button alone."""


class Console:
    """Makes the pages of the console, and answers with them."""

    def __init__(self, pages: Pages) -> None:
        self.pages = pages

    def page(self, path: str, show: Handler, *, summary: str, query: Sequence[str] = ()) -> Route:
        """Return the route of a page: `show` answers with `Console.show`. `query` names its own query parameters."""
        return Route(
            method="GET",
            path=path,
            handler=show,
            demands="admin",
            unproven=self.pages.to_sign_in,
            query=(*query, *_NOTICE),
            summary=summary,
        )

    def act(
        self,
        path: str,
        do: Handler,
        *,
        summary: str,
        body: type[Body] = Nothing,
        bundled: bool = False,
        again: Again | None = None,
    ) -> Route:
        """Return the route of an act. `do` does it and answers with `Console.done`; its form has the fields of `body`.

        `bundled` says that it needs the bundled accounts. `again` shows the form with what was wrong in it, or returns
        None for an error that has a page of its own.
        """
        return Route(
            method="POST",
            path=path,
            handler=do,
            demands="admin",
            unproven=self.pages.to_sign_in,
            body=body,
            page=_Act(self, again),
            bundled=bundled,
            summary=summary,
        )

    def holder(self, call: Call) -> tuple[Account, Session]:
        """Return the administrator, and the session whose cookie proves who asks. Raises `NotAuthenticated` if none
        does: a token shows nothing in a browser.
        """
        caller = call.required
        if caller.account is None or caller.session is None:
            raise NotAuthenticated("no cookie proves this")
        return caller.account, caller.session

    def show(self, call: Call, name: str, status: int = 200, **values: Any) -> Response:
        """Show a page, made of the template `console/NAME.html`.

        Raises:
            NotAuthenticated: no session cookie proves who asks. The buttons would carry no CSRF token.
        """
        account, session = self.holder(call)
        return self.pages.show(
            call.request,
            f"console/{name}",
            status,
            who=account.address or account.name or account.subject,
            csrf_token=call.csrf_token(session.id),
            places=[place for place in PLACES if not (self.pages.own_users and place[0] == INVITATIONS_PATH)],
            notice=_notice(call.query),
            **values,
        )

    def done(self, to: str, notice: str, fence: Fence | None = None, **query: str) -> Response:
        """Send the browser on to a page of the console that shows a notice of `NOTICES`. `to` is its path.

        With a `fence` the notice also says whether the act is in force everywhere, or within which time.
        """
        said = {**query, "done": notice}
        if fence is not None:
            said["within"] = "lost" if fence.fenced_in_ms is None else str(0 if fence.fenced else fence.fenced_in_ms)
        return Response(303, [(b"location", f"{self.pages.base}{to}?{urlencode(said)}".encode("ascii"))], kind="page")

    def secret(
        self,
        call: Call,
        title: str,
        shown: Sequence[tuple[str, str]],
        secret: str,
        *,
        label: str,
        back: str,
        sealed: bool = False,
    ) -> Response:
        """Show a secret that was made, beside what is `shown` of its owner. `back` is the path of their page, and
        `sealed` says whether the server keeps the secret itself, and not a hash of it.
        """
        return self.show(
            call, "secret", 201, title=title, shown=shown, secret=secret, label=label, back=back, sealed=sealed
        )

    def refused(self, call: Call, error: DutchdoorError) -> Response:
        """Show why an act was not done, with the way back to the page that its form stands on."""
        answer = problem(error)
        if isinstance(error, StepUpRequired) or not call.required.by_cookie:
            return self.pages.error(call.request, error, answer)
        shown = self.show(call, "refused", answer.status, words=error.message, back=self.pages.page_of(call.request))
        return shown.beside(*retry_after(answer))


class _Act:
    """Reads the form of an act."""

    def __init__(self, console: Console, again: Again | None) -> None:
        self._console, self._again = console, again

    def take(self, call: Call, fields: Mapping[str, str]) -> Mapping[str, object]:  # noqa: ARG002 - for every form
        return {name: value for name, value in fields.items() if name != "csrf_token"}

    async def answer(self, call: Call, response: Response, fields: Mapping[str, str]) -> Response:  # noqa: ARG002
        return response

    async def refuse(self, call: Call, error: DutchdoorError, fields: Mapping[str, str]) -> Response:
        shown = None if self._again is None else await self._again(call, error, fields)
        return shown or self._console.refused(call, error)


def _notice(query: Mapping[str, str]) -> dict[str, Any] | None:
    """Return the words of a notice, and the seconds until the act is in force everywhere; None if it says nothing."""
    words, within = NOTICES.get(query.get("done", "")), query.get("within", "")
    if words is None:
        return None
    seconds = math.ceil(int(within) / 1000) if _MILLISECONDS.fullmatch(within) else None
    return {"words": words, "lost": within == "lost", "seconds": seconds}
