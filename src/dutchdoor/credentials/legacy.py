"""Password hashes from other systems: recognised, bounded, and verified once so that they can be replaced.

Formats: the PHC string format for Argon2, scrypt and PBKDF2; the modular crypt format of bcrypt; passlib's PBKDF2 and
bcrypt-sha256; and those of Django, Werkzeug, Spring Security, Better Auth and Ory Kratos. PBKDF2 over HMAC-SHA-1 is
accepted: its strength is its count, and no attack on SHA-1 weakens it. A plain or salted single MD5, SHA-1 or SHA-2 is
refused by name: a graphics card tries tens of thousands of millions of these a second. The passwords of a leaked table
must be assumed known, so their owners must choose new passwords.

An imported hash names its own cost. An attacker who can add a row to an import could demand a terabyte of memory or an
hour of processor time at each log-in. So every parameter is bounded before any computation.

bcrypt reads 72 bytes, and in most implementations nothing after a NUL. Systems that passed it a longer password
accepted any ending. We do not: a longer password, or one with a NUL, never verifies against a plain bcrypt hash, and
its owner must reset it. Django's and passlib's bcrypt-sha256 have no such limit.

A hash does not say which Unicode form its password had: most systems hash what the keyboard sends. So `verify` tries
each form of the password: as typed, composed and decomposed. Better Auth composes by NFKC, and so does its format here.

Left out deliberately: creating such hashes. They are read, verified, and replaced at the first log-in.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import logging
import re
import unicodedata
from collections.abc import Callable
from typing import TypeAlias

import bcrypt
from cryptography.hazmat.primitives.kdf.argon2 import Argon2d, Argon2i, Argon2id

from dutchdoor import errors

__all__ = ["imported", "recognise", "verify"]

MAX_ENCODED = 512
"""Characters of the longest hash we read. The longest that a format here needs is about 250."""

MAX_MEMORY_KIB = 256 * 1024
"""KiB one verification may take: twice what OWASP's strongest scrypt row (N=2^17, r=8) needs."""

MAX_ARGON2_WORK = 1024 * 1024
"""KiB times passes: about a second. RFC 9106's second choice (64 MiB, t=3) takes a fifth of it."""

MAX_LANES = 255
"""Ory Kratos writes two lanes for each processor of its machine. Lanes divide the memory and add no work."""

MAX_SCRYPT_WORK = 2**22
"""N times r times p: about two seconds. OWASP's rows take 2^20 or less, Django's default 2^19.3."""

PBKDF2_ROUNDS = (1_000, 5_000_000)
"""RFC 8018's minimum, and about two seconds. With fewer rounds PBKDF2 is no better than a salted hash."""

ANY_LENGTH = (16, 64)
"""Bytes of a derived key in the formats that write keys longer or shorter than their digest."""

BCRYPT_COSTS = (4, 15)
"""bcrypt's minimum, and about two seconds. Each step doubles the time."""

BCRYPT_SEES = 72
"""Bytes of a password that bcrypt reads."""

Check: TypeAlias = Callable[[bytes], bool]

_log = logging.getLogger("dutchdoor.credentials")


def recognise(encoded: str) -> str:
    """Name the format of a password hash: `argon2id`, `bcrypt`, `bcrypt-sha256`, `pbkdf2-sha256`, `scrypt`, ...

    Raises:
        InvalidInput: a format we refuse (the message names it), an unknown format, or parameters out of bounds. The
            message never contains the hash.
    """
    return _read(encoded)[0]


def imported(encoded: str) -> str:
    """Return the text to store for an imported hash.

    Argon2 is stored in Django's spelling, which has `argon2` in front. Our own hashes are Argon2 too, but always of the
    composed password. Without the prefix, a password that was hashed decomposed would never match again.

    Raises:
        InvalidInput: as for `recognise`.
    """
    return encoded if not recognise(encoded).startswith("argon2") else f"argon2${encoded.partition('$')[2]}"


