"""What commands print: tables for people, JSON for programs, and never anything that steers a terminal."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime

import click
import msgspec

__all__ = ["agree", "instant", "plain", "print_json", "print_pairs", "print_table", "say", "write"]


def agree(question: str) -> None:
    """Go on only after a yes. The command ends otherwise, and says how a program answers."""
    try:
        agreed = click.confirm(question, err=True)
    except click.Abort:
        raise click.ClickException("nobody said yes, and nothing was done. Programs say it with --yes.") from None
    if not agreed:
        raise click.ClickException("nothing was done")


def instant(at: float | None) -> str:
    """Write an instant as ISO 8601 in UTC, to the second; "" for none."""
    if at is None or not math.isfinite(at):
        return ""
    return f"{datetime.fromtimestamp(at, UTC):%Y-%m-%dT%H:%M:%SZ}"


def print_json(value: object) -> None:
    text = msgspec.json.format(msgspec.json.encode(value), indent=2).decode()
    # JSON escapes the C0 controls only: 8-bit ones steer a terminal as well, and U+202E reverses what follows it. Such
    # a character stands in strings alone, where its escape means the same.
    click.echo("".join(c if c.isprintable() or c == "\n" else json.dumps(c)[1:-1] for c in text))


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, empty: str) -> None:
    """Print aligned columns under their names, or one sentence where there are no rows."""
    cells = [[plain(cell) for cell in row] for row in rows]
    if not cells:
        click.echo(empty)
        return
    widths = [max(map(len, column)) for column in zip(columns, *cells, strict=True)]
    for line in ([name.upper() for name in columns], *cells):
        write("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip())


def print_pairs(pairs: Sequence[tuple[str, object]]) -> None:
    width = max(len(name) for name, _ in pairs)
    for name, value in pairs:
        write(f"{name.ljust(width)}  {plain(value)}".rstrip())


def write(text: str = "", *, err: bool = False) -> None:
    """Print lines of text for people, with nothing in them that steers a terminal."""
    click.echo("\n".join(map(plain, text.split("\n"))), err=err)


def say(text: str) -> None:
    """Print for the person at the terminal what is not the result: on standard error."""
    write(text, err=True)


def plain(value: object) -> str:
    """Write a value so that it cannot steer a terminal."""
    # Names and User-Agents are strangers' words. An escape sequence among them would rewrite what stands on the screen.
    return "".join(c if c.isprintable() else "?" for c in str(value if value is not None else ""))
