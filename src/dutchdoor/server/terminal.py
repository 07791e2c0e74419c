"""Output of the commands: tables for people, JSON for programs, and never a terminal escape sequence."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

import click
import msgspec

__all__ = [
    "agree",
    "as_json",
    "heading",
    "instant",
    "is_screen",
    "plain",
    "print_json",
    "print_pairs",
    "print_table",
    "progress",
    "say",
    "write",
]

LINE = 78
"""Columns of a line that is written over."""

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def agree(question: str) -> None:
    """Ask for confirmation. Without a yes, exit with a message; without a terminal, the message names --yes."""
    try:
        agreed = click.confirm(question, err=True)
    except click.Abort:
        raise click.ClickException("no confirmation, nothing was changed. In scripts, add --yes.") from None
    if not agreed:
        raise click.ClickException("nothing was changed")


def instant(at: float | None) -> str:
    """Write an instant as ISO 8601 in UTC, to the second; "" for none."""
    if at is None or not math.isfinite(at):
        return ""
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%dT%H:%M:%SZ}"


def print_json(value: object, *, as_line: bool = False) -> None:
    """Print a value as JSON: indented for people, or as one line of a stream, which is flushed."""
    text = msgspec.json.format(msgspec.json.encode(value), indent=-1 if as_line else 2).decode()
    # Terminal injection: JSON escapes only the C0 controls, but 8-bit controls also steer a terminal, and U+202E
    # reverses the text after it. These characters occur only inside strings, where an escape means the same.
    _print("".join(c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] for c in text))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, empty: str) -> None:
    """Print aligned columns with a header, or the sentence `empty` if there are no rows."""
    cells = [[plain(cell) for cell in row] for row in rows]
    if not cells:
        _print(empty)
        return
    widths = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]
    for line in ([name.upper() for name in columns], *cells):
        write("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def print_pairs(pairs: Sequence[tuple[str, object]]) -> None:
    width = max(len(name) for name, _ in pairs)
    for name, value in pairs:
        write(f"{name.ljust(width)}  {plain(value)}".rstrip())


def write(text: str = "", *, err: bool = False) -> None:
    """Print lines of text for people, without characters that steer a terminal."""
    _print("\n".join(map(plain, text.split("\n"))), err=err)


def is_screen(*, err: bool = False) -> bool:
    """Whether a person sees this output on a terminal that writes over a line and knows bold text."""
    stream = sys.stderr if err else sys.stdout
    return stream.isatty() and os.environ.get("TERM") != "dumb"


def heading(text: str, *, err: bool = False) -> None:
    """Print a heading, with an empty line before it: bold on a terminal, and plain in a pipe, with NO_COLOR
    (https://no-color.org) or with TERM=dumb.
    """
    styled = is_screen(err=err) and not os.environ.get("NO_COLOR")
    _print("\n" + (click.style(plain(text), bold=True) if styled else plain(text)), err=err, color=styled or None)


def progress(text: str) -> None:
    """Show on standard error how far a long command is, in the line before; "" clears the line."""
    _print(f"\r{plain(text).ljust(LINE)}" + ("" if text else "\r"), nl=False, err=True)


def say(text: str) -> None:
    """Print a message that is not part of the result, on standard error."""
    write(text, err=True)


def _print(text: str, *, err: bool = False, nl: bool = True, color: bool | None = None) -> None:
    try:
        click.echo(text, err=err, nl=nl, color=color)
    except BrokenPipeError:
        raise
    except OSError as exc:  # it has no name of its own: the disk is full that the output is redirected to
        raise OSError(exc.errno, exc.strerror, "standard error" if err else "standard output") from None


def plain(value: object) -> str:
    """Convert a value to text that cannot steer a terminal."""
    # Terminal injection: an escape sequence in a name or User-Agent of a client would rewrite the screen.
    return "".join(c if c.isprintable() else "?" for c in str(value if value is not None else ""))
