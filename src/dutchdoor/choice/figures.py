"""Measured figures: the one form in which a program writes them, and in which advice, estimates and comparisons read
them. No figure is typed into the code.

A file is JSON: the form's number, the day, the machine, and a list of figures. Each figure has a name, a median with
the lowest and the highest round, a unit, a subject (which system or pattern it is about), and the command and the
sentence that say how it was measured. `figures.json` beside this file comes from `python -m benchmarks.choice`.
"""

from __future__ import annotations

import datetime as dt
import os
import platform
import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from dutchdoor.errors import Misconfigured

__all__ = [
    "UNITS",
    "Figure",
    "Figures",
    "Machine",
    "Unit",
    "figure",
    "read_figures",
    "this_machine",
    "today",
    "written",
]

FORM: Final = 1
PACKAGED: Final = Path(__file__).with_name("figures.json")
_AT_MOST = 4 * 1024 * 1024

Unit: TypeAlias = Literal["B", "s", "1/s", "1", "share"]
UNITS: Final[dict[str, str]] = {
    "B": "bytes",
    "s": "seconds",
    "1/s": "a second",
    "1": "a number",
    "share": "a share of one",
}
"""Base units only, so that no reader has to ask whether a 5 means milliseconds."""


class Machine(Struct, frozen=True, kw_only=True):
    """Where it was measured. No host name: such files are published."""

    processor: str
    cores: int
    system: str
    python: str
    load: float = 0.0
    """How many processes wanted a core in the minute before, its own included. Above `cores`, times are too long."""


class Figure(Struct, frozen=True, kw_only=True):
    """One figure: the median of its rounds, with the lowest and the highest."""

    name: str
    value: float
    unit: Unit
    says: str
    """What it is, as a sentence fragment for people: "bytes of a session on SQLite, indexes included"."""
    by: str
    """The command that measured it."""
    subject: str = "dutchdoor"
    """Which system, or which pattern of it: `session`, `hybrid`, `jwt`, or the name of another program."""
    low: float | None = None
    high: float | None = None
    rounds: int = 1


class Figures(Struct, frozen=True, kw_only=True):
    """The content of a file of figures."""

    form: int = FORM
    measured_on: str
    machine: Machine
    figures: tuple[Figure, ...]
    others: str = ""
    """Where those figures are from that a file does not have. Set where it is read, and empty in a file."""

    def get(self, name: str, subject: str | None = None) -> Figure:
        """Return a figure by its name and, where several have it, its subject. Raises `Misconfigured`."""
        for each in self.figures:
            if each.name == name and subject in {None, each.subject}:
                return each
        raise Misconfigured(f"The figures of {self.measured_on} have no {name}. Write them anew with the command.")

    def __getitem__(self, name: str) -> float:
        return self.get(name).value

    @property
    def origin(self) -> str:
        """Where and when, in one sentence for a person."""
        machine = self.machine
        return (
            f"measured on {self.measured_on}: {machine.cores} cores of {machine.processor}, {machine.system}, "
            f"Python {machine.python}, at a load of {machine.load:g}"
        ) + (f"; what is not among them, {self.others}" if self.others else "")


def figure(
    name: str,
    rounds: Sequence[float],
    unit: Unit,
    *,
    says: str,
    by: str,
    subject: str = "dutchdoor",
    least: float | None = None,
) -> Figure:
    """Return the figure of some rounds: their median, lowest and highest. `least` is the lowest, where it is not among
    the rounds.
    """
    return Figure(
        name=name,
        value=_rounded(statistics.median(rounds)),
        low=_rounded(min(rounds) if least is None else least),
        high=_rounded(max(rounds)),
        rounds=len(rounds),
        unit=unit,
        says=says,
        by=by,
        subject=subject,
    )


def _rounded(value: float) -> float:
    return float(f"{value:.4g}")  # a fifth digit of a measurement is noise


def this_machine() -> Machine:
    """Describe the machine that this process runs on."""
    processor = platform.processor() or platform.machine()
    described = Path("/proc/cpuinfo")
    if described.is_file():
        names = [line.partition(":")[2].strip() for line in described.read_text().splitlines() if "model name" in line]
        processor = names[0] if names else processor
        cores = max(len(names), 1)
    else:
        cores = 1
    return Machine(
        processor=processor,
        cores=cores,
        system=f"{platform.system()} {platform.release().partition('-')[0]}",
        python=platform.python_version(),
        load=round(os.getloadavg()[0], 1),
    )


def today() -> str:
    """Return the day, as a file of figures has it."""
    return dt.datetime.now(tz=dt.UTC).date().isoformat()


def written(figures: Sequence[Figure]) -> bytes:
    """Return the content of a file with these figures, of today and of this machine."""
    found = Figures(
        measured_on=today(),
        machine=this_machine(),
        figures=tuple(figures),
    )
    return msgspec.json.format(msgspec.json.encode(found), indent=2) + b"\n"


def read_figures(path: Path | None = None) -> Figures:
    """Read a file of figures; without a path, those that come with the package. A figure that the file does not have is
    that of the package: `dutchdoor compare` measures what one machine can in two minutes.

    Raises:
        Misconfigured: the file cannot be read, or is not of this form.
    """
    path = PACKAGED if path is None else path
    try:
        with path.open("rb") as file:
            content = file.read(_AT_MOST + 1)
    except OSError as exc:
        raise Misconfigured(f"The file of figures {path} cannot be read: {exc.strerror}.") from None
    try:
        if len(content) > _AT_MOST:
            raise msgspec.DecodeError("it is larger than 4 MiB")
        found = msgspec.json.decode(content, type=Figures)
    except msgspec.DecodeError as exc:
        raise Misconfigured(
            f"The file of figures {path} cannot be used: {exc}. `dutchdoor compare --json` writes such a "
            "file; without one, the figures of the package are used."
        ) from None
    if found.form != FORM:
        raise Misconfigured(f"The file of figures {path} has the form {found.form}, and this program reads {FORM}.")
    _finite(found.figures, path)
    return found if path == PACKAGED else _completed(found, read_figures())


def _completed(found: Figures, package: Figures) -> Figures:
    there = {(each.name, each.subject) for each in found.figures}
    missing = [each for each in package.figures if (each.name, each.subject) not in there]
    if not missing:
        return found
    return replace(found, figures=(*found.figures, *missing), others=package.origin)


def _finite(figures: Sequence[Figure], path: Path) -> None:
    for each in figures:
        values: tuple[Any, ...] = (each.value, each.low, each.high)
        if any(value is not None and not 0 <= value < 1e18 for value in values):  # noqa: PLR2004 - more than any figure
            raise Misconfigured(f"The file of figures {path}: {each.name} is out of bounds.")
