"""The command line.

Exit codes: 0, success; 1, the command failed or a check found a problem; 2, the arguments, the input or the
configuration are invalid.
"""

from __future__ import annotations

import errno
import io
import os
import re
import sys

import click

from dutchdoor.errors import Conflict, DutchdoorError, InvalidInput, InvalidKey, Misconfigured, NotFound, Unavailable
from dutchdoor.model.choices import near
from dutchdoor.server.importing import imported
from dutchdoor.server.terminal import say

__all__ = ["cli", "main"]

DONE, FAILED, REFUSED = 0, 1, 2

# By name and not by import: an import would cost memory in every process of `serve`, and `token` half a second.
_COMMANDS = {
    "advise": "advise",
    "audit": "audit",
    "check": "check",
    "client": "client",
    "compare": "compare",
    "estimate": "estimate",
    "export": "export_users",
    "import": "import_users",
    "key": "key",
    "lab": "lab",
    "login": "login",
    "logout": "logout",
    "migrate": "migrate",
    "purge": "purge",
    "restored": "restored",
    "serve": "serve",
    "session": "session",
    "token": "token",
    "user": "user",
    "vacuum": "vacuum",
    "verifier": "verifier",
    "webhook": "webhook",
    "whoami": "whoami",
}
_OF_PROGRAMS = {"login", "logout", "token", "whoami"}
"""Commands that need the extra `client`. All others need `server`."""


class _Commands(click.Group):
    """A group that imports the module of a command when the command is called or listed."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        return sorted(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        module = _COMMANDS.get(cmd_name)
        extra = "client" if cmd_name in _OF_PROGRAMS else "server"
        return None if module is None else imported(module, module, extra=extra)

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        return super().parse_args(ctx, _with_ids_apart(self, ctx, args))

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as exc:
            meant = near(args[0], _COMMANDS)
            if not meant or args[0].startswith("-"):
                raise
            raise click.UsageError(f"No such command {args[0]!r}. Did you mean {meant!r}?", exc.ctx) from None


# 22 characters, and 43 for a signing key: no option has this form by accident.
_ID = re.compile(r"-[A-Za-z0-9_-]{21}|-[A-Za-z0-9_-]{42}")


def _with_ids_apart(root: click.Group, ctx: click.Context, args: list[str]) -> list[str]:
    """Put an id that begins with a dash behind `--`, with the other arguments, so that it is not read as an option.

    One id in 64 begins so. In an emergency, an administrator must not have to know about `--`.
    """
    command: click.Command = root
    path: list[str] = []
    rest = list(args)
    while isinstance(command, click.Group) and rest:
        found = command.get_command(ctx, rest[0])
        if found is None:
            return args
        command, path, rest = found, [*path, rest[0]], rest[1:]
    known = {
        name: option
        for option in command.params
        if isinstance(option, click.Option)
        for name in (*option.opts, *option.secondary_opts)
    }
    options: list[str] = []
    positional: list[str] = []
    is_apart = False
    while rest:
        word = rest.pop(0)
        option = known.get(word)
        if word == "--":
            return args
        if option is not None and not option.is_flag:
            options += [word, *rest[:1]]
            del rest[:1]
        elif option is None and _ID.fullmatch(word):
            positional.append(word)
            is_apart = True
        else:
            (options if word.startswith("-") and word != "-" else positional).append(word)
    return [*path, *options, "--", *positional] if is_apart else args


@click.group(
    cls=_Commands,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 success; 1 failure, or a check found a problem; 2 invalid arguments, input or configuration.",
)
@click.version_option(package_name="dutchdoor", prog_name="dutchdoor")
def cli() -> None:
    """Authentication with sessions, JWTs, or a hybrid of both.

    Set every setting as an option of `serve` (--access-for 5m), as an environment variable (DUTCHDOOR_ACCESS_FOR=5m)
    or in the file that --config names (access_for = "5m"). The first of these three that is set takes effect.
    """


def main() -> None:
    """Run the command line. An expected error prints one sentence, never a traceback."""
    _open_closed_streams()
    try:
        cli(prog_name="dutchdoor")
    except (InvalidInput, Misconfigured) as exc:
        _end(exc, REFUSED)
    except DutchdoorError as exc:
        _end(exc, FAILED)
    except ImportError as exc:  # a file that needs an extra says which
        if exc.name is None or exc.name.startswith("dutchdoor"):
            raise
        say(f"dutchdoor: {exc}")
        sys.exit(FAILED)
    except BrokenPipeError:
        # `dutchdoor audit | head`: the reader closed the pipe. Without /dev/null, Python reports it again at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(DONE)
    except OSError as exc:
        place = exc.filename or "a file or the output"
        advice = " Free some space, and run the command again." if exc.errno in _NO_SPACE else ""
        say(f"dutchdoor: {place}: {exc.strerror}.{advice}")
        sys.exit(FAILED)


_NO_SPACE = {errno.ENOSPC, errno.EDQUOT}


def _open_closed_streams() -> None:
    """Let a standard stream that the caller closed (`>&-`) be /dev/null, and no output fail for its characters.

    Otherwise the next file that is opened, such as the database, takes the number of the stream, and messages of
    libraries are written into it.
    """
    for number, (name, mode) in enumerate((("stdin", "r"), ("stdout", "w"), ("stderr", "w"))):
        stream = getattr(sys, name)
        if stream is None:
            null = os.open(os.devnull, os.O_RDWR)
            if null != number:
                os.dup2(null, number)
                os.close(null)
            os.set_inheritable(number, True)  # noqa: FBT003 - as os has it; for the workers of `serve`
            setattr(sys, name, open(number, mode, closefd=False))  # noqa: SIM115 - open until the process ends
        elif name == "stdout" and isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a name in letters that this terminal does not have


def _end(error: DutchdoorError, code: int) -> None:
    # The messages of these errors are terse for HTTP clients. The administrator at the terminal needs the reason.
    terse = isinstance(error, Conflict | InvalidKey | NotFound | Unavailable)
    text = error.reason if terse and error.reason and str(error) == type(error).message else str(error)
    say(f"dutchdoor: {text}")
    sys.exit(code)
