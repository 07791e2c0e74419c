"""The file that `--html` names."""

from __future__ import annotations

from pathlib import Path

from dutchdoor.errors import Misconfigured
from dutchdoor.server.terminal import say

__all__ = ["refuse_to_overwrite", "write_html"]


def refuse_to_overwrite(path: Path, *, force: bool) -> None:
    """Say before long work that its result could not be written. Raises `Misconfigured`."""
    if path.exists() and not force:
        raise Misconfigured(f"--html: {path} is there already. --force overwrites it.")
    if not path.parent.is_dir():
        raise Misconfigured(f"--html: there is no directory {path.parent}. Create it first.")


def write_html(path: Path, text: str, *, force: bool) -> None:
    """Write the file, and say so. Raises `Misconfigured` as `refuse_to_overwrite` does."""
    try:
        with path.open("w" if force else "x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise Misconfigured(f"--html: {path} is there already. --force overwrites it.") from None
    except FileNotFoundError:
        raise Misconfigured(f"--html: there is no directory {path.parent}. Create it first.") from None
    say(f"Wrote {path}.")
