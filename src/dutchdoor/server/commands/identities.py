"""`dutchdoor user identities`: the log-ins of an account at other issuers, such as Google, and unlinking one."""

from __future__ import annotations

from typing import Any

import click

from dutchdoor.auth import Auth
from dutchdoor.model.accounts import Account
from dutchdoor.model.acting import BY_COMMAND
from dutchdoor.server.options import as_json, find_account, settings_from, with_auth, with_settings
from dutchdoor.server.terminal import instant, print_json, print_table, write
from dutchdoor.services.identities import Linked

__all__ = ["identities"]


@click.group()
def identities() -> None:
    """List and unlink the log-ins of an account at other issuers, such as Google."""


@identities.command("list", epilog="Example: dutchdoor user identities list ada@example.com")
@click.argument("user")
@as_json
@with_settings("database", "master_key")
def list_(user: str, *, as_json: bool, **options: Any) -> None:
    """List the log-ins of an account at other issuers."""

    async def work(auth: Auth) -> list[Linked]:
        return await auth.directory.identities.of((await find_account(auth, user)).subject)

    found = with_auth(settings_from(options), work)
    if as_json:
        print_json(
            {
                "identities": [
                    {"id": each.id, "issuer": each.issuer, "shown": each.shown, "linked_at": instant(each.linked_at)}
                    for each in found
                ]
            }
        )
        return
    rows = ((each.issuer, each.shown or "-", instant(each.linked_at), each.id) for each in found)
    print_table(("issuer", "there", "linked", "id"), rows, empty="The account has no log-in at another issuer.")


@identities.command(epilog="Example: dutchdoor user identities unlink ada@example.com ID")
@click.argument("user")
@click.argument("id")
@as_json
@with_settings("database", "master_key")
def unlink(user: str, id: str, *, as_json: bool, **options: Any) -> None:
    """Unlink a log-in of an account, by the id that `list` shows, and revoke the sessions that began by it. The last
    way into an account stays: reset the password first.
    """

    async def work(auth: Auth) -> Account:
        account = await find_account(auth, user)
        await auth.directory.identities.unlink(account, id, **BY_COMMAND)
        return account

    account = with_auth(settings_from(options), work)
    if as_json:
        print_json({"id": account.subject, "unlinked": id})
    else:
        write(f"Unlinked {id} of {account.address or account.subject}.")
