"""The standalone server and its command line, made of nothing but what an embedding application would use."""

from __future__ import annotations

import sys
from importlib import import_module

__all__ = ["main"]


def main() -> None:
    """Run the command line, or say what has to be installed for it."""
    try:
        cli = import_module("dutchdoor.server.cli")
    except ModuleNotFoundError as exc:
        if exc.name is None or exc.name.startswith("dutchdoor"):
            raise
        sys.exit(f"dutchdoor: {exc.name} is not installed, which commands need: pip install 'dutchdoor[server]'")
    cli.main()
