"""Codes of an authenticator app: six digits that change every thirty seconds (TOTP, RFC 6238).

The shared secret is sealed with the master key, so that a stolen database makes no codes. Beside it stands the step of
the last code that was accepted: no code is accepted twice (RFC 6238, 5.2), nor one from before it. The clock of a phone
may be off by one step in each direction.
"""

from __future__ import annotations

import re
from hmac import compare_digest
from typing import Final

import pybase64
import pyotp
import pyotp.totp
from msgspec.structs import replace

from dutchdoor.credentials.base import Checked
from dutchdoor.errors import InvalidKey, Unavailable
from dutchdoor.model.accounts import Credential
from dutchdoor.model.master_key import MasterKeys

__all__ = ["TOTP", "Totp", "new_secret", "otpauth"]

TOTP: Final = "totp"
"""The method of the credential that is an authenticator app."""
PERIOD, DIGITS = 30, 6
DRIFT = 1
"""Steps by which a phone's clock may be off."""
_CODE = re.compile(r"[0-9]{6}")
_SECRET_CHARS = 32
_SHOWN_BYTES = 64


def new_secret() -> str:
    """Return a secret of 160 bits in base32, as RFC 4226 (4, R6) recommends and every app reads."""
    return pyotp.random_base32(_SECRET_CHARS)


def otpauth(secret: str, *, name: str, product: str) -> str:
    """Return the `otpauth:` address that an app scans: a `secret`, and under which `name` and `product` it is shown."""
    return pyotp.totp.TOTP(secret).provisioning_uri(name=_shown(name), issuer_name=_shown(product))


def _shown(text: str) -> str:
    # A QR code holds 2,331 bytes, and a character may take 12 of them. No phone shows a longer name.
    return text.encode()[:_SHOWN_BYTES].decode(errors="ignore")


class Totp:
    """Checks codes. `master` are the keys that seal the secrets."""

    name, amr, second = TOTP, "otp", True

    def __init__(self, master: MasterKeys) -> None:
        self._master = master
        self._nothing = new_secret()

    def enrolled(self, subject: str, secret: str, code: str, now: float) -> Credential | None:
        """Return the record for an app that shows the right code now, which uses it up; None if the code is wrong."""
        step = _accepted(secret, code, now, after=0)
        if step is None:
            return None
        return Credential(
            subject=subject, method=TOTP, handle="", proof=self._written(subject, secret, step), created_at=now
        )

    def handle_of(self, response: str) -> str:  # noqa: ARG002 - an account has one app
        return ""

    async def check(self, record: Credential | None, response: str, now: float) -> Checked | None:
        """Check a code. Raises `Unavailable` if the master key that sealed the secret is not configured."""
        if record is None:
            _accepted(self._nothing, response, now, after=0)
            return None
        secret, last = self._read(record)
        step = _accepted(secret, response, now, after=last)
        if step is None:
            return None
        return Checked(spent=replace(record, proof=self._written(record.subject, secret, step)))

    async def upgraded(self, record: Credential, response: str) -> Credential | None:  # noqa: ARG002
        return None  # each right code is written anew, under the current master key

    def _written(self, subject: str, secret: str, step: int) -> str:
        sealed = self._master.current.seal(secret.encode(), _name(subject))
        return f"{step}:{pybase64.urlsafe_b64encode(sealed).decode()}"

    def _read(self, record: Credential) -> tuple[str, int]:
        step, _, sealed = record.proof.partition(":")
        try:
            secret = self._master.open(pybase64.urlsafe_b64decode(sealed), _name(record.subject))
        except InvalidKey as exc:
            # Not a wrong code: the answer must not say so, and no limit may count it.
            raise Unavailable("the secret of an authenticator app does not open with this master key") from exc
        return secret.decode(), int(step)


def _accepted(secret: str, code: str, now: float, *, after: int) -> int | None:
    """Return the step of a right code, if it is later than `after`. Always does the same work."""
    typed = code.replace(" ", "") if len(code) <= 16 else ""  # noqa: PLR2004 - apps show the digits in groups
    if not _CODE.fullmatch(typed):
        typed = "------"
    made = pyotp.totp.TOTP(secret, digits=DIGITS, interval=PERIOD)
    current, found = int(now // PERIOD), None
    for step in range(current - DRIFT, current + DRIFT + 1):
        if compare_digest(made.generate_otp(max(step, 0)), typed) and step > after:
            found = step if found is None else found
    return found


def _name(subject: str) -> str:
    return f"totp {subject}"
