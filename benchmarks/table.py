"""The one table: a row a measure, a column a contender, and what was asked for with whether it was reached.

In a peer's cell stands its figure and, in brackets, how many times as much ours is (of processor time: as little).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, Protocol

OURS, DJANGO, FASTAPI_USERS, FASTAPI_JWT, RAW = "dutchdoor", "Django", "fastapi-users", "FastAPI + PyJWT", "raw ASGI"
COLUMNS = (OURS, DJANGO, FASTAPI_USERS, FASTAPI_JWT, RAW)


class Medians(Protocol):
    """What a table is made from."""

    bad: dict[str, int]

    def median(self, column: str, measure: str) -> float | None: ...


class Asked(NamedTuple):
    """What a row should reach: `times` as much as another column, or `least` or `most` of ours."""

    times: float = 0
    of: str = ""
    least: float | None = None
    most: float | None = None

    def text(self, write: Callable[[float], str]) -> str:
        if self.of:
            return f"{self.times:g} × {self.of}"
        if self.least is not None:
            return f"at least {write(self.least)}"
        return f"at most {write(self.most or 0)}"

    def reached(self, ours: float, other: float | None) -> bool | None:
        if self.of:
            return None if other is None else ours >= self.times * other
        if self.least is not None:
            return ours >= self.least
        return ours <= (self.most or 0)


class Row(NamedTuple):
    """One measure: its label, how a figure of it is written, and whether ratios make sense for it."""

    label: str
    measure: str
    write: Callable[[float], str]
    asked: tuple[Asked, ...] = ()
    ratio: bool = True


def _count(value: float) -> str:
    return f"{value:,.0f}"


def _ms(value: float) -> str:
    return f"{value:.1f} ms"


def _us(value: float) -> str:
    return f"{value:,.0f} us"


def _share(value: float) -> str:
    return f"{value:.0%}"


def _times(value: float) -> str:
    return f"{value:.2f} ×"


def _mib(value: float) -> str:
    return f"{value:.0f} MiB"


def _bytes(value: float) -> str:
    return f"{value:.0f} B"


_REQUESTS = (Asked(25, FASTAPI_USERS), Asked(15, DJANGO), Asked(0.5, RAW))
_LOGIN = (Asked(15, FASTAPI_USERS),)

ROWS = (
    Row("authenticated by a stored session, /s", "me session", _count, _REQUESTS),
    Row("... 99th percentile", "me session p99", _ms, ratio=False),
    Row("... server's processor time", "me session cpu", _us),
    Row("authenticated by a signed token, /s", "me token", _count, _REQUESTS),
    Row("... 99th percentile", "me token p99", _ms, ratio=False),
    Row("... server's processor time", "me token cpu", _us),
    Row("log-in that starts a session, no hash, /s", "login session", _count, _LOGIN),
    Row("... server's processor time", "login session cpu", _us),
    Row("log-in that gives tokens, no hash, /s", "login token", _count, _LOGIN),
    Row("... server's processor time", "login token cpu", _us),
    Row("refresh, each one rotating, /s", "refresh", _count, (Asked(15, DJANGO),)),
    Row("... server's processor time", "refresh cpu", _us),
    Row("refresh, default: repeats within 30 s converge, /s", "refresh window", _count),
    Row("log-in with Argon2id, /s", "login hashed", _count),
    Row("... of what the core can hash", "login hashed share", _share, (Asked(least=0.95),), ratio=False),
    Row("throughput kept while four clients log in", "mixed share", _share, (Asked(least=0.30),), ratio=False),
    Row("... 99th percentile", "mixed p99", _ms, (Asked(most=10),), ratio=False),
    Row("memory after all this", "memory", _mib, ratio=False),
    Row("`dutchdoor serve`, just started", "memory without sessions", _mib, ratio=False),
    Row("... after {sessions:,} sessions were used", "memory with sessions", _mib, (Asked(most=60),), ratio=False),
    Row("validating a session over its SELECT, {few:,} rows", "validation few", _times, (Asked(most=2),), ratio=False),
    Row("... {many:,} rows", "validation many", _times, (Asked(most=2),), ratio=False),
    Row("... {many:,} rows over {few:,}", "validation growth", _times, (Asked(most=2),), ratio=False),
    Row("a session on disk", "session bytes", _bytes, (Asked(most=300),), ratio=False),
    Row("importing the verifier, over bare Python", "import verifier", _ms, (Asked(most=60),), ratio=False),
)


def table(results: Medians, **numbers: int) -> str:
    """Write it as Markdown, `numbers` filled into the labels; rows without a measurement are left out."""
    present = [column for column in COLUMNS if any(results.median(column, row.measure) is not None for row in ROWS)]
    lines = ["| | " + " | ".join(present) + " | asked |", "|---|" + "---:|" * len(present) + "---|"]
    for row in ROWS:
        figures = {column: results.median(column, row.measure) for column in present}
        if any(figure is not None for figure in figures.values()):
            cells = [_cell(row, column, figures) for column in present]
            lines.append(f"| {row.label.format(**numbers)} | {' | '.join(cells)} | {_asked(row, figures)} |")
    lines.append("| bad answers | " + " | ".join(str(results.bad.get(column, 0)) for column in present) + " | 0 |")
    return "\n".join(lines)


def _cell(row: Row, column: str, figures: dict[str, float | None]) -> str:
    figure, ours = figures[column], figures.get(OURS)
    if figure is None:
        return "-"
    text = row.write(figure)
    if column == OURS or not row.ratio or not ours or not figure:
        return text
    ratio = figure / ours if row.write is _us else ours / figure
    return f"{text} ({ratio:.0f} ×)" if ratio >= 10 else f"{text} ({ratio:.2g} ×)"


def _asked(row: Row, figures: dict[str, float | None]) -> str:
    ours = figures.get(OURS)
    words = []
    for asked in row.asked:
        reached = None if ours is None else asked.reached(ours, figures.get(asked.of))
        words.append(asked.text(row.write) + {None: "", True: ": yes", False: ": **no**"}[reached])
    return ", ".join(words)
