"""The section about log-ins at other issuers: linking and unlinking one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dutchdoor.services.identities import IDENTITY
from dutchdoor.texts import mark
from dutchdoor.web import issuer_routes
from dutchdoor.web.api import Call
from dutchdoor.web.pages.account.section import Section

__all__ = ["IdentitiesSection"]


class IdentitiesSection(Section):
    """Shows the linked log-ins, and the buttons to link and to unlink one."""

    name = "identities"
    handlers = (issuer_routes.unlink,)
    fields = ("id",)
    did = "identity_unlinked"
    says = {  # noqa: RUF012
        "identity_linked": mark("The log-in is linked. You can sign in by it from now on."),
        "identity_unlinked": mark("The log-in is unlinked. Sign-ins that began by it have ended, but for this one."),
    }

    async def values(self, call: Call) -> Mapping[str, Any]:
        account, _ = await call.holding()
        only = await call.directory.identities.only_way_in(account)
        return {
            "linked": await call.directory.identities.of(account.subject),
            "only": only is not None and only.method == IDENTITY,
            "issuers": list(call.directory.issuers.issuers.values()),
        }
