"""Writes each message into a directory as one .eml file: for tests, for staging, or for a program that sends them."""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from collections.abc import Callable
from pathlib import Path

from dutchdoor.errors import Unavailable
from dutchdoor.mail import Mail, as_message, sender_of

__all__ = ["FileTransport"]


class FileTransport:
    """Writes `<milliseconds>-<random>.eml`, readable only by the file's owner. Names sort by time."""

    def __init__(self, directory: Path, *, sender: str, clock: Callable[[], float] = time.time) -> None:
        self._directory, self._sender, self._clock = directory, sender_of(sender), clock

    async def send(self, message: Mail) -> None:
        now = self._clock()
        name = f"{int(now * 1000):015d}-{secrets.token_hex(8)}.eml"
        try:
            await asyncio.to_thread(self._write, name, message, now)
        except OSError as error:
            raise Unavailable(f"mail not written into {self._directory}: {error.strerror}") from error

    def _write(self, name: str, message: Mail, now: float) -> None:
        content = as_message(message, sender=self._sender, now=now).as_bytes()
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        unfinished = self._directory / f".{name}.part"
        # The file holds a one-time link: it has mode 0600 from the first byte, and an attacker's symbolic link is not
        # followed.
        descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
        try:
            with os.fdopen(descriptor, "wb") as out:
                out.write(content)
                out.flush()
                os.fsync(out.fileno())
            # A program that watches the directory sees a whole message or none.
            unfinished.rename(self._directory / name)
        except BaseException:
            unfinished.unlink(missing_ok=True)
            raise
