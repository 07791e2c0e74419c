"""The link that creates the first administrator: on the terminal, or in a file until it has no use any more."""

from __future__ import annotations

import contextlib
import logging
import os
import sys
import time
from pathlib import Path

from dutchdoor.auth import Auth
from dutchdoor.model.accounts import ADMIN

__all__ = ["offer_setup", "remove_spent_setup"]

SETUP_FILE = "dutchdoor.setup"
"""The file with the link, in the working directory."""

log = logging.getLogger("dutchdoor")


def offer_setup(link: str, valid_for: float) -> None:
    """Show the set-up link on the terminal. Without a terminal, standard error is a log, and the link goes to a file.

    Many people and programs read logs, and each of them could make themselves the administrator.
    """
    lives = f"works once, for {int(valid_for // 60)} minutes"
    # Standard error, like every message for the administrator. Standard output has only the line "is ready".
    if sys.stderr.isatty():
        sys.stderr.write(f"There is no administrator yet. Create one with this link. It {lives}:\n  {link}\n")
        sys.stderr.flush()
        return
    file = Path(SETUP_FILE).absolute()
    try:
        file.unlink(missing_ok=True)
        # O_EXCL: in a directory of several users, another user's link or file must not receive the token.
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as made:
            made.write(f"{link}\n")
    except OSError as exc:
        log.warning(
            "there is no administrator yet, and %s cannot be written: %s. Create one: "
            "dutchdoor user create --role admin ADDRESS",
            file,
            exc.strerror,
        )
    else:
        log.warning("there is no administrator yet. The link that creates one is in %s. It %s", file, lives)


async def remove_spent_setup(auth: Auth) -> None:
    """Remove the file with the set-up link once there is an administrator, or the link has expired."""
    age = _setup_age()
    if age is None:
        return
    if age > auth.authority.policy.setup_for or await auth.store.accounts_with_role(ADMIN, limit=1):
        _remove_setup()


def _setup_age() -> float | None:
    try:
        return time.time() - Path(SETUP_FILE).stat().st_mtime
    except OSError:
        return None


def _remove_setup() -> None:
    with contextlib.suppress(OSError):  # another process removed it, or it is not ours
        Path(SETUP_FILE).unlink()
