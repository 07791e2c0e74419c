"""The standalone server and its command line, built only from what an embedding application can use too."""

from __future__ import annotations

import sys
from importlib import import_module

__all__ = ["main"]


def main() -> None:
    """Run the command line, or say which package is missing."""
    try:
        cli = import_module("dutchdoor.server.cli")
    except ModuleNotFoundError as exc:
        if exc.name is None or exc.name.startswith("dutchdoor"):
            raise
        sys.exit(f"dutchdoor: the commands need {exc.name}, which is not installed: pip install 'dutchdoor[server]'")
    cli.main()
