"""The sections about one's data: a copy of all of it, and its end."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dutchdoor.errors import StepUpRequired
from dutchdoor.web import life_routes
from dutchdoor.web.api import Call
from dutchdoor.web.http import Response
from dutchdoor.web.pages.account.section import Section

__all__ = ["DELETED_PATH", "DeletionSection", "ExportSection"]

DELETED_PATH = "/auth/account/deleted"


class ExportSection(Section):
    """Offers a copy of all that is known. A download can send no browser to prove again and back, so the page asks for
    the proof first.
    """

    name = "export"
    bundled = False

    async def values(self, call: Call) -> Mapping[str, Any]:
        return await _proof(call)


class DeletionSection(Section):
    """Deletes the account, and signs the browser out."""

    name = "deletion"
    handlers = (life_routes.delete,)

    async def values(self, call: Call) -> Mapping[str, Any]:
        return {**await _proof(call), "kept_for": call.authority.policy.keep_deleted_for}

    async def answer(self, call: Call, response: Response, fields: Mapping[str, str]) -> Response:  # noqa: ARG002
        kept = [header for header in response.headers if header[0] == b"clear-site-data"]
        return self.pages.go(self.pages.base + DELETED_PATH, response).beside(*kept)


async def _proof(call: Call) -> dict[str, Any]:
    """Return whether the caller's proof is enough for what comes next, and the kinds of proof to ask for. A minute is
    for reading.
    """
    authority, principal = call.authority, call.required.principal
    try:
        await call.directory.factors.check_proved(principal.subject, principal.amr)
    except StepUpRequired as exc:
        return {"fresh": False, "factors": exc.factors}
    return {"fresh": authority.clock() - principal.auth_time < authority.policy.step_up_for - 60, "factors": 1}
