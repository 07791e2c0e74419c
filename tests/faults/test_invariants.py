"""`docs/contributing/invariants.md` is true: each invariant is there, with tests that are."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "contributing" / "invariants.md").read_text()
ROWS = {name: (text, cell) for name, text, cell in re.findall(r"^\| (I-\d\d) \| (.+?) \| (.*) \|$", PAGE, re.MULTILINE)}
NAMED = sorted(set(re.findall(r"`(tests/[^`]+?\.py)(?:::(\w+))?`", PAGE)))


@pytest.mark.parametrize("id", [f"I-{number:02}" for number in range(1, 27)])
def test_every_invariant_has_tests(id: str) -> None:
    """Each of the twenty-six is on the page with a sentence, and names tests."""
    text, cell = ROWS[id]
    assert len(text) > 40
    assert "::test_" in cell


@pytest.mark.parametrize(("path", "test"), NAMED)
def test_what_the_page_names_is_there(path: str, test: str) -> None:
    """A test that the page names exists."""
    found = {
        node.name
        for node in ast.walk(ast.parse((ROOT / path).read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert not test or test in found, f"there is no {test} in {path}"


def test_no_invariant_is_defended_in_secret() -> None:
    """Every test here that is named after an invariant is on the page."""
    folders = (ROOT / "tests" / "faults", ROOT / "tests" / "fence" / "live")
    tests = {
        node.name
        for folder in folders
        for path in folder.glob("test_*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and re.match(r"test_i\d\d_", node.name)
    }
    assert tests - {test for _, test in NAMED} == set()
