"""Hashes other systems made (credentials/legacy.py): C08 and C09, and what an import may not make us do."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import json
import logging
import unicodedata
from pathlib import Path

import bcrypt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.costs import cost

from dutchdoor import errors
from dutchdoor.credentials import legacy

# Written by the libraries that own the formats; `made_by` says which and in what version.
VECTORS = json.loads(Path(__file__).parents[1].joinpath("vectors").joinpath("legacy_password_hashes.json").read_text())
FIRST = {(v["made_by"], v["format"]): v for v in reversed(VECTORS["verified"])}.values()
"""One of each library's hashes. Each takes what a password should take, so `make test` opens these only."""
COSTLIEST = ("m=131072", "m=65536", "r=12$", "2a,12$")
"""Parts of those that take most, of formats that another library's hash has too."""
VERIFIED = [
    pytest.param(
        v,
        id=f"{v['made_by']}, {v['format']}, {len(v['password'])}",
        marks=[] if v in FIRST and not any(part in v["encoded"] for part in COSTLIEST) else pytest.mark.long,
    )
    for v in VECTORS["verified"]
]
CHEAP = [v for v in VECTORS["verified"] if v["format"].startswith(("argon2", "bcrypt")) and "m=1024" in v["encoded"]]
CHEAP += [v for v in VECTORS["verified"] if "$05$" in v["encoded"]]
REFUSED = [pytest.param(v["said"], v["encoded"], id=v["encoded"][:24] or "empty") for v in VECTORS["refused"]]

SALT22 = "CCCCCCCCCCCCCCCCCCCCC."
B64_32 = base64.b64encode(bytes(32)).decode()
RAW_32 = B64_32.rstrip("=")


@pytest.mark.parametrize("vector", VERIFIED)
def test_c08_a_hash_by_its_own_library_verifies(vector: dict[str, str]) -> None:
    """C08: what the libraries of these formats wrote is recognised and verifies, and nothing but its password does."""
    password = vector["password"]
    assert vector["format"] == legacy.recognise(vector["encoded"])
    assert legacy.verify(password, vector["encoded"])
    assert not legacy.verify(password + " ", vector["encoded"])


@pytest.mark.parametrize("vector", CHEAP)
def test_c08_an_empty_password_is_no_password(vector: dict[str, str]) -> None:
    """C08: nothing typed opens nothing."""
    assert not legacy.verify("", vector["encoded"])


@pytest.mark.parametrize(("said", "encoded"), REFUSED)
def test_c08_a_hash_too_fast_to_be_one_is_refused_by_name(said: str, encoded: str) -> None:
    """C08: MD5, SHA-1 and their like are refused with their name, and the message does not carry the hash along."""
    with pytest.raises(errors.InvalidInput, match=said) as refusal:
        legacy.recognise(encoded)
    assert refusal.value.field == "password_hash"
    if encoded:
        assert encoded not in str(refusal.value) + refusal.value.reason
    with pytest.raises(errors.InvalidInput):
        legacy.verify("x", encoded)


def test_c09_bcrypt_never_stands_for_a_longer_password(caplog: pytest.LogCaptureFixture) -> None:
    """C09: a bcrypt hash of a truncated password opens for no password of more than 72 bytes, and the log says why."""
    first = "x" * 72 + "the first"
    second = "x" * 72 + "the other"
    encoded = bcrypt.hashpw(first[:72].encode(), bcrypt.gensalt(4)).decode()
    caplog.set_level(logging.INFO, "dutchdoor.credentials")
    assert legacy.verify(first[:72], encoded)
    assert caplog.text == ""
    assert not legacy.verify(first, encoded)
    assert not legacy.verify(second, encoded)
    assert "72" in caplog.text
    assert "x" * 9 not in caplog.text


def test_c09_the_72_are_bytes_and_not_characters() -> None:
    """C09: 24 characters of three bytes fill bcrypt, and a 25th is refused."""
    encoded = bcrypt.hashpw(("密" * 24).encode(), bcrypt.gensalt(4)).decode()
    assert legacy.verify("密" * 24, encoded)
    assert not legacy.verify("密" * 25, encoded)


