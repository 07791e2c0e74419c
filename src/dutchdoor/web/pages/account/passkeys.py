"""The section about passkeys, and the page where one is made.

The script asks the browser for the passkey and sends what it answers in the field `response`, as JSON. All else is a
form as any other.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dutchdoor.credentials.passkey import NAME_AT_MOST, PASSKEY
from dutchdoor.credentials.totp import TOTP
from dutchdoor.errors import (
    DutchdoorError,
    InvalidInput,
    InvalidToken,
    NotAuthenticated,
    RateLimited,
    Refused,
    StepUpRequired,
    WrongCredentials,
)
from dutchdoor.model.sign_in import needs_second
from dutchdoor.texts import mark
from dutchdoor.web import passkey_routes
from dutchdoor.web.api import Call, Handler, Page, Route
from dutchdoor.web.http import Header, Response
from dutchdoor.web.pages.account.section import Section
from dutchdoor.web.pages.forms import OwnForm, passkey_answer, wrong_of
from dutchdoor.web.pages.second_step import after_adding
from dutchdoor.web.pages.site import ACCOUNT_PATH, Pages, retry_after
from dutchdoor.web.problems import problem

__all__ = ["PasskeysSection", "forms", "routes"]

ADD_PATH = f"{ACCOUNT_PATH}/passkey"


class PasskeysSection(Section):
    """Lists the passkeys, and renames one."""

    name = "passkeys"
    bundled = False
    handlers = (passkey_routes.rename_passkey,)
    fields = ("id", "name")
    did = "factor_renamed"
    says = {"factor_renamed": mark("The passkey has a new name.")}  # noqa: RUF012

    async def values(self, call: Call) -> Mapping[str, Any]:
        account, _ = await call.holding()
        factors, left = await call.directory.factors.of(account.subject)
        only = await call.directory.identities.only_way_in(account)
        return {
            "only": only is not None and only.method == PASSKEY,
            "needed": len(factors) == 1 and needs_second(account, call.authority.policy),
            "passkeys": [each for each in factors if each.method == PASSKEY],
            "app": any(each.method == TOTP for each in factors),
            "codes_left": left,
            "offered": PASSKEY in call.directory.factors.offered,
        }


def routes(pages: Pages) -> list[Route]:
    return [
        pages.way_from("/auth/passkeys/register", ADD_PATH, bundled=False),
        pages.own_page(
            ADD_PATH, AddForm(pages).show, fresh=True, query=("next",), summary="Show the page to add a passkey."
        ),
    ]


def forms(pages: Pages) -> dict[Handler, Page]:
    return {passkey_routes.register_passkey: AddForm(pages)}


class AddForm(OwnForm):
    """Makes a passkey. With the first second factor come recovery codes, which are shown then."""

    async def show(self, call: Call) -> Response:
        return await self._show(call, call.query)

    async def _show(
        self,
        call: Call,
        fields: Mapping[str, str],
        status: int = 200,
        headers: tuple[Header, ...] = (),
        error: Mapping[str, Any] | None = None,
    ) -> Response:
        kept = {name: fields.get(name, "") for name in ("next", "name")}
        return await self.pages.show_own(call, "add_passkey", status, headers, kept=kept, error=error)

    def take(self, call: Call, fields: Mapping[str, str]) -> Mapping[str, object]:
        # A person who gives no name is shown that of the device from now on: in the words of this page.
        device = self.pages.language(call.request).device(call.observed().device)[:NAME_AT_MOST]
        return {"response": passkey_answer(fields), "name": fields.get("name", "").strip() or device}

    async def answer(self, call: Call, response: Response, fields: Mapping[str, str]) -> Response:
        return after_adding(self.pages, call, response, fields)

    async def refuse(self, call: Call, error: DutchdoorError, fields: Mapping[str, str]) -> Response:
        over = isinstance(error, NotAuthenticated) and not isinstance(error, (InvalidToken, WrongCredentials))
        if over or isinstance(error, StepUpRequired) or not isinstance(error, (InvalidInput, RateLimited, Refused)):
            return await super().refuse(call, error, fields)
        answer = problem(error)
        return await self._show(call, fields, answer.status, retry_after(answer), wrong_of(error))
