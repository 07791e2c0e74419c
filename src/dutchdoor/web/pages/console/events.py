"""The page of the audit log: what happened, newest first, by filters, and the same as a file."""

from __future__ import annotations

import asyncio
import csv
import io
from collections.abc import AsyncIterator, Callable, Mapping
from datetime import UTC, datetime
from typing import Any, get_args
from urllib.parse import urlencode

import msgspec
from msgspec.structs import asdict

from dutchdoor.errors import InvalidInput
from dutchdoor.model.audit_events import AuditEvent, AuditSearch, EventName, Outcome
from dutchdoor.model.email_address import canonical
from dutchdoor.texts import mark
from dutchdoor.web.api import Call, Route
from dutchdoor.web.http import Response
from dutchdoor.web.pages.console.frame import Console
from dutchdoor.web.pages.console.listing import PAGE, next_page
from dutchdoor.web.pages.site import CONSOLE_PATH
from dutchdoor.web.problems import problem
from dutchdoor.web.schemas import instant

__all__ = ["routes"]

PATH = f"{CONSOLE_PATH}/events"
FILTERS = ("name", "who", "outcome", "address", "since", "until")
OUTCOMES: Mapping[Outcome, str] = {"ok": mark("Done"), "refused": mark("Refused")}
EXPORTED_AT_ONCE = 500
COLUMNS = AuditEvent.__struct_fields__
_RUNS = ("=", "+", "-", "@", "\t", "\r")


def routes(console: Console) -> list[Route]:
    page = EventsPage(console)
    return [
        console.page(PATH, page.show, query=(*FILTERS, "before"), summary="Show the audit log."),
        console.page(PATH + "/export", page.export, query=(*FILTERS, "format"), summary="Get the audit log as a file."),
    ]


class EventsPage:
    """Shows audit events, and writes them to a file, as CSV or as lines of JSON."""

    def __init__(self, console: Console) -> None:
        self.console = console

    async def show(self, call: Call) -> Response:
        kept = {name: call.query.get(name, "")[:320] for name in FILTERS}
        found: list[AuditEvent] = []
        before, following, error, status = call.query.get("before", "")[:22], "", None, 200
        try:
            wanted = await _search(call, kept)
            found, following = await call.authority.store.look_for_events(wanted, before=before, limit=PAGE)
        except InvalidInput as exc:
            error, status = {"words": str(exc), "field": exc.field}, problem(exc).status
        return self.console.show(
            call,
            "events",
            status,
            events=[_shown(event) for event in found],
            people=await _people(call, found),
            kept=kept,
            error=error,
            names=sorted(get_args(EventName)),
            outcomes=OUTCOMES,
            following=next_page(PATH, **kept, before=following),
            newest=f"{PATH}?{urlencode(kept)}" if before else "",
            is_whole=len(found) == PAGE,
            exported={each: next_page(PATH + "/export", **kept, format=each) for each in _WRITERS},
        )

    async def export(self, call: Call) -> Response:
        """Answer with a file, in pieces of a few hundred events. Raises `InvalidInput` for a wrong filter."""
        self.console.holder(call)
        kind = call.query.get("format", "csv")
        if kind not in _WRITERS:
            raise InvalidInput(mark("format must be one of: %(known)s.", known=", ".join(_WRITERS)), field="format")
        wanted = await _search(call, {name: call.query.get(name, "")[:320] for name in FILTERS})
        first, write, media_type = _WRITERS[kind]
        now = datetime.fromtimestamp(call.authority.clock(), UTC)
        headers = [
            (b"content-type", media_type.encode()),
            (b"content-disposition", f'attachment; filename="audit-{now:%Y%m%dT%H%M%SZ}.{kind}"'.encode()),
        ]
        return Response(200, headers, first, pieces=_pieces(call, wanted, write))


async def _search(call: Call, kept: Mapping[str, str]) -> AuditSearch:
    """Read the filters. Raises `InvalidInput` for one that can find nothing."""
    for name, known in (("name", get_args(EventName)), ("outcome", get_args(Outcome))):
        if kept[name] and kept[name] not in known:
            raise InvalidInput(mark("There is no such event or outcome."), field=name)
    who = kept["who"].strip()
    if "@" in who:
        account = await call.authority.store.account_by_email(canonical(who))
        if account is None:
            raise InvalidInput(mark("There is no account with this address."), field="who")
        who = account.subject
    since, until = _instant(kept["since"], "since"), _instant(kept["until"], "until")
    wanted = AuditSearch(
        subject=who, name=kept["name"], outcome=kept["outcome"], address=kept["address"].strip(), since=since or 0.0
    )
    return wanted if until is None else msgspec.structs.replace(wanted, until=until)


def _instant(text: str, field: str) -> float | None:
    """Read a time of day in UTC, as browsers write it: 2026-11-29T18:30."""
    if not text:
        return None
    try:
        return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()
    except (ValueError, OverflowError):
        raise InvalidInput(mark("A time is a date, or a date and a time: 2026-11-29T18:30."), field=field) from None


async def _people(call: Call, found: list[AuditEvent]) -> dict[str, str]:
    """Return the addresses of the accounts that these events are about. Events hold ids alone, so that an erased
    account is in none of them; people who look into the log know each other by address.
    """
    subjects = {event.subject for event in found if event.subject}
    accounts = await asyncio.gather(*map(call.authority.store.account, subjects))
    return {account.subject: account.address for account in accounts if account and account.address}


async def _pieces(call: Call, wanted: AuditSearch, write: Callable[[list[AuditEvent]], bytes]) -> AsyncIterator[bytes]:
    before = ""
    while True:
        # An export may take minutes: one whose session has ended is cut off, and its file is not whole.
        await call.identify()
        found, before = await call.authority.store.look_for_events(wanted, before=before, limit=EXPORTED_AT_ONCE)
        if found:
            yield write(found)
        if not before:
            return


def _row(event: AuditEvent) -> dict[str, str]:
    return {**asdict(event), "at": instant(event.at)}


def _shown(event: AuditEvent) -> dict[str, Any]:
    more = [(name, value) for name, value in _row(event).items() if value and name not in {"at", "name", "outcome"}]
    return {**_row(event), "more": more}


def _cell(text: str) -> str:
    """Formula injection: a cell that a spreadsheet would run begins with an apostrophe, which shows it as text."""
    return "'" + text if text.startswith(_RUNS) else text


def _csv(found: list[AuditEvent]) -> bytes:
    return _written([[_cell(value) for value in _row(event).values()] for event in found])


def _written(rows: list[list[str]]) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue().encode()


def _json_lines(found: list[AuditEvent]) -> bytes:
    return b"".join(msgspec.json.encode(_row(event)) + b"\n" for event in found)


_WRITERS: Mapping[str, tuple[bytes, Callable[[list[AuditEvent]], bytes], str]] = {
    "csv": (_written([list(COLUMNS)]), _csv, "text/csv; charset=utf-8"),
    "jsonl": (b"", _json_lines, "application/jsonl; charset=utf-8"),
}
