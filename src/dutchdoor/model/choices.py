"""Settings with a few possible values: a wrong one is refused when it is given, with the nearest right one."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Sequence
from typing import Final

from dutchdoor.errors import Misconfigured

__all__ = ["check_choice", "near", "nearest"]


LISTED: Final = 6
"""Choices that a message lists. Of more, it names the nearest."""


def nearest(value: object, known: Collection[str]) -> str:
    """Return the sentence that helps after a wrong name: the nearest right one, or all of them."""
    meant = near(value, known)
    return f"Did you mean {meant}?" if meant else f"It takes {', '.join(sorted(known))}."


def check_choice(value: object, known: Sequence[str], setting: str, *, noun: str = "one of its values") -> None:
    """Check a value of a `setting` that has choices. `noun` names them where they are too many to list.

    Raises:
        Misconfigured: it is none of them.
    """
    if isinstance(value, str) and value in known:
        return
    meant = near(value, known)
    hint = f' Did you mean "{meant}"?' if meant else ""
    if len(known) > LISTED:
        raise Misconfigured(f"{setting}: {value!r} is not {noun}.{hint}")
    *first, last = (f'"{name}"' for name in known)
    raise Misconfigured(f"{setting} is {', '.join(first)} or {last}, and not {value!r}.{hint}")


def near(value: object, known: Collection[str]) -> str:
    """Return the nearest of some names to a value, without regard to case; "" if none is near."""
    lowered = {name.casefold(): name for name in known}
    found = difflib.get_close_matches(str(value).casefold(), lowered, 1)
    return lowered[found[0]] if found else ""
