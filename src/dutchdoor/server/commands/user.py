"""`dutchdoor user`: manage accounts from a shell on the server's machine."""

from __future__ import annotations

import sys
from typing import Any, get_args

import click
from msgspec import to_builtins

from dutchdoor.auth import Auth
from dutchdoor.model.accounts import Account, Credential
from dutchdoor.model.acting import BY_COMMAND
from dutchdoor.model.departures import Departure
from dutchdoor.server.commands.factors import factors
from dutchdoor.server.commands.identities import identities
from dutchdoor.server.commands.session import session_columns, session_row, session_view
from dutchdoor.server.options import (
    as_json,
    find_account,
    no_wait,
    say_fence,
    settings_from,
    wait_for,
    with_auth,
    with_settings,
)
from dutchdoor.server.terminal import instant, print_json, print_pairs, print_table, say, write
from dutchdoor.services.administration import ListedStatus
from dutchdoor.web.schemas import Fence

__all__ = ["user"]

PASSWORD_AT_MOST = 4096
"""Characters read from standard input. The password policy refuses a password that is too long."""


@click.group()
def user() -> None:
    """Create, list, change and disable accounts. USER is an e-mail address or an id."""


user.add_command(factors)
user.add_command(identities)


def view(account: Account) -> dict[str, object]:
    return {
        "id": account.subject,
        "email": account.address,
        "name": account.name,
        "roles": account.roles,
        "status": account.status,
        "email_verified_at": instant(account.email_verified_at) or None,
        "created_at": instant(account.created_at),
    }


