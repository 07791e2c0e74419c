"""What the commands of a person's sign-ins share: the options that choose one, and fresh tokens of it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import TYPE_CHECKING, Any

import click

from dutchdoor.errors import NotAuthenticated
from dutchdoor.server.sign_ins import SignIn

if TYPE_CHECKING:
    from dutchdoor.client.session_auth import SessionAuth

__all__ = ["asking", "at_server"]


def at_server(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command the options that choose a sign-in: `server` and `email`."""
    command = click.option("--email", default="", help="The account, if you have several there.")(command)
    return click.option(
        "--server", metavar="URL", default="", callback=_plain, help="The server, if you signed in at several."
    )(command)


def _plain(_context: click.Context, _option: click.Parameter, url: str) -> str:
    return url.rstrip("/")


@contextmanager
def asking(chosen: SignIn) -> Iterator[SessionAuth]:
    """Give the `SessionAuth` of a sign-in. Raises `NotAuthenticated` with what to type if its session has ended."""
    # Imported now: with a token that is still fresh, no HTTP client is needed.
    kind = import_module("dutchdoor.client").SessionAuth
    auth: SessionAuth = kind(chosen.server, storage=chosen.storage)
    try:
        yield auth
    except NotAuthenticated as error:
        if chosen.storage.load() is not None:
            raise
        chosen.forget()
        text = f"The session of {chosen.login} at {chosen.server} has ended."
        text = f"{text} Sign in again: dutchdoor login {chosen.server}"
        raise NotAuthenticated(error.reason, message=text) from None
    finally:
        auth.close()