@pytest.mark.parametrize("typed", ["abc\0abc", "abc\0", "abc\0def", "\0abc", "abc"])
def test_c09_bcrypt_does_not_stop_at_a_nul(typed: str) -> None:
    """C02, C09: bcrypt stops at a NUL or repeats its key after one; `abc`, NUL, `abc` is not `abc` all the same."""
    encoded = bcrypt.hashpw(b"abc", bcrypt.gensalt(4)).decode()
    assert (typed == "abc") == legacy.verify(typed, encoded)


def test_c09_bcrypt_over_sha256_has_no_such_limit() -> None:
    """C09: Django's bcrypt_sha256 tells 80-byte passwords apart that share their first 72, and those with a NUL."""
    for password in ("x" * 72 + "the first", "abc\0def"):
        inner = bcrypt.hashpw(hashlib.sha256(password.encode()).hexdigest().encode(), bcrypt.gensalt(4)).decode()
        assert legacy.verify(password, f"bcrypt_sha256${inner}")
        assert not legacy.verify(password[:-1] + "!", f"bcrypt_sha256${inner}")


def test_a_bcrypt_salt_with_its_spare_bits_set_verifies() -> None:
    """A salt's last character holds two bits and four spare ones; hashes by hand-made generators have those set."""
    encoded = bcrypt.hashpw(b"abc", f"$2b$04${SALT22}".encode()).decode()
    assert legacy.verify("abc", encoded.replace(SALT22, SALT22[:-1] + "/"))


@pytest.mark.parametrize(
    "encoded",
    [
        f"$argon2id$v=19$m=4194304,t=1,p=1${RAW_32}${RAW_32}",
        f"$argon2id$v=19$m=262144,t=1000,p=1${RAW_32}${RAW_32}",
        f"$argon2id$v=19$m=9999999999,t=9999999999,p=1${RAW_32}${RAW_32}",
        f"$argon2id$v=19$m=65536,t=1,p=1000${RAW_32}${RAW_32}",
        f"$argon2id$v=19$m=8,t=1,p=4${RAW_32}${RAW_32}",
        f"$2b$31${SALT22}{'a' * 31}",
        f"$2b$16${SALT22}{'a' * 31}",
        f"$2b$03${SALT22}{'a' * 31}",
        f"bcrypt_sha256$$2b$31${SALT22}{'a' * 31}",
        f"$bcrypt-sha256$v=2,t=2b,r=31${SALT22}${'a' * 31}",
        f"pbkdf2_sha256$9999999999$salt${B64_32}",
        f"pbkdf2_sha256$999$salt${B64_32}",
        f"pbkdf2:sha512:5000001$salt${'00' * 64}",
        f"$pbkdf2-sha256$100000000${RAW_32}${RAW_32}",
        f"pbkdf2:sha1:2000$salt${'00' * 64}",
        f"pbkdf2:sha512:2000$salt${'00' * 16}",
        f"scrypt:1073741824:8:1$salt${'00' * 64}",
        f"scrypt:32768:64:64$salt${'00' * 64}",
        f"scrypt:2:1:1$salt${'00' * 64}",
        f"scrypt:32767:8:1$salt${'00' * 64}",
        f"scrypt:32768:9999999999:1$salt${'00' * 64}",
        f"scrypt$16384$salt$8$1000${B64_32}",
        f"$scrypt$ln=99,r=8,p=1${RAW_32}${RAW_32}",
        f"$scrypt$ln=30,r=8,p=1${RAW_32}${RAW_32}",
        f"$scrypt$ln=14,r=8,p=1${RAW_32}{'A' * 90}${RAW_32}",
        f"$scrypt$ln=1073741824,r=8,p=1${RAW_32}${RAW_32}",
        f"$scrypt$ln=16383,r=8,p=1${RAW_32}${RAW_32}",
        f"{{scrypt}}$1e0801${RAW_32}${RAW_32}",
        f"{{scrypt}}$ffffff${RAW_32}${RAW_32}",
        f"{{scrypt}}$e0000${RAW_32}${RAW_32}",
        f"{{bcrypt}}$2a$31${SALT22}{'a' * 31}",
        f"{{argon2}}$argon2id$v=19$m=4194304,t=1,p=1${RAW_32}${RAW_32}",
        f"$argon2id$v=19$m=65536,t=1,p=256${RAW_32}${RAW_32}",
        f"$pbkdf2-sha256$i=9999999999,l=32${RAW_32}${RAW_32}",
        # Four pieces of SHA-1 take four times the rounds.
        f"$pbkdf2-sha1$i=1300000,l=64${RAW_32}${'A' * 86}",
        f"$pbkdf2-sha256$i=27500,l=8${RAW_32}${'A' * 11}",
        f"$pbkdf2-sha256$i=999,l=32${RAW_32}${RAW_32}",
        "pbkdf2_sha256$20000$" + "s" * 600 + f"${B64_32}",
    ],
)
def test_an_imported_hash_cannot_name_a_ruinous_cost(encoded: str) -> None:
    """A row in an import asks for neither a terabyte nor an hour nor next to nothing; it is refused unopened."""

    def is_refused() -> None:
        with pytest.raises(errors.InvalidInput):
            legacy.verify("x", encoded)

    assert cost(is_refused) < 0.05


