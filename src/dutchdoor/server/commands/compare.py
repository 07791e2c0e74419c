"""`dutchdoor compare`: the table of sessions, JWTs and the hybrid, measured on this machine."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from dutchdoor.choice.comparison import SPREAD, Column, Comparison, cell, shown, spread, together, words
from dutchdoor.choice.comparison_page import page
from dutchdoor.choice.measuring import FULL, QUICK, Progress, measure
from dutchdoor.server.ending import ends_in_order
from dutchdoor.server.html_file import refuse_to_overwrite, write_html
from dutchdoor.server.paper import columns, items, paragraph
from dutchdoor.server.terminal import as_json, heading, is_screen, print_json, progress, write

__all__ = ["compare", "progress_line", "show"]

IN_A_ROW, WIDE = 5, 15
"""Columns beside each other, and the characters of each: 77 in all."""

_EXAMPLES = """\
\b
Examples:
  dutchdoor compare
  dutchdoor compare --quick
  dutchdoor compare --html comparison.html
  dutchdoor compare --json > figures.json      then: advise --figures figures.json
"""


@click.command(epilog=_EXAMPLES)
@click.option("--quick", is_flag=True, help="Take half a minute: fewer rounds, a lease of 2 s.")
@click.option("--html", metavar="FILE", help="Write a page that needs nothing else, to be mailed.")
@click.option("--force", is_flag=True, help="Let --html overwrite its file.")
@as_json
def compare(*, quick: bool, html: str | None, force: bool, as_json: bool) -> None:
    """Measure sessions, JWTs and the hybrid on this machine, in about two minutes.

    It starts a server of its own on loopback with its own SQLite files, signs in and out, kills the server, and leaves
    nothing behind. What no figure can say stands below as facts, each with the tests that show it.
    """
    if html is not None:
        refuse_to_overwrite(Path(html), force=force)
    with ends_in_order(), progress_line() as progress:
        found = measure(QUICK if quick else FULL, progress)
    if html is not None:
        write_html(Path(html), page(found), force=force)
    if as_json:
        print_json(found)
    elif html is None:
        show(found)


@contextmanager
def progress_line() -> Iterator[Progress]:
    """Show on a terminal what is measured now, in one line that is gone at the end. Elsewhere say nothing."""
    if not is_screen(err=True):
        yield lambda _says, _share: None
        return
    try:
        yield lambda says, share: progress(f"{share:4.0%}  {says}")
    finally:
        progress("")


def show(found: Comparison) -> None:
    """Print the table for a person."""
    heading("Compared")
    columns((each.title, each.says) for each in found.columns)
    heading("Measured")
    paragraph(SPREAD, indent=2)
    for first in range(0, len(found.columns), IN_A_ROW):
        _table(found, found.columns[first : first + IN_A_ROW])
    heading("How it was measured, and what it means")
    items(f"{row.says}: {row.how}. {row.reads}" for row in found.measured)
    heading("Facts, each with its tests")
    for fact in found.facts:
        write()
        paragraph(f"{fact.says}:", indent=2)
        for titles, text in together(fact, found.columns):
            paragraph(f"{', '.join(titles)}: {text}", first="- ", indent=4)
        for path in dict.fromkeys(test.partition("::")[0] for test in fact.tests):
            write(f"    {path}")
    heading("Words")
    columns(words(found).items())
    write()
    paragraph(f"Figures {found.origin}, with a lease of {found.lease_s:g} s.", indent=2)


def _table(found: Comparison, shown_columns: tuple[Column, ...]) -> None:
    write()
    heads = [each.title.partition(" ") for each in shown_columns]
    write("  " + "".join(first.rjust(WIDE) for first, _, _ in heads))
    write("  " + "".join(rest.rjust(WIDE) for _, _, rest in heads))
    for row in found.measured:
        write()
        paragraph(row.says, indent=2)
        figures = [cell(found, row, each) for each in shown_columns]
        write("  " + "".join(("" if each is None else shown(each.value, each.unit)).rjust(WIDE) for each in figures))
        between = "".join(("" if each is None else spread(each)).rjust(WIDE) for each in figures)
        if between.strip():
            write(f"  {between}")
