"""`manage.py dutchdoor ...`: the commands of dutchdoor, with the database and the keys of the project's settings.

python manage.py dutchdoor session list 1
python manage.py dutchdoor key list
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from dutchdoor.django.configuration import SETTING

__all__ = ["Command"]

_AS_VARIABLES = {"database": "DATABASE", "redis": "REDIS", "master_key": "MASTER_KEY_FILE"}
_DEFAULTS = {"database": "sqlite:///dutchdoor.db", "master_key": "dutchdoor.keys"}


class Command(BaseCommand):
    """Passes its arguments on."""

    help = "Runs a command of dutchdoor (session, key, audit, verifier, ...) with the database of this project."

    def run_from_argv(self, argv: Sequence[str]) -> None:
        """Pass everything on, with options that Django does not know."""
        sys.exit(_run(argv[2:]))

    def add_arguments(self, parser: Any) -> None:
        """Take what `call_command` passes."""
        parser.add_argument("arguments", nargs="*")

    def handle(self, *args: str, **options: Any) -> None:
        """Run the command. Raises `CommandError` if it fails."""
        code = _run([*args, *options.get("arguments", ())])
        if code:
            raise CommandError("dutchdoor has said why.", returncode=code)


def _run(arguments: Sequence[str]) -> int:
    options: Mapping[str, Any] = getattr(settings, SETTING, {})
    if "issuer" in options:
        raise CommandError("This service only verifies tokens. Run the commands where its issuer is.")
    variables = {}
    for name, variable in _AS_VARIABLES.items():
        value = options.get(name, _DEFAULTS.get(name))
        if isinstance(value, str | os.PathLike):
            variables[f"DUTCHDOOR_{variable}"] = os.fspath(value)
        elif value is not None:
            raise CommandError(f"{SETTING}[{name!r}] is no text, so a command cannot use it from here.")
    # A process of its own: the server is above this adapter, and what it needs is not installed everywhere.
    command = [sys.executable, "-m", "dutchdoor.server", *arguments]
    return subprocess.run(command, env={**variables, **os.environ}, check=False).returncode  # noqa: S603 - no shell
