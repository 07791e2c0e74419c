"""`dutchdoor import`: accounts from another system, with their password hashes."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any, TextIO

import click
import msgspec
from msgspec import Struct

from dutchdoor.auth import Auth
from dutchdoor.credentials.legacy import recognise
from dutchdoor.errors import DutchdoorError, InvalidInput, Taken
from dutchdoor.model.acting import NO_CLIENT
from dutchdoor.model.email_address import canonical
from dutchdoor.server.options import as_json, rehearse, settings_from, with_auth, with_settings
from dutchdoor.server.terminal import print_json, say, write
from dutchdoor.server.user_import import Incoming, Refused, read_lines, refused
from dutchdoor.services.roles import check_roles
from dutchdoor.stores.migrations import NoSchema

__all__ = ["import_users"]

AT_ONCE = 500
"""Accounts written together: the store commits all waiting writes as one transaction."""
REPORT_EVERY = 2.0
SHOWN_AT_MOST = 20


class Tally(Struct, kw_only=True):
    imported: int = 0
    already_there: int = 0
    disabled: int = 0
    without_password: int = 0
    privileged: int = 0
    refused: list[Refused] = []

    @property
    def seen(self) -> int:
        return self.imported + self.already_there + len(self.refused)


@click.command(
    "import",
    epilog="Examples: dutchdoor import users.csv --dry-run; manage.py dumpdata auth.user | dutchdoor import -; "
    "dutchdoor import users.jsonl --refused refused.jsonl",
)
@click.argument("file")
@click.option("--dry-run", is_flag=True, help="Check every line, and write nothing.")
@click.option("--verified", is_flag=True, help="Mark every address as verified: the other system verified them.")
@click.option(
    "--refused", "refused_to", metavar="FILE", help="Write the refused lines and the reasons to FILE, as JSON lines."
)
@as_json
@with_settings("database", "master_key")
def import_users(
    file: str, *, dry_run: bool, verified: bool, refused_to: str | None, as_json: bool, **options: Any
) -> None:
    """Import accounts with their password hashes, from FILE or from - (standard input).

    FILE is CSV with a header, or JSON lines. The columns are email, password_hash, name, roles (separated by spaces),
    verified and disabled; only email is required. Django's dumpdata, the user table of fastapi-users and the export of
    a Keycloak realm are read unchanged. The first log-in replaces an imported hash by Argon2id. Plain MD5, SHA-1 and
    SHA-2 hashes are refused.

    A database that does not exist is created, with its master key file, and the command says so. Existing accounts are
    not changed, so an interrupted import can be run again. Exits with 1 if a line was refused.
    """
    settings = settings_from(options)

    if refused_to is not None:
        _refuse_unwritable(Path(refused_to))
    with _opened(file) as source:
        # The first lines say whether the file is an import at all, before a database is created for it.
        lines = read_lines(source)
        lines = chain(list(islice(lines, 1)), lines)

        async def work(auth: Auth) -> Tally:
            return await _import(auth, lines, dry_run=dry_run, verified=verified)

        started = time.monotonic()
        try:
            tally = with_auth(settings, work, make=not dry_run)
        except NoSchema:
            if not dry_run:
                raise
            tally = rehearse(settings, work)
    _report(tally, dry_run=dry_run, as_json=as_json, seconds=time.monotonic() - started)
    if refused_to is not None:
        Path(refused_to).write_bytes(b"".join(msgspec.json.encode(each) + b"\n" for each in tally.refused))
    sys.exit(1 if tally.refused else 0)


def _opened(file: str) -> TextIO:
    try:
        # Invalid UTF-8 is passed on, so that each faulty line is refused with its number.
        return open(
            sys.stdin.fileno() if file == "-" else file,
            encoding="utf-8-sig",
            errors="surrogateescape",
            newline="",
            closefd=file != "-",
        )
    except OSError as exc:
        raise InvalidInput(f"{file} cannot be read: {exc.strerror}.") from None


def _refuse_unwritable(file: Path) -> None:
    """Say before the import that the refused lines could not be written after it. Raises `InvalidInput`."""
    if file.is_dir():
        raise InvalidInput(f"--refused: {file} is a directory. Name a file in it, such as {file / 'refused.jsonl'}.")
    if not file.parent.is_dir():
        raise InvalidInput(f"--refused: there is no directory {file.parent}. Create it first.")
    if not os.access(file if file.exists() else file.parent, os.W_OK):
        raise InvalidInput(f"--refused: {file} cannot be written: permission denied.")


async def _import(auth: Auth, lines: Iterator[Incoming | Refused], *, dry_run: bool, verified: bool) -> Tally:
    tally, reported_at = Tally(), time.monotonic()
    seen: set[str] = set()
    while batch := _next(lines, tally, dry_run=dry_run):
        wanted: list[Incoming] = []
        for each in batch:
            if isinstance(each, Refused):
                tally.refused.append(each)
                continue
            problem = await _judge(auth, each, seen, verified=verified)
            if problem is None:
                wanted.append(each)
            elif problem:
                tally.refused.append(refused(each.line, each.email, problem))
            else:
                tally.already_there += 1
        if dry_run:
            outcomes: list[str | None] = [None] * len(wanted)
        else:
            outcomes = list(await asyncio.gather(*(_adopt(auth, each, verified=verified) for each in wanted)))
        for each, problem in zip(wanted, outcomes, strict=True):
            if problem is None:
                tally.imported += 1
                tally.disabled += each.disabled
                tally.without_password += each.password_hash is None
                tally.privileged += each.privileged
            elif problem:
                tally.refused.append(refused(each.line, each.email, problem))
            else:
                tally.already_there += 1
        if time.monotonic() - reported_at >= REPORT_EVERY:
            reported_at = time.monotonic()
            say(
                f"{tally.seen} lines: {tally.imported} imported, {tally.already_there} already existed, "
                f"{len(tally.refused)} refused"
            )
    return tally


def _next(lines: Iterator[Incoming | Refused], tally: Tally, *, dry_run: bool) -> list[Incoming | Refused]:
    try:
        return list(islice(lines, AT_ONCE))
    except InvalidInput as exc:
        if dry_run or not tally.imported:
            raise
        text = f"{exc} {tally.imported} accounts before it were imported. Correct the file and run the import again."
        raise DutchdoorError(text, message=text) from None


async def _judge(auth: Auth, each: Incoming, seen: set[str], *, verified: bool) -> str | None:
    """Return why a line is not imported: "" if the account exists already, None if the line can be imported."""
    try:
        key = canonical(each.email)
        if each.password_hash is not None:
            auth.directory.hasher.imported(each.password_hash)
        check_roles(each.roles)
    except InvalidInput as exc:
        return str(exc)
    if _is_hash(each.name):
        # A name is shown in tokens and on pages: the hash would leak.
        return "the name is a password hash; the columns may not be in the order of the header"
    if key in seen:
        return "the address is in an earlier line too"
    seen.add(key)
    if not await auth.directory.admin.is_taken(key):
        return None
    there = await auth.store.account_by_email(key)
    if (verified or each.verified) and there is not None and there.email_verified_at is None:
        # An attacker who registers an address before the import would keep the account, with their own password.
        return (
            "an account with this address exists but never verified it, so another person may have registered it. "
            f"Let the owner of the mailbox choose a password first: dutchdoor user reset {key}"
        )
    return ""


def _is_hash(text: str) -> bool:
    try:
        recognise(text)
    except InvalidInput:
        return False
    return True


async def _adopt(auth: Auth, each: Incoming, *, verified: bool) -> str | None:
    try:
        await auth.directory.admin.adopt(
            each.email,
            each.password_hash,
            name=each.name,
            roles=each.roles,
            verified=verified or each.verified,
            disabled=each.disabled,
            client=NO_CLIENT,
        )
    except Taken:
        return ""
    except InvalidInput as exc:
        return str(exc)
    return None


def _report(tally: Tally, *, dry_run: bool, as_json: bool, seconds: float) -> None:
    if as_json:
        print_json({**msgspec.structs.asdict(tally), "dry_run": dry_run})
        return
    for each in tally.refused[:SHOWN_AT_MOST]:
        say(f"line {each.line}: {each.email!a}: {each.reason}" if each.email else f"line {each.line}: {each.reason}")
    if len(tally.refused) > SHOWN_AT_MOST:
        say(f"... and {len(tally.refused) - SHOWN_AT_MOST} more; --refused FILE writes all of them.")
    verb = "would be imported" if dry_run else "imported"
    write(
        f"{tally.imported} {verb}, {tally.already_there} already existed, {len(tally.refused)} refused, in "
        f"{seconds:.1f} s."
    )
    if tally.disabled:
        write(f"{tally.disabled} of them are disabled, as in the other system.")
    if tally.without_password:
        write(f"{tally.without_password} of them have no password: their owners can choose one with a reset link.")
    if tally.privileged:
        write(
            f"{tally.privileged} of them were administrators in the other system, and are not here. "
            "To make one an administrator: dutchdoor user role EMAIL admin"
        )
