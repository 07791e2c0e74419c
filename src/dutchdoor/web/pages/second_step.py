"""The second step of a sign-in: the code of an app or a recovery code, and setting up an app where one is demanded.

The sign-in that waits is a one-time token in a cookie of this browser: in a hidden field it could be sent from another
one, and in an address it would stand in logs.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

import msgspec

from dutchdoor.credentials.passkey import PASSKEY
from dutchdoor.credentials.totp import TOTP
from dutchdoor.errors import (
    DutchdoorError,
    InvalidInput,
    InvalidToken,
    NotAuthenticated,
    RateLimited,
    SignInUnfinished,
    WrongCredentials,
)
from dutchdoor.services.factors import Enrolment
from dutchdoor.web import factor_routes, lost_factor_routes
from dutchdoor.web.api import Call, Handler, Page, Route
from dutchdoor.web.device_binding import OFFER
from dutchdoor.web.http import Header, Response
from dutchdoor.web.pages.forms import passkey_answer, to_next_step, wrong_of
from dutchdoor.web.pages.qr_code import qr_code
from dutchdoor.web.pages.site import ACCOUNT_PATH, LOGIN_PATH, STEP_PATH, Pages, retry_after
from dutchdoor.web.problems import problem

__all__ = ["after_adding", "codes_or", "forms", "routes", "set_up_page"]


LOST_FACTORS_PATH = f"{LOGIN_PATH}/lost"


def routes(pages: Pages) -> list[Route]:
    show, lost = StepForm(pages).show, LostForm(pages)
    return [
        pages.page(
            STEP_PATH,
            show,
            query=("next", "by"),
            bundled=False,
            summary="Show the page for the second step of a sign-in.",
        ),
        pages.page(
            LOST_FACTORS_PATH, lost.show, query=("next",), summary="Show the page for a second factor that is lost."
        ),
        pages.page(
            f"{LOST_FACTORS_PATH}/sent", lost.sent, summary="Say that a link was sent, which begins the waiting time."
        ),
    ]


def forms(pages: Pages) -> dict[Handler, Page]:
    return {
        factor_routes.take_step: StepForm(pages),
        factor_routes.enrol_in_sign_in: SetUpForm(pages),
        lost_factor_routes.ask_for_removal: LostForm(pages),
    }


class StepForm:
    """Takes the next proof of the sign-in that waits in this browser."""

    def __init__(self, pages: Pages) -> None:
        self.pages = pages

    async def show(self, call: Call) -> Response:
        return await self._show(call, call.query)

    async def _show(
        self,
        call: Call,
        fields: Mapping[str, str],
        status: int = 200,
        headers: tuple[Header, ...] = (),
        *,
        error: Mapping[str, Any] | None = None,
    ) -> Response:
        token = call.cookies.step.value(call.request.cookie())
        try:
            if not token:
                raise NotAuthenticated("no sign-in waits")
            waiting = await call.directory.sign_in.waiting(
                token, client=call.observed(), remembered=call.cookies.remembered.value(call.request.cookie())
            )
        except (NotAuthenticated, RateLimited):
            return self._anew(call, fields)
        if waiting.step:
            return self._to_application(call, waiting.step, fields, refused=error is not None)
        by = fields.get("by") or fields.get("method") or ""
        # The passkey first: no false page can ask for it.
        ways = [each for each in (PASSKEY, TOTP, *waiting.methods) if each in waiting.methods]
        by = by if by in ways else ways[0]
        return self.pages.show(
            call.request,
            "second_step",
            status,
            headers,
            kept={"next": fields.get("next", "")},
            error=error,
            by=by,
            others=[each for each in dict.fromkeys(ways) if each != by],
            enrol=waiting.enrol,
            may_remember=waiting.may_remember,
            recoverable=waiting.recoverable,
        )

    def _anew(self, call: Call, fields: Mapping[str, str]) -> Response:
        """Lead to the sign-in page: the sign-in that waited is over."""
        query = urlencode({"next": fields["next"]}) if fields.get("next") else ""
        gone = Response(303, [call.cookies.step.cleared])
        return self.pages.go(f"{self.pages.sign_in_page}{'?' if query else ''}{query}", gone)

    def _to_application(self, call: Call, step: str, fields: Mapping[str, str], *, refused: bool) -> Response:
        """Send the browser to the application's page for a step of its own. The token stays in our cookie."""
        page = call.directory.steps.by_name[step].page
        query = {"next": fields.get("next", ""), "refused": "1" if refused else ""}
        shown = urlencode({name: value for name, value in query.items() if value})
        joined = "&" if "?" in page else "?"
        return self.pages.go(f"{page}{joined if shown else ''}{shown}", Response(303))

    def take(self, call: Call, fields: Mapping[str, str]) -> Mapping[str, object]:  # noqa: ARG002 - for every form
        method = fields.get("method", "")
        answered = passkey_answer(fields) if method == PASSKEY else fields.get("response", "")
        taken: dict[str, object] = {"method": method, "response": answered}
        if fields.get("enrolment"):
            taken["enrolment"] = fields["enrolment"]
        return {**taken, "remember": "remember" in fields}

    async def answer(self, call: Call, response: Response, fields: Mapping[str, str]) -> Response:
        return codes_or(self.pages, call, response, self.pages.after(call, fields))

    async def refuse(self, call: Call, error: DutchdoorError, fields: Mapping[str, str]) -> Response:
        if isinstance(error, SignInUnfinished):
            onward = to_next_step(self.pages, call, error, fields)
            if not error.codes:
                return onward
            to = dict(onward.headers)[b"location"].decode("ascii")
            cookies = tuple(header for header in onward.headers if header[0] == b"set-cookie")
            return self.pages.show(call.request, "recovery_codes", 200, cookies, codes=error.codes, to=to)
        answer = problem(error)
        passed = retry_after(answer)
        late = isinstance(error, InvalidToken) and fields.get("method") == PASSKEY  # the challenge, or the sign-in
        if late or isinstance(error, (InvalidInput, RateLimited, WrongCredentials)):
            token = call.cookies.step.value(call.request.cookie())
            if fields.get("enrolment") and token:
                try:
                    given = await call.directory.sign_in.enrolment(token, fields["enrolment"], client=call.observed())
                except NotAuthenticated:
                    return self._anew(call, fields)
                return set_up_page(self.pages, call, given, fields, answer.status, passed, error=wrong_of(error))
            return await self._show(call, fields, answer.status, passed, error=wrong_of(error))
        if isinstance(error, NotAuthenticated):
            return self._anew(call, fields)
        return self.pages.error(call.request, error, answer)


