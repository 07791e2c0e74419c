"""Encrypted access tokens (RFC 7516): a signed token inside an encrypted one, for claims the client must not read.

Needs the extra `jwe`. Off unless an operator configures it: `jwt.py` refuses every encrypted token. Two ways to agree
on the content key, and one cipher: `dir` with a shared 256-bit key, `ECDH-ES` with P-256, both with A256GCM. joserfc
does the cryptography; what reaches it has been bounded and read strictly first.

Deliberately left out: RSA1_5 and every key wrapping (padding oracles), PBES2 (its iteration count is the sender's to
choose), `zip` (a bomb of 250 kB in 250 bytes), and encryption without a signature inside: GCM proves only that the
sender knew a key that, for ECDH-ES, is public.
"""

from __future__ import annotations

import re
from typing import Final, Literal, Self

from joserfc import jwe
from joserfc.jwk import ECKey, OctKey

from dutchdoor import strict_json
from dutchdoor.access import MAX_TOKEN, Claims, TokenVerifier
from dutchdoor.errors import InvalidKey, InvalidToken
from dutchdoor.ids import decode
from dutchdoor.keys import Key

__all__ = ["EncryptedTokenVerifier", "TokenEncryption"]

_CIPHER: Final = "A256GCM"
_MEMBERS: Final = frozenset({"alg", "enc", "cty", "kid"})
_KEY_BYTES: Final = 32
# Five parts: header, no encrypted key, 12 bytes of nonce, text, 16 bytes of tag.
_FORM: Final = re.compile(r"([\w-]+)\.\.([\w-]{16})\.([\w-]+)\.([\w-]{22})", re.ASCII)


class TokenEncryption:
    """One key and the one way it is used. What it encrypts, it decrypts, if it holds the private part."""

    __slots__ = ("_key", "_way", "can_decrypt", "kid")

    def __init__(self, way: Literal["dir", "ECDH-ES"], key: OctKey | ECKey, kid: str, *, can_decrypt: bool) -> None:
        """Take what `direct` or `ecdh_es` checked. Use those."""
        self._way, self._key, self.kid, self.can_decrypt = way, key, kid, can_decrypt

    @classmethod
    def direct(cls, secret: bytes, *, kid: str) -> Self:
        """Share one 32-byte key with those who read. Raises `InvalidKey` for any other length, or a known secret."""
        if len(secret) != _KEY_BYTES:
            raise InvalidKey("A256GCM has a key of 32 bytes")
        checked = Key.from_secret(secret, kid=kid)  # refuses what is known or hardly random
        return cls("dir", OctKey.import_key(secret), checked.kid, can_decrypt=True)

    @classmethod
    def ecdh_es(cls, pem: bytes, *, kid: str) -> Self:
        """Encrypt to a P-256 key; its private PEM decrypts, its public one only encrypts.

        Raises:
            InvalidKey: it is no such key.
        """
        checked = Key.from_pem(pem, "ES256", kid=kid)  # the same curve; the checks of a key are the same for either use
        return cls("ECDH-ES", ECKey.import_key(pem), checked.kid, can_decrypt=checked.can_sign)

    def encrypt(self, token: str) -> str:
        """Wrap a signed token. Call it with tokens of ours only."""
        header = {"alg": self._way, "enc": _CIPHER, "cty": "JWT", "kid": self.kid}
        return jwe.encrypt_compact(header, token.encode(), self._key, algorithms=[self._way, _CIPHER])

    def decrypt(self, token: str | bytes) -> bytes:
        """Unwrap a token. What is inside is still to be verified.

        Raises:
            InvalidToken: it is malformed, not for this key, or altered.
        """
        if isinstance(token, bytes):
            token = token.decode("latin-1")
        if not isinstance(token, str) or len(token) > MAX_TOKEN or not (parts := _FORM.fullmatch(token)):
            raise InvalidToken("not an encrypted token")
        for part in parts.groups():
            decode(part, MAX_TOKEN)
        try:
            header = strict_json.decode_object(decode(parts[1], MAX_TOKEN))
        except strict_json.MalformedJSON as refusal:
            raise InvalidToken(f"header: {refusal}") from None
        wanted = {"alg": self._way, "enc": _CIPHER, "cty": "JWT", "kid": self.kid}
        epk = header.pop("epk", None)
        if header.keys() - {"kid"} != _MEMBERS - {"kid"} or any(wanted[name] != header[name] for name in header):
            # No `zip`, no `p2c`, no `crit`: nothing but what we write.
            raise InvalidToken("header: not the way this key is used")
        if (epk is None) != (self._way == "dir"):
            raise InvalidToken("header: epk")
        if epk is not None:
            try:
                # A point off the curve makes the shared secret tell about ours (CVE-2015-7940).
                if type(epk) is not dict or epk.keys() != {"kty", "crv", "x", "y"} or Key.from_jwk(epk).alg != "ES256":
                    raise InvalidToken("header: epk")
            except InvalidKey:
                raise InvalidToken("header: epk is not a point on the curve") from None
        if not self.can_decrypt:
            raise InvalidToken("there is no private key to decrypt with")
        try:
            text = jwe.decrypt_compact(token, self._key, algorithms=[self._way, _CIPHER]).plaintext
        except Exception:  # noqa: BLE001 - a third party's: whatever it raises about a token, the token is not valid
            raise InvalidToken("it does not decrypt") from None
        if text is None:
            raise InvalidToken("there is nothing in it")
        return text

    def __repr__(self) -> str:
        return f"TokenEncryption(way={self._way!r}, kid={self.kid!r})"


class EncryptedTokenVerifier:
    """A verifier of tokens that are encrypted, all of them: one in the clear is refused, or hiding claims would be
    optional.

    Args:
        verify: verifies the signed token inside.
        encryption: the key they are encrypted to.
    """

    __slots__ = ("_encryption", "_verify")

    def __init__(self, verify: TokenVerifier, encryption: TokenEncryption) -> None:
        self._verify, self._encryption = verify, encryption

    def __call__(self, token: str | bytes, *, now: float | None = None) -> Claims:
        """Decrypt and verify a token, and give its claims.

        Raises:
            InvalidToken: it does not decrypt, or what is inside is refused.
        """
        return self._verify(self._encryption.decrypt(token), now=now)
