"""The only supported preference, `Prefer: wait=N` (RFC 7240): how long a revoking call may wait for its fence.

As in the RFC, an invalid preference is ignored, and of a repeated one the first counts. The response names the applied
preference in `Preference-Applied`. All other preferences are ignored.
"""

from __future__ import annotations

import re

__all__ = ["WAIT_AT_MOST", "wait_of"]

WAIT_AT_MOST = 30
"""Longest wait of a call, in seconds: below the minute after which most proxies time out."""

_HEADER_AT_MOST = 512
# A preference: a name, an optional value and optional parameters, up to the comma.
_WORD = r"(?:[!#$%&'*+.^_`|~0-9A-Za-z-]+|\"(?:[^\"\\]|\\.)*\")"
_PREFERENCE = re.compile(
    rf"[ \t,]*([!#$%&'*+.^_`|~0-9A-Za-z-]+)(?:[ \t]*=[ \t]*({_WORD}))?(?:[ \t]*;[^,\"]*)?[ \t]*(?:,|\Z)"
)
_SECONDS = re.compile(r"\"?([0-9]{1,9})\"?")


def wait_of(header: str | None) -> int | None:
    """Return the seconds of the wait preference, at most `WAIT_AT_MOST`, or None if the header has none."""
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
