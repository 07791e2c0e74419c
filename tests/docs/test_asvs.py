"""The table of ASVS 5.0: it is complete, its levels are the standard's, and each test that it names exists."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
ROW = re.compile(r"\| ([\d.]+) \| ([123]) \| .+ \| (met|not met|not ours) \| (.+) \|")

LEVELS = {
    "6.1": "122", "6.2": "111111112222", "6.3": "11223333", "6.4": "112233", "6.5": "22222333", "6.6": "2223",
    "6.7": "33", "6.8": "2222",
    "7.1": "222", "7.2": "1111", "7.3": "22", "7.4": "11222", "7.5": "223", "7.6": "22",
    "8.1": "1233", "8.2": "1123", "8.3": "133", "8.4": "23",
    "9.1": "111", "9.2": "1222",
    "10.1": "22", "10.2": "223", "10.3": "22223", "10.4": "1111122222233333", "10.5": "22222", "10.6": "22",
    "10.7": "222",
}  # fmt: skip
"""The level of each requirement in ASVS 5.0.0, by section."""


def rows() -> list[tuple[str, str, str, str]]:
    return ROW.findall((ROOT / "docs" / "reference" / "asvs.md").read_text())


def test_the_table_has_each_requirement_with_its_level() -> None:
    """No requirement of the chapters is left out, none is made up, and none has another level."""
    wanted = [
        (f"{section}.{number}", level)
        for section, levels in LEVELS.items()
        for number, level in enumerate(levels, start=1)
    ]
    assert [(number, level) for number, level, _, _ in rows()] == wanted


def test_nothing_is_not_met_up_to_level_two() -> None:
    """Up to level 2 nothing is missing, and the page counts right."""
    assert [number for number, level, state, _ in rows() if state == "not met" and level != "3"] == []
    states = [state for _, _, state, _ in rows()]
    said = re.search(r"answer: (\d+)\s+requirements are met, (\d+) are .+, and (\d+), all of level 3,", PAGE, re.DOTALL)
    assert said is not None
    assert [int(each) for each in said.groups()] == [states.count(each) for each in ("met", "not ours", "not met")]


def test_each_test_behind_a_row_exists() -> None:
    """What is met has a test or a page, and each test that is named is there."""
    for number, _, state, behind in rows():
        tests = re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", behind)
        assert tests or state != "met" or "](" in behind, number
        for path, name in tests:
            assert re.search(rf"def {name}\b", (ROOT / path).read_text()), (number, path, name)


PAGE = (ROOT / "docs" / "reference" / "asvs.md").read_text()