def verify(password: str, encoded: str) -> bool:
    """Whether `encoded` is the hash of a form of `password`. The caller has bounded the length of `password`.

    The time depends on the hash's parameters: about two seconds at most for each form. An ASCII password has one form,
    others at most three. All forms are always tried, so that the time reveals nothing about a match.

    Raises:
        InvalidInput: as for `recognise`.
    """
    check = _read(encoded)[1]
    forms = dict.fromkeys((password, unicodedata.normalize("NFC", password), unicodedata.normalize("NFD", password)))
    tried = [check(form.encode()) for form in forms]
    return any(tried)


def _read(encoded: str) -> tuple[str, Check]:
    if len(encoded) > MAX_ENCODED:
        raise _refusal("This is too long to be a password hash.")
    for pattern, reader in _READERS:
        if match := pattern.fullmatch(encoded):
            return reader(match)
    for pattern, name in _REFUSED:
        if pattern.fullmatch(encoded):
            raise _refusal(
                f"This is {name}. It can be guessed too fast to be a password hash and is refused. "
                "Its owner must choose a new password."
            )
    if ",keyid=" in encoded:
        raise _refusal("This hash needs a pepper that dutchdoor does not have.")
    if encoded.startswith(("!", "*")) or not encoded:
        raise _refusal("This account has no usable password.")
    raise _refusal("This is not a password hash in a known format.")


