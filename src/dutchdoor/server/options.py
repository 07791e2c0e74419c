"""Code that the commands share: settings as options, opening and closing the store, and finding accounts."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import click
from msgspec.structs import replace

from dutchdoor.auth import Auth
from dutchdoor.errors import InvalidKey, Misconfigured, NotFound
from dutchdoor.model.accounts import Account
from dutchdoor.model.deployment import SERVERS, Deployment, read_served
from dutchdoor.model.durations import short_duration
from dutchdoor.model.email_address import canonical
from dutchdoor.model.master_key import MasterKey
from dutchdoor.server.config import Secret, Settings, read_settings
from dutchdoor.server.factory import another_master_key, as_served, make_auth, refuse_wrong, sqlite_file, store_of
from dutchdoor.server.settings import BY_NAME, SETTINGS, Setting
from dutchdoor.server.terminal import agree, as_json, say, write
from dutchdoor.stores.base import Revoked, Store
from dutchdoor.stores.migrations import NoSchema, OlderSchema
from dutchdoor.stores.transfer import Movable
from dutchdoor.stores.urls import is_in_memory, naming
from dutchdoor.web.schemas import Fence

__all__ = [
    "as_json",
    "ask_first",
    "find_account",
    "must_be_there",
    "rehearse",
    "settings_from",
    "with_auth",
    "with_settings",
]

T = TypeVar("T")
Command = Callable[..., Any]

no_wait = click.option("--no-wait", is_flag=True, help="Do not wait until every verifier refuses what was revoked.")


def with_settings(*shown: str) -> Callable[[Command], Command]:
    """Give a command every setting as an option. Its help shows only `shown`; the help of `serve` shows all."""

    def decorate(command: Command) -> Command:
        for setting in reversed(SETTINGS):
            command = _option(setting, shown=setting.name in shown)(command)
        return click.option("--config", metavar="FILE", help="Read settings from this TOML file.")(command)

    return decorate


def _option(setting: Setting, *, shown: bool) -> Callable[[Command], Command]:
    name, text = setting.name, setting.does
    if setting.default not in {None, (), ""} and setting.kind != "switch":
        text += f"  [default: {_default_of(setting)}]"
    in_file = click.option(
        f"{setting.option}-file", f"{name}_file", metavar="FILE", hidden=not shown, help=f"File with: {text}"
    )
    if setting.kind == "secret":
        return in_file  # not by value: every user of the machine can see the arguments of a process
    if setting.kind == "switch":
        return click.option(
            f"{setting.option}/--no-{setting.option[2:]}", name, default=None, hidden=not shown, help=text
        )
    by_value = click.option(
        setting.option,
        name,
        multiple=setting.kind == "list",
        metavar="|".join(setting.choices) if setting.choices else setting.kind.upper(),
        hidden=not shown,
        help=text,
    )
    return (lambda command: by_value(in_file(command))) if setting.hidden else by_value


def _default_of(setting: Setting) -> str:
    if setting.kind == "duration":
        return short_duration(setting.default)
    return ", ".join(setting.default) if isinstance(setting.default, tuple) else str(setting.default)


def settings_from(options: dict[str, Any]) -> Settings:
    """Remove the settings from a command's options, and read the whole configuration. Raises `Misconfigured`."""
    names = {"config", *BY_NAME, *(f"{name}_file" for name in BY_NAME)}
    return read_settings({name: options.pop(name) for name in list(options) if name in names}, os.environ)


def must_be_there(settings: Settings) -> None:
    """Raises `Misconfigured` for a database that no command can open, or a file that does not exist."""
    file = sqlite_file(settings)
    if is_in_memory(settings.database.reveal()):
        raise Misconfigured(
            "A command cannot reach a memory: database, which is inside the server process. Use a database file."
        )
    if file is not None and not file.exists():
        # A new, empty database in the wrong directory would answer every question with "none".
        raise NoSchema(
            f"There is no database {file} ({settings.source('database')}). Name that of the servers with --config, "
            "--database or DUTCHDOOR_DATABASE. The first `dutchdoor serve` creates it."
        )


def with_auth(
    settings: Settings,
    work: Callable[[Auth], Awaitable[T]],
    *,
    make: bool = False,
    update: bool = False,
    needs: tuple[str, ...] = (),
) -> T:
    """Open the database of the settings, do the work, and close it. What the settings leave open is as the servers have
    it, and `needs` names what must not be guessed.

    The database and the master key must exist, and the schema be that of this program. With `make`, what does not exist
    is created, and with `update` the schema is migrated. What was created is said.

    Raises:
        Misconfigured: the database or the master key does not exist, the schema or the master key is another one, or a
            needed setting is not known.
        DutchdoorError: any error that the work raises.
    """
    file = sqlite_file(settings)
    if make and file is not None and not file.exists():
        refuse_wrong(settings)
    else:
        must_be_there(settings)
    has_key = _has_master_key(settings)

    async def run() -> T:
        store = store_of(settings)
        async with contextlib.AsyncExitStack() as stack:
            stack.enter_context(naming(settings.database.reveal()))
            stack.push_async_callback(store.close)
            if await _open(store, make=make, update=update):
                say(f"Created the {_database(settings)}.")
            if not has_key and not make:
                # A new key could not open this database, and its file would stand where the right one is looked for.
                raise Misconfigured(
                    f"There is no master key file {settings.master_key_file} ({settings.source('master_key_file')}). "
                    "Name that of the servers with --config, --master-key-file or DUTCHDOOR_MASTER_KEY_FILE, or set "
                    "the key in DUTCHDOOR_MASTER_KEY."
                )
            auth = make_auth(await _as_served(settings, store, needs), store=store)
            await auth.open(upkeep=False)
            stack.push_async_callback(auth.close)
            if not has_key:
                say(
                    f"Created the master key file {settings.master_key_file} ({settings.source('master_key_file')}). "
                    "The servers need the same file."
                )
            return await work(auth)

    try:
        return asyncio.run(run())
    except InvalidKey as exc:
        raise another_master_key(exc) from None


