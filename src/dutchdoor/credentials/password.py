"""Passwords: Argon2id (RFC 9106) on a bounded pool of threads, older hashes verified once and replaced.

Hashes are PHC strings: they contain their parameters, and any other Argon2 library can read them:

    $argon2id$v=19$m=19456,t=2,p=1$<salt>$<hash>

A pepper goes into Argon2's own secret input, and `keyid=` names the pepper. Hashes without a pepper, from before there
was one, still verify and are replaced at the next log-in.

Left out deliberately: choosing parameters by measuring the machine. A profile has a name and a published source, and is
the same on all machines of a fleet.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import logging
import re
import secrets
import unicodedata

import msgspec
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id
from msgspec.structs import replace

from dutchdoor import errors
from dutchdoor.credentials import legacy
from dutchdoor.credentials.base import Checked
from dutchdoor.credentials.hashing import HashingPool
from dutchdoor.model.accounts import Credential
from dutchdoor.model.unicode_text import is_stream_safe
from dutchdoor.texts import mark

__all__ = [
    "CHEAPEST",
    "MAX_BYTES",
    "MAX_TYPED",
    "OWASP_2024",
    "PASSWORD",
    "PROFILES",
    "RFC_9106_LOW_MEMORY",
    "Password",
    "PasswordHasher",
    "Profile",
    "normalise",
]

MAX_BYTES = 1_024
"""Bytes of UTF-8 in the longest password: far more than people or generators use, far less than costs
noticeable time.
"""

MAX_TYPED = MAX_BYTES * 3 // 2
"""Characters in the longest spelling of the longest password: two bytes decompose into at most three characters."""

PASSWORD = "password"
"""The method of the credential that is a password."""

MIN_PEPPER = 16
SALT_BYTES = 16
TAG_BYTES = 32

_log = logging.getLogger("dutchdoor.credentials")


class Profile(msgspec.Struct, frozen=True, kw_only=True):
    """How expensive a hash is: `memory` in KiB, `passes` over it, `lanes` that could be computed at once."""

    name: str
    memory: int
    passes: int
    lanes: int
    source: str


OWASP_2024 = Profile(
    name="owasp-2024",
    memory=19 * 1024,
    passes=2,
    lanes=1,
    source="OWASP Password Storage Cheat Sheet, Argon2id, second row; ASVS 5.0 appendix C",
)
"""The default: about 25 ms of one core, and 19 MiB for as long."""

RFC_9106_LOW_MEMORY = Profile(
    name="rfc-9106-low-memory",
    memory=64 * 1024,
    passes=3,
    lanes=4,
    source="RFC 9106 section 4, second recommended option",
)
"""For machines with spare processor time: about five times the default."""

CHEAPEST = Profile(name="cheapest", memory=8, passes=1, lanes=1, source="the least Argon2 allows; for tests only")
"""For tests. A server must refuse it."""

PROFILES = {profile.name: profile for profile in (OWASP_2024, RFC_9106_LOW_MEMORY, CHEAPEST)}


def normalise(password: str, *, field: str = "password") -> str:
    """Return the one form of a password that is hashed, so that the same keys on another device give the same bytes.

    The form is NFC, as RFC 8265 (OpaqueString) has it. NFKC would also merge characters that look different and that
    people type on purpose. Nothing is trimmed, folded or cut (C02).

    Raises:
        InvalidInput: longer than `MAX_BYTES`, not valid Unicode, or crafted to be slow. It reports the given `field`.
    """
    # C03: this refuses a megabyte before any code reads all of it. The exact bound is checked after composing, so that
    # it is the same for every spelling.
    if len(password) > MAX_TYPED:
        raise _too_long(field)
    if not is_stream_safe(password):
        raise errors.InvalidInput(mark("The password has too many accents on one letter."), field=field)
    composed = unicodedata.normalize("NFC", password)
    try:
        size = len(composed.encode())
    except UnicodeEncodeError:
        # Not chained: the original exception carries the password.
        raise errors.InvalidInput(mark("The password is not valid text."), field=field) from None
    if size > MAX_BYTES:
        raise _too_long(field)
    return composed


class PasswordHasher:
    """Creates and verifies password hashes. Create one per process, and `close` it at the end.

    `pepper` is a secret of at least 16 bytes kept outside the database: with it, a thief of the database alone cannot
    guess passwords offline. Without it no password verifies, so back it up apart from the database. `workers` and
    `queue` are those of `HashingPool`.
    """

    def __init__(
        self,
        profile: Profile = OWASP_2024,
        *,
        pepper: bytes | None = None,
        workers: int | None = None,
        queue: int = 64,
    ) -> None:
        if pepper is not None and len(pepper) < MIN_PEPPER:
            raise errors.Misconfigured(f"The pepper has fewer than {MIN_PEPPER} bytes.")
        self.profile = profile
        self._pepper = pepper
        self._keyid = "" if pepper is None else _keyid(pepper)
        self._pool = HashingPool(workers=workers, queue=queue)
        # A hash of no password: its tag is random, so no password matches it, and a check costs a whole derivation.
        self._no_account = _Stored(
            profile=profile, keyid=self._keyid, salt=secrets.token_bytes(SALT_BYTES), tag=secrets.token_bytes(TAG_BYTES)
        ).encode()

    async def hash(self, password: str) -> str:
        """Hash a password that `strength.check_new_password` has accepted.

        Raises:
            InvalidInput: as for `normalise`.
            Unavailable: too many hashes are waiting already.
        """
        composed = normalise(password)
        return await self._pool.run(lambda: self._hash(composed))

    async def verify(self, password: str, encoded: str) -> bool:
        """Whether `encoded` is the hash of `password`, in our format or any that `legacy` reads.

        An unreadable stored hash counts as a wrong password, after the same work, and is logged: the row is damaged or
        was not written by the import.

        Raises:
            InvalidInput: as for `normalise`; it depends only on the password, so it reveals nothing about the account.
            Misconfigured: the hash needs another pepper than the configured one.
            Unavailable: too many hashes are waiting already; nothing was checked.
        """
        composed = normalise(password)
        return await self._pool.run(lambda: self._verify(password, composed, encoded))

    async def verify_nothing(self, password: str) -> None:
        """Do the work of a `verify` for an address without an account, so that time does not reveal which addresses
        have one (C10).

        It costs as much as verifying a hash of the current profile. A hash with other parameters, or an imported one,
        takes its own time until its owner's next log-in replaces it.

        Raises:
            InvalidInput: as for `normalise`.
            Unavailable: too many hashes are waiting already.
        """
        await self.verify(password, self._no_account)

    def needs_rehash(self, encoded: str) -> bool:
        """Whether the owner's next log-in should replace this hash: it has another format, another pepper, or a lower
        cost.

        A hash more expensive than the profile is kept: no stored hash becomes weaker.
        """
        stored = _Stored.parse(encoded)
        return (
            stored is None
            or stored.keyid != self._keyid
            or stored.profile.memory < self.profile.memory
            or stored.profile.passes < self.profile.passes
            or len(stored.salt) < SALT_BYTES
            or len(stored.tag) < TAG_BYTES
        )

    def imported(self, encoded: str) -> str:
        """Return the text to store for a hash from another system (`legacy.imported`), or from an export of accounts
        whose hashes have the pepper of this one.

        Raises:
            InvalidInput: as for `legacy.recognise`.
        """
        stored = _Stored.parse(encoded)
        # A key id tells that the hash is ours. One of a database without a pepper may be of another Argon2.
        is_ours = stored is not None and stored.keyid != "" and stored.keyid == self._keyid
        return encoded if is_ours else legacy.imported(encoded)

    @property
    def is_peppered(self) -> bool:
        """Whether a pepper is part of each new hash."""
        return self._pepper is not None

    @property
    def waiting(self) -> int:
        """Passwords in hashing or waiting for it: `HashingPool.length`."""
        return self._pool.length

    def open(self) -> None:
        """Take work again after `close`. Threads start when there is some."""
        if self._pool.is_closed:
            self._pool = HashingPool(workers=self._pool.workers, queue=self._pool.queue)

    def close(self) -> None:
        """Stop the threads. Waiting work is refused with `Unavailable`."""
        self._pool.close()

    def _hash(self, composed: str) -> str:
        salt = secrets.token_bytes(SALT_BYTES)
        tag = _derive(composed, self.profile, salt, TAG_BYTES, self._pepper)
        return _Stored(profile=self.profile, keyid=self._keyid, salt=salt, tag=tag).encode()

    def _verify(self, password: str, composed: str, encoded: str) -> bool:
        stored = _Stored.parse(encoded)
        if stored is not None:
            if stored.keyid not in ("", self._keyid):
                raise errors.Misconfigured("A password hash was made with a pepper that is not the one configured.")
            secret = self._pepper if stored.keyid else None
            tag = _derive(composed, stored.profile, stored.salt, len(stored.tag), secret)
            return hmac.compare_digest(tag, stored.tag)
        try:
            return legacy.verify(password, encoded)
        except errors.InvalidInput as exc:
            _log.error("a stored password hash cannot be read: %s", exc.reason)
            self._verify(password, composed, self._no_account)
            return False


class Password:
    """Passwords as a way to prove who one is (`dutchdoor.credentials.base.Method`)."""

    name, amr, second = PASSWORD, "pwd", False

    def __init__(self, hasher: PasswordHasher) -> None:
        self.hasher = hasher

    def handle_of(self, response: str) -> str:  # noqa: ARG002 - an account has one password
        return ""

    async def check(self, record: Credential | None, response: str, now: float) -> Checked | None:  # noqa: ARG002
        if record is None:
            await self.hasher.verify_nothing(response)
            return None
        return Checked() if await self.hasher.verify(response, record.proof) else None

    async def upgraded(self, record: Credential, response: str) -> Credential | None:
        if not self.hasher.needs_rehash(record.proof):
            return None
        return replace(record, proof=await self.hasher.hash(response))


class _Stored(msgspec.Struct, frozen=True, kw_only=True):
    """The parts of one of our PHC strings."""

    profile: Profile
    keyid: str
    salt: bytes
    tag: bytes

    def encode(self) -> str:
        keyid = f",keyid={self.keyid}" if self.keyid else ""
        cost = f"m={self.profile.memory},t={self.profile.passes},p={self.profile.lanes}{keyid}"
        return f"$argon2id$v=19${cost}${_b64(self.salt)}${_b64(self.tag)}"

    @classmethod
    def parse(cls, encoded: str) -> _Stored | None:
        """None if the hash is not Argon2id or exceeds the bounds of `legacy`, which then reports the fault."""
        match = _PHC.fullmatch(encoded) if len(encoded) <= legacy.MAX_ENCODED else None
        if match is None:
            return None
        memory, passes, lanes = int(match["m"]), int(match["t"]), int(match["p"])
        try:
            salt, tag = (base64.b64decode(match[part] + "=" * (-len(match[part]) % 4)) for part in ("salt", "tag"))
        except binascii.Error:
            return None
        if not (8 * lanes <= memory <= legacy.MAX_MEMORY_KIB and passes * memory <= legacy.MAX_ARGON2_WORK):
            return None
        profile = Profile(name="", memory=memory, passes=passes, lanes=lanes, source="")
        return cls(profile=profile, keyid=match["keyid"] or "", salt=salt, tag=tag)


_PHC = re.compile(
    r"\$argon2id\$v=19\$m=(?P<m>[1-9][0-9]{0,8}),t=(?P<t>[1-9][0-9]{0,8}),p=(?P<p>[1-9][0-9]{0,2})"
    r"(?:,keyid=(?P<keyid>[A-Za-z0-9+/]{1,11}))?\$(?P<salt>[A-Za-z0-9+/]{11,86})\$(?P<tag>[A-Za-z0-9+/]{22,86})"
)


def _derive(composed: str, profile: Profile, salt: bytes, length: int, pepper: bytes | None) -> bytes:
    return Argon2id(
        salt=salt,
        length=length,
        iterations=profile.passes,
        lanes=profile.lanes,
        memory_cost=profile.memory,
        secret=pepper,
    ).derive(composed.encode())


def _keyid(pepper: bytes) -> str:
    # Six bytes distinguish peppers and reveal nothing about them: a pepper is random and far longer.
    return _b64(hmac.digest(pepper, b"dutchdoor pepper id", "sha256")[:6])


def _b64(raw: bytes) -> str:
    return base64.b64encode(raw).decode().rstrip("=")


def _too_long(field: str) -> errors.InvalidInput:
    return errors.InvalidInput(
        mark("The password is too long: at most %(most)s bytes.", most=f"{MAX_BYTES:,}"), field=field
    )
