"""Names that are one line of text; and text that can be normalised in linear time, which is Unicode's Stream-Safe Text
Format (UAX #15, section 13).

Normalising sorts each run of combining marks, and in CPython the sort is quadratic: a thousand marks in a row, two
kilobytes of somebody's request, keep the event loop for some ten milliseconds. No language stacks more than a few, so
Unicode sets the bound at thirty. What exceeds it is refused rather than repaired: nobody typed it.
"""

from __future__ import annotations

import unicodedata

from dutchdoor.errors import InvalidInput

__all__ = ["NAME_AT_MOST", "check_name", "is_stream_safe", "shown"]

NAME_AT_MOST = 200
"""Characters of a name."""

MARKS_IN_A_ROW = 30


def is_stream_safe(text: str) -> bool:
    """Whether no run of combining marks in `text`, decomposed, is longer than thirty.

    All spellings of one text have the same answer. Each character is decomposed by itself, which takes linear time.
    Bound the length of `text` before the call.
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


def check_name(text: str, *, at_most: int = NAME_AT_MOST, field: str = "name") -> str:
    """Return a name as it is kept, without spaces around it. It may be empty.

    A name reaches terminals, logs and other people's pages: an escape sequence would move a cursor, a bidirectional
    control would show an administrator another name than the one that is there.

    Raises:
        InvalidInput: it is too long, or has a line break, a control or an invisible character.
    """
    text = text.strip(" ")
    if len(text) > at_most:
        raise InvalidInput(f"A name has at most {at_most} characters.", field=field)
    if not text.translate(_JOINERS).isprintable():
        raise InvalidInput("A name has no line breaks, control characters or invisible characters.", field=field)
    return text


def shown(text: str) -> str:
    """Return a text that a client or a header chose, with a space for each character that is not printed."""
    return text if text.isprintable() else "".join(c if c.isprintable() else " " for c in text)


_JOINERS: dict[int, None] = dict.fromkeys((0x200C, 0x200D))
"""Invisible, and part of how names are written in Persian and in Indian scripts."""
