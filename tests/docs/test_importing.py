"""`docs/guides/importing.md` is true: each example is imported, and signs in with the password of the examples."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest

from dutchdoor.credentials import legacy
from dutchdoor.server.user_import import Incoming, read_lines

PAGE = (Path(__file__).parents[2] / "docs" / "guides" / "importing.md").read_text()
EXAMPLES = re.findall(r"^```(?:csv|json)\n(.+?)^```$", PAGE, re.MULTILINE | re.DOTALL)
PASSWORD = "tuba glow mango"


def test_the_page_has_its_examples() -> None:
    """Each system with a section has an example, but Flask-Security, of which no hash is imported."""
    assert len(EXAMPLES) == len(re.findall(r"^## From ", PAGE, re.MULTILINE)) - 1


@pytest.mark.parametrize("example", EXAMPLES)
def test_an_example_is_imported(example: str) -> None:
    """Every row is read, and its hash verifies the password that was hashed by the libraries of those systems."""
    rows = list(read_lines(io.StringIO(example, newline="")))
    assert rows
    for row in rows:
        assert isinstance(row, Incoming), row
        assert row.password_hash is not None
        assert not row.disabled
        assert legacy.verify(PASSWORD, row.password_hash)
        assert not legacy.verify(PASSWORD + " ", row.password_hash)
