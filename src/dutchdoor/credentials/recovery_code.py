"""Recovery codes: ten codes on paper, each of which stands in for a lost second factor once.

A code has 120 random bits, so that a keyed hash is enough (ASVS 5.0, 6.5.2): what is stored cannot be searched for
codes, even with the master key. All codes of an account are one record, and the transaction that uses one swaps it: of
two uses of a code, one succeeds.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Sequence
from typing import Final

from msgspec.structs import replace

from dutchdoor.credentials.base import Checked
from dutchdoor.model.accounts import Credential
from dutchdoor.model.master_key import MasterKey, MasterKeys

__all__ = ["RECOVERY_CODE", "RecoveryCodes"]

RECOVERY_CODE: Final = "recovery_code"
"""The method of the credential that holds an account's recovery codes."""
HOW_MANY: Final = 10
# Crockford's base32 without I, L, O and U: none of them can be read as another.
_LETTERS = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_LENGTH, _GROUP = 24, 4
_READ_AS = str.maketrans({"O": "0", "I": "1", "L": "1", " ": None, "-": None})
_TYPED_AT_MOST = 64


class RecoveryCodes:
    """Creates and checks recovery codes. `master` are the keys under which they are hashed."""

    name, amr, second = RECOVERY_CODE, "otp", True

    def __init__(self, master: MasterKeys) -> None:
        self._master = master

    def issue(self, subject: str, now: float) -> tuple[Credential, tuple[str, ...]]:
        """Return a record with new codes, and the codes, which are shown this once."""
        codes = tuple("".join(secrets.choice(_LETTERS) for _ in range(_LENGTH)) for _ in range(HOW_MANY))
        key = self._master.current
        proof = " ".join([key.id.hex(), *(_hash(key, subject, code) for code in codes)])
        record = Credential(subject=subject, method=RECOVERY_CODE, handle="", proof=proof, created_at=now)
        return record, tuple(_in_groups(code) for code in codes)

    @staticmethod
    def left(record: Credential) -> int:
        """Return how many codes of a record are not used."""
        return len(record.proof.split()) - 1

    def handle_of(self, response: str) -> str:  # noqa: ARG002 - one record has them all
        return ""

    async def check(self, record: Credential | None, response: str, now: float) -> Checked | None:  # noqa: ARG002
        key_id, *hashes = [""] if record is None else record.proof.split()
        key = self._master.get(bytes.fromhex(key_id)) or self._master.current
        typed = response.upper().translate(_READ_AS) if len(response) <= _TYPED_AT_MOST else ""
        found = _hash(key, "" if record is None else record.subject, typed)
        right = [each for each in hashes if hmac.compare_digest(each, found)]
        if record is None or not right:
            return None
        kept: Sequence[str] = [each for each in hashes if each not in right]
        return Checked(spent=replace(record, proof=" ".join([key_id, *kept])))

    async def upgraded(self, record: Credential, response: str) -> Credential | None:  # noqa: ARG002
        return None  # a code that is used is gone


def _hash(key: MasterKey, subject: str, code: str) -> str:
    # With the subject in it, a hash that is copied into the record of another account is worth nothing.
    keyed = key.derive("recovery codes")
    return hmac.digest(keyed, f"{subject} {code}".encode(), "sha256")[:16].hex()


def _in_groups(code: str) -> str:
    return "-".join(code[at : at + _GROUP] for at in range(0, _LENGTH, _GROUP))
