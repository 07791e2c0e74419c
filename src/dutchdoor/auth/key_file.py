"""The file of the master keys: made with mode 0600 where there is none, and read only if no other user can.

Keep it apart from the backups of the database: an attacker needs both.
"""

from __future__ import annotations

import os
from pathlib import Path

from dutchdoor.errors import Misconfigured
from dutchdoor.model.master_key import MasterKey, MasterKeys
from dutchdoor.stores.file_access import is_closed_to_others

__all__ = ["read_or_make_master_key"]


def read_or_make_master_key(file: Path) -> tuple[MasterKeys, bool]:
    """Read the master keys from a file, or create it with a new key and mode 0600. Return them, and whether it is new.

    Raises:
        Misconfigured: others can read the file, the file cannot be read or written, or it contains no valid key.
    """
    is_new = _make(file)
    return _read(file), is_new


def _make(file: Path) -> bool:
    """Create the file, and return True, unless there is one."""
    text = MasterKey.generate().text()
    try:
        # Created with its mode in one step, so that no other user can open it first. If two processes start at once,
        # one creates the file and the other reads it.
        handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        return False
    except OSError as exc:
        raise Misconfigured(f"The master key file {file.name} cannot be created: {exc.strerror}.") from None
    with os.fdopen(handle, "w") as made:
        made.write(
            f"# The master key of dutchdoor. With this key and the database, a thief can act as any user.\n{text}\n"
        )
        made.flush()
        os.fsync(made.fileno())
    return True


def _read(file: Path) -> MasterKeys:
    try:
        with file.open() as opened:
            # fstat of the open file, not of the name: an attacker could replace the file between the two calls.
            found = os.fstat(opened.fileno())
            if not is_closed_to_others(found):
                raise Misconfigured(
                    f"Other users can read the master key file {file.name}. Restrict it: chmod 600 {file.name}"
                )
            content = opened.read()
    except OSError as exc:
        raise Misconfigured(f"The master key file {file.name} cannot be read: {exc.strerror}.") from None
    try:
        return MasterKeys.parse(content)
    except Misconfigured as exc:
        raise Misconfigured(f"The master key file {file.name}: {exc}") from None
