"""`dutchdoor user factors`: the second factors of an account, and removing one of a person who has lost it."""

from __future__ import annotations

from typing import Any

import click

from dutchdoor.auth import Auth
from dutchdoor.errors import NotFound
from dutchdoor.model.accounts import Account
from dutchdoor.model.acting import BY_COMMAND
from dutchdoor.server.options import as_json, find_account, settings_from, with_auth, with_settings
from dutchdoor.server.terminal import instant, print_json, print_table, say, write
from dutchdoor.services.factors import FACTORS, Factor

__all__ = ["factors"]


@click.group()
def factors() -> None:
    """List and remove the second factors of an account."""


@factors.command("list", epilog="Example: dutchdoor user factors list ada@example.com")
@click.argument("user")
@as_json
@with_settings("database", "master_key")
def list_(user: str, *, as_json: bool, **options: Any) -> None:
    """List the second factors of an account, and those that are set aside since the password was reset."""

    async def work(auth: Auth) -> tuple[list[Factor], int]:
        account = await find_account(auth, user)
        return await auth.directory.factors.of(account.subject, aside=True)

    found, left = with_auth(settings_from(options), work)
    if as_json:
        shown = [
            {
                "method": each.method,
                "id": each.handle,
                "name": each.name,
                "created_at": instant(each.created_at),
                "set_aside": each.set_aside,
            }
            for each in found
        ]
        print_json({"factors": shown, "recovery_codes_left": left})
        return
    rows = (
        (
            f"{each.method} (set aside)" if each.set_aside else each.method,
            each.name or "-",
            instant(each.created_at),
            each.handle or "-",
        )
        for each in found
    )
    print_table(("method", "name", "added", "id"), rows, empty="The account has no second factor.")
    if found:
        say(f"Recovery codes left: {left}")


@factors.command(
    epilog="Examples: dutchdoor user factors remove ada@example.com totp; "
    'dutchdoor user factors remove ada@example.com passkey "Blue key"'
)
@click.argument("user")
@click.argument("method", type=click.Choice(FACTORS))
@click.argument("which", metavar="[NAME|ID]", default="")
@as_json
@with_settings("database", "master_key")
def remove(user: str, method: str, which: str, *, as_json: bool, **options: Any) -> None:
    """Remove a second factor, for an owner who has lost it and the recovery codes. Of several passkeys, say which: by
    the name or the id that `list` shows. Make sure first that it is the owner who asks: without a factor, the password
    alone signs in. With the last factor, the recovery codes go too.
    """

    async def work(auth: Auth) -> Account:
        account = await find_account(auth, user)
        found, _ = await auth.directory.factors.of(account.subject, aside=True)
        handle = _chosen([each for each in found if each.method == method], method, which)
        await auth.directory.factors.remove(account, method, handle, amr=None, **BY_COMMAND)
        return account

    account = with_auth(settings_from(options), work)
    if as_json:
        print_json({"id": account.subject, "removed": method})
    else:
        write(f"Removed {method} of {account.address or account.subject}.")


def _chosen(found: list[Factor], method: str, which: str) -> str:
    """Return the id of the factor that a command names. Raises `NotFound`, `UsageError`."""
    named = [each for each in found if not which or which in {each.handle, each.name}]
    if not named:
        raise NotFound(f"no such {method}", message="There is no such second factor.")
    if len(named) > 1:
        raise click.UsageError(
            f"There are {len(named)} of these. Name one by its id: dutchdoor user factors list shows them."
        )
    return named[0].handle
