"""The first page of the console: what happened in the last hour, day or month, as plots with a table of each.

Sign-ins, refusals and endings are counted in the audit log, which has those of all processes. Refreshes and fences
write no event: they are those of the process that answers, since it began.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from msgspec import Struct

from dutchdoor.errors import InvalidInput
from dutchdoor.model.audit_events import AuditSearch
from dutchdoor.texts import mark
from dutchdoor.web.api import Call, Route
from dutchdoor.web.http import Response
from dutchdoor.web.pages.console.frame import Console
from dutchdoor.web.pages.console.plots import Plot, Series, plot
from dutchdoor.web.pages.site import CONSOLE_PATH
from dutchdoor.web.schemas import instant
from dutchdoor.web.tally import SPANS

__all__ = ["routes"]

NEWEST = 1000
"""Sign-ins whose pattern is looked at."""
REMEMBERED_FOR = 10.0
"""Seconds for which counts are kept: many administrators who look at once cost one count."""

RANGES = {"1h": mark("The last hour"), "24h": mark("The last day"), "30d": mark("The last 30 days")}
COUNTED: Final = (
    "session_started", "token_issued", "login",
    "refresh_theft", "refresh_impossible", "refresh_wrong_client",
    "logout", "logout_all", "session_ended", "session_suspected", "token_revoked",
)  # fmt: skip
PATTERNS = {"session": mark("Session cookie"), "hybrid": mark("Refresh and access token")}


class _Counted(Struct, frozen=True):
    """What the audit log says of one span."""

    made_at: float
    edges: list[float]
    counts: dict[str, list[int]]
    patterns: Counter[str]


def routes(console: Console) -> list[Route]:
    page = OverviewPage(console)
    return [console.page(CONSOLE_PATH, page.show, query=("range",), summary="Show what happened lately.")]


class OverviewPage:
    """Shows plots. Counts of the audit log are kept for some seconds, one for each span."""

    def __init__(self, console: Console) -> None:
        self.console = console
        self._counted: dict[str, _Counted] = {}
        self._counting = asyncio.Lock()

    async def show(self, call: Call) -> Response:
        span = call.query.get("range", "24h")
        if span not in RANGES:
            raise InvalidInput(mark("range must be one of: %(known)s.", known=", ".join(RANGES)), field="range")
        async with self._counting:
            found = self._counted.get(span)
            if found is None or not 0 <= time.monotonic() - found.made_at < REMEMBERED_FOR:
                found = self._counted[span] = await _count(call, span)
        steps = [_named(edge, span) for edge in found.edges[:-1]]
        return self.console.show(
            call,
            "overview",
            span=span,
            ranges=RANGES,
            everywhere=_of_the_log(found, steps),
            here=_of_this_process(call, span, found.edges, steps),
            began=instant(call.api.tally.began),
            patterns=[(PATTERNS.get(mode, mode), count) for mode, count in found.patterns.most_common()],
            newest=sum(found.patterns.values()),
            is_part=sum(found.counts["session_started"]) > sum(found.patterns.values()),
        )


async def _count(call: Call, span: str) -> _Counted:
    store, (step, steps) = call.authority.store, SPANS[span]
    last = int(call.authority.clock() // step) + 1
    edges = [float(step * number) for number in range(last - steps, last + 1)]
    counts = await store.count_events(COUNTED, edges)
    started = AuditSearch(name="session_started", since=edges[0], until=edges[-1])
    newest, _ = await store.look_for_events(started, limit=NEWEST)
    return _Counted(time.monotonic(), edges, counts, Counter(event.detail for event in newest))


def _of_the_log(found: _Counted, steps: list[str]) -> list[Plot]:
    def total(*names: str) -> Sequence[int]:
        return [sum(values) for values in zip(*(found.counts[name] for name in names), strict=True)]

    return [
        plot(
            mark("Sign-ins"),
            steps,
            [
                Series(mark("With a session"), total("session_started")),
                Series(mark("With a token alone"), total("token_issued"), "green"),
            ],
        ),
        plot(
            mark("Refusals"),
            steps,
            [
                Series(mark("Sign-ins with a wrong proof"), total("login"), "red"),
                Series(
                    mark("Stolen or foreign refresh tokens"),
                    total("refresh_theft", "refresh_impossible", "refresh_wrong_client"),
                ),
                Series(mark("Suspicious uses of a sign-in"), total("session_suspected"), "green"),
            ],
        ),
        plot(
            mark("Endings"),
            steps,
            [
                Series(mark("By log-out"), total("logout", "logout_all")),
                Series(mark("By the server or an administrator"), total("session_ended", "token_revoked"), "red"),
            ],
        ),
    ]


def _of_this_process(call: Call, span: str, edges: list[float], steps: list[str]) -> list[Plot]:
    counts = call.api.tally.steps(span, int(edges[0] // SPANS[span][0]))
    return [
        plot(
            mark("Refreshes"),
            steps,
            [
                Series(mark("Accepted"), [each.refreshed for each in counts]),
                Series(mark("Refused"), [each.refused for each in counts], "red"),
            ],
        ),
        plot(
            mark("Fences: the slowest wait"),
            steps,
            [Series(mark("Milliseconds"), [math.ceil(each.slowest * 1e6) / 1000 for each in counts])],
            unit="ms",
        ),
    ]


def _named(at: float, span: str) -> str:
    moment = datetime.fromtimestamp(at, UTC)
    return f"{moment:%Y-%m-%d}" if span == "30d" else f"{moment:%H:%M}"
