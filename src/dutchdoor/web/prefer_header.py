"""The one preference we read, `Prefer: wait=N` (RFC 7240): how long a revoking call may wait for its fence.

A preference is a wish. What cannot be read, is out of range or is said twice is passed over, as the RFC has it, and the
answer names what was honoured in `Preference-Applied`. Left out: every other preference.
"""

from __future__ import annotations

import re

__all__ = ["WAIT_AT_MOST", "wait_of"]

WAIT_AT_MOST = 30
"""Seconds a call waits at most: below the minute after which proxies give up."""

_HEADER_AT_MOST = 512
# A preference: a name, perhaps a value, perhaps parameters behind it, up to the comma.
_WORD = r"(?:[!#$%&'*+.^_`|~0-9A-Za-z-]+|\"(?:[^\"\\]|\\.)*\")"
_PREFERENCE = re.compile(
    rf"[ \t,]*([!#$%&'*+.^_`|~0-9A-Za-z-]+)(?:[ \t]*=[ \t]*({_WORD}))?(?:[ \t]*;[^,\"]*)?[ \t]*(?:,|\Z)"
)
_SECONDS = re.compile(r"\"?([0-9]{1,9})\"?")


def wait_of(header: str | None) -> int | None:
    """Give the seconds that a Prefer header asks to wait, no more than `WAIT_AT_MOST`; None if it does not say."""
    if header is None or len(header) > _HEADER_AT_MOST:
        return None
    at = 0
    while at < len(header):
        found = _PREFERENCE.match(header, at)
        if found is None:
            return None
        if found[1].lower() == "wait":  # the first one counts
            seconds = _SECONDS.fullmatch(found[2] or "")
            return None if seconds is None else min(int(seconds[1]), WAIT_AT_MOST)
        at = found.end()
    return None