@user.command(epilog="Example: dutchdoor user create --role admin me@example.com")
@click.argument("email")
@click.option("--name", default="", help="The display name.")
@click.option("--role", "roles", multiple=True, help="A role, such as admin; may be repeated.")
@click.option("--password-stdin", is_flag=True, help="Read the password from the first line of standard input.")
@click.option(
    "--mail-link",
    is_flag=True,
    help="Invite the owner: mail a link to choose the password. It needs the servers' --config, --mail-file or "
    "DUTCHDOOR_MAIL.",
)
@as_json
@with_settings("database", "master_key", "mail", "public_url", "breached", "pepper")
def create(
    email: str,
    name: str,
    roles: tuple[str, ...],
    *,
    password_stdin: bool,
    mail_link: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Create an account. Asks for the password twice, without showing it. The address counts as verified."""
    settings = settings_from(options)
    if password_stdin and mail_link:
        raise click.UsageError("Use either --password-stdin or --mail-link, not both.")

    needs = ("mail",) if mail_link else ("pepper", "breached")

    async def look(auth: Auth) -> None:
        await auth.directory.admin.look(email, name=name, roles=roles)

    password = _from_stdin() if password_stdin else None
    if not password_stdin and not mail_link:
        if not sys.stdin.isatty():
            raise click.UsageError(
                "No terminal to ask for the password: use --password-stdin, or --mail-link with the servers' --config "
                "FILE, --mail-file FILE or DUTCHDOOR_MAIL."
            )
        with_auth(settings, look, make=True, needs=needs)
        password = click.prompt("Password", hide_input=True, confirmation_prompt="Repeat the password", err=True)

    made = with_auth(
        settings,
        lambda auth: auth.directory.admin.create(email, name=name, roles=roles, password=password, **BY_COMMAND),
        make=True,
        needs=needs,
    )
    if as_json:
        print_json(view(made))
    else:
        write(f"Created {made.address} ({made.subject}).")


def _from_stdin() -> str:
    line = sys.stdin.readline(PASSWORD_AT_MOST + 2)
    password = line.removesuffix("\n").removesuffix("\r")
    if not password:
        raise click.UsageError("Standard input contains no password.")
    return password


@user.command("list", epilog="Example: dutchdoor user list --search example.com --json")
@click.option("--search", default="", help="Only accounts in whose address or name a word begins with this text.")
@click.option(
    "--status",
    type=click.Choice(get_args(ListedStatus)),
    default="any",
    help="Only accounts that are active, disabled, unverified or administrators.",
)
@click.option("--after", default="", metavar="TEXT", help="The next page, as the page before says.")
@click.option("--limit", default=100, type=click.IntRange(1, 10_000), show_default=True, help="Accounts to list.")
@as_json
@with_settings("database", "master_key")
def list_(search: str, status: ListedStatus, after: str, limit: int, *, as_json: bool, **options: Any) -> None:
    """List accounts, the newest first."""
    found, following = with_auth(
        settings_from(options),
        lambda auth: auth.directory.admin.accounts(search=search, status=status, after=after, limit=limit),
    )
    if as_json:
        print_json([view(account) for account in found])
        return
    print_table(
        ("email", "name", "roles", "status", "verified", "created", "id"),
        (
            (
                account.address or "-",
                account.name,
                " ".join(account.roles),
                account.status,
                "yes" if account.email_verified_at is not None else "no",
                instant(account.created_at),
                account.subject,
            )
            for account in found
        ),
        empty="There are no accounts.",
    )
    if following is not None:
        say(f"There are more accounts: add --after {following}")


@user.command(epilog="Example: dutchdoor user show ada@example.com")
@click.argument("user")
@as_json
@with_settings("database", "master_key")
def show(user: str, *, as_json: bool, **options: Any) -> None:
    """Show an account and its live sessions."""

    async def work(auth: Auth) -> tuple[Account, list[Any], bool, str]:
        account = await find_account(auth, user)
        credential = await auth.store.get(Credential, account.subject, "password", "")
        departure = await auth.store.get(Departure, account.subject)
        erased_at = "" if departure is None else instant(departure.due_at)
        return account, await auth.authority.sessions(account.subject), credential is not None, erased_at

    account, sessions, has_password, erased_at = with_auth(settings_from(options), work)
    if as_json:
        more = {"erased_at": erased_at or None, "password": has_password}
        print_json({**view(account), **more, "sessions": [session_view(each) for each in sessions]})
        return
    print_pairs(
        (
            ("email", account.address or "-"),
            ("id", account.subject),
            ("name", account.name),
            ("roles", " ".join(account.roles) or "-"),
            ("status", f"deleted, to be erased at {erased_at}" if erased_at else account.status),
            ("verified", instant(account.email_verified_at) or "no"),
            ("created", instant(account.created_at)),
            ("password", "yes" if has_password else "none yet"),
        )
    )
    write()
    print_table(session_columns, map(session_row, sessions), empty="No session is live.")


@user.command(epilog="Example: dutchdoor user disable mallory@example.com")
@click.argument("user")
@no_wait
@as_json
@with_settings("database", "master_key")
def disable(user: str, *, no_wait: bool, as_json: bool, **options: Any) -> None:
    """Disable an account, and revoke its sessions, refresh tokens and access tokens."""

    async def work(auth: Auth) -> tuple[Account, int, Fence]:
        account = await find_account(auth, user)
        done = await auth.directory.admin.disable(account.subject, **BY_COMMAND)
        return account, done.count, await wait_for(auth, done, no_wait=no_wait)

    account, count, fenced = with_auth(settings_from(options), work)
    if as_json:
        print_json({"id": account.subject, "status": "disabled", "ended": count, **to_builtins(fenced)})
    else:
        write(f"{account.address or account.subject} is disabled; {_sessions(count)} revoked.")
        say_fence(fenced)


@user.command(epilog="Example: dutchdoor user enable ada@example.com")
@click.argument("user")
@as_json
@with_settings("database", "master_key")
def enable(user: str, *, as_json: bool, **options: Any) -> None:
    """Enable an account, so that its owner can sign in again. Revoked sessions stay revoked."""

    async def work(auth: Auth) -> Account:
        account = await find_account(auth, user)
        return await auth.directory.admin.enable(account.subject, **BY_COMMAND)

    account = with_auth(settings_from(options), work)
    if as_json:
        print_json(view(account))
    else:
        write(f"{account.address or account.subject} is enabled.")


@user.command(epilog="Example: dutchdoor user delete mallory@example.com")
@click.argument("user")
@click.option("--yes", is_flag=True, help="Do not ask. Needed where there is no terminal.")
@no_wait
@as_json
@with_settings("database", "master_key")
def delete(user: str, *, yes: bool, no_wait: bool, as_json: bool, **options: Any) -> None:
    """Erase an account at once, with its sessions and all else that belongs to it. Its audit events stay, and name no
    client any more. To let it only sign in no more, use `dutchdoor user disable`.
    """
    settings = settings_from(options)

    if not yes:
        found = with_auth(settings, lambda auth: find_account(auth, user))
        if not sys.stdin.isatty():
            raise click.UsageError("No terminal to ask: add --yes to erase the account.")
        click.confirm(f"Erase {found.address or found.subject} for good?", abort=True, err=True)

    async def work(auth: Auth) -> tuple[Account, int, Fence]:
        account = await find_account(auth, user)
        done = await auth.directory.deletion.erase(account.subject, **BY_COMMAND)
        return account, done.count, await wait_for(auth, done, no_wait=no_wait)

    account, count, fenced = with_auth(settings, work)
    if as_json:
        print_json({"id": account.subject, "erased": True, "ended": count, **to_builtins(fenced)})
    else:
        write(f"{account.address or account.subject} is erased; {_sessions(count)} revoked.")
        say_fence(fenced)


@user.command(
    epilog="Examples: dutchdoor user role ada@example.com admin editor; dutchdoor user role ada@example.com --none"
)
@click.argument("user")
@click.argument("roles", nargs=-1)
@click.option("--none", "none", is_flag=True, help="Remove all roles.")
@no_wait
@as_json
@with_settings("database", "master_key")
def role(user: str, roles: tuple[str, ...], *, none: bool, no_wait: bool, as_json: bool, **options: Any) -> None:
    """Set the roles of an account. Its access tokens become stale at once; its sessions stay live."""
    if none == bool(roles):
        raise click.UsageError("Pass one or more roles, or --none.")

    async def work(auth: Auth) -> tuple[Account, Fence]:
        account = await find_account(auth, user)
        changed, done = await auth.directory.admin.set_roles(account.subject, roles, **BY_COMMAND)
        return changed, await wait_for(auth, done, no_wait=no_wait)

    account, fenced = with_auth(settings_from(options), work)
    if as_json:
        print_json({**view(account), **to_builtins(fenced)})
    else:
        write(f"{account.address or account.subject} has the roles: {' '.join(account.roles) or 'none'}.")
        if account.roles and account.address and account.email_verified_at is None:
            say(
                "The address was never verified. The person who registered it may not own the mailbox, and has these "
                f"roles now. To let the owner choose a password: dutchdoor user reset {account.address}"
            )
        say_fence(fenced)


@user.command(epilog="Example: dutchdoor user reset ada@example.com")
@click.argument("user")
@as_json
@with_settings("database", "master_key", "mail", "public_url")
def reset(user: str, *, as_json: bool, **options: Any) -> None:
    """Mail the owner a link to choose a new password. Only the owner chooses and knows the password."""

    async def work(auth: Auth) -> Account:
        account = await find_account(auth, user)
        await auth.directory.recovery.send_reset(account, **BY_COMMAND)
        return account

    account = with_auth(settings_from(options), work, needs=("mail",))
    if as_json:
        print_json({"id": account.subject, "mailed_to": account.address})
    else:
        write(f"Mailed a link to {account.address}.")


def _sessions(count: int) -> str:
    return f"{count} session" + ("" if count == 1 else "s")