@pytest.mark.parametrize(
    "encoded",
    [
        f"$argon2id$v=16$m=1024,t=1,p=1${RAW_32}${RAW_32}",
        f"$argon2id$m=1024,t=1,p=1${RAW_32}${RAW_32}",
        f"$argon2id$v=19$m=01024,t=1,p=1${RAW_32}${RAW_32}",
        f"$argon2id$v=19$m=1024,t=1,p=1${RAW_32}A${RAW_32}AA",
        f"$argon2id$v=19$m=١٠٢٤,t=1,p=1${RAW_32}${RAW_32}",
        f"$argon2id$v=19$m=1024,t=1,p=1${RAW_32}${RAW_32}\n",
        f"\n$2b$05${SALT22}{'a' * 31}",
        f"$2b$05${SALT22}{'a' * 30}",
        f"$2b$5${SALT22}{'a' * 31}",
        f"pbkdf2_sha256$20000$${B64_32}",
        f"pbkdf2_sha256$20000$a$b${B64_32}",
        f"pbkdf2_md5$20000$salt${B64_32}",
        f"pbkdf2_sha256$-20000$salt${B64_32}",
        f"scrypt:32768:8:1$salt${'0' * 63}",
        f"scrypt:32768:8:1$salt${'zz' * 64}",
        "$y$j9T$salt$hash",
        "$6$rounds=5000$salt$hash",
        "{pbkdf2}" + "0" * 78,
        "{pbkdf2}" + "0" * 96,
        "{pbkdf2@SpringSecurity_v5_8}" + "0" * 80,
        "{pbkdf2@SpringSecurity_v6_0}" + "0" * 96,
        "0" * 80,
        f"{{bcrypt}}{{bcrypt}}$2a$05${SALT22}{'a' * 31}",
        f"{{custom}}$2a$05${SALT22}{'a' * 31}",
        f"{'0' * 30}:{'0' * 128}",
        f"{'0' * 32}:{'0' * 126}",
        f"{'0' * 32}:{'0' * 128}:",
        f"$pbkdf2-sha256$i=27500,l=32${RAW_32}$",
        f"$pbkdf2-md5$i=27500,l=32${RAW_32}${RAW_32}",
    ],
)
def test_what_is_not_exactly_a_known_format_is_refused(encoded: str) -> None:
    """A damaged, older or foreign hash is refused at the import, where an administrator can still act."""
    with pytest.raises(errors.InvalidInput):
        legacy.recognise(encoded)


@given(st.text(max_size=600) | st.text(alphabet="$:{}=,./@0123456789abcdefmdshargon2pbkvtil", max_size=120))
def test_no_text_makes_recognise_fail_in_another_way(encoded: str) -> None:
    """Whatever stands in an import's column, the answer is a name or InvalidInput."""
    with contextlib.suppress(errors.InvalidInput):
        assert legacy.recognise(encoded)


