"""Who may read and change the files of a database."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from dutchdoor.errors import Misconfigured
from dutchdoor.stores.file_access import is_closed_to_others

__all__ = ["planted", "refuse_open"]


def refuse_open(file: Path, found: os.stat_result, owner: int) -> None:
    """Refuse files that other users of this machine can read or change, by the rule for the file of master keys, and
    files of any user other than the database's owner. Raises `Misconfigured`.
    """
    if stat.S_ISDIR(found.st_mode):
        raise Misconfigured(
            f"{file} is a directory, and not a file of a database. Name a file: {file / 'dutchdoor.db'}"
        )
    if not stat.S_ISREG(found.st_mode) and not stat.S_ISLNK(found.st_mode):
        raise Misconfigured(f"{file} is a device or a pipe, and not a file of a database. Name another file.")
    if stat.S_ISLNK(found.st_mode) or found.st_uid not in {owner, os.geteuid()}:
        raise planted(file)
    if not is_closed_to_others(found):
        text = f"The database file {file} can be read or changed by others. Close it: chmod 600 {file}"
        raise Misconfigured(text)


def planted(file: Path) -> Misconfigured:
    text = f"{file} is a link or another user's, and is not used as a file of the database. See who made it; remove it."
    return Misconfigured(text)
