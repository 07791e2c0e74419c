"""Plots as SVG, made on the server: bars over time, as numbers that a template writes into attributes.

Colours are classes of the style sheet, because the policy of the pages allows no style in an element.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, Literal

from msgspec import Struct

__all__ = ["Plot", "Series", "plot"]

WIDE, HIGH = 420, 150
LEFT, ABOVE, BELOW = 40, 8, 20
"""Room for the words beside, above and below the bars."""
LABELS: Final = 5


class Series(Struct, frozen=True):
    """What one colour of a plot means, and its value at each step."""

    words: str
    values: Sequence[float]
    tone: Literal["blue", "green", "red"] = "blue"


class _Line(Struct, frozen=True):
    """A word beside a plot, and its place."""

    at: float
    text: str


class Plot(Struct, frozen=True):
    """One plot: bars that stand on each other, an outline for each series."""

    title: str
    unit: str
    steps: Sequence[str]
    """What each step is called, for the table."""
    series: Sequence[Series]
    outlines: Sequence[str]
    """The path of the bars of each series."""
    levels: Sequence[_Line]
    labels: Sequence[_Line]

    wide: int = WIDE
    high: int = HIGH
    left: int = LEFT
    floor: int = HIGH - BELOW

    @property
    def is_empty(self) -> bool:
        return not any(any(each.values) for each in self.series)

    @property
    def totals(self) -> list[float]:
        return [sum(each.values) for each in self.series]


def plot(title: str, steps: Sequence[str], series: Sequence[Series], *, unit: str = "") -> Plot:
    """Draw series of one length, one bar of each for each of the `steps`."""
    top = _nice(max((sum(values) for values in zip(*(each.values for each in series), strict=True)), default=0.0))
    floor, width = HIGH - BELOW, (WIDE - LEFT) / max(1, len(steps))
    scale = (floor - ABOVE) / top
    outlines, below = [], [0.0] * len(steps)
    for each in series:
        bars = []
        for n, value in enumerate(each.values):
            if value:
                x, low = LEFT + n * width + width * 0.1, floor - below[n] * scale
                high = low - value * scale
                bars.append(f"M{x:.1f} {low:.1f}V{high:.1f}h{width * 0.8:.1f}V{low:.1f}z")
                below[n] += value
        outlines.append("".join(bars))
    every = max(1, math.ceil(len(steps) / LABELS))
    return Plot(
        title=title,
        unit=unit,
        steps=steps,
        series=series,
        outlines=outlines,
        levels=[_Line(round(floor - share * top * scale, 1), f"{top * share:g}") for share in (0.5, 1.0)],
        labels=[
            _Line(round(LEFT + (n + 0.5) * width, 1), step) for n, step in enumerate(steps) if n % every == every // 2
        ],
    )


def _nice(most: float) -> float:
    """Return the least of 1, 2, 5, 10, 20, ... that is not below a number."""
    if most <= 0:
        return 1.0
    power = 10.0 ** math.floor(math.log10(most))
    return next(power * each for each in (1, 2, 5, 10) if power * each >= most * 0.999_999)
