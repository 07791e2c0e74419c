"""Where a program keeps its tokens: in memory, or in a file of mode 0600. `in_keyring` has the system's keyring.

A storage of your own has these three methods. `save` returns when a crash cannot lose what it was given: the server may
accept no other refresh token from then on.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from pathlib import Path
from typing import Final, Protocol

import msgspec

from dutchdoor.client.tokens import Tokens, decode
from dutchdoor.errors import Misconfigured
from dutchdoor.stores.file_access import is_closed_to_others

__all__ = ["FileStorage", "MemoryStorage", "Storage"]

_AT_MOST: Final = 1 << 16
"""Bytes of a file of tokens: more than two tokens ever take."""


class Storage(Protocol):
    """Keeps the tokens of one sign-in. A `SessionAuth` calls it from one thread at a time."""

    def load(self) -> Tokens | None:
        """Return the tokens, or None if there are none."""
        ...

    def save(self, tokens: Tokens) -> None:
        """Keep the tokens in place of the ones before, durably."""
        ...

    def clear(self) -> None:
        """Forget the tokens. Idempotent."""
        ...


class MemoryStorage:
    """Keeps tokens as long as the process runs."""

    def __init__(self) -> None:
        self._tokens: Tokens | None = None

    def load(self) -> Tokens | None:
        return self._tokens

    def save(self, tokens: Tokens) -> None:
        self._tokens = tokens

    def clear(self) -> None:
        self._tokens = None


class FileStorage:
    """Keeps tokens in a file that its owner alone can read. Its directory is created if it is not there.

    Every method raises `Misconfigured` if others can access the file, or if it cannot be read or written.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)

    def load(self) -> Tokens | None:
        try:
            with self.path.open("rb") as file:
                # The open file, not its name: an attacker could replace the file between the two calls.
                if os.name == "posix" and not is_closed_to_others(os.fstat(file.fileno())):
                    raise Misconfigured(f"Other users can read {self.path}. Restrict it: chmod 600 {self.path}")
                content = file.read(_AT_MOST)
        except FileNotFoundError:
            return None
        except OSError as exc:
            raise Misconfigured(f"{self.path} cannot be read: {exc.strerror}.") from None
        return decode(content, str(self.path))

    def save(self, tokens: Tokens) -> None:
        try:
            self.path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            # A new file with mode 0600 in the place of the old one: a crash leaves one or the other, whole.
            handle, name = tempfile.mkstemp(dir=self.path.parent, prefix=f".{self.path.name}.")
            try:
                with os.fdopen(handle, "wb") as file:
                    file.write(msgspec.json.encode(tokens))
                    file.flush()
                    os.fsync(file.fileno())
                Path(name).replace(self.path)
            except OSError:
                Path(name).unlink(missing_ok=True)
                raise
            _flush_directory(self.path.parent)
        except OSError as exc:
            raise Misconfigured(f"{self.path} cannot be written: {exc.strerror}.") from None

    def clear(self) -> None:
        try:
            self.path.unlink(missing_ok=True)
        except OSError as exc:
            raise Misconfigured(f"{self.path} cannot be removed: {exc.strerror}.") from None


def _flush_directory(directory: Path) -> None:
    """Write the new name to the disk, where a directory can be flushed."""
    with contextlib.suppress(OSError):
        handle = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