async def _open(store: Store, *, make: bool, update: bool) -> bool:
    """Open a store as it stands, or create or migrate its schema if that is asked for. Return whether it was empty."""
    if not isinstance(store, Movable):
        await store.open()
        return False
    try:
        await store.open(as_is=True)
    except NoSchema:
        if not (make or update):
            raise
        await store.open()
        return True
    except OlderSchema:
        if not update:
            raise
        await store.open()
    return False


async def _as_served(settings: Settings, store: Store, needs: tuple[str, ...]) -> Settings:
    record = await store.get(Deployment, SERVERS)
    served = None if record is None else read_served(record)
    for name in needs:
        if name in settings.sources or f"{name}_file" in settings.sources:
            continue
        setting = BY_NAME[name]
        if served is None and not setting.hidden and setting.default is not None:
            raise Misconfigured(
                "No server has used this database yet, so its settings are not known. Start the server first, or set "
                f"{setting.option}."
            )
        if served is not None and name in served.withheld:
            by_option = f"{setting.option}-file" if setting.hidden else setting.option
            raise Misconfigured(
                f"The servers have the setting {name}, and this command does not know its value. Name their settings "
                f"with --config FILE, or set {by_option} FILE or {setting.variable}."
            )
    if served is None:
        return settings
    settings = as_served(settings, served)
    if "breached" in needs and "breached" not in settings.sources and served.breached:
        # Only for a command that takes a password: the list may be on another machine than the command.
        if not os.access(served.breached, os.R_OK):
            raise Misconfigured(
                f"The servers refuse passwords of the list {served.breached}, which this command cannot read. Name it "
                "with --breached FILE, or let the owner choose the password with --mail-link."
            )
        settings = replace(settings, breached=served.breached)
    return settings


def rehearse(settings: Settings, work: Callable[[Auth], Awaitable[T]]) -> T:
    """Do the work on an empty database in memory, in place of one that does not exist yet."""
    there = "" if _has_master_key(settings) else f", and the master key file {settings.master_key_file}"
    say(f"This would create the {_database(settings)}{there}.")
    settings = replace(settings, database=Secret("memory:"), master_key=Secret(MasterKey.generate().text()))

    async def run() -> T:
        async with make_auth(settings) as auth:
            return await work(auth)

    return asyncio.run(run())


def _database(settings: Settings) -> str:
    file = sqlite_file(settings)
    what = "tables of dutchdoor in the database" if file is None else f"database {file}"
    return f"{what} ({settings.source('database')})"


def _has_master_key(settings: Settings) -> bool:
    return settings.master_key is not None or Path(settings.master_key_file).exists()


async def _look(_auth: Auth) -> None:
    """Do nothing: opening the database is the check."""


def ask_first(settings: Settings, question: str, look: Callable[[Auth], Awaitable[None]] = _look) -> None:
    """Ask before an action that cannot be undone. Before the question, check that the database and the key exist."""
    with_auth(settings, look)
    agree(question)


async def find_account(auth: Auth, who: str) -> Account:
    """Find an account by its e-mail address or its subject. Raises `NotFound`, `InvalidInput`."""
    found = await (auth.store.account_by_email(canonical(who)) if "@" in who else auth.store.account(who))
    if found is None:
        text = f"There is no account {who[:320]!a}."
        if "@" in who:
            text += " Where an application keeps its users itself, give the id (dutchdoor user list)."
        raise NotFound(text, message=text)
    return found


async def wait_for(auth: Auth, done: Revoked, *, no_wait: bool) -> Fence:
    """Wait for the fence of a command's revocations, and return its state."""
    fencing = auth.authority.fencing
    found = await fencing.fence(done, wait=0.0 if no_wait else None)
    return Fence(found.fenced, found.due_in_ms(fencing.now()))


def say_fence(shown: Fence) -> None:
    """Print the state of a fence as a sentence."""
    if shown.fenced:
        write("Fenced: every server, and every verifier that follows the revocation log, refuses it now.")
    elif shown.fenced_in_ms is None:
        write("Not fenced: a new revocation log began in the meantime (after a restore). Run the command again.")
    else:
        write(f"Not fenced yet: it takes at most {shown.fenced_in_ms / 1000:.1f} s.")
