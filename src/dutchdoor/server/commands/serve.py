"""`dutchdoor serve`: run the server."""

from __future__ import annotations

import os
import sys
from functools import partial
from typing import Any

import click

from dutchdoor.server.config import Settings, read_settings
from dutchdoor.server.options import with_settings
from dutchdoor.server.serve import serve as run_server
from dutchdoor.server.settings import SETTINGS

__all__ = ["serve"]

EVERY = tuple(setting.name for setting in SETTINGS)


@click.command(
    epilog="Examples: dutchdoor serve; dutchdoor serve --host 0.0.0.0 --public-url https://auth.example.com "
    "--proxy 10.0.0.7"
)
@with_settings(*EVERY)
def serve(**options: Any) -> None:
    """Run the server. Without any settings, it serves this machine only, with a SQLite file in this directory."""
    sys.exit(run_server(partial(_read, options)))


def _read(options: dict[str, Any]) -> Settings:
    # In each process, and again on SIGHUP: the same arguments and variables, and the files as they are then.
    return read_settings(options, os.environ)
