"""`dutchdoor purge`: delete expired records now."""

from __future__ import annotations

from typing import Any

import click

from dutchdoor.auth import Auth
from dutchdoor.server.options import as_json, settings_from, with_auth, with_settings
from dutchdoor.server.terminal import agree, print_json, write

__all__ = ["purge"]


@click.command(epilog="Example: dutchdoor purge --max-audit-for 90d")
@click.option("--yes", is_flag=True, help="Do not ask, where the age of the audit log is probably a mistake.")
@as_json
@with_settings("database", "master_key", "max_audit_for")
def purge(*, yes: bool, as_json: bool, **options: Any) -> None:
    """Delete expired records now. A server does so by itself: a minute after its start, and every hour.

    Deleted are sessions past their absolute expiry, audit events older than --max-audit-for, links, entries of the
    revocation log and rate limits that count no more. Servers may run: it works in small steps, and rests between them.
    """
    settings = settings_from(options)
    doubt = settings.doubts.get("max_audit_for")
    if doubt and not yes:  # `--max-audit-for 90` is a minute and a half, and what is deleted is gone
        agree(f"{doubt} Delete all older audit events?")
    deleted = with_auth(settings, Auth.tidy, needs=("max_audit_for",))
    if as_json:
        print_json({"deleted": deleted})
    else:
        write(f"Deleted {deleted} expired record" + ("." if deleted == 1 else "s."))
