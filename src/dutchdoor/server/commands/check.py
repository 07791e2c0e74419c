"""`dutchdoor check`: list unsafe settings, each with its reason."""

from __future__ import annotations

import sys
from typing import Any

import click

from dutchdoor.revocation.lease import GUARD
from dutchdoor.server.check import findings, revocation_window
from dutchdoor.server.options import as_json, settings_from, with_settings
from dutchdoor.server.settings import SETTINGS
from dutchdoor.server.terminal import print_json, write

__all__ = ["check"]


@click.command(epilog="Example: dutchdoor check --config dutchdoor.toml")
@as_json
@with_settings(*(setting.name for setting in SETTINGS))
def check(*, as_json: bool, **options: Any) -> None:
    """List unsafe settings, each with its reason. Exits with 1 if one of them is marked UNSAFE."""
    settings = settings_from(options)
    found = findings(settings)
    if as_json:
        print_json(
            {
                "findings": found,
                "revocation": {
                    "this_server_s": 0,
                    "lease_s": settings.lease,
                    "following_verifier_s": settings.lease * GUARD,
                    "unfollowed_verifier_s": settings.policy.access_for,
                },
            }
        )
    else:
        for each in found:
            write(f"{'UNSAFE ' if each.matters else 'consider'}  {each.setting}: {each.what}\n          {each.why}")
        if not found:
            write("Nothing unsafe was found.")
        write(revocation_window(settings))
    sys.exit(1 if any(each.matters for each in found) else 0)
