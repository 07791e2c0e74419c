"""`docs/contributing/invariants.md` is true: each invariant is there, with tests that are."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "contributing" / "invariants.md").read_text()
ROWS = {name: (text, cell) for name, text, cell in re.findall(r"^\| (I-\d\d) \| (.+?) \| (.*) \|$", PAGE, re.MULTILINE)}
NAMED = sorted(set(re.findall(r"`(tests/[^`]+?\.py)(?:::(\w+))?`", PAGE)))


def names_in(path: Path) -> set[str]:
    return set(re.findall(r"^(?:async )?def (test_\w+)", path.read_text(), re.MULTILINE))


def test_every_invariant_has_tests() -> None:
    """Each of the twenty-six is on the page with a sentence, and names tests."""
    assert [*ROWS] == [f"I-{number:02}" for number in range(1, 27)]
    for name, (text, cell) in ROWS.items():
        assert len(text) > 40, name
        assert "::test_" in cell, name


def test_what_the_page_names_is_there() -> None:
    """A test that the page names exists."""
    assert len(NAMED) > 26
    there = {path: names_in(ROOT / path) for path, _ in NAMED}
    assert [f"{path}::{test}" for path, test in NAMED if test and test not in there[path]] == []


def test_no_invariant_is_defended_in_secret() -> None:
    """Every test here that is named after an invariant is on the page."""
    folders = (ROOT / "tests" / "faults", ROOT / "tests" / "fence" / "live")
    tests = set[str]().union(*(names_in(path) for folder in folders for path in folder.glob("test_*.py")))
    assert {test for test in tests if re.match(r"test_i\d\d_", test)} - {test for _, test in NAMED} == set()
