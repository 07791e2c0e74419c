"""`docs/contributing/requirements.md` is true: every promise has a test, and every test it names is there."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "contributing" / "requirements.md").read_text()


def numbered(letter: str, *spans: tuple[int, int]) -> list[str]:
    return [f"{letter}{number:02}" for first, last in spans for number in range(first, last + 1)]


CLAIMED = [
    *numbered("C", (1, 12)),
    *numbered("S", (1, 22), (24, 25)),
    *numbered("J", (1, 17)),
    *numbered("O", (1, 5)),
    *numbered("P", (1, 6), (9, 9), (20, 22), (30, 31)),
    *numbered("I-", (1, 3), (5, 11), (17, 20), (23, 23), (25, 25)),
]
"""What this release claims. Taking one off the list is taking a promise back."""


TESTS = {
    str(path.relative_to(ROOT)): set(re.findall(r"^(?:async )?def (test_\w+)", path.read_text(), re.MULTILINE))
    for path in sorted((ROOT / "tests").rglob("test_*.py"))
}
"""The names of the tests there are, by file."""


def is_named_after(test: str, promise: str) -> bool:
    """`test_s12_two_cookies` is named after S12, `test_p01_i23_canary` after P01 and I-23."""
    return re.search(rf"_{promise.replace('-', '').lower()}(?=_|$)", test) is not None


def rows() -> dict[str, tuple[str, list[str]]]:
    """Read the page's tables: a promise's sentence, and the files and tests that its row names."""
    found = re.findall(r"^\| ([A-Z](?:-)?\d\d) \| (.+?) \| (.*) \|$", PAGE, re.MULTILINE)
    ids = [promise for promise, _, _ in found]
    assert len(set(ids)) == len(ids), "a promise has two rows"
    return {promise: (text, re.findall(r"`([^`]+)`", cell)) for promise, text, cell in found}


ROWS = rows()


def test_every_claimed_promise_has_a_test() -> None:
    """Each id that this release claims is on the page with a sentence, and some test defends it."""
    lacks = [promise for promise in CLAIMED if len(ROWS.get(promise, ("", []))[0]) <= 20]
    assert lacks == [], "docs/contributing/requirements.md says nothing of these"
    assert [promise for promise in CLAIMED if not ROWS[promise][1]] == [], "no test defends these"


def test_what_the_page_names_is_there() -> None:
    """A file that a row names has a test named after the promise, and a test that it names in full exists."""
    assert len(ROWS) >= len(CLAIMED)
    wrong = []
    for promise, (_, named) in ROWS.items():
        for name in named:
            path, _, test = name.partition("::")
            there = TESTS.get(path, set())
            if not (test in there if test else any(is_named_after(each, promise) for each in there)):
                wrong.append(f"{promise}: {name}")
    assert wrong == []


def test_no_promise_is_defended_in_secret() -> None:
    """Every promise that a test over HTTP is named after is on the page."""
    used: defaultdict[str, list[str]] = defaultdict(list)
    for path, tests in TESTS.items():
        if path.startswith("tests/http/"):
            for test in tests:
                for letter, number in re.findall(r"_([csjopi])(\d\d)(?=_|$)", test):
                    used[letter.upper() + ("-" if letter == "i" else "") + number].append(f"{path}::{test}")
    assert {promise: tests for promise, tests in used.items() if promise not in ROWS} == {}
