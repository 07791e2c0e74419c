"""A made-up second factor, to show what one takes: this file, and one line where a directory is put together.

An account has a colour and a counter. A response is `colour counter`; each counter is accepted once, and none below it.
"""

from __future__ import annotations

from msgspec.structs import replace

from dutchdoor.credentials.base import Checked
from dutchdoor.model.accounts import Credential

__all__ = ["Colour", "enrolled"]


def enrolled(subject: str, colour: str, now: float) -> Credential:
    return Credential(subject=subject, method="colour", handle="", proof=f"{colour} 0", created_at=now)


class Colour:
    name, amr, second = "colour", "otp", True

    def handle_of(self, response: str) -> str:
        return ""

    async def check(self, record: Credential | None, response: str, now: float) -> Checked | None:
        right, last = record.proof.split() if record is not None else ("", "0")
        colour, _, count = response.partition(" ")
        if record is None or colour != right or not count.isdigit() or int(count) <= int(last):
            return None
        return Checked(spent=replace(record, proof=f"{right} {count}"))

    async def upgraded(self, record: Credential, response: str) -> Credential | None:
        return None
