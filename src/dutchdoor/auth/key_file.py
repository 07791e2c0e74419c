"""The file of the master keys: made with mode 0600 where there is none, and read only if no other user can.

Keep it apart from the backups of the database: an attacker needs both.
"""

from __future__ import annotations

import errno
import os
import secrets
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
    if os.path.lexists(file):
        return False
    beside = file.with_name(f".{file.name}.{secrets.token_hex(8)}")
    try:
        _write(beside)
        # A link appears whole, and only where there is no file: of processes that start at once, one creates it, and
        # the others never read a part of it. After a failure, the next start does not find a file without a key.
        os.link(beside, file)
    except FileExistsError:
        return False
    except OSError as exc:
        if exc.errno in _NO_LINKS:
            return _make_in_place(file)
        raise Misconfigured(f"The master key file {file} cannot be created: {exc.strerror}.") from None
    finally:
        beside.unlink(missing_ok=True)
    return True


_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}
"""What a file system without hard links answers, such as FAT."""


def _make_in_place(file: Path) -> bool:
    try:
        _write(file)
    except FileExistsError:
        return False
    except OSError as exc:
        raise Misconfigured(f"The master key file {file} cannot be created: {exc.strerror}.") from None
    return True


def _write(file: Path) -> None:
    # Created with its mode in one step, so that no other user can open it first.
    handle = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(handle, "w") as made:
            made.write("# The master key of dutchdoor. With this key and the database, a thief can act as any user.\n")
            made.write(f"{MasterKey.generate().text()}\n")
            made.flush()
            os.fsync(made.fileno())
    except OSError:
        file.unlink()
        raise


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
