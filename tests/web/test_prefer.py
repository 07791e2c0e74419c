"""`Prefer: wait=N`: read as RFC 7240 has it, and passed over where it makes no sense."""

from __future__ import annotations

from functools import partial

import pytest
from tests.costs import cost

from dutchdoor.web.prefer_header import wait_of


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        ("wait=10", 10),
        ("respond-async, wait=5", 5),
        ("WAIT = 3 ", 3),
        ('wait="7"', 7),
        ("wait=0", 0),
        ("wait=31", 30),
        ("wait=999999999", 30),
        ("wait=1, wait=2", 1),
        ("wait=3; y=1, wait=9", 3),
        ('x="a, wait=3", wait=4', 4),
        ("x; y; z=1, wait=3", 3),
        (", ,wait=2,", 2),
        ("x,, ,wait=3", 3),
        ("x;wait=3", None),
        ("wait=", None),
        ("wait", None),
        ("wait=-1", None),
        ("wait=1.5", None),
        ("wait=ten", None),
        ("wait=9999999999", None),
        ("wait=٣", None),
        ("", None),
        (",,", None),
        ('x="', None),
        ("wait=3" + " " * 600, None),
        (None, None),
    ],
)
def test_a_wish_is_read_or_passed_over(header: str | None, seconds: int | None) -> None:
    """The first `wait` counts, within 30 seconds; anything that is no whole number of seconds is no wish."""
    assert wait_of(header) == seconds


@pytest.mark.parametrize("header", ["a" + ";" * 500 + '"', "a" + " ;" * 250 + '"', 'a="' + "\\" * 501, "a" * 511 + '"'])
def test_no_header_takes_long_to_read(header: str) -> None:
    """A header made to be read again and again is passed over as fast as any."""
    assert wait_of(header) is None
    assert cost(partial(wait_of, header)) < 0.05
