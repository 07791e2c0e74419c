"""What the form for a new password says while one types: how hard the password is to guess, as the server judges it.

The script of the page asks at each pause in typing. So the page calls no password good that the form would refuse.
Nothing is stored, counted against an account, or logged. Without the script, the form judges when it is sent.
"""

from __future__ import annotations

from typing import Annotated, Final

from msgspec import Meta, Struct

from dutchdoor.errors import DutchdoorError
from dutchdoor.model.accounts import Account
from dutchdoor.model.rate_limits import by_address
from dutchdoor.texts import mark
from dutchdoor.web.api import Call, Route
from dutchdoor.web.body import Body
from dutchdoor.web.http import Response, json_response
from dutchdoor.web.pages.site import Pages
from dutchdoor.web.schemas import Name, Password

__all__ = ["STRENGTH_PATH", "routes"]

STRENGTH_PATH = "/auth/password/strength"

_ENOUGH: Final = (
    (10.0, 3, mark("Hard to guess.")),
    (8.0, 2, mark("Good.")),
    (0.0, 1, mark("Accepted. Another word makes it harder to guess.")),
)
"""Powers of ten of the tries that an attacker needs, the level on the page, and its words. Ten billion tries outlast an
attacker who has a copy of the hashes; from a hundred million on, one who asks the server.
"""


class Candidate(Body, frozen=True):
    password: Password
    email: Annotated[str, Meta(max_length=320)] = ""
    name: Name = ""


class Strength(Struct):
    level: int
    """0: it would be refused. 1 to 3: it would be accepted."""
    says: str
    """The same in the language of the page, and why it would be refused."""


def routes(pages: Pages) -> list[Route]:
    return [
        Route(
            method="POST",
            path=STRENGTH_PATH,
            handler=StrengthMeter(pages).judge,
            bundled=True,
            body=Candidate,
            summary="Say how hard a new password is to guess.",
        )
    ]


class StrengthMeter:
    def __init__(self, pages: Pages) -> None:
        self.pages = pages

    async def judge(self, call: Call) -> Response:
        body: Candidate = call.body
        limit = call.directory.limits.strength_by_address
        # In memory: it bounds the work, and protects no secret.
        call.api.refresh_rate.take(by_address(limit, call.observed().networks), call.authority.clock())
        account = await self._owner(call)
        passwords = call.directory.recovery.passwords
        language = self.pages.language(call.request)
        refused, tries = await passwords.judged(
            body.password,
            body.email or (account.email if account else "") or "",
            (body.name, account.name if account else ""),
        )
        if refused is not None:
            return json_response(200, Strength(0, language.text(refused.message)))
        level, words = next((level, words) for least, level, words in _ENOUGH if tries >= least)
        return json_response(200, Strength(level, language.text(words)))

    @staticmethod
    async def _owner(call: Call) -> Account | None:
        """Return the account that is signed in: its new password must not be made of its address or its name."""
        try:
            caller = await call.identify(by_refresh_cookie=True)
        except DutchdoorError:
            return None
        return None if caller is None else caller.account
