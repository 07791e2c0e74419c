"""`dutchdoor token`: print a fresh access token. `dutchdoor token inspect` and `verify` say what is in one."""

from __future__ import annotations

import time

import click

from dutchdoor.client.tokens import Tokens
from dutchdoor.errors import Misconfigured
from dutchdoor.server.fresh import asking, at_server
from dutchdoor.server.importing import imported
from dutchdoor.server.sign_ins import SignIn, choose
from dutchdoor.server.terminal import as_json, instant, print_json, write

__all__ = ["token"]


class _Judging(click.Group):
    """Imports `inspect` and `verify` when they are called: printing a token needs no server."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return ["inspect", "verify"]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return imported("judge_token", cmd_name, extra="server") if cmd_name in self.list_commands(ctx) else None


@click.group(
    cls=_Judging,
    invoke_without_command=True,
    epilog='Example: curl -H "Authorization: Bearer $(dutchdoor token)" https://api.example.com/orders',
)
@at_server
@as_json
@click.pass_context
def token(context: click.Context, server: str, email: str, *, as_json: bool) -> None:
    """Print a fresh access token of your sign-in (`dutchdoor login`), for a script; or inspect one."""
    if context.invoked_subcommand is not None:
        if server or email or as_json:
            raise click.UsageError("--server, --email and --json are for `dutchdoor token` without a command after it.")
        return
    tokens = _fresh(choose(server, email))
    if tokens.key:
        raise Misconfigured(
            f"{tokens.server} binds each sign-in to a key (device_binding), and a token alone is worth nothing. Call "
            "the API from a program, with dutchdoor.client.SessionAuth."
        )
    if as_json:
        print_json({
            "access_token": tokens.access_token,
            "token_type": "Bearer",
            "expires_at": instant(tokens.expires_at),
            "server": tokens.server,
            "email": tokens.login,
        })  # fmt: skip
    else:
        write(tokens.access_token)


def _fresh(sign_in: SignIn) -> Tokens:
    held = sign_in.storage.load()
    if held is not None and held.is_fresh(time.time()):
        return held
    with asking(sign_in) as auth:
        return auth.fresh()
