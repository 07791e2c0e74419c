"""For programs that sign in at a dutchdoor server: `SessionAuth` for httpx2, and where tokens are kept.

    auth = SessionAuth("https://auth.example.com", login="ada@example.com", password=password)
    with httpx2.Client(base_url="https://api.example.com", auth=auth) as client:
        client.get("/orders")

`tokens` has what is decided, `storage` and `in_keyring` where it is kept, `server` the calls; `session_auth` puts them
together.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dutchdoor.client.in_keyring import KeyringStorage
    from dutchdoor.client.session_auth import SessionAuth
    from dutchdoor.client.storage import FileStorage, MemoryStorage, Storage
    from dutchdoor.client.tokens import Tokens

__all__ = ["FileStorage", "KeyringStorage", "MemoryStorage", "SessionAuth", "Storage", "Tokens"]

_WHERE = {
    "FileStorage": "storage",
    "KeyringStorage": "in_keyring",
    "MemoryStorage": "storage",
    "SessionAuth": "session_auth",
    "Storage": "storage",
    "Tokens": "tokens",
}


def __getattr__(name: str) -> object:
    """Import a public name at its first use (PEP 562): `dutchdoor token` mostly needs no HTTP client.

    Raises:
        ImportError: a package of the extra `client` or `keyring` is not installed.
    """
    if name not in _WHERE:
        raise AttributeError(f"module 'dutchdoor.client' has no attribute {name!r}")
    try:
        return getattr(import_module(f"dutchdoor.client.{_WHERE[name]}"), name)
    except ModuleNotFoundError as exc:
        if exc.name is None or exc.name.startswith("dutchdoor"):
            raise
        extra = "keyring" if name == "KeyringStorage" else "client"
        text = f"dutchdoor.client.{name} needs {exc.name}, which is not installed: pip install 'dutchdoor[{extra}]'"
        raise ImportError(text, name=exc.name) from exc
