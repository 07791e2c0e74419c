"""`dutchdoor session`: list and revoke sessions."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import click
from msgspec import to_builtins

from dutchdoor.auth import Auth
from dutchdoor.errors import NotFound
from dutchdoor.model.acting import BY_COMMAND
from dutchdoor.model.sessions import Session
from dutchdoor.server.options import (
    as_json,
    ask_first,
    find_account,
    no_wait,
    say_fence,
    settings_from,
    wait_for,
    with_auth,
    with_settings,
)
from dutchdoor.server.terminal import instant, print_json, print_table, say, write
from dutchdoor.services.fencing import as_one
from dutchdoor.stores.base import Revoked
from dutchdoor.web.schemas import Fence

__all__ = ["session", "session_columns", "session_row", "session_view"]

REPORT_EVERY = 2.0

session_columns = ("session", "mode", "last seen", "created", "expires", "device", "address", "country")


def session_row(session: Session) -> tuple[object, ...]:
    return (
        session.id,
        session.mode,
        instant(session.last_seen_at),
        instant(session.created_at),
        instant(min(session.idle_expires_at, session.expires_at)),
        session.device or "unknown",
        session.address or "-",
        session.country or "-",
    )


def session_view(session: Session) -> dict[str, object]:
    return {
        "id": session.id,
        "user": session.subject,
        "mode": session.mode,
        "client_id": session.client_id,
        "created_at": instant(session.created_at),
        "last_seen_at": instant(session.last_seen_at),
        "expires_at": instant(min(session.idle_expires_at, session.expires_at)),
        "device": session.device,
        "address": session.address,
        "country": session.country,
    }


@click.group()
def session() -> None:
    """List and revoke sessions."""


@session.command("list", epilog="Example: dutchdoor session list ada@example.com")
@click.argument("user")
@as_json
@with_settings("database", "master_key")
def list_(user: str, *, as_json: bool, **options: Any) -> None:
    """List the live sessions of an account, newest first."""

    async def work(auth: Auth) -> list[Session]:
        account = await find_account(auth, user)
        return await auth.authority.sessions(account.subject)

    found = with_auth(settings_from(options), work)
    if as_json:
        print_json([session_view(each) for each in found])
    else:
        print_table(session_columns, map(session_row, found), empty="No session is live.")


@session.command(
    epilog="Examples: dutchdoor session end AZqp0cM0t2iWk1yqj3xF9A; dutchdoor session end --user ada@example.com; "
    "dutchdoor session end --all"
)
@click.argument("ids", nargs=-1, metavar="[SESSION]...")
@click.option("--user", "who", help="Revoke all sessions and tokens of this account, stateless tokens too.")
@click.option("--all", "everyone", is_flag=True, help="Revoke all sessions and tokens of every account.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@no_wait
@as_json
@with_settings("database", "master_key")
def end(
    ids: tuple[str, ...],
    who: str | None,
    *,
    everyone: bool,
    yes: bool,
    no_wait: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Revoke sessions. When this prints "Fenced", their cookies, refresh tokens and access tokens are refused."""
    if [bool(ids), bool(who), everyone].count(True) != 1:
        raise click.UsageError("Pass session ids, or an account with --user, or --all.")
    settings = settings_from(options)
    if everyone and not yes:
        ask_first(settings, "Every user and every program will be signed out and must sign in again. Continue?")

    async def work(auth: Auth) -> tuple[int, Fence]:
        done = await ended(auth)
        return done.count, await wait_for(auth, done, no_wait=no_wait)

    async def ended(auth: Auth) -> Revoked:
        if everyone:
            return await auth.authority.end_everything(**BY_COMMAND, progress=_progress())
        if who:
            account = await find_account(auth, who)
            reason = "ended_by_admin"
            return await auth.authority.end_all(account.subject, **BY_COMMAND, reason=reason)
        # All ids are looked up before the first session is revoked: with one wrong id, nothing is revoked.
        for each in ids:
            if await auth.store.session(each) is None:
                text = f"There is no session {each[:64]!a}."
                raise NotFound(text, message=text)
        return as_one([await auth.authority.end(each, **BY_COMMAND, reason="ended_by_admin") for each in ids])

    count, fenced = with_auth(settings, work)
    if as_json:
        print_json({"ended": count, **to_builtins(fenced)})
    else:
        write(f"Revoked {count} session" + ("." if count == 1 else "s."))
        say_fence(fenced)


def _progress() -> Callable[[int], None]:
    """Say now and then how far it is: a database of 100,000 accounts takes a minute or two."""
    reported_at = time.monotonic()

    def report(accounts: int) -> None:
        nonlocal reported_at
        if time.monotonic() - reported_at >= REPORT_EVERY:
            reported_at = time.monotonic()
            say(f"{accounts:,} accounts so far")

    return report
