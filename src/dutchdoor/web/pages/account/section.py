"""A section of the account page, and the page that shows all of them.

A section is a file beside this one and a template in `templates/account/`. Its form posts to an endpoint of the API,
which may have a path of its own. What was wrong is shown in the section, and the rest of the page stays as it was.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from dutchdoor.errors import DutchdoorError, InvalidInput, RateLimited, WrongCredentials
from dutchdoor.web.api import Call, Handler
from dutchdoor.web.http import Header, Response
from dutchdoor.web.pages.account.deeds import shown
from dutchdoor.web.pages.account.set_aside import SAYS
from dutchdoor.web.pages.forms import OwnForm, wrong_of
from dutchdoor.web.pages.in_force import in_force
from dutchdoor.web.pages.site import ACCOUNT_PATH, Pages, retry_after
from dutchdoor.web.problems import problem

__all__ = ["AccountPage", "Section"]

SHOWN_IN_PLACE = (InvalidInput, WrongCredentials, RateLimited)
"""What a person can put right in the form. The other errors have a page of their own."""


ENDING = ("password_changed", "password_removed")
"""The acts that end sign-ins elsewhere."""


class AccountPage:
    """The page of one's own account."""

    def __init__(self, pages: Pages, groups: Sequence[tuple[str, Sequence[type[Section]]]]) -> None:
        """`groups` are headings with the sections below them."""
        self.pages = pages
        made = ((title, tuple(each(self) for each in kinds)) for title, kinds in groups)
        kept = ((title, tuple(s for s in sections if s.bundled <= (not pages.own_users))) for title, sections in made)
        self.groups = tuple((title, sections) for title, sections in kept if sections)
        self.sections = tuple(section for _, sections in self.groups for section in sections)

    async def show(
        self,
        call: Call,
        status: int = 200,
        headers: tuple[Header, ...] = (),
        *,
        section: str = "",
        error: Mapping[str, Any] | None = None,
        kept: Mapping[str, str] | None = None,
    ) -> Response:
        """Show the page, with what was wrong (`error`) in one `section`, where the harmless fields are `kept`."""
        said: dict[str, str] = dict(SAYS)
        for each in self.sections:
            said |= each.says
        done = await self.pages.done(call, said)
        # Read anew: what this node remembers may be from before a change at another node.
        account = await call.authority.store.account(call.actor)
        ending = bool(done) and call.query.get("done") in ENDING
        deeds = await call.directory.deeds.of(account) if account else ()
        return await self.pages.show_own(
            call,
            "account",
            status,
            headers,
            account=account,
            groups=self.groups,
            mine={each.name: await each.values(call) for each in self.sections},
            wrong={} if error is None else {section: error},
            kept=kept or {},
            done=done,
            in_force=await in_force(call) if ending else None,
            young=await call.directory.set_aside.young(account) if ending and account else (),
            deeds=[shown(each, self.pages) for each in deeds],
        )


class Section(OwnForm):
    """One section of the account page. A subclass without a form has no `handlers`."""

    name: ClassVar[str]
    """Its template, `account/{name}.html`, and its anchor in the page."""
    handlers: ClassVar[tuple[Handler, ...]] = ()
    """The endpoints that its form posts to."""
    bundled: ClassVar[bool] = True
    """Whether it needs the bundled accounts: it is absent where the application has users of its own."""
    fields: ClassVar[tuple[str, ...]] = ()
    """What its form sends."""
    keeps: ClassVar[tuple[str, ...]] = ()
    """The fields that keep their value when the form was refused: never a password."""
    did: ClassVar[str] = ""
    """The audit event of its act."""
    says: ClassVar[Mapping[str, str]] = {}
    """What the page says once an act is done, by the name of its audit event."""

    def __init__(self, page: AccountPage) -> None:
        super().__init__(page.pages)
        self.page = page

    async def values(self, call: Call) -> Mapping[str, Any]:  # noqa: ARG002 - most need no more than the account
        """Return what its template shows besides the account, as `mine`."""
        return {}

    def take(self, call: Call, fields: Mapping[str, str]) -> Mapping[str, object]:  # noqa: ARG002 - for every form
        return {name: fields.get(name, "") for name in self.fields}

    async def answer(self, call: Call, response: Response, fields: Mapping[str, str]) -> Response:  # noqa: ARG002
        return self.pages.go(f"{self.pages.base}{ACCOUNT_PATH}?done={self.did}", response)

    async def refuse(self, call: Call, error: DutchdoorError, fields: Mapping[str, str]) -> Response:
        if not isinstance(error, SHOWN_IN_PLACE):
            return await super().refuse(call, error, fields)
        answer = problem(error)
        return await self.page.show(
            call,
            answer.status,
            retry_after(answer),
            section=self.name,
            error=wrong_of(error),
            kept={name: fields.get(name, "") for name in self.keeps},
        )
