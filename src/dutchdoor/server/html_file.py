"""The file that `--html` names."""

from __future__ import annotations

import os
from pathlib import Path

from dutchdoor.errors import Misconfigured
from dutchdoor.server.terminal import say

__all__ = ["refuse_to_overwrite", "write_html"]


def refuse_to_overwrite(path: Path, *, force: bool) -> None:
    """Say before long work that its result could not be written. Raises `Misconfigured`."""
    if path.is_dir():
        raise Misconfigured(f"--html: {path} is a directory. Name a file in it, such as {path / 'page.html'}.")
    if path.exists() and not force:
        raise Misconfigured(f"--html: {path} is there already. --force overwrites it.")
    if not path.parent.is_dir():
        raise Misconfigured(f"--html: there is no directory {path.parent}. Create it first.")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise Misconfigured(f"--html: {path} cannot be written: permission denied.")


def write_html(path: Path, text: str, *, force: bool) -> None:
    """Write the file, and say so. Raises `Misconfigured` as `refuse_to_overwrite` does."""
    refuse_to_overwrite(path, force=force)
    try:
        with path.open("w" if force else "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:  # since the check
        raise Misconfigured(f"--html: {path} is there already. --force overwrites it.") from None
    except OSError as exc:
        if not force:  # else the next call would ask for --force
            path.unlink(missing_ok=True)
        raise OSError(exc.errno, exc.strerror, str(path)) from None
    say(f"Wrote {path}.")
