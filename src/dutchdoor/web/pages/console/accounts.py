"""The page of accounts: a search, lists by status, and a form that creates one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast, get_args
from urllib.parse import urlencode

from dutchdoor.model.accounts import Account
from dutchdoor.services.administration import ListedStatus
from dutchdoor.texts import mark
from dutchdoor.web.api import Call, Route
from dutchdoor.web.fences import wait_for
from dutchdoor.web.http import Response
from dutchdoor.web.pages.console.drafts import DraftPage, Person
from dutchdoor.web.pages.console.frame import Console
from dutchdoor.web.pages.console.listing import PAGE, next_page
from dutchdoor.web.pages.site import CONSOLE_PATH
from dutchdoor.web.schemas import instant

__all__ = ["ACCOUNT_PATH", "PATH", "routes", "shown"]

PATH = f"{CONSOLE_PATH}/accounts"
ACCOUNT_PATH = f"{PATH}/one"
"""The page of one account, which `?id=` names: a subject of an application's own may hold a slash."""

STATUSES: Mapping[ListedStatus, str] = {
    "any": mark("All"),
    "active": mark("Active"),
    "disabled": mark("Disabled"),
    "unverified": mark("Not verified"),
    "admin": mark("Administrators"),
}


def routes(console: Console) -> list[Route]:
    page = AccountsPage(console)
    return [
        console.page(PATH, page.show, query=("search", "status", "after"), summary="Show the accounts."),
        console.act(
            PATH,
            page.create,
            body=Person,
            again=page.again,
            bundled=True,
            summary="Create an account from the console.",
        ),
        console.act(PATH + "/sign-out-all", page.sign_out_all, summary="Sign every account out, the caller's too."),
    ]


class AccountsPage(DraftPage):
    """Lists accounts, a page at a time, and creates one."""

    draft = Person

    async def show_with(
        self, call: Call, status: int = 200, *, kept: Mapping[str, str], error: Mapping[str, Any] | None = None
    ) -> Response:
        asked = {name: call.query.get(name, "")[:255] for name in ("search", "status")}
        after = call.query.get("after", "")[:2000]
        chosen = asked["status"] if asked["status"] in get_args(ListedStatus) else "any"
        found, following = await call.directory.admin.accounts(
            search=asked["search"].strip(), status=cast("ListedStatus", chosen), after=after, limit=PAGE
        )
        return self.console.show(
            call,
            "accounts",
            status,
            accounts=[shown(account) for account in found],
            search=asked["search"],
            statuses=[
                (words, PATH if each == "any" else f"{PATH}?{urlencode({'status': each})}", each == chosen)
                for each, words in STATUSES.items()
            ],
            following=next_page(PATH, **asked, after=following or ""),
            begun=bool(after),
            closed=call.authority.policy.registration == "closed",
            error=error,
            kept=kept,
        )

    async def create(self, call: Call) -> Response:
        draft: Person = call.body
        account = await call.directory.admin.create(
            draft.email, name=draft.name, roles=tuple(draft.roles.split()), **call.by
        )
        return self.console.done(ACCOUNT_PATH, "account-created", id=account.subject)

    async def sign_out_all(self, call: Call) -> Response:
        done = await call.authority.end_everything(**call.by)
        return self.console.done(PATH, "all-signed-out", await wait_for(call, done))


def shown(account: Account) -> dict[str, Any]:
    return {
        "id": account.subject,
        "title": account.address or account.name or account.subject,
        "name": account.name if account.address else "",
        "address": account.address,
        "roles": account.roles,
        "active": account.active,
        "unverified": account.email_verified_at is None and account.email is not None,
        "created": instant(account.created_at),
        "page": f"{ACCOUNT_PATH}?{urlencode({'id': account.subject})}",
    }
