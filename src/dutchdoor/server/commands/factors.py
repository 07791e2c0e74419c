"""`dutchdoor user factors`: the second factors of an account, and removing one of a person who has lost it."""

from __future__ import annotations

from typing import Any

import click

from dutchdoor.auth import Auth
from dutchdoor.model.accounts import Account
from dutchdoor.server.options import ACTOR, NO_CLIENT, as_json, find_account, settings_from, with_auth, with_settings
from dutchdoor.server.terminal import instant, print_json, print_table, say, write
from dutchdoor.services.factors import Factor

__all__ = ["factors"]


@click.group()
def factors() -> None:
    """List and remove the second factors of an account."""


@factors.command("list", epilog="Example: dutchdoor user factors list ada@example.com")
@click.argument("user")
@as_json
@with_settings("database", "master_key")
def list_(user: str, *, as_json: bool, **options: Any) -> None:
    """List the second factors of an account."""

    async def work(auth: Auth) -> tuple[list[Factor], int]:
        account = await find_account(auth, user)
        return await auth.directory.factors.of(account.subject)

    found, left = with_auth(settings_from(options), work)
    if as_json:
        shown = [{"method": each.method, "id": each.handle, "created_at": instant(each.created_at)} for each in found]
        print_json({"factors": shown, "recovery_codes_left": left})
        return
    rows = ((each.method, each.handle or "-", instant(each.created_at)) for each in found)
    print_table(("method", "id", "added"), rows, empty="The account has no second factor.")
    if found:
        say(f"Recovery codes left: {left}")


@factors.command(epilog="Example: dutchdoor user factors remove ada@example.com totp")
@click.argument("user")
@click.argument("method", type=click.Choice(["totp"]))
@as_json
@with_settings("database", "master_key")
def remove(user: str, method: str, *, as_json: bool, **options: Any) -> None:
    """Remove a second factor, for an owner who has lost it and the recovery codes. Make sure first that it is the owner
    who asks: the password alone signs in afterwards. With the last factor, the recovery codes go too.
    """

    async def work(auth: Auth) -> Account:
        account = await find_account(auth, user)
        await auth.directory.factors.remove(account, method, "", amr=None, client=NO_CLIENT, actor=ACTOR)
        return account

    account = with_auth(settings_from(options), work)
    if as_json:
        print_json({"id": account.subject, "removed": method})
    else:
        write(f"Removed {method} of {account.address or account.subject}.")
