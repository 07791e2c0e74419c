"""The page to prove again who one is, for what demands a fresh proof (RFC 9470). It leads back to where one was.

The shortest proof that the requirement asks for is enough: the password, a passkey, or the code of the app. Where it
asks for two kinds of proof, a passkey or the code is added to the password that the sign-in began with.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dutchdoor.credentials.mail_code import MAIL_CODE
from dutchdoor.credentials.passkey import PASSKEY
from dutchdoor.credentials.password import PASSWORD
from dutchdoor.credentials.recovery_code import RECOVERY_CODE
from dutchdoor.credentials.totp import TOTP
from dutchdoor.errors import DutchdoorError, InvalidInput, InvalidToken, RateLimited, StepUpRequired, WrongCredentials
from dutchdoor.issuers.issuer import Issuer
from dutchdoor.web import account_routes, own_users
from dutchdoor.web.api import Call, Handler, Page, Route
from dutchdoor.web.http import Response
from dutchdoor.web.pages.account.password import has_password
from dutchdoor.web.pages.forms import OwnForm, passkey_answer, wrong_of
from dutchdoor.web.pages.site import CONFIRM_PATH, Pages, retry_after
from dutchdoor.web.problems import problem

__all__ = ["forms", "routes"]

TWO = "2"
"""Two kinds of proof are asked for."""


def routes(pages: Pages) -> list[Route]:
    return [
        pages.own_page(
            CONFIRM_PATH,
            ConfirmForm(pages).show,
            in_doubt=True,
            query=("next", "factors", "by"),
            summary="Show the page to prove again who one is.",
        )
    ]


def forms(pages: Pages) -> dict[Handler, Page]:
    return {account_routes.reauthenticate: ConfirmForm(pages), own_users.reauthenticate: ConfirmForm(pages)}


async def _proving(call: Call) -> list[Issuer]:
    """Return the issuers that the account has a log-in at, and that can ask for a new proof."""
    issuers = call.directory.issuers.issuers
    linked = await call.directory.identities.of(call.actor)
    named = dict.fromkeys(each.issuer for each in linked)
    return [issuers[name] for name in named if name in issuers and issuers[name].proves_again]


class ConfirmForm(OwnForm):
    """Proves the password again, and goes on to where one came from."""

    async def show(self, call: Call) -> Response:
        _, session = await call.holding()
        asks = "" if session is None else await call.authority.challenge_for_browser(session, call.observed())
        key = "" if session is None else session.browser_key or ""
        # The browser first, and its owner only if it cannot answer. Not on a page that says what was wrong: it has been
        # asked.
        return await self._show(call, call.query, challenge=asks, key=key, goes_to=self.pages.after(call, call.query))

    async def _show(self, call: Call, fields: Mapping[str, str], status: int = 200, **values: Any) -> Response:
        # A login is written again by hand: dutchdoor knows the application's users by their ids alone.
        kept = {name: fields.get(name, "") for name in ("next", "email", "factors")}
        account, _ = await call.holding()
        found, left = await call.directory.factors.of(account.subject)
        can_mail = await call.directory.mailed_codes.can_prove_again(account)
        methods = {each.method for each in found}
        # A false page can ask for no passkey, so it comes first.
        ways: list[str] = [each for each in (PASSKEY, TOTP) if each in methods]
        ways += [RECOVERY_CODE] * bool(left and ways)
        usual, linked = ways[0] if ways else "", await _proving(call)
        in_doubt = call.must_prove(call.required.principal)
        if in_doubt and ways:
            kept["factors"] = TWO
        if kept["factors"] != TWO:
            if self.pages.own_users or await has_password(call):
                usual = PASSWORD
            elif usual == TOTP and (linked or can_mail):
                usual = ""
            ways += [PASSWORD] * (usual == PASSWORD) + [MAIL_CODE] * can_mail
        wanted = fields.get("by") or fields.get("method") or ""
        by = wanted if wanted in ways else usual
        shown: dict[str, Any] = {
            "kept": kept,
            "error": None,
            "factors": kept["factors"],
            "by": by,
            "others": [each for each in ways if each != by],
            "can_mail": can_mail,
            "linked": linked,
            "proved_at": call.required.principal.auth_time,
            "challenge": "",
            "in_doubt": in_doubt,
            **values,
        }
        return await self.pages.show_own(call, "confirm", status, **shown)

    def take(self, call: Call, fields: Mapping[str, str]) -> Mapping[str, object]:  # noqa: ARG002 - for every form
        method = fields.get("method", "")
        if method:
            answered = passkey_answer(fields) if method == PASSKEY else fields.get("response", "")
            return {"method": method, "response": answered}
        names = ("email", "password") if self.pages.own_users else ("password",)
        return {name: fields.get(name, "") for name in names}

    async def answer(self, call: Call, response: Response, fields: Mapping[str, str]) -> Response:
        return self.pages.go(self.pages.after(call, fields), response)

    async def refuse(self, call: Call, error: DutchdoorError, fields: Mapping[str, str]) -> Response:
        if isinstance(error, StepUpRequired):  # the page was opened before its sign-in was in doubt
            return await self._show(call, fields)
        late = isinstance(error, InvalidToken) and fields.get("method") == PASSKEY  # the challenge, or the session
        if not (late or isinstance(error, (InvalidInput, WrongCredentials, RateLimited))):
            return await super().refuse(call, error, fields)
        answer = problem(error)
        return await self._show(call, fields, answer.status, headers=retry_after(answer), error=wrong_of(error))
