"""JSON for security decisions: RFC 8259 as restricted by RFC 7493 (I-JSON), and bounded.

One object, in UTF-8 without a byte order mark. No member name occurs twice at any depth. No NaN or Infinity, no number
beyond 64 bits, no nesting deeper than 32. Two readers cannot understand such a text differently. This stops an attack
in which a gateway reads the first `exp` and the server behind it reads the last.

msgspec parses the text, and this module counts members. The number of members *written* is the number of colons outside
strings; the number *understood* is the size of the dicts. They differ exactly when a name occurs twice. Left out:
errors with a position. A client that sends malformed JSON learns only that it is malformed.
"""

from __future__ import annotations

import math
import re
from typing import Any, Final

import msgspec

__all__ = ["MAX_DEPTH", "MalformedJSON", "check_value", "decode_object", "encode", "is_too_deep"]

MAX_DEPTH: Final = 32

_STRINGS = re.compile(rb'"(?:[^"\\]++|\\.)*+"', re.DOTALL)
_BRACKETS = re.compile(rb"[\[\]{}]")
_decode = msgspec.json.Decoder().decode
encode = msgspec.json.Encoder().encode
"""Write JSON without whitespace, members in the order given."""


class MalformedJSON(ValueError):
    """The text is not one strict JSON object. Its message names the rule, never the content."""


def is_too_deep(raw: bytes) -> bool:
    """Return whether a text nests deeper than `MAX_DEPTH`, without parsing it. Brackets inside strings do not count."""
    if raw.count(b"{") + raw.count(b"[") <= MAX_DEPTH:
        return False
    depth = 0
    for bracket in _BRACKETS.findall(_STRINGS.sub(b"", raw)):
        depth += 1 if bracket in b"{[" else -1
        if depth > MAX_DEPTH:
            return True
    return False


def decode_object(raw: bytes) -> dict[str, Any]:
    """Read one strict JSON object. The caller has bounded the length of `raw`.

    Raises:
        MalformedJSON: the text is anything else.
    """
    if is_too_deep(raw):
        raise MalformedJSON("JSON is nested too deep")
    try:
        value = _decode(raw)
    except (msgspec.MsgspecError, ValueError, OverflowError, RecursionError):
        # ValueError covers UnicodeDecodeError, and CPython's refusal of integers above 4,300 digits.
        raise MalformedJSON("not valid JSON") from None
    if type(value) is not dict:
        raise MalformedJSON("JSON is not an object")
    # The text is valid JSON here, so the pattern removes exactly its strings.
    if check_value(value) != _STRINGS.sub(b"", raw).count(b":"):
        raise MalformedJSON("a member name is used twice")
    return value


def check_value(value: object, depth: int = 0) -> int:
    """Count the members of a decoded value at every depth, and check its numbers on the way.

    Raises:
        MalformedJSON: a number beyond 64 bits or not finite, nesting too deep, or a type JSON does not have.
    """
    kind = type(value)
    if kind is str or kind is bool or value is None:
        return 0
    if kind is int:
        # A 4,000-digit integer is legal JSON; every comparison and every log line with it is expensive.
        if not -(2**63) <= value < 2**64:  # type: ignore[operator]
            raise MalformedJSON("a number is out of range")
        return 0
    if kind is float:
        if not math.isfinite(value):  # type: ignore[arg-type]  # our encoder would write it as null
            raise MalformedJSON("a number is not finite")
        return 0
    if depth >= MAX_DEPTH:
        raise MalformedJSON("JSON is nested too deep")
    members = 0
    if kind is dict:
        for name, child in value.items():  # type: ignore[attr-defined]
            if type(name) is not str:
                raise MalformedJSON("a member name is not a string")
            members += 1 + check_value(child, depth + 1)
        return members
    if kind is list or kind is tuple:
        for child in value:  # type: ignore[attr-defined]
            members += check_value(child, depth + 1)
        return members
    raise MalformedJSON("a value has no form in JSON")
