"""`dutchdoor audit`: list audit events, write all of them, or follow them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any, get_args

import click
import msgspec
from click.core import ParameterSource

from dutchdoor.auth import Auth
from dutchdoor.errors import Unavailable
from dutchdoor.model.audit_events import AuditCursor, AuditEvent, AuditSearch, EventName
from dutchdoor.model.choices import nearest
from dutchdoor.model.durations import read_duration
from dutchdoor.model.ids import is_id
from dutchdoor.server.config import has_no_unit
from dutchdoor.server.instrumentation import event_line
from dutchdoor.server.options import as_json, find_account, settings_from, with_auth, with_settings
from dutchdoor.server.terminal import instant, print_json, print_table, say, write
from dutchdoor.stores.base import Store

__all__ = ["audit"]

POLL_EVERY, PAGE = 1.0, 500
"""Seconds between two looks of `--follow` at the log, and the events that one look reads, of `--all` too."""


@click.command(
    epilog="Examples: dutchdoor audit --user ada@example.com; dutchdoor audit --name session_started --since 1d "
    "--json; dutchdoor audit --all --json > events.jsonl"
)
@click.option("--user", "who", help="Only events of this account.")
@click.option(
    "--name",
    default="",
    metavar="EVENT",
    help="Only events with this name, such as session_started or session_ended. A refused sign-in is named login.",
)
@click.option("--since", default="", metavar="DURATION", help="Only events of the last DURATION, such as 1d.")
@click.option("--before", default="", metavar="ID", help="Only events older than this one, for the next page.")
@click.option("--limit", default=100, type=click.IntRange(1, 10_000), show_default=True, help="Events to list.")
@click.option(
    "--all",
    "every",
    is_flag=True,
    help="Print all events that match, however many, one a line. With --json: one object a line.",
)
@click.option(
    "--follow",
    is_flag=True,
    help="Print events as they are committed, from now on, until you stop it. With --json: one object a line, each "
    "with its cursor.",
)
@click.option("--after", default="", metavar="CURSOR", help="With --follow: continue after this event.")
@as_json
@with_settings("database", "master_key")
@click.pass_context
def audit(
    context: click.Context,
    /,
    who: str | None,
    name: str,
    since: str,
    before: str,
    limit: int,
    *,
    every: bool,
    follow: bool,
    after: str,
    as_json: bool,
    **options: Any,
) -> None:
    """List audit events, newest first, or follow them in the order of their commits.

    --all reads the log page by page, so it needs no more memory for a long one.

    --follow misses no event: save the last cursor, and continue with --follow --after CURSOR. With --since it begins
    with the events of that time.
    """
    given = {
        each
        for each in ("before", "limit", "every")
        if context.get_parameter_source(each) is not ParameterSource.DEFAULT
    }
    if (follow and given) or (after and not follow):
        raise click.UsageError("--follow goes with --after and without --before, --limit and --all.")
    if {"every", "limit"} <= given:
        raise click.UsageError("--all goes without --limit: it prints every event that matches.")
    if name and name not in get_args(EventName):
        raise click.UsageError(f"There is no event {name[:40]!a}. {nearest(name, get_args(EventName))}")
    if before and not is_id(before):
        raise click.UsageError(f"--before takes the id of an event, and {before[:40]!a} is none.")
    begun = time.time() - read_duration(since, "--since") if since else 0.0
    if since and has_no_unit(since):
        say("--since has no unit, so it counts seconds. Add a unit: s, m, h, d or w.")

    async def work(auth: Auth) -> list[AuditEvent]:
        subject = (await find_account(auth, who)).subject if who else ""
        return await auth.store.events(subject=subject, name=name, since=begun, before=before, limit=limit)

    async def whole(auth: Auth) -> None:
        subject = (await find_account(auth, who)).subject if who else ""
        wanted = AuditSearch(subject=subject, name=name, since=begun)
        await _print_all(auth.store, wanted, before, as_json=as_json)

    async def following(auth: Auth) -> None:
        subject = (await find_account(auth, who)).subject if who else ""
        store = auth.store
        cursor = AuditCursor.parse(after) if after else None if since else await store.audit_end()

        def is_asked_for(event: AuditEvent) -> bool:
            return event.at >= begun and (not subject or event.subject == subject) and (not name or event.name == name)

        await _follow(store, cursor, is_asked_for, as_json=as_json)

    if follow or every:
        with_auth(settings_from(options), following if follow else whole)
        return
    found = with_auth(settings_from(options), work)
    if len(found) == limit:
        say(f"There may be more events: add --before {found[-1].id}, or --all for all of them.")
    if as_json:
        print_json([_shown(each) for each in found])
        return
    print_table(
        ("at", "event", "outcome", "user", "actor", "address", "device", "detail"),
        (
            (
                instant(each.at),
                each.name,
                each.outcome,
                each.subject or "-",
                "self" if each.actor and each.actor == each.subject else each.actor or "-",
                each.address or "-",
                each.device or "-",
                each.detail,
            )
            for each in found
        ),
        empty="There are no events.",
    )


async def _print_all(store: Store, wanted: AuditSearch, before: str, *, as_json: bool) -> None:
    while True:
        found, before = await store.look_for_events(wanted, before=before, limit=PAGE)
        for event in found:
            if as_json:
                print_json(_shown(event), as_line=True)
            else:
                write(f"{instant(event.at)} {event_line(event)}")
        if not before:
            return


async def _follow(
    store: Store, cursor: AuditCursor | None, is_asked_for: Callable[[AuditEvent], bool], *, as_json: bool
) -> None:
    """Print events for ever. While the store is unavailable, wait for it: a stream that ends would be restarted."""
    is_there = True
    while True:
        try:
            page = await store.events_after(cursor, limit=PAGE)
        except Unavailable as exc:
            page = []
            if is_there:
                say(f"The database is unavailable, trying again: {exc.reason}")
            is_there = False
        else:
            is_there = True
        for place, event in page:
            cursor = place
            if is_asked_for(event) and as_json:
                print_json({**_shown(event), "cursor": place.text()}, as_line=True)
            elif is_asked_for(event):
                write(f"{instant(event.at)} {event_line(event)}")
        if len(page) < PAGE:
            await asyncio.sleep(POLL_EVERY)


def _shown(event: AuditEvent) -> dict[str, object]:
    return {**msgspec.structs.asdict(event), "at": instant(event.at)}
