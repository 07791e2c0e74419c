"""`dutchdoor audit`: list audit events."""

from __future__ import annotations

import time
from typing import Any, get_args

import click
import msgspec

from dutchdoor.auth import Auth
from dutchdoor.model.audit_events import AuditEvent, EventName
from dutchdoor.server.config import duration, has_no_unit
from dutchdoor.server.options import as_json, find_account, settings_from, with_auth, with_settings
from dutchdoor.server.terminal import instant, print_json, print_table, say

__all__ = ["audit"]


@click.command(
    epilog="Examples: dutchdoor audit --user ada@example.com; dutchdoor audit --name session_started --since 1d --json"
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
@as_json
@with_settings("database", "master_key")
def audit(who: str | None, name: str, since: str, before: str, limit: int, *, as_json: bool, **options: Any) -> None:
    """List audit events, newest first."""
    if name and name not in get_args(EventName):
        raise click.UsageError(f"There is no event {name[:40]!a}. Events: {', '.join(sorted(get_args(EventName)))}.")
    after = time.time() - duration(since, "--since") if since else 0.0
    if since and has_no_unit(since):
        say("--since has no unit, so it counts seconds. Add a unit: s, m, h, d or w.")

    async def work(auth: Auth) -> list[AuditEvent]:
        subject = (await find_account(auth, who)).subject if who else ""
        return await auth.store.events(subject=subject, name=name, since=after, before=before, limit=limit)

    found = with_auth(settings_from(options), work)
    if as_json:
        print_json([{**msgspec.structs.asdict(each), "at": instant(each.at)} for each in found])
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
    if len(found) == limit:
        say(f"There may be more events: add --before {found[-1].id}")
