"""`dutchdoor token inspect` and `verify`: show what an access token contains, and whether this server accepts it.

Without TOKEN, the token is read from standard input, which no process list shows.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import click

from dutchdoor.auth import Auth
from dutchdoor.errors import DutchdoorError, InvalidInput
from dutchdoor.jose.claims import MAX_TOKEN
from dutchdoor.jose.inspect import Finding, explain
from dutchdoor.jose.jwk import KeySet
from dutchdoor.server.options import as_json, must_be_there, settings_from, with_auth, with_settings
from dutchdoor.server.terminal import print_json, write

__all__ = ["inspect", "verify"]

JWKS_AT_MOST = 1 << 20
_MARKS = {"says": " ", "fine": "+", "warning": "?", "wrong": "!"}


@click.command(epilog="Example: dutchdoor token inspect < token.txt")
@click.argument("token", required=False)
@click.option("--jwks", metavar="FILE", help="Check the signature with these public keys (a JWKS document).")
@click.option("--issuer", help="Required value of iss.")
@click.option("--audience", multiple=True, help="Accepted value of aud; may be repeated.")
@as_json
def inspect(
    token: str | None, *, jwks: str | None, issuer: str | None, audience: tuple[str, ...], as_json: bool
) -> None:
    """Show what a token contains and what is wrong with it. Exits with 1 if the token must be refused.

    Without TOKEN, it is read from standard input, which no process list shows.
    """
    text = _read(token)
    _show(explain(text, _keys(jwks), now=time.time(), issuer=issuer, audience=audience or None), as_json=as_json)


@click.command(epilog="Example: dutchdoor token verify --public-url https://auth.example.com < token.txt")
@click.argument("token", required=False)
@as_json
@with_settings("database", "master_key", "public_url", "port", "audience")
def verify(token: str | None, *, as_json: bool, **options: Any) -> None:
    """Verify a token as this server does: with its keys, its issuer and its revocation log.

    Without TOKEN, it is read from standard input, which no process list shows.
    """
    settings = settings_from(options)
    must_be_there(settings)  # before it asks for the token
    text = _read(token)

    async def work(auth: Auth) -> list[Finding]:
        authority, now = auth.authority, time.time()
        await authority.jwks()  # reads the ring
        keys = KeySet(authority.ring.published(now))
        found = explain(text, keys, now=now, issuer=authority.issuer, audience=authority.audience)
        if not any(each.level == "wrong" for each in found):
            try:
                await authority.verify_again(text)  # without the proof, which only its client has
            except DutchdoorError as exc:
                found.append(Finding("wrong", f"this server refuses it: {exc.reason}"))
            else:
                found.append(Finding("fine", "not revoked"))
        return found

    _show(with_auth(settings, work), as_json=as_json)


def _read(token: str | None) -> str:
    if token is None and sys.stdin.isatty():
        token = click.prompt("Token", hide_input=True, err=True)
    # More characters than a token may have, so that a longer token is recognised as too long.
    text = (token if token is not None else sys.stdin.read(MAX_TOKEN + 64)).strip()
    if not text:
        raise click.UsageError("Standard input contains no token.")
    return text


def _keys(jwks: str | None) -> KeySet | None:
    if jwks is None:
        return None
    try:
        with Path(jwks).open("rb") as file:
            return KeySet.from_jwks(file.read(JWKS_AT_MOST))
    except OSError as exc:
        raise InvalidInput(f"{jwks} cannot be read: {exc.strerror}.") from None


def _show(found: list[Finding], *, as_json: bool) -> None:
    if as_json:
        print_json(found)
    else:
        for each in found:
            write(f"{_MARKS[each.level]} {each.text}")
    sys.exit(1 if any(each.level == "wrong" for each in found) else 0)
