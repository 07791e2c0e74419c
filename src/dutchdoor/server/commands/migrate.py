"""`dutchdoor migrate`: the database's schema, brought up to date."""

from __future__ import annotations

from typing import Any

import click

from dutchdoor.auth import Auth
from dutchdoor.errors import Misconfigured
from dutchdoor.server.options import as_json, settings_from, with_auth, with_settings
from dutchdoor.server.terminal import print_json, print_pairs

__all__ = ["migrate"]


@click.command(epilog="Example: dutchdoor migrate --database sqlite:////srv/door.db")
@click.option("--to", metavar="URL", help="Reserved for moving to another database: this version cannot yet.")
@as_json
@with_settings("database", "master_key")
def migrate(to: str | None, *, as_json: bool, **options: Any) -> None:
    """Bring the schema up to date, and say what is in the database.

    `serve` does this by itself. It can be interrupted at any moment and run again.
    """
    if to is not None:
        text = "This version cannot move to another database yet; --to is reserved for it. Nothing was done."
        raise Misconfigured(text, message=text)

    async def work(auth: Auth) -> dict[str, int]:
        return await auth.store.counts()

    counts = with_auth(settings_from(options), work, make=True)
    if as_json:
        print_json({"up_to_date": True, "rows": counts})
        return
    click.echo("The schema is up to date.")
    print_pairs(sorted(counts.items()))
