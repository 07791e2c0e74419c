"""Code that the commands share: settings as options, opening and closing the store, and finding accounts."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from dutchdoor.auth import Auth
from dutchdoor.errors import InvalidKey, Misconfigured, NotFound
from dutchdoor.model.accounts import Account
from dutchdoor.model.deployment import SERVERS, Deployment, read_served
from dutchdoor.model.email_address import canonical
from dutchdoor.model.http_client import Client
from dutchdoor.server.config import Settings, read_settings
from dutchdoor.server.factory import another_master_key, as_served, make_auth, sqlite_file
from dutchdoor.server.settings import BY_NAME, SETTINGS, Setting
from dutchdoor.server.terminal import agree, say, write
from dutchdoor.stores.base import Revoked, Store
from dutchdoor.stores.urls import is_in_memory, make_store, naming
from dutchdoor.web.schemas import Fence

__all__ = [
    "ACTOR",
    "NO_CLIENT",
    "as_json",
    "ask_first",
    "find_account",
    "must_be_there",
    "settings_from",
    "with_auth",
    "with_settings",
]

ACTOR = "cli"
"""The actor in the audit log: a person with a shell on the server's machine."""
NO_CLIENT = Client()

T = TypeVar("T")
Command = Callable[..., Any]

no_wait = click.option("--no-wait", is_flag=True, help="Do not wait until every verifier refuses what was revoked.")
as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


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


def short_duration(seconds: Any) -> str:
    """Format seconds in the notation of settings: 10m, 30d."""
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds and seconds % length == 0:
            return f"{seconds / length:g}{unit}"
    return f"{seconds:g}s"


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
        raise Misconfigured(
            f"There is no database {file} ({settings.source('database')}). Set it with --database or "
            f"DUTCHDOOR_DATABASE."
        )


def with_auth(
    settings: Settings, work: Callable[[Auth], Awaitable[T]], *, make: bool = False, needs: tuple[str, ...] = ()
) -> T:
    """Open the database of the settings, do the work, and close it. Without `make`, the database and the master key
    must exist. What the settings leave open is as the servers have it, and `needs` names what must not be guessed.

    Raises:
        Misconfigured: the database or the master key does not exist, the master key is another one, or a needed setting
            is not known.
        DutchdoorError: any error that the work raises.
    """
    file = sqlite_file(settings)
    is_new = file is not None and not file.exists()
    if not (is_new and make):
        must_be_there(settings)

    async def run() -> T:
        store = make_store(settings.database.reveal())
        async with contextlib.AsyncExitStack() as stack:
            stack.enter_context(naming(settings.database.reveal()))
            stack.push_async_callback(store.close)
            await store.open()
            if not make:
                _must_have_master_key(settings)
            auth = make_auth(await _as_served(settings, store, needs), store=store)
            await auth.open(upkeep=False)
            stack.push_async_callback(auth.close)
            return await work(auth)

    try:
        done = asyncio.run(run())
    except InvalidKey as exc:
        raise another_master_key(exc) from None
    if is_new:
        say(f"Created the database {file} ({settings.source('database')}).")
    return done


def _must_have_master_key(settings: Settings) -> None:
    if settings.master_key is None and not Path(settings.master_key_file).exists():
        # A new key could not open this database, and its file would stand where the right one is looked for.
        raise Misconfigured(
            f"There is no master key file {settings.master_key_file}. Set the file with --master-key-file or "
            "DUTCHDOOR_MASTER_KEY_FILE, or the key in DUTCHDOOR_MASTER_KEY."
        )


async def _as_served(settings: Settings, store: Store, needs: tuple[str, ...]) -> Settings:
    record = await store.get(Deployment, SERVERS)
    served = None if record is None else read_served(record)
    for name in needs:
        if name in settings.sources or f"{name}_file" in settings.sources:
            continue
        setting = BY_NAME[name]
        if served is None and not setting.hidden:
            raise Misconfigured(
                "No server has used this database yet, so its settings are not known. Start the server first, or set "
                f"{setting.option}."
            )
        if served is not None and name in served.withheld:
            raise Misconfigured(
                f"The servers have the setting {name}, and this command does not. Set {setting.variable} for it."
            )
    return settings if served is None else as_served(settings, served)


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
