"""An estimate as one HTML file that needs nothing else: no script, no font, no picture but its own bars.

A file, and no page of the server: it needs no server that runs, it can be mailed to those who decide, and a server in
production has no route for it.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from dutchdoor.choice.estimate import Estimate
from dutchdoor.choice.glossary import words_in
from dutchdoor.choice.rules import seconds

__all__ = ["environment", "page", "quantity"]

LONGEST_BAR: Final = 165.0
_BYTES: Final = (("GB", 1e9), ("MB", 1e6), ("kB", 1e3))
_SHORT: Final = (("s", 1.0, 1.0), ("ms", 1e-3, 1e3), ("µs", 0.0, 1e6))


def quantity(value: float, unit: str) -> str:
    """Write a number with its unit for people: 12.3 MB, 0.4 ms, 1,200 a second."""
    if unit in {"B", "B/s"}:
        name, size = next(((name, size) for name, size in _BYTES if value >= size), ("B", 1.0))
        return f"{_digits(value / size)} {name}" + ("/s" if unit == "B/s" else "")
    if unit == "s":
        name, _, times = next(each for each in _SHORT if value >= each[1])
        return f"{_digits(value * times)} {name}"
    return f"{_digits(value)}{' a second' if unit == '1/s' else ''}"


def _digits(value: float) -> str:
    if value == 0:
        return "0"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"  # noqa: PLR2004 - three digits


def environment() -> Environment:
    """Return what the files of estimates and comparisons are made with. It escapes every value."""
    return Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def page(found: Estimate) -> str:
    """Return the page. Every value is escaped."""
    by_id: dict[str, list[dict[str, object]]] = {}
    for each in found.numbers:
        most = max(other.value for other in found.numbers if other.id == each.id)
        by_id.setdefault(each.id, []).append(
            {
                "says": each.says,
                "pattern": each.pattern,
                "text": quantity(each.value, each.unit),
                "width": LONGEST_BAR * each.value / most if most else 0,
                "formula": each.formula,
            }
        )
    longest = max(each.unnoticed_s for each in found.exposure)
    exposure = [
        {
            "of": f"{each.secret} ({each.pattern})",
            "says": each.says,
            "bars": [
                (what, seconds(value), _on_log(value, longest))
                for what, value in (
                    ("unnoticed", each.unnoticed_s),
                    ("at the server", each.after_logout_here_s),
                    ("at a Verifier", each.after_logout_at_verifiers_s),
                    ("keys alone", each.after_logout_at_keys_s),
                )
            ],
        }
        for each in found.exposure
    ]
    text = " ".join(
        [*(each.says for each in found.numbers), *(each.says for each in found.exposure), "session hybrid jwt"]
    )
    return (
        environment()
        .get_template("estimate.html")
        .render(
            given=found.given,
            seconds=seconds,
            numbers=by_id,
            exposure=exposure,
            constants=[(each.says, each.subject, quantity(each.value, each.unit)) for each in found.constants],
            figures=found.figures,
            by=", ".join(sorted({each.by for each in found.constants})),
            words=words_in(text),
        )
    )


def _on_log(value: float, longest: float) -> float:
    """Return the length of a bar on a logarithmic scale: a second and a month are both to be seen."""
    return LONGEST_BAR * math.log10(1 + value) / math.log10(1 + longest)
