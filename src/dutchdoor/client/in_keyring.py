"""Tokens in the system's keyring: that of GNOME or KDE (Secret Service), macOS or Windows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import keyring
import msgspec
from msgspec.structs import replace

from dutchdoor.client.tokens import Tokens, decode
from dutchdoor.errors import Misconfigured, Unavailable

__all__ = ["KeyringStorage"]

_SERVICE: Final = "dutchdoor"
_AT_MOST: Final = 1200
"""Characters of an entry. That of Windows holds 1,280."""
_SAFE: Final = 1.0
"""The least `priority` of a backend that keeps secrets, and keeps them encrypted."""


class KeyringStorage:
    """Keeps tokens in the system's keyring, under a name. Every method raises `Unavailable` if the keyring is locked or
    refuses.

    Raises:
        Misconfigured: this machine has no keyring that can be used.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        if keyring.get_keyring().priority < _SAFE:
            raise Misconfigured("This machine has no keyring. Use a FileStorage.")

    def load(self) -> Tokens | None:
        with _refusing():
            content = keyring.get_password(_SERVICE, self.name)
        return None if content is None else decode(content.encode(), f"The entry {self.name} of the keyring")

    def save(self, tokens: Tokens) -> None:
        content = msgspec.json.encode(tokens).decode()
        if len(content) > _AT_MOST:  # the next run gets another access token by the refresh token
            content = msgspec.json.encode(replace(tokens, access_token="")).decode()
        with _refusing():
            keyring.set_password(_SERVICE, self.name, content)

    def clear(self) -> None:
        with _refusing():
            if keyring.get_password(_SERVICE, self.name) is not None:
                keyring.delete_password(_SERVICE, self.name)


@contextmanager
def _refusing() -> Iterator[None]:
    """Turn any error of the keyring into `Unavailable`: its backends raise what they like."""
    try:
        yield
    except Exception as error:  # noqa: BLE001
        # The text of a foreign exception may hold what was to be kept.
        raise Unavailable(f"the keyring failed: {type(error).__name__}") from None
