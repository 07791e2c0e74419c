"""The file of the master keys: made with mode 0600 where there is none, and read only if no other user can.

Keep it apart from the backups of the database: an attacker needs both.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from dutchdoor.errors import Misconfigured
from dutchdoor.model.master_key import MasterKey, MasterKeys
from dutchdoor.model.text_file import decode_text
from dutchdoor.stores.file_access import is_closed_to_others

__all__ = ["read_master_key", "read_or_make_master_key"]

_AT_MOST = 64 * 1024
"""Bytes. A wrong path must not fill the memory."""


def read_or_make_master_key(file: Path) -> tuple[MasterKeys, bool]:
    """Read the master keys from a file, or create it with a new key and mode 0600. Return them, and whether it is new.

    Raises:
        Misconfigured: others can read the file, the file cannot be read or written, or it contains no valid key.
    """
    is_new = _make(file)
    return read_master_key(file), is_new


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
        raise Misconfigured(f"The master key file {file} cannot be created: {exc.strerror}.") from None
    try:
        with os.fdopen(handle, "w") as made:
            made.write(
                f"# The master key of dutchdoor. With this key and the database, a thief can act as any user.\n{text}\n"
            )
            made.flush()
            os.fsync(made.fileno())
    except OSError as exc:  # a full disk: the next start would find a file without a key
        file.unlink()
        raise Misconfigured(f"The master key file {file} cannot be written: {exc.strerror}.") from None
    return True


def read_master_key(file: Path) -> MasterKeys:
    """Read the master keys from a file. Raises `Misconfigured` as `read_or_make_master_key` does."""
    try:
        with file.open("rb") as opened:
            # fstat of the open file, not of the name: an attacker could replace the file between the two calls.
            found = os.fstat(opened.fileno())
            if stat.S_ISCHR(found.st_mode) or stat.S_ISBLK(found.st_mode):  # /dev/null: its mode is not to be changed
                raise Misconfigured(f"The master key file {file} is a device. Name the file that holds the key.")
            if not is_closed_to_others(found):
                raise Misconfigured(f"Other users can read the master key file {file}. Restrict it: chmod 600 {file}")
            content = opened.read(_AT_MOST + 1)
    except OSError as exc:
        raise Misconfigured(f"The master key file {file} cannot be read: {exc.strerror}.") from None
    if len(content) > _AT_MOST:
        raise Misconfigured(f"The master key file {file} is too large to hold keys.")
    text = decode_text(content, f"The master key file {file}")
    try:
        return MasterKeys.parse(text)
    except Misconfigured as exc:
        raise Misconfigured(f"The master key file {file}: {exc}") from None
