"""The sign-ins of a person at this machine, for `dutchdoor login`, `whoami`, `logout` and `token`.

Each has a file in the directory of settings (the XDG base directories), which says where its tokens are: in the
system's keyring, or in a file of mode 0600 beside it. The one that signed in last is the one that is meant when none is
named.
"""

from __future__ import annotations

import hashlib
import os
import time
from importlib import import_module
from pathlib import Path
from typing import Literal

import msgspec
from msgspec import Struct

from dutchdoor.client.storage import FileStorage, Storage
from dutchdoor.client.tokens import Tokens
from dutchdoor.errors import Misconfigured, NotAuthenticated, Unavailable

__all__ = ["SignIn", "choose", "keep", "listed"]

Place = Literal["keyring", "file"]


class SignIn(Struct, frozen=True, kw_only=True):
    """One account at one server."""

    server: str
    login: str
    place: Place
    signed_in_at: float

    @property
    def storage(self) -> Storage:
        """Where its tokens are. Raises `Misconfigured`, `Unavailable`, `ImportError` for a keyring that is gone."""
        return _storage(self.server, self.login, self.place)

    @property
    def where(self) -> str:
        """Where its tokens are, for people."""
        return "the system's keyring" if self.place == "keyring" else str(_file(self.server, self.login, ".tokens"))

    def forget(self) -> None:
        """Remove the tokens and the file that names them. Idempotent."""
        try:
            self.storage.clear()
        finally:  # also where the keyring is gone
            _file(self.server, self.login, ".json").unlink(missing_ok=True)


def keep(tokens: Tokens, *, in_file: bool = False) -> SignIn:
    """Keep the tokens of a new sign-in: in the keyring if there is one that takes them, else in a file.

    Raises:
        Misconfigured: the file cannot be written.
    """
    place: Place = "file" if in_file or not _save(tokens, "keyring") else "keyring"
    if place == "file":
        _save(tokens, "file")
    made = SignIn(server=tokens.server, login=tokens.login, place=place, signed_in_at=time.time())
    # It holds no secret: whole or not at all is enough.
    new = _file(made.server, made.login, ".new")
    try:
        new.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        new.write_bytes(msgspec.json.encode(made))
        new.replace(_file(made.server, made.login, ".json"))
    except OSError as exc:
        raise Misconfigured(f"{new.parent} cannot be written: {exc.strerror}.") from None
    return made


def _save(tokens: Tokens, place: Place) -> bool:
    try:
        _storage(tokens.server, tokens.login, place).save(tokens)
    except (ImportError, Misconfigured, Unavailable):
        if place == "file":
            raise
        return False
    return True


def listed() -> list[SignIn]:
    """Return all sign-ins, the latest first."""
    found = []
    for file in _directory().glob("*.json"):
        try:
            found.append(msgspec.json.decode(file.read_bytes(), type=SignIn))
        except (OSError, msgspec.DecodeError):
            continue  # not one of ours
    return sorted(found, key=lambda each: each.signed_in_at, reverse=True)


def choose(server: str = "", login: str = "") -> SignIn:
    """Return the latest sign-in at a server and as a person, if they are named. Raises `NotAuthenticated`."""
    for each in listed():
        if server in {"", each.server} and login.lower() in {"", each.login.lower()}:
            return each
    who = (f" as {login}" if login else "") + (f" at {server}" if server else "")
    raise NotAuthenticated(
        "no such sign-in",
        message=f"Not signed in{who}. Sign in: dutchdoor login {server or 'https://auth.example.com'}",
    )


def _storage(server: str, login: str, place: Place) -> Storage:
    if place == "keyring":
        # Imported now: most commands of this machine's servers need no keyring.
        kept: Storage = import_module("dutchdoor.client").KeyringStorage(f"{login} {server}")
        return kept
    return FileStorage(_file(server, login, ".tokens"))


def _file(server: str, login: str, suffix: str) -> Path:
    name = hashlib.sha256(f"{server} {login}".encode()).hexdigest()[:16]
    return _directory() / f"{name}{suffix}"


def _directory() -> Path:
    named = os.environ.get("XDG_CONFIG_HOME", "")
    # A relative path must be ignored (XDG Base Directory Specification).
    base = Path(named) if named and Path(named).is_absolute() else Path.home() / ".config"
    return base / "dutchdoor" / "sign-ins"