class SetUpForm(StepForm):
    """Gives out the secret of an app, in a sign-in that demands one."""

    def take(self, call: Call, fields: Mapping[str, str]) -> Mapping[str, object]:  # noqa: ARG002
        return {}

    async def answer(self, call: Call, response: Response, fields: Mapping[str, str]) -> Response:
        given = msgspec.json.decode(response.body, type=Enrolment)
        return set_up_page(self.pages, call, given, fields)


class LostForm(StepForm):
    """Mails a link that begins the waiting time after which lost factors can be removed."""

    async def show(self, call: Call) -> Response:
        """Say how it goes on, and offer the link; or say who else can help."""
        token = call.cookies.step.value(call.request.cookie())
        try:
            waiting = await call.directory.sign_in.waiting(token, client=call.observed())
        except (NotAuthenticated, RateLimited):
            return self._anew(call, call.query)
        return self.pages.show(
            call.request,
            "lost_factors",
            sent=False,
            recoverable=waiting.recoverable,
            wait_for=call.authority.policy.factor_recovery_after,
            kept={"next": call.query.get("next", "")},
        )

    async def sent(self, call: Call) -> Response:
        """Say what happens next."""
        return self.pages.show(call.request, "lost_factors", sent=True, recoverable=True, wait_for=0, kept={"next": ""})

    def take(self, call: Call, fields: Mapping[str, str]) -> Mapping[str, object]:  # noqa: ARG002 - for every form
        return {}

    async def answer(self, call: Call, response: Response, fields: Mapping[str, str]) -> Response:  # noqa: ARG002
        return self.pages.go(f"{self.pages.base}{LOST_FACTORS_PATH}/sent", response)

    async def refuse(self, call: Call, error: DutchdoorError, fields: Mapping[str, str]) -> Response:
        if isinstance(error, NotAuthenticated):
            return self._anew(call, fields)
        return self.pages.error(call.request, error, problem(error))


def set_up_page(
    pages: Pages,
    call: Call,
    given: Enrolment,
    fields: Mapping[str, str],
    status: int = 200,
    headers: tuple[Header, ...] = (),
    *,
    error: Mapping[str, Any] | None = None,
    csrf_token: str = "",
    to: str = STEP_PATH,
) -> Response:
    """Show the QR code of an app, and ask for its first code."""
    return pages.show(
        call.request,
        "set_up_app",
        status,
        headers,
        given=given,
        qr=qr_code(given.uri),
        kept={"next": fields.get("next", "")},
        error=error,
        csrf_token=csrf_token,
        to=to,
    )


def after_adding(pages: Pages, call: Call, response: Response, fields: Mapping[str, str]) -> Response:
    """Go on after a factor was added: to the page of the account, or back to the page that asked for a factor."""
    done = f"{pages.base}{ACCOUNT_PATH}?done=factor_added"
    return codes_or(pages, call, response, pages.after(call, fields) if fields.get("next") else done)


def codes_or(pages: Pages, call: Call, response: Response, to: str) -> Response:
    """Show the recovery codes in an answer, this once; without any, send the browser on."""
    codes = msgspec.json.decode(response.body).get("recovery_codes") if response.body else None
    if not codes:
        return pages.go(to, response)
    kept = tuple(header for header in response.headers if header[0] in {b"set-cookie", OFFER})
    return pages.show(call.request, "recovery_codes", 200, kept, codes=codes, to=to)
