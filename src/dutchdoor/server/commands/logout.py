"""`dutchdoor logout`: revoke a sign-in at its server, and forget its tokens."""

from __future__ import annotations

import contextlib

import click

from dutchdoor.errors import NotAuthenticated, Unavailable
from dutchdoor.server.fresh import asking, at_server
from dutchdoor.server.sign_ins import SignIn, choose, listed
from dutchdoor.server.terminal import as_json, print_json, write

__all__ = ["logout"]


@click.command(epilog="Examples: dutchdoor logout; dutchdoor logout --all")
@at_server
@click.option("--all", "everyone", is_flag=True, help="Sign out everywhere that this machine is signed in.")
@click.option("--forget", is_flag=True, help="Ask no server: forget the tokens, and leave the session as it is.")
@as_json
def logout(server: str, email: str, *, everyone: bool, forget: bool, as_json: bool) -> None:
    """Sign out: the server refuses the tokens from now on, and this machine forgets them."""
    if everyone and (server or email):
        raise click.UsageError("Pass --all, or --server and --email.")
    chosen = listed() if everyone else [choose(server, email)]
    for each in chosen:
        if not forget:
            _revoke(each)
        each.forget()
        if not as_json:
            write(f"{'Forgot the tokens of' if forget else 'Signed out'} {each.login} at {each.server}.")
    if as_json:
        print_json({"signed_out": [{"server": each.server, "email": each.login} for each in chosen]})
    elif not chosen:
        write("Not signed in anywhere.")


def _revoke(sign_in: SignIn) -> None:
    try:
        with contextlib.suppress(NotAuthenticated), asking(sign_in) as auth:  # it has ended already
            auth.log_out()
    except Unavailable as exc:
        exc.args = (f"{exc} Still signed in. To forget the tokens all the same: dutchdoor logout --forget",)
        raise
