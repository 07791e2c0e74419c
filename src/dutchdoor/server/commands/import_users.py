"""`dutchdoor import`: accounts from elsewhere, with the password hashes they had there."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import Any, TextIO

import click
import msgspec
from msgspec import Struct

from dutchdoor.auth import Auth
from dutchdoor.credentials.legacy import recognise
from dutchdoor.errors import InvalidInput, Taken
from dutchdoor.model.email_address import canonical
from dutchdoor.server.options import NOBODY, as_json, settings_from, with_auth, with_settings
from dutchdoor.server.terminal import print_json, say, write
from dutchdoor.server.user_import import Incoming, Refused, read_lines, refused
from dutchdoor.services.administration import check_roles

__all__ = ["import_users"]

AT_ONCE = 500
"""Accounts written together: the store commits what waits as one transaction."""
TELL_EVERY = 2.0
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
@click.option("--dry-run", is_flag=True, help="Read and judge everything, write nothing.")
@click.option("--verified", is_flag=True, help="Take every address as verified: the other system verified them.")
@click.option(
    "--refused", "refused_to", metavar="FILE", help="Write refused lines with their reasons there, as JSON lines."
)
@as_json
@with_settings("database", "master_key")
def import_users(
    file: str, *, dry_run: bool, verified: bool, refused_to: str | None, as_json: bool, **options: Any
) -> None:
    """Import accounts with their password hashes, from FILE or from - (standard input).

    CSV with a header or JSON lines, with the columns email, password_hash, name, roles (words with spaces between
    them), verified, disabled; only email is needed. Django's dumpdata, the user table of fastapi-users and the export
    of a Keycloak realm are read as they are. A hash is replaced by ours at the first log-in; plain MD5, SHA-1 and SHA-2
    are refused.

    Accounts that exist are left as they are, so an import that was interrupted is simply run again. Exit code 1 if any
    line was refused.
    """
    settings = settings_from(options)

    async def work(auth: Auth) -> Tally:
        with _opened(file) as source:
            return await _import(auth, read_lines(source), dry_run=dry_run, verified=verified)

    started = time.monotonic()
    tally = with_auth(settings, work, make=not dry_run)
    _report(tally, dry_run=dry_run, as_json=as_json, seconds=time.monotonic() - started)
    if refused_to is not None:
        lines = [msgspec.json.encode(each) + b"\n" for each in tally.refused]
        try:
            Path(refused_to).write_bytes(b"".join(lines))
        except OSError as exc:
            raise InvalidInput(f"{refused_to} cannot be written: {exc.strerror}.") from None
    sys.exit(1 if tally.refused else 0)


@contextlib.contextmanager
def _opened(file: str) -> Iterator[TextIO]:
    try:
        # What is not UTF-8 is kept as it is and refused line by line, with its number.
        with open(
            sys.stdin.fileno() if file == "-" else file,
            encoding="utf-8-sig",
            errors="surrogateescape",
            newline="",
            closefd=file != "-",
        ) as source:
            yield source
    except OSError as exc:
        raise InvalidInput(f"{file} cannot be read: {exc.strerror}.") from None


async def _import(auth: Auth, lines: Iterator[Incoming | Refused], *, dry_run: bool, verified: bool) -> Tally:
    tally, told = Tally(), time.monotonic()
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
        if time.monotonic() - told >= TELL_EVERY:
            told = time.monotonic()
            say(
                f"{tally.seen} lines: {tally.imported} imported, {tally.already_there} there already, "
                f"{len(tally.refused)} refused"
            )
    return tally


def _next(lines: Iterator[Incoming | Refused], tally: Tally, *, dry_run: bool) -> list[Incoming | Refused]:
    try:
        return list(islice(lines, AT_ONCE))
    except InvalidInput as exc:
        if dry_run or not tally.imported:
            raise
        raise InvalidInput(
            f"{exc} Before it, {tally.imported} accounts were imported. Put it right, and run the import again."
        ) from None


async def _judge(auth: Auth, each: Incoming, seen: set[str], *, verified: bool) -> str | None:
    """Say why a line is not imported; "" if its account is there already, None if it can be."""
    try:
        key = canonical(each.email)
        if each.password_hash is not None:
            recognise(each.password_hash)
        check_roles(each.roles)
    except InvalidInput as exc:
        return str(exc)
    if _is_hash(each.name):
        # It would be in tokens and on pages.
        return "its name is a password hash; the columns may be in another order than their names"
    if key in seen:
        return "the address stands in an earlier line as well"
    seen.add(key)
    if not await auth.directory.admin.is_taken(key):
        return None
    there = await auth.store.account_by_email(key)
    if (verified or each.verified) and there is not None and there.email_verified_at is None:
        # A stranger who registers the addresses of an import before it would keep them, with a password of their own.
        return (
            "its address has an account that never verified it, so another person may have registered it. Give it to "
            f"its owner first: dutchdoor user reset {key}"
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
            client=NOBODY,
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
        say(f"... and {len(tally.refused) - SHOWN_AT_MOST} more; --refused FILE writes them all.")
    verb = "would be imported" if dry_run else "imported"
    write(
        f"{tally.imported} {verb}, {tally.already_there} there already, {len(tally.refused)} refused, in "
        f"{seconds:.1f} s."
    )
    if tally.disabled:
        write(f"{tally.disabled} of them are disabled, as they were.")
    if tally.without_password:
        write(f"{tally.without_password} of them have no password: their owners choose one by a mailed link.")
    if tally.privileged:
        write(f"{tally.privileged} of them had rights there. None was given here: dutchdoor user role EMAIL admin.")
