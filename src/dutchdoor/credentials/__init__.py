"""The ways to prove who one is, one file each; this file holds only what they have in common.

`password.py` is the first. `hashing.py` and `legacy.py` are its parts (the threads it hashes on, the formats it can
read), `strength.py` is the rule for new passwords. Parts are imported by `password.py` and `strength.py`, never the
other way, and a later way to prove (passkey, one-time code) imports none of them.
"""

from __future__ import annotations

from typing import Protocol

__all__ = ["Method"]


class Method(Protocol):
    """A kind of credential. What a store keeps for it is opaque text, so a new kind needs no migration."""

    @property
    def amr(self) -> str:
        """The RFC 8176 name of this way to prove, as it appears in access tokens: `pwd`, `otp`, `hwk`."""
        ...

    async def verify(self, proof: str, enrolled: str, /) -> bool:
        """Whether `proof`, as the person gave it, matches what was enrolled.

        Raises:
            InvalidInput: the proof cannot be one, whatever is enrolled (too long, not text).
            Unavailable: too much is waiting already; nothing was checked.
        """
        ...
