"""Names that are one line of text, and text that can be normalised in linear time: Unicode's Stream-Safe Text Format
(UAX #15, section 13).

Normalising sorts each run of combining marks, and in CPython the sort is quadratic: a thousand marks in a row, two
kilobytes of an attacker's request, block the event loop for about ten milliseconds. No language stacks more than a few,
so Unicode sets the bound at thirty. A longer run is refused, not repaired: no person typed it.
"""

from __future__ import annotations

import unicodedata

from dutchdoor.errors import InvalidInput
from dutchdoor.texts import mark

__all__ = ["NAME_AT_MOST", "check_name", "is_stream_safe", "shown"]

NAME_AT_MOST = 200
"""Characters of a name."""

MARKS_IN_A_ROW = 30


def is_stream_safe(text: str) -> bool:
    """Whether no run of combining marks in `text`, decomposed, is longer than thirty.

    All spellings of one text give the same answer. Each character is decomposed separately, which takes linear time.
    The caller must bound the length of `text`.
    """
    if text.isascii():
        return True
    run = 0
    for character in text:
        for part in unicodedata.normalize("NFD", character):
            run = run + 1 if unicodedata.combining(part) else 0
            if run > MARKS_IN_A_ROW:
                return False
    return True


def check_name(text: str, *, at_most: int = NAME_AT_MOST) -> str:
    """Return a name as it is stored, without spaces around it. It may be empty.

    A name reaches terminals, logs and other people's pages: an escape sequence would move a cursor, and a bidirectional
    control would show an administrator another name than the stored one.

    Raises:
        InvalidInput: it is too long, or has a line break, a control or an invisible character.
    """
    text = text.strip(" ")
    if len(text) > at_most:
        raise InvalidInput(mark("A name has at most %(most)s characters.", most=at_most), field="name")
    if not text.translate(_JOINERS).isprintable():
        raise InvalidInput(mark("A name has no line breaks, control characters or invisible characters."), field="name")
    return text


def shown(text: str) -> str:
    """Return a client's text with a space for each character that is not printable."""
    return text if text.isprintable() else "".join(c if c.isprintable() else " " for c in text)


_JOINERS: dict[int, None] = dict.fromkeys((0x200C, 0x200D))
"""Invisible, but needed to write names in Persian and in Indian scripts."""
