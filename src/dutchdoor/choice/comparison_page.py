"""The comparison as one HTML file that can be mailed, and as the text of a page of the documentation."""

from __future__ import annotations

import math
from typing import Any, Final

from dutchdoor.choice.comparison import SPREAD, Comparison, Measured, cell, shown, spread, words
from dutchdoor.choice.estimate_page import environment

__all__ = ["markdown", "page"]

LONGEST_BAR: Final = 150.0
FAR_APART: Final = 50.0
"""A bar that is shorter than another by more than this cannot be seen, so the scale becomes logarithmic."""


def page(found: Comparison) -> str:
    """Return the HTML file. Every value is escaped."""
    return (
        environment()
        .get_template("comparison.html")
        .render(
            found=found,
            spread=SPREAD,
            rows=[_bars(row, found) for row in found.measured],
            words=words(found),
        )
    )


def _bars(row: Measured, found: Comparison) -> dict[str, Any]:
    figures = [(column, figure) for column in found.columns if (figure := cell(found, row, column)) is not None]
    above = [figure.low or figure.value for _, figure in figures if figure.value > 0]
    most = max((figure.high or figure.value for _, figure in figures), default=0.0)
    least = min(above, default=0.0)
    is_log = bool(least) and most > least * FAR_APART

    def long(value: float) -> float:
        if value <= 0 or most <= 0:
            return 0.0
        if is_log:  # it begins a tenth below the least, so that the least has a bar
            return LONGEST_BAR * max(math.log10(value / least * 10), 0) / math.log10(most / least * 10)
        return LONGEST_BAR * value / most

    bars = []
    for column, figure in figures:
        low, high = long(figure.low or figure.value), long(figure.high or figure.value)
        bars.append(
            {
                "title": column.title,
                "text": shown(figure.value, figure.unit),
                "width": long(figure.value),
                "low": low,
                "high": high,
                "end": max(high, long(figure.value)),
                "spread": spread(figure),
            }
        )
    return {"says": row.says, "how": row.how, "reads": row.reads, "bars": bars, "is_log": is_log}


def markdown(found: Comparison, tests: str) -> str:
    """Return the tables as Markdown. `tests` is what leads from that page to the folder that the tests are in."""
    head = [each.title for each in found.columns]
    lines = [f"Figures {found.origin}, with a lease of {found.lease_s:g} s.", "", SPREAD, ""]
    lines += [f"- **{each.title}**: {each.says}" for each in found.columns]
    lines += ["", "## Measured", "", _row(["", *head]), "|---|" + "---:|" * len(head)]
    for row in found.measured:
        cells = []
        for column in found.columns:
            figure = cell(found, row, column)
            text = "" if figure is None else shown(figure.value, figure.unit)
            between = "" if figure is None else spread(figure)
            cells.append(f"{text}<br>{between}" if between else text)
        lines.append(_row([row.says, *cells]))
    lines += ["", "How each was measured, and what it means:", ""]
    lines += [f"- **{row.says}**: {row.how}. {row.reads}" for row in found.measured]
    lines += ["", "## Facts", "", _row(["", *head]), "|---|" + "---|" * len(head)]
    lines += [_row([fact.says, *(fact.cells[column.id] for column in found.columns)]) for fact in found.facts]
    lines += ["", "The tests that show them:", ""]
    for fact in found.facts:
        named = [(test.partition("::")[2], f"{tests}/{test.partition('::')[0]}") for test in fact.tests]
        lines.append(f"- **{fact.says}**: {', '.join(f'[`{name}`]({path})' for name, path in named)}")
    lines += ["", "## Words", ""]
    lines += [f"- **{word}**: {meaning}" for word, meaning in words(found).items()]
    return "\n".join(lines)


def _row(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"