def _argon2(match: re.Match[str]) -> tuple[str, Check]:
    name = match["name"]
    memory, passes, lanes = int(match["m"]), int(match["t"]), int(match["p"])
    salt, tag = _b64(match["salt"]), _b64(match["tag"])
    _within(name, "memory", memory, 8 * lanes, MAX_MEMORY_KIB)
    _within(name, "passes", passes, 1, MAX_ARGON2_WORK // memory)
    _within(name, "lanes", lanes, 1, MAX_LANES)
    _within(name, "salt", len(salt), 8, 64)
    _within(name, "hash", len(tag), 16, 64)
    kdf = _ARGON2[name]

    def check(password: bytes) -> bool:
        made = kdf(salt=salt, length=len(tag), iterations=passes, lanes=lanes, memory_cost=memory).derive(password)
        return hmac.compare_digest(made, tag)

    return name, check


def _bcrypt(match: re.Match[str]) -> tuple[str, Check]:
    cost, salt, tag = match["cost"], match["salt"], match["tag"]
    _within("bcrypt", "cost", int(cost), *BCRYPT_COSTS)

    def check(password: bytes) -> bool:
        same = _bcrypt_same(password[:BCRYPT_SEES], cost, salt, tag)
        if len(password) > BCRYPT_SEES or b"\0" in password:
            # C09: the hash cannot distinguish this password from others with the same beginning. The work above was
            # done all the same, so that this refusal takes as much time as any other.
            if same:
                _log.info("refused: bcrypt sees no byte after the 72nd or a NUL, and the password has one; reset it")
            return False
        return same

    return "bcrypt", check


def _bcrypt_sha256_django(match: re.Match[str]) -> tuple[str, Check]:
    cost, salt, tag = match["cost"], match["salt"], match["tag"]
    _within("bcrypt-sha256", "cost", int(cost), *BCRYPT_COSTS)
    return "bcrypt-sha256", lambda password: _bcrypt_same(
        hashlib.sha256(password).hexdigest().encode(), cost, salt, tag
    )


def _bcrypt_sha256_passlib(match: re.Match[str]) -> tuple[str, Check]:
    cost, salt, tag = match["cost"].zfill(2), match["salt"], match["tag"]
    _within("bcrypt-sha256", "cost", int(cost), *BCRYPT_COSTS)

    def check(password: bytes) -> bool:
        # Version 2 keys the inner hash with the salt, so that an attacker cannot try a leaked table of plain SHA-256
        # hashes against bcrypt directly ("password shucking").
        inner = hmac.digest(salt.encode(), password, "sha256") if match["v"] else hashlib.sha256(password).digest()
        return _bcrypt_same(base64.b64encode(inner), cost, salt, tag)

    return "bcrypt-sha256", check


def _pbkdf2(
    digest: str, rounds: int, salt: bytes, tag: bytes, *, lengths: tuple[int, int] | None = None
) -> tuple[str, Check]:
    name, size = f"pbkdf2-{digest}", hashlib.new(digest).digest_size
    _within(name, "rounds", rounds, *PBKDF2_ROUNDS)
    _within(name, "salt", len(salt), 1, 128)
    # Most formats never have a longer output, which costs work, or a shorter one, which is easier to match.
    _within(name, "hash", len(tag), *(lengths or (size, size)))
    # Each further block of the output costs all rounds again.
    _within(name, "work", rounds * -(-len(tag) // size), 0, PBKDF2_ROUNDS[1])

    def check(password: bytes) -> bool:
        return hmac.compare_digest(hashlib.pbkdf2_hmac(digest, password, salt, rounds, len(tag)), tag)

    return name, check


def _scrypt(n: int, r: int, p: int, salt: bytes, tag: bytes) -> tuple[str, Check]:
    _within("scrypt", "r", r, 1, 64)
    # RFC 7914 section 2: N is a power of two and less than 2^(128 * r / 8).
    _within("scrypt", "N", n, 2, min(2**24, 2 ** (16 * r) - 1))
    if n & (n - 1):
        raise _refusal("This scrypt hash has an N that is not a power of two.")
    _within("scrypt", "p", p, 1, 64)
    _within("scrypt", "memory", n * r // 8, 0, MAX_MEMORY_KIB)
    _within("scrypt", "work", n * r * p, 2**14, MAX_SCRYPT_WORK)
    _within("scrypt", "salt", len(salt), 1, 128)
    _within("scrypt", "hash", len(tag), 16, 64)
    # OpenSSL refuses more than 32 MiB unless it gets a limit: 128 * r * (N + p + 2) bytes, and a little for itself.
    allowance = 128 * r * (n + p + 2) + 65_536

    def check(password: bytes) -> bool:
        made = hashlib.scrypt(password, salt=salt, n=n, r=r, p=p, dklen=len(tag), maxmem=allowance)
        return hmac.compare_digest(made, tag)

    return "scrypt", check


def _scrypt_ln(ln: int, r: int, p: int, salt: bytes, tag: bytes) -> tuple[str, Check]:
    _within("scrypt", "ln", ln, 1, 24)
    return _scrypt(2**ln, r, p, salt, tag)


def _pbkdf2_django(match: re.Match[str]) -> tuple[str, Check]:
    return _pbkdf2(match["digest"], int(match["rounds"]), match["salt"].encode(), _b64(match["tag"]))


def _pbkdf2_werkzeug(match: re.Match[str]) -> tuple[str, Check]:
    return _pbkdf2(match["digest"], int(match["rounds"]), match["salt"].encode(), bytes.fromhex(match["tag"]))


def _pbkdf2_passlib(match: re.Match[str]) -> tuple[str, Check]:
    salt, tag = (_b64(match[part].replace(".", "+")) for part in ("salt", "tag"))
    return _pbkdf2(match["digest"] or "sha1", int(match["rounds"]), salt, tag)


def _pbkdf2_phc(match: re.Match[str]) -> tuple[str, Check]:
    salt, tag = _b64(match["salt"]), _b64(match["tag"])
    return _pbkdf2(match["digest"], int(match["rounds"]), salt, tag, lengths=ANY_LENGTH)


def _pbkdf2_spring(match: re.Match[str]) -> tuple[str, Check]:
    # The hash does not contain the count: these are the defaults that the two names stand for.
    digest, rounds, salt = ("sha256", 310_000, 16) if match["v"] else ("sha1", 185_000, 8)
    raw = bytes.fromhex(match["both"])
    return _pbkdf2(digest, rounds, raw[:salt], raw[salt:], lengths=(32, 32))


def _scrypt_django(match: re.Match[str]) -> tuple[str, Check]:
    return _scrypt(int(match["n"]), int(match["r"]), int(match["p"]), match["salt"].encode(), _b64(match["tag"]))


def _scrypt_werkzeug(match: re.Match[str]) -> tuple[str, Check]:
    salt, tag = match["salt"].encode(), bytes.fromhex(match["tag"])
    return _scrypt(int(match["n"]), int(match["r"]), int(match["p"]), salt, tag)


def _scrypt_phc(match: re.Match[str]) -> tuple[str, Check]:
    # `ln` is the logarithm of N. Ory Kratos writes N itself there, which is always larger than a logarithm.
    ln, r, p, salt, tag = int(match["ln"]), int(match["r"]), int(match["p"]), _b64(match["salt"]), _b64(match["tag"])
    return _scrypt_ln(ln, r, p, salt, tag) if ln < 100 else _scrypt(ln, r, p, salt, tag)  # noqa: PLR2004


def _scrypt_spring(match: re.Match[str]) -> tuple[str, Check]:
    packed = int(match["packed"], 16)
    return _scrypt_ln(packed >> 16, packed >> 8 & 255, packed & 255, _b64(match["salt"]), _b64(match["tag"]))


def _scrypt_better_auth(match: re.Match[str]) -> tuple[str, Check]:
    # The salt is the hexadecimal text, not the bytes it stands for, and the password is composed by NFKC.
    name, check = _scrypt(16_384, 16, 1, match["salt"].encode(), bytes.fromhex(match["tag"]))
    return name, lambda password: check(unicodedata.normalize("NFKC", password.decode()).encode())


def _bcrypt_same(password: bytes, cost: str, salt: str, tag: str) -> bool:
    # The salt's last character holds two bits and four spare ones. Some generators left those set; the library refuses
    # them, although the hash is the same. $2a$, $2b$ and $2y$ differ in bugs fixed long ago and mean the same in every
    # correct implementation; $2x$ marks the faulty one and is not read.
    clean = salt[:-1] + _BCRYPT64[_BCRYPT64.index(salt[-1]) & 0b110000]
    made = bcrypt.hashpw(password, f"$2b${cost}${clean}".encode())
    return hmac.compare_digest(made[-31:], tag.encode())


def _b64(text: str) -> bytes:
    try:
        return base64.b64decode(text.rstrip("=") + "=" * (-len(text.rstrip("=")) % 4), validate=True)
    except binascii.Error as exc:
        raise _refusal("This password hash has a damaged part.") from exc


def _within(name: str, what: str, value: int, least: int, most: int) -> None:
    if not least <= value <= most:
        raise _refusal(f"This {name} hash has a parameter out of bounds: {what} is {value}, not {least} to {most}.")


def _refusal(message: str) -> errors.InvalidInput:
    return errors.InvalidInput(message, field="password_hash")


_BCRYPT64 = "./ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789"

_ARGON2: dict[str, type[Argon2d | Argon2i | Argon2id]] = {"argon2d": Argon2d, "argon2i": Argon2i, "argon2id": Argon2id}

_B64 = r"[A-Za-z0-9+/]{8,128}={0,2}"
_AB64 = r"[A-Za-z0-9./]{4,180}"
_BCRYPT = r"(?P<salt>[A-Za-z0-9./]{22})(?P<tag>[A-Za-z0-9./]{31})"
_TEXT_SALT = r"(?P<salt>[!-#%-~]{1,128})"
_NUMBER = r"[1-9][0-9]{0,9}"

_READERS: list[tuple[re.Pattern[str], Callable[[re.Match[str]], tuple[str, Check]]]] = [
    (re.compile(pattern), reader)
    for pattern, reader in [
        (
            (
                rf"(?:argon2|\{{argon2(?:@SpringSecurity_v5_8)?\}})?\$(?P<name>argon2(?:id|i|d))\$v=19\$m=(?P<m>{_NUMBER}),t=(?P<t>{_NUMBER}),p=(?P<p>{_NUMBER})"
                rf"\$(?P<salt>{_B64})\$(?P<tag>{_B64})"
            ),
            _argon2,
        ),
        (rf"(?:bcrypt\$|\{{bcrypt\}})?\$2[aby]\$(?P<cost>[0-9]{{2}})\${_BCRYPT}", _bcrypt),
        (rf"bcrypt_sha256\$\$2[aby]\$(?P<cost>[0-9]{{2}})\${_BCRYPT}", _bcrypt_sha256_django),
        (
            (
                r"\$bcrypt-sha256\$(?:(?P<v>v=2,)t=2b,r=|2[ab],)(?P<cost>[0-9]{1,2})"
                r"\$(?P<salt>[A-Za-z0-9./]{22})\$(?P<tag>[A-Za-z0-9./]{31})"
            ),
            _bcrypt_sha256_passlib,
        ),
        (
            rf"pbkdf2_(?P<digest>sha1|sha256)\$(?P<rounds>{_NUMBER})\${_TEXT_SALT}\$(?P<tag>[A-Za-z0-9+/]{{8,128}}={{0,2}})",
            _pbkdf2_django,
        ),
        (
            (
                rf"pbkdf2:(?P<digest>sha1|sha224|sha256|sha384|sha512):(?P<rounds>{_NUMBER})\${_TEXT_SALT}"
                r"\$(?P<tag>(?:[0-9a-f]{2}){16,64})"
            ),
            _pbkdf2_werkzeug,
        ),
        (
            rf"\$pbkdf2(?:-(?P<digest>sha256|sha512))?\$(?P<rounds>{_NUMBER})\$(?P<salt>{_AB64})\$(?P<tag>{_AB64})",
            _pbkdf2_passlib,
        ),
        (
            (
                rf"\$pbkdf2-(?P<digest>sha1|sha224|sha256|sha384|sha512)\$i=(?P<rounds>{_NUMBER})(?:,l={_NUMBER})?"
                rf"\$(?P<salt>{_B64})\$(?P<tag>{_B64})"
            ),
            _pbkdf2_phc,
        ),
        (r"\{pbkdf2(?P<v>@SpringSecurity_v5_8)?\}(?P<both>(?:[0-9a-f]{2}){40,48})", _pbkdf2_spring),
        (
            (
                rf"scrypt\$(?P<n>{_NUMBER})\${_TEXT_SALT}\$(?P<r>{_NUMBER})\$(?P<p>{_NUMBER})"
                r"\$(?P<tag>[A-Za-z0-9+/]{16,128}={0,2})"
            ),
            _scrypt_django,
        ),
        (
            (
                rf"scrypt:(?P<n>{_NUMBER}):(?P<r>{_NUMBER}):(?P<p>{_NUMBER})\${_TEXT_SALT}"
                r"\$(?P<tag>(?:[0-9a-f]{2}){16,64})"
            ),
            _scrypt_werkzeug,
        ),
        (
            (
                rf"\$scrypt\$ln=(?P<ln>{_NUMBER}),r=(?P<r>{_NUMBER}),p=(?P<p>{_NUMBER})"
                rf"\$(?P<salt>{_B64})\$(?P<tag>{_B64})"
            ),
            _scrypt_phc,
        ),
        (
            (
                r"(?:\{scrypt(?:@SpringSecurity_v5_8)?\})?\$(?P<packed>[0-9a-f]{5,6})"
                rf"\$(?P<salt>{_B64})\$(?P<tag>{_B64})"
            ),
            _scrypt_spring,
        ),
        (r"(?P<salt>[0-9a-f]{32}):(?P<tag>[0-9a-f]{128})", _scrypt_better_auth),
    ]
]

_REFUSED: list[tuple[re.Pattern[str], str]] = [
    (re.compile(pattern, re.IGNORECASE | re.DOTALL), name)
    for pattern, name in [
        (r"[0-9a-f]{32}|(?:unsalted_)?md5\$.*|\{s?md5\}.*|pbkdf2:md5.*", "an MD5 or NTLM hash"),
        (r"\$(?:1|apr1|md5|md5-crypt|P|H)\$.*", "an MD5-based crypt or phpass hash"),
        (r"\*?[0-9a-f]{40}|(?:unsalted_)?sha1\$.*|\{(?:ldap|s?sha|sha-1)\}.*", "a SHA-1 hash"),
        (r"\$sha1\$.*", "a SHA-1-based crypt hash"),
        (
            (
                r"[0-9a-f]{64}|[0-9a-f]{96}|[0-9a-f]{128}|\$?(?:sha224|sha256|sha384|sha512)\$.*"
                r"|\{s?sha-?(?:256|384|512)\}.*"
            ),
            "a plain SHA-2 hash",
        ),
        (r"\$(?:3|NT)\$.*|\{md4\}.*", "an NTLM (MD4) hash"),
        (r"crypt\$.*|[./0-9a-z]{13}|_[./0-9a-z]{19}", "a DES crypt hash"),
        (r"\$2x?\$.*", "a hash of the bcrypt version with a known flaw"),
        (r"plain(?:text)?\$.*|\{(?:noop|(?:plain|clear)(?:text)?)\}.*", "a password in plain text"),
    ]
]
