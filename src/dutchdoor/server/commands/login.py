"""`dutchdoor login`: sign this person in at a server."""

from __future__ import annotations

import contextlib
import sys
from functools import partial
from importlib import import_module
from typing import TYPE_CHECKING

import click

from dutchdoor.client.storage import MemoryStorage
from dutchdoor.client.tokens import check_url
from dutchdoor.errors import DutchdoorError
from dutchdoor.server.sign_ins import SignIn, choose, keep
from dutchdoor.server.terminal import as_json, instant, print_json, write

if TYPE_CHECKING:
    from dutchdoor.client.session_auth import SessionAuth

__all__ = ["login"]

PASSWORD_AT_MOST = 4096
"""Characters read from standard input. The server refuses a password that is too long."""


@click.command(
    epilog="Examples: dutchdoor login https://auth.example.com; "
    "dutchdoor login http://localhost:8000 ada@example.com --password-stdin < password.txt"
)
@click.argument("server", metavar="[URL]", required=False)
@click.argument("email", required=False)
@click.option(
    "--password-stdin",
    is_flag=True,
    help="Read the password from the first line of standard input, and the code of a second factor from the second.",
)
@click.option("--code", "by_code", is_flag=True, help="Sign in by a code that the server mails, not by the password.")
@click.option("--file", "in_file", is_flag=True, help="Keep the tokens in a file, and not in the system's keyring.")
@as_json
def login(
    server: str | None, email: str | None, *, password_stdin: bool, by_code: bool, in_file: bool, as_json: bool
) -> None:
    """Sign in at a server, as a program does. The tokens are kept in the system's keyring, else in a file that you
    alone can read. Without URL, it is the server of the last sign-in.
    """
    # Imported now: a program that only needs a token starts without an HTTP client.
    kind = import_module("dutchdoor.client").SessionAuth
    url = check_url(server or choose().server)
    if not email:
        email = _asked("E-mail address", "name the e-mail address: dutchdoor login URL EMAIL")
    if by_code and password_stdin:
        raise click.UsageError("Give --code or --password-stdin, not both.")
    proof: dict[str, object] = {"mailed_code": partial(_asked, "Code from the mail", "run this in a terminal")}
    if not by_code:
        asked = _first_line() if password_stdin else _asked("Password", "use --password-stdin", hidden=True)
        proof = {"password": asked}
    memory = MemoryStorage()
    ask = partial(_second_factor, from_stdin=password_stdin)
    auth: SessionAuth = kind(url, login=email, **proof, second_factor=ask, storage=memory)
    try:
        auth.token()
        tokens = memory.load()
        assert tokens is not None  # noqa: S101 - what `token` has stored
        before = _held(url, tokens.login)
        made = keep(tokens, in_file=in_file)
        if before is not None and before[1] != tokens.refresh_token:
            # Otherwise the session of the last sign-in here stays in the list, and no one has its tokens.
            with contextlib.suppress(DutchdoorError):
                auth.server.call("POST", "/auth/logout", {"refresh_token": before[1]})
            if before[0].place != made.place:
                with contextlib.suppress(DutchdoorError, ImportError):
                    before[0].storage.clear()
    finally:
        auth.close()
    if as_json:
        print_json({
            "server": made.server,
            "email": made.login,
            "kept_in": made.place,
            "access_token_expires_at": instant(tokens.expires_at),
        })  # fmt: skip
    else:
        write(f"Signed in at {made.server} as {made.login}. The tokens are in {made.where}.")


def _second_factor(methods: tuple[str, ...], *, from_stdin: bool) -> tuple[str, str]:
    """Ask for the code of the app, or for a recovery code: they differ in form. A terminal has no passkeys."""
    ways = {"totp": "code of the authenticator app", "recovery_code": "recovery code"}
    offered = [words for method, words in ways.items() if method in methods]
    if not offered:
        raise click.UsageError(f"The account asks for {' or '.join(methods)}, which a terminal cannot give.")
    if from_stdin:
        code = sys.stdin.readline(PASSWORD_AT_MOST).strip()
        if not code:
            raise click.UsageError("The account has a second factor. Write its code into the second line.")
    else:
        code = _asked(", or a ".join(offered).capitalize(), "use --password-stdin, with the code as line 2")
    is_code = code.replace(" ", "").isdigit()
    return ("totp" if "totp" in methods and (is_code or "recovery_code" not in methods) else "recovery_code"), code


def _held(url: str, login: str) -> tuple[SignIn, str] | None:
    """Return the sign-in of the same account that is here already, and its refresh token."""
    with contextlib.suppress(DutchdoorError, ImportError):
        before = choose(url, login)
        held = before.storage.load()
        return None if held is None else (before, held.refresh_token)
    return None


def _first_line() -> str:
    password = sys.stdin.readline(PASSWORD_AT_MOST).rstrip("\r\n")
    if not password:
        raise click.UsageError("Standard input contains no password.")
    return password


def _asked(what: str, instead: str, *, hidden: bool = False) -> str:
    if not sys.stdin.isatty():
        raise click.UsageError(f"No terminal to ask for the {what.lower()}: {instead}.")
    answer: str = click.prompt(what, hide_input=hidden, err=True)
    return answer
