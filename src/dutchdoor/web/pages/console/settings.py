"""The page of the settings: the values that are in force, where they come from, and what is unsafe about them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

from dutchdoor.errors import Misconfigured
from dutchdoor.model.durations import short_duration
from dutchdoor.model.policy import DURATIONS
from dutchdoor.texts import mark
from dutchdoor.web.api import Call, Route
from dutchdoor.web.http import Response
from dutchdoor.web.pages.console.frame import Console
from dutchdoor.web.pages.site import CONSOLE_PATH
from dutchdoor.web.settings_report import ShownSetting

__all__ = ["routes"]

PATH = f"{CONSOLE_PATH}/settings"
GROUPS = (
    mark("Serving"),
    mark("Keeping"),
    mark("Tokens"),
    mark("Signing in"),
    mark("Mail and names"),
    mark("Watching"),
    mark("Policy"),
)
"""The groups of settings, for the catalogues."""


def routes(console: Console) -> list[Route]:
    async def show(call: Call) -> Response:
        return console.show(call, "settings", **await _values(call))

    return [console.page(PATH, show, summary="Show the settings, and what is unsafe about them.")]


async def _values(call: Call) -> dict[str, Any]:
    report = call.api.settings_report
    if report is None:
        return {"groups": {GROUPS[-1]: list(_of_application(call))}, "findings": None, "window": "", "error": ""}
    try:
        found = await asyncio.to_thread(report)
    except Misconfigured as exc:
        return {"groups": {}, "findings": None, "window": "", "error": str(exc)}
    groups: dict[str, list[ShownSetting]] = {}
    for each in found.settings:
        groups.setdefault(each.group, []).append(each)
    return {"groups": groups, "findings": found.findings, "window": found.window, "error": ""}


def _of_application(call: Call) -> Iterator[ShownSetting]:
    """Describe what an application around this has given: its policy, and what tokens are signed with."""
    policy, authority = call.authority.policy, call.authority
    values = {name: getattr(policy, name) for name in policy.__struct_fields__}
    for name, value in {**values, "alg": authority.alg, "issuer": authority.issuer}.items():
        text = short_duration(value) if name in DURATIONS else _text(value)
        yield ShownSetting(name=name, group="", value=text, source="Auth(...)", does="")


def _text(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(map(str, value))
    return "not set" if value is None else str(value)
