"""`docs/contributing/requirements.md` is true: every promise has a test, and every test it names is there."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from pathlib import Path

import pytest

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


def test_names() -> dict[str, set[str]]:
    """The names of the tests there are, by file."""
    return {
        str(path.relative_to(ROOT)): {
            node.name
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
        }
        for path in sorted((ROOT / "tests").rglob("test_*.py"))
    }


TESTS = test_names()
del test_names


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


@pytest.mark.parametrize("promise", CLAIMED)
def test_every_claimed_promise_has_a_test(promise: str) -> None:
    """Each id that this release claims is on the page with a sentence, and some test defends it."""
    assert promise in ROWS, f"docs/contributing/requirements.md lacks {promise}"
    text, named = ROWS[promise]
    assert len(text) > 20
    assert named, f"no test defends {promise}"


@pytest.mark.parametrize("promise", ROWS)
def test_what_the_page_names_is_there(promise: str) -> None:
    """A file that a row names has a test named after the promise, and a test that it names in full exists."""
    for name in ROWS[promise][1]:
        path, _, test = name.partition("::")
        assert path in TESTS, f"{promise}: there is no file {path}"
        if test:
            assert test in TESTS[path], f"{promise}: there is no test {name}"
        else:
            assert any(is_named_after(each, promise) for each in TESTS[path]), f"{promise}: no such test in {path}"


def test_no_promise_is_defended_in_secret() -> None:
    """Every promise that a test over HTTP is named after is on the page."""
    used: defaultdict[str, list[str]] = defaultdict(list)
    for path, tests in TESTS.items():
        if path.startswith("tests/http/"):
            for test in tests:
                for letter, number in re.findall(r"_([csjopi])(\d\d)(?=_|$)", test):
                    used[letter.upper() + ("-" if letter == "i" else "") + number].append(f"{path}::{test}")
    assert {promise: tests for promise, tests in used.items() if promise not in ROWS} == {}
