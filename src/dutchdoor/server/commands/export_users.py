"""`dutchdoor export`: accounts with their password hashes, as `dutchdoor import` reads them."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Iterator
from typing import Any, BinaryIO

import click
import msgspec
from msgspec import Struct

from dutchdoor.auth import Auth
from dutchdoor.credentials.password import PASSWORD
from dutchdoor.errors import InvalidInput
from dutchdoor.model.accounts import Account, Credential
from dutchdoor.model.acting import BY_COMMAND
from dutchdoor.model.audit_events import event
from dutchdoor.server.options import as_json, settings_from, with_auth, with_settings
from dutchdoor.server.terminal import print_json, say
from dutchdoor.stores.base import Log

__all__ = ["export_users"]

PAGE = 200
"""Accounts that are read together, each with its password."""


class Line(Struct, kw_only=True, omit_defaults=True):
    """One account. Its names are the columns of an import."""

    email: str
    password_hash: str = ""
    name: str = ""
    roles: tuple[str, ...] = ()
    verified: bool = False
    disabled: bool = False


class Tally(Struct, kw_only=True):
    exported: int = 0
    without_password: int = 0
    peppered: int = 0
    without_address: int = 0


@click.command(
    "export", epilog="Examples: dutchdoor export accounts.jsonl; dutchdoor export - | gpg --encrypt > accounts.gpg"
)
@click.argument("file")
@as_json
@with_settings("database", "master_key")
def export_users(file: str, *, as_json: bool, **options: Any) -> None:
    """Export accounts with their password hashes to FILE, or to - (standard output), as `dutchdoor import` reads them.

    FILE must not exist; only its owner can read it. It has JSON lines with email, password_hash, name, roles, verified
    and disabled. Not exported are sessions, ids, the audit log, and accounts without an address. To move a whole
    database, use `dutchdoor migrate`.
    """

    async def work(auth: Auth) -> Tally:
        tally = Tally()
        with _created(file) as target:
            async for line in _lines(auth, tally):
                target.write(msgspec.json.encode(line) + b"\n")
        now = auth.authority.clock()
        record = event("accounts_exported", now=now, **BY_COMMAND, detail=f"{tally.exported} with their hashes")
        await auth.store.commit(Log(record))
        return tally

    tally = with_auth(settings_from(options), work)
    if as_json and file != "-":
        print_json(tally)
    say(f"Exported {tally.exported} accounts, {tally.without_password} of them without a password.")
    if tally.without_address:
        say(f"{tally.without_address} accounts have no address, and are not exported.")
    if tally.peppered:
        say(f"{tally.peppered} hashes have the pepper of these servers: no other system can verify them.")
    say("A reader of the file can guess passwords as fast as their machine allows. Delete it when it was imported.")


@contextlib.contextmanager
def _created(file: str) -> Iterator[BinaryIO]:
    if file == "-":
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    try:
        # Its mode from the first moment on, and never through a link that another user has put there.
        handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    except OSError as exc:
        raise InvalidInput(f"{file} cannot be created: {exc.strerror}.") from None
    with os.fdopen(handle, "wb") as target:
        yield target


async def _lines(auth: Auth, tally: Tally) -> AsyncIterator[Line]:
    after = ""
    while page := await auth.store.accounts(after=after, limit=PAGE):
        after = page[-1].subject
        found = await asyncio.gather(*(auth.store.get(Credential, each.subject, PASSWORD, "") for each in page))
        for account, credential in zip(page, found, strict=True):
            if account.address is None:
                tally.without_address += 1
                continue
            tally.exported += 1
            tally.without_password += credential is None
            tally.peppered += credential is not None and ",keyid=" in credential.proof
            yield _line(account, account.address, "" if credential is None else credential.proof)


def _line(account: Account, address: str, proof: str) -> Line:
    return Line(
        email=address,
        password_hash=proof,
        name=account.name,
        roles=account.roles,
        verified=account.email_verified_at is not None,
        disabled=not account.active,
    )
