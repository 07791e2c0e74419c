"""The master key: the one secret outside the database, and what is derived from it.

With a leaked database alone, an attacker cannot forge or decrypt anything. Nor with a leaked master key alone, since
rows salt what is derived from it. HKDF (RFC 5869) separates purposes. Sealing is AES-256-GCM with the record's name as
associated data, so that an attacker cannot put one sealed value in another's place.
"""

from __future__ import annotations

import hmac
import secrets
from binascii import Error as NotBase64
from collections.abc import Iterator

import pybase64
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from dutchdoor.errors import InvalidKey, Misconfigured

__all__ = ["MasterKey", "MasterKeys", "sealed_by"]

KEY_BYTES, ID_BYTES, NONCE_BYTES = 32, 4, 12
# Long enough that about one random key in ten million contains one of them.
_PLACEHOLDERS = ("changeme", "change-me", "secret", "placeholder", "example", "your-")


class MasterKey:
    """32 secret bytes, and the 4-byte id that rows and tokens carry to name their master key."""

    __slots__ = ("_key", "id")

    def __init__(self, key: bytes) -> None:
        """Raises `Misconfigured` for a key that is not 32 bytes, or not random."""
        if len(key) != KEY_BYTES:
            raise _unfit(f"The master key must be {KEY_BYTES} bytes, it has {len(key)}.")
        if len(set(key)) < 12:  # noqa: PLR2004 - 32 random bytes have fewer distinct values once in 10^15
            raise _unfit("The master key is not random: it repeats a few bytes.")
        self._key = key
        self.id = self.derive("id")[:ID_BYTES]

    @classmethod
    def generate(cls) -> MasterKey:
        return cls(secrets.token_bytes(KEY_BYTES))

    @classmethod
    def parse(cls, text: str) -> MasterKey:
        """Read the text form: 32 bytes in base64 or base64url, or 64 hexadecimal digits. Raises `Misconfigured`."""
        text = text.strip()
        lowered = text.lower()
        if any(word in lowered for word in _PLACEHOLDERS):
            raise _unfit("The master key is a placeholder.")
        try:
            if len(text) == 2 * KEY_BYTES:
                return cls(bytes.fromhex(text))
            return cls(
                pybase64.b64decode(text.replace("-", "+").replace("_", "/") + "=" * (-len(text) % 4), validate=True)
            )
        except (NotBase64, ValueError):
            raise _unfit("The master key is neither base64 nor hexadecimal.") from None

    def text(self) -> str:
        """The text form, for a file of mode 0600. Never pass it to code that logs."""
        return pybase64.urlsafe_b64encode(self._key).rstrip(b"=").decode()

    def derive(self, purpose: str, salt: bytes = b"") -> bytes:
        """Derive 32 bytes for one purpose: HKDF-SHA-256, one block."""
        extracted = hmac.digest(salt or b"\0" * 32, self._key, "sha256")
        return hmac.digest(extracted, b"dutchdoor " + purpose.encode() + b"\x01", "sha256")

    def seal(self, plain: bytes, name: str) -> bytes:
        """Encrypt a value so that only this master key decrypts it, and only under this name."""
        nonce = secrets.token_bytes(NONCE_BYTES)
        return self.id + nonce + AESGCM(self.derive("seal")).encrypt(nonce, plain, name.encode())

    def open(self, sealed: bytes, name: str) -> bytes:
        """Decrypt a sealed value. Raises `InvalidKey` if it was sealed by another master key, under another name, or
        altered.
        """
        nonce, box = sealed[ID_BYTES : ID_BYTES + NONCE_BYTES], sealed[ID_BYTES + NONCE_BYTES :]
        try:
            return AESGCM(self.derive("seal")).decrypt(nonce, box, name.encode())
        except (InvalidTag, ValueError):
            raise InvalidKey("a sealed value does not open with this master key") from None

    def __repr__(self) -> str:
        return f"<MasterKey {self.id.hex()}>"


class MasterKeys:
    """The current master key first, then older keys that still decrypt what they sealed."""

    def __init__(self, current: MasterKey, *older: MasterKey) -> None:
        self.current = current
        self._by_id = {key.id: key for key in (*older, current)}

    @classmethod
    def parse(cls, text: str) -> MasterKeys:
        """Read one key per line, the current one first; lines that begin with # are comments. Raises
        `Misconfigured`.
        """
        lines = [line.strip() for line in text.splitlines()]
        keys = [MasterKey.parse(line) for line in lines if line and not line.startswith("#")]
        if not keys:
            raise _unfit("There is no master key in it.")
        return cls(*keys)

    def __iter__(self) -> Iterator[MasterKey]:
        """The current key, then the others."""
        yield self.current
        yield from (key for key in self._by_id.values() if key is not self.current)

    def get(self, id: bytes) -> MasterKey | None:
        return self._by_id.get(id)

    def open(self, sealed: bytes, name: str) -> bytes:
        """Decrypt a sealed value. Raises `InvalidKey` if no key here sealed it."""
        key = self._by_id.get(sealed_by(sealed))
        if key is None:
            raise InvalidKey(f"sealed by master key {sealed_by(sealed).hex()}, which is not configured")
        return key.open(sealed, name)


def sealed_by(sealed: bytes) -> bytes:
    """Return the id of the master key that sealed a value."""
    return sealed[:ID_BYTES]


def _unfit(text: str) -> Misconfigured:
    return Misconfigured(text + " Make one with `dutchdoor key master`.")
