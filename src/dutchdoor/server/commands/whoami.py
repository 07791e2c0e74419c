"""`dutchdoor whoami`: say who is signed in, by asking the server."""

from __future__ import annotations

from typing import Any

import click

from dutchdoor.server.fresh import asking, at_server
from dutchdoor.server.sign_ins import choose, listed
from dutchdoor.server.terminal import as_json, instant, print_json, print_pairs, print_table

__all__ = ["whoami"]


@click.command(epilog="Examples: dutchdoor whoami; dutchdoor whoami --all")
@at_server
@click.option("--all", "everyone", is_flag=True, help="List all sign-ins at this machine, and ask no server.")
@as_json
def whoami(server: str, email: str, *, everyone: bool, as_json: bool) -> None:
    """Show who is signed in, as the server sees it now."""
    if everyone:
        _list(as_json=as_json)
        return
    chosen = choose(server, email)
    with asking(chosen) as auth:
        answer: dict[str, Any] = auth.call("GET", "/auth/me")
    user, session = answer["user"], answer["session"] or {}
    if as_json:
        print_json({"server": chosen.server, **answer})
        return
    print_pairs([
        ("server", chosen.server),
        ("email", user["email"]),
        ("name", user["name"]),
        ("roles", " ".join(user["roles"])),
        ("id", user["id"]),
        ("session", session.get("id")),
        ("expires", session.get("expires_at")),
        ("tokens in", chosen.where),
    ])  # fmt: skip


def _list(*, as_json: bool) -> None:
    found = listed()
    if as_json:
        print_json([
            {"server": each.server, "email": each.login, "kept_in": each.place, "at": instant(each.signed_in_at)}
            for each in found
        ])  # fmt: skip
    else:
        rows = [(each.server, each.login, instant(each.signed_in_at), each.where) for each in found]
        print_table(("server", "email", "signed in", "tokens in"), rows, empty="Not signed in anywhere.")