@pytest.mark.parametrize("vector", VERIFIED)
def test_what_is_stored_for_an_import_verifies_as_what_was_given(vector: dict[str, str]) -> None:
    """The stored spelling has the format of the one in the file, and storing it again changes nothing."""
    stored = legacy.imported(vector["encoded"])
    assert legacy.recognise(stored) == vector["format"]
    assert legacy.imported(stored) == stored
    if stored != vector["encoded"]:
        assert legacy.verify(vector["password"], stored)


def test_c04_each_unicode_form_of_a_password_is_tried() -> None:
    """C04: a hash of the composed, the decomposed or a mixed spelling verifies, whichever form is typed."""
    composed = unicodedata.normalize("NFC", "žluťoučký kůň")
    decomposed = unicodedata.normalize("NFD", composed)
    mixed = composed[:4] + unicodedata.normalize("NFD", composed[4:])
    for made_from, opened_by in [
        (composed, [composed, decomposed, mixed]),
        (decomposed, [composed, decomposed, mixed]),
        (mixed, [mixed]),
    ]:
        encoded = bcrypt.hashpw(made_from.encode(), bcrypt.gensalt(4)).decode()
        for typed in (composed, decomposed, mixed):
            assert legacy.verify(typed, encoded) == (typed in opened_by)
        assert not legacy.verify(composed[:-1], encoded)


def test_c10_the_number_of_tries_depends_on_the_password_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """C10: right and wrong passwords take the same number of hashes: one in ASCII, three at most."""
    tries = []
    hashpw = bcrypt.hashpw
    monkeypatch.setattr(bcrypt, "hashpw", lambda password, salt: tries.append(password) or hashpw(password, salt))
    encoded = hashpw("é\u0065\u0301".encode(), bcrypt.gensalt(4)).decode()
    for typed, expected in [("é\u0065\u0301", 3), ("ó\u006f\u0301", 3), ("éé", 2), ("e", 1), ("密", 1)]:
        tries.clear()
        legacy.verify(typed, encoded)
        assert len(tries) == expected


def test_better_auth_composes_compatibility_letters() -> None:
    """A Better Auth hash verifies for each spelling that NFKC makes one, and other formats keep those apart."""
    salt = "00" * 16
    tag = hashlib.scrypt(b"final", salt=salt.encode(), n=16384, r=16, p=1, dklen=64, maxmem=2**26)
    assert legacy.verify("ﬁnal", f"{salt}:{tag.hex()}")
    assert not legacy.verify("ﬁnal", bcrypt.hashpw(b"final", bcrypt.gensalt(4)).decode())


@pytest.mark.parametrize(
    ("n", "r", "p"),
    [
        *[(2**15, 1, 1), (2**14, 1, 1), (2**8, 64, 1), (4, 64, 64)],
        pytest.param(2**15, 64, 1, marks=pytest.mark.long),
    ],
)
def test_scrypt_verifies_at_the_edges_of_its_bounds(n: int, r: int, p: int) -> None:
    """What the bounds let through is computed, not refused by the library underneath in its own words."""
    tag = hashlib.scrypt(b"abc", salt=b"salt", n=n, r=r, p=p, dklen=64, maxmem=2**29)
    assert legacy.verify("abc", f"scrypt:{n}:{r}:{p}$salt${tag.hex()}")


def test_scrypt_beyond_its_bounds_is_refused() -> None:
    """One step above what the bounds let through is refused."""
    with pytest.raises(errors.InvalidInput):
        legacy.recognise(f"scrypt:65536:1:1$salt${'00' * 64}")


@given(st.sampled_from(CHEAP), st.data())
def test_no_damage_makes_verify_fail_in_another_way(vector: dict[str, str], data: st.DataObject) -> None:
    """One character changed anywhere gives a refusal or an answer, never another exception."""
    encoded = vector["encoded"]
    place = data.draw(st.integers(0, len(encoded) - 1))
    # No digit: it would raise the cost to one that is allowed, and slow.
    damaged = encoded[:place] + data.draw(st.sampled_from("$:=,Az/+. \0é")) + encoded[place + 1 :]
    with contextlib.suppress(errors.InvalidInput):
        legacy.verify(vector["password"], damaged)
