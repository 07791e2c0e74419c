"""Longer texts for a person at a terminal: paragraphs and lists of at most 80 columns."""

from __future__ import annotations

import shutil
import textwrap
from collections.abc import Iterable, Sequence
from typing import Final

from dutchdoor.server.terminal import write

__all__ = ["columns", "items", "paragraph", "table"]

WIDEST: Final = 80


def _width() -> int:
    return max(40, min(WIDEST, shutil.get_terminal_size((WIDEST, 24)).columns))


def paragraph(text: str, *, indent: int = 0, first: str = "", err: bool = False) -> None:
    """Print a paragraph. `first` stands before its first line, in the indent."""
    lead = (" " * indent + first) if first else " " * indent
    rest = " " * len(lead)
    for line in textwrap.wrap(
        text, _width(), initial_indent=lead, subsequent_indent=rest, break_long_words=False, break_on_hyphens=False
    ):
        write(line, err=err)


def items(texts: Iterable[str], *, numbered: bool = False, err: bool = False) -> None:
    """Print a list, each item with a dash or its number."""
    for number, text in enumerate(texts, 1):
        paragraph(text, first=f"{number}. " if numbered else "- ", indent=2, err=err)


def columns(pairs: Iterable[tuple[str, str]], *, indent: int = 2, err: bool = False) -> None:
    """Print names with their texts beside them, each text wrapped in its column."""
    found = list(pairs)
    wide = max((len(name) for name, _ in found), default=0)
    for name, text in found:
        paragraph(text, first=f"{name.ljust(wide)}  ", indent=indent, err=err)


def table(rows: Sequence[Sequence[str]], *, indent: int = 2) -> None:
    """Print rows in columns; the first row has the headings, and every column but the first is aligned right."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        write(" " * indent + "  ".join(cells).rstrip())
