"""Settings with a few possible values: a wrong one is refused when it is given, with the nearest right one."""

from __future__ import annotations

import difflib
from collections.abc import Collection

from dutchdoor.errors import Misconfigured

__all__ = ["check_choice", "nearest"]


def nearest(value: object, known: Collection[str]) -> str:
    """Return the sentence that helps after a wrong name: the nearest right one, or all of them."""
    lowered = {name.casefold(): name for name in known}
    near = difflib.get_close_matches(str(value).casefold(), lowered, 1)
    return f"Did you mean {lowered[near[0]]}?" if near else f"It takes {', '.join(sorted(known))}."


def check_choice(value: object, known: Collection[str], setting: str, *, noun: str = "one of its values") -> None:
    """Check a value of a `setting` that has choices.

    Raises:
        Misconfigured: it is none of them.
    """
    if not isinstance(value, str) or value not in known:
        raise Misconfigured(f"{setting}: {value!r} is not {noun}. {nearest(value, known)}")
