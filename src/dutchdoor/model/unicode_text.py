"""Text that can be normalised in linear time: Unicode's Stream-Safe Text Format (UAX #15, section 13).

Normalising sorts each run of combining marks, and in CPython the sort is quadratic: a thousand marks in a row, two
kilobytes of somebody's request, keep the event loop for some ten milliseconds. No language stacks more than a few, so
Unicode sets the bound at thirty. What exceeds it is refused rather than repaired: nobody typed it.
"""

from __future__ import annotations

import unicodedata

__all__ = ["is_stream_safe"]

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
