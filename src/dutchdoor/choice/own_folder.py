"""A temporary folder of this process. Nothing outlives it: what a killed process left, the next one removes."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

__all__ = ["own_folder"]

LOCKED_WITHIN: Final = 60.0
"""Seconds after which a folder without a lock is not one that its process is about to lock."""


@contextmanager
def own_folder(prefix: str) -> Generator[Path, None, None]:
    """Create a folder whose name begins with `prefix`, and remove it at the end.

    First, folders of the same prefix are removed whose process was killed: those of this user that no process locks.
    """
    _remove_left(prefix)
    folder = Path(tempfile.mkdtemp(prefix=prefix))
    lock = os.open(folder, os.O_RDONLY)  # the system unlocks it when this process ends, however it ends
    try:
        fcntl.flock(lock, fcntl.LOCK_SH)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def _remove_left(prefix: str) -> None:
    for folder in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
        try:
            # Not through a link: another user of the machine could lead this to a folder elsewhere.
            lock = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        except OSError:
            continue
        try:
            found = os.fstat(lock)
            if found.st_uid == os.getuid() and time.time() - found.st_ctime > LOCKED_WITHIN:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(folder, ignore_errors=True)
        except BlockingIOError:  # its process lives
            continue
        finally:
            os.close(lock)
