"""What an application writes has the right types, for mypy and for pyright, both strict."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
TYPED = Path(__file__).with_name("typed.py")
WRONG = {number for number, line in enumerate(TYPED.read_text().splitlines(), 1) if line.endswith("  # wrong")}


@pytest.mark.long
@pytest.mark.parametrize("checker", [["mypy", "--strict"], ["basedpyright"]], ids=["mypy", "pyright"])
def test_a_type_checker_finds_what_is_wrong_and_nothing_else(checker: list[str]) -> None:
    """Policies, users of one's own, hooks and annotations of routes: each mistake is found where it stands."""
    ran = subprocess.run(
        [sys.executable, "-m", *checker, str(TYPED)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    found = {int(line) for line in re.findall(r"typed\.py:(\d+)(?::\d+)?[: -]+error", ran.stdout)}
    assert found == WRONG, ran.stdout
