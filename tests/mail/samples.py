"""Each letter with sample values, for tests and for screenshots.

`python -m tests.mail.samples FOLDER [LANGUAGE]` writes them as FOLDER/NAME.html and NAME.txt, to be looked at.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from dutchdoor.mail import Mail
from dutchdoor.mail.letters import Letters, Notice
from dutchdoor.model.http_client import Client, Device

TOKEN = "ddo1_canary-canary-canary"
NOW = 1_800_000_000.0
HERE = Client(address="192.0.2.1", country="NL", devices=Device(name="Firefox on Linux"))
LETTERS = Letters(product="Example & Sons", public_url="https://login.example.com/")
VALUES = {
    "token": TOKEN,
    "code": "482913",
    "valid_for": 1800.0,
    "client": HERE,
    "at": NOW,
    "until": NOW,
    "inviter": "Grace Hopper",
}


class Deed(NamedTuple):
    text: str
    at: float


DEEDS = [Deed("A webhook was added", NOW - 3600), Deed("An account was given roles", NOW - 90_000)]
METHODS = [name for name in vars(Letters) if not name.startswith("_") and name != "notice"]
NAMES = [*METHODS, *(notice.name.lower() for notice in Notice)]
"""A method of `Letters` is a letter, and so is a notice: a new one is among them."""


def letters(of: Letters = LETTERS, language: str = "", to: str = "ann@example.com") -> Iterator[tuple[str, Mail]]:
    """Write each letter that there is."""
    for name in METHODS:
        write = getattr(of, name)
        taken = inspect.signature(write).parameters
        yield name, write(to, **{key: value for key, value in VALUES.items() if key in taken}, language=language)
    for notice in Notice:
        deeds = DEEDS if notice is Notice.PASSWORD_RESET else ()
        yield notice.name.lower(), of.notice(notice, to, client=HERE, at=NOW, language=language, deeds=deeds)


if __name__ == "__main__":
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    for name, mail in letters(language="".join(sys.argv[2:3])):
        (folder / f"{name}.html").write_text(mail.html)
        (folder / f"{name}.txt").write_text(f"Subject: {mail.subject}\n\n{mail.text}")
