"""The command line.

Exit codes: 0 it was done and nothing is wrong; 1 it failed, or a check found something; 2 it was asked wrongly, or the
configuration is refused.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

import click

from dutchdoor.errors import DutchdoorError, Misconfigured
from dutchdoor.server.config import read_settings
from dutchdoor.server.serve import serve as run_server
from dutchdoor.server.settings import SETTINGS, Setting

__all__ = ["main"]


def _option(setting: Setting, *, shown: bool) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    default = "" if setting.default in {None, (), ""} else f"  [{setting.default}]"
    text = setting.does + default
    if setting.kind == "secret":
        return click.option(
            f"{setting.option}-file",
            f"{setting.name}_file",
            metavar="FILE",
            hidden=not shown,
            help=f"The file with it. {text}",
        )
    if setting.kind == "switch":
        return click.option(
            f"{setting.option}/--no-{setting.option[2:]}", setting.name, default=None, hidden=not shown, help=text
        )
    many = setting.kind == "list"
    return click.option(
        setting.option, setting.name, multiple=many, metavar=setting.kind.upper(), hidden=not shown, help=text
    )


def with_settings(*shown: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    def decorate(command: Callable[..., Any]) -> Callable[..., Any]:
        for setting in reversed(SETTINGS):
            command = _option(setting, shown=not shown or setting.name in shown)(command)
        return click.option("--config", metavar="FILE", help="A TOML file with settings.")(command)

    return decorate


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def cli() -> None:
    """Sessions, JWTs, or the hybrid of both, over one model."""


@cli.command()
@with_settings()
def serve(**arguments: Any) -> None:
    """Serve until stopped."""
    sys.exit(run_server(read_settings(arguments, os.environ)))


def main() -> None:
    """Run the command line. Every error a stranger can make ends in one sentence."""
    try:
        cli(standalone_mode=True)
    except Misconfigured as exc:
        sys.stderr.write(f"dutchdoor: {exc}\n")
        sys.exit(2)
    except DutchdoorError as exc:
        sys.stderr.write(f"dutchdoor: {exc.reason or exc}\n")
        sys.exit(1)
