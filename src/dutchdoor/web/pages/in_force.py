"""Whether what a person has ended is refused everywhere by now, for the pages that say so."""

from __future__ import annotations

import math

from msgspec import Struct

from dutchdoor.web.api import Call
from dutchdoor.web.fences import WAIT_FOR

__all__ = ["InForce", "in_force"]


class InForce(Struct, frozen=True):
    """Whether everything that was ended until now is refused everywhere."""

    fenced: bool
    seconds: int | None
    """Seconds within which it is, at the latest; None if that is unknown, because a restore began another log."""


async def in_force(call: Call) -> InForce:
    """Return the state of all that was ended until now. It is asked for anew, not read from a link, and waits as long
    as the answer to an ending does.
    """
    fencing = call.authority.fencing
    found = await fencing.fence(await fencing.nothing_left(), wait=WAIT_FOR)
    due = found.due_in_ms(fencing.now())
    return InForce(found.fenced, None if due is None else math.ceil(due / 1000))
