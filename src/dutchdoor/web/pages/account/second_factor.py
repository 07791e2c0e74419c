"""The section about the second factor: setting up an app, removing it, and the recovery codes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from dutchdoor.credentials.totp import TOTP
from dutchdoor.errors import DutchdoorError, InvalidInput, NotAuthenticated, RateLimited, WrongCredentials
from dutchdoor.model.sign_in import needs_second
from dutchdoor.services.factors import Enrolment
from dutchdoor.texts import mark
from dutchdoor.web import factor_routes, lost_factor_routes
from dutchdoor.web.api import Call, Handler, Page
from dutchdoor.web.http import Response
from dutchdoor.web.pages.account.section import Section
from dutchdoor.web.pages.forms import OwnForm, wrong_of
from dutchdoor.web.pages.second_step import after_adding, codes_or, set_up_page
from dutchdoor.web.pages.site import ACCOUNT_PATH, Pages, retry_after
from dutchdoor.web.problems import problem

__all__ = ["SecondFactorSection", "forms"]

CONFIRM_APP_PATH = "/auth/factors/totp/confirm"


class SecondFactorSection(Section):
    """Shows the second factor, and removes it."""

    name = "second_factor"
    bundled = False
    handlers = (factor_routes.remove,)
    fields = ("method", "id")
    did = "factor_removed"
    says = {  # noqa: RUF012
        "factor_removed": mark("It is removed, and is not asked for any more."),
        "factor_added": mark("It is set up, for your next sign-in."),
        "factor_removal_cancelled": mark("The second factor stays."),
        "recovery_codes_created": mark("You have new recovery codes. The old ones no longer work."),
    }

    async def values(self, call: Call) -> Mapping[str, Any]:
        account, _ = await call.holding()
        factors, left = await call.directory.factors.of(account.subject)
        return {
            "app": next((each.created_at for each in factors if each.method == TOTP), None),
            "codes_left": left,
            "offered": TOTP in call.directory.factors.offered,
            "needed": needs_second(account, call.authority.policy),
            "only": len(factors) == 1,
        }


def forms(pages: Pages) -> dict[Handler, Page]:
    """Return the forms whose answer is a page of its own: with a QR code, or with codes that are shown once."""
    return {
        lost_factor_routes.keep_own_factors: KeepForm(pages),
        factor_routes.begin_totp: SetUpForm(pages),
        factor_routes.confirm_totp: FirstCodeForm(pages),
        factor_routes.new_codes: NewCodesForm(pages),
    }


class KeepForm(OwnForm):
    """Keeps the factors, if someone has them removed as lost."""

    async def answer(self, call: Call, response: Response, fields: Mapping[str, str]) -> Response:  # noqa: ARG002
        return self.pages.go(f"{self.pages.base}{ACCOUNT_PATH}?done=factor_removal_cancelled", response)


class SetUpForm(OwnForm):
    """Gives out the secret of an app."""

    async def answer(self, call: Call, response: Response, fields: Mapping[str, str]) -> Response:
        return await self.show(call, msgspec.json.decode(response.body, type=Enrolment), fields)

    async def show(
        self, call: Call, given: Enrolment, fields: Mapping[str, str], status: int = 200, **more: Any
    ) -> Response:
        _, session = await call.holding()
        token = "" if session is None else call.csrf_token(session.id)
        return set_up_page(self.pages, call, given, fields, status, csrf_token=token, to=CONFIRM_APP_PATH, **more)


class FirstCodeForm(SetUpForm):
    """Takes the first code of an app."""

    def take(self, call: Call, fields: Mapping[str, str]) -> Mapping[str, object]:  # noqa: ARG002 - for every form
        return {"token": fields.get("enrolment", ""), "code": fields.get("response", "")}

    async def answer(self, call: Call, response: Response, fields: Mapping[str, str]) -> Response:
        return after_adding(self.pages, call, response, fields)

    async def refuse(self, call: Call, error: DutchdoorError, fields: Mapping[str, str]) -> Response:
        if not isinstance(error, (InvalidInput, RateLimited, WrongCredentials)):
            return await super().refuse(call, error, fields)
        account, _ = await call.holding()
        try:
            given = await call.directory.factors.resumed(account, fields.get("enrolment", ""), client=call.observed())
        except NotAuthenticated as gone:
            return await super().refuse(call, gone, fields)
        answer = problem(error)
        passed = retry_after(answer)
        return await self.show(call, given, fields, answer.status, headers=passed, error=wrong_of(error))


class NewCodesForm(SetUpForm):
    """Shows new recovery codes."""

    async def answer(self, call: Call, response: Response, fields: Mapping[str, str]) -> Response:  # noqa: ARG002
        return codes_or(self.pages, call, response, f"{self.pages.base}{ACCOUNT_PATH}?done=recovery_codes_created")
