"""Codes by mail: six digits that prove who reads a mailbox, typed in the browser that asked for them.

A code is half of a proof. The other half is a one-time token, which only the asking browser has: a code that its owner
is talked into reading out, or types somewhere else, is worth nothing without it. Six digits cannot be kept as a plain
hash, which a copy of the database would reveal in a second, so a keyed hash is kept.
"""

from __future__ import annotations

import hmac
import secrets
from typing import Final

from dutchdoor.model.master_key import MasterKey, MasterKeys

__all__ = ["MAIL_CODE", "MailCodes"]

MAIL_CODE: Final = "mail_code"
"""The method of a proof by a mailed code."""
DIGITS: Final = 6
TYPED_AT_MOST: Final = 32


class MailCodes:
    """Issues and checks codes. `master` are the keys under which they are hashed."""

    # Multiple-channel authentication (RFC 8176): the code takes another way than the sign-in.
    name, amr = MAIL_CODE, "mca"

    def __init__(self, master: MasterKeys) -> None:
        self._master = master

    def issue(self, token_id: str) -> tuple[str, str]:
        """Return a code for the one-time token of this id, and what to keep of it."""
        code = f"{secrets.randbelow(10**DIGITS):0{DIGITS}}"
        key = self._master.current
        return code, f"{key.id.hex()} {_hash(key, token_id, code)}"

    def is_right(self, token_id: str, kept: str, typed: str) -> bool:
        """Return whether this code was issued for the one-time token of this id. People type spaces, too."""
        key_id, _, expected = kept.partition(" ")
        key = self._master.get(bytes.fromhex(key_id)) or self._master.current
        code = "".join(typed.split()) if len(typed) <= TYPED_AT_MOST else ""
        return hmac.compare_digest(_hash(key, token_id, code), expected)


def _hash(key: MasterKey, token_id: str, code: str) -> str:
    # With the token in it, a hash that is copied into another row is worth nothing.
    return hmac.digest(key.derive("mail codes"), f"{token_id} {code}".encode(), "sha256")[:16].hex()
