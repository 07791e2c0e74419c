"""Commands that pages show can be typed as they stand."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from dutchdoor.server.cli import cli

ROOT = Path(__file__).parents[2]
PAGES = [*(ROOT / "docs" / "operating").glob("*.md"), *(ROOT / "docs" / "guides").glob("*.md"), ROOT / "README.md"]


def shown() -> Iterator[tuple[str, str]]:
    """Each command line of a page: in a line of code, and between backticks."""
    for page in PAGES:
        text = page.read_text()
        lines = re.findall(r"^ {4,}[^\n]*?\b(dutchdoor [a-z].*)$", text, re.MULTILINE)
        lines += re.findall(r"`(dutchdoor [a-z][^`]*)`", text)
        yield from ((page.name, re.split(r"\s#|\s\||\s>|\)", line)[0].strip()) for line in lines)


@pytest.mark.parametrize(("page", "line"), sorted(set(shown())))
def test_p31_a_command_in_a_page_can_be_typed(page: str, line: str) -> None:
    """P31: a command that a page shows exists, with the options that the page gives it."""
    words = shlex.split(line.replace("...", ""))[1:]
    found: click.Command = cli
    while isinstance(found, click.Group) and words and not words[0].startswith("-"):
        there = found.get_command(click.Context(found), words[0])
        if there is None:
            assert "|" in words[0] or words[0].isupper(), f"{page}: there is no command {line}"
            return
        found, words = there, words[1:]
    options = {option for each in found.params for option in (*each.opts, *each.secondary_opts)} | {"--help"}
    given = {word.partition("=")[0] for word in words if word.startswith("--")}
    assert given <= options, f"{page}: {line}"
