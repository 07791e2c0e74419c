"""`dutchdoor serve` with a wall clock that is wrong: `python -m tests.faults.shifted CLOCK serve ...`.

CLOCK is a file of eight bytes, a double: the seconds by which the clock is ahead, read at every reading of it, so that
a test steps it under a running server. `FROZEN` added to it stops it. Elapsed-time clocks stay as they are, as they do
when a machine's clock is set. Written by hand, because faketime is not everywhere and would shift those as well.
"""

from __future__ import annotations

import mmap
import struct
import sys
import time
from pathlib import Path

from tests.faults.leash import hold

_OFFSET = struct.Struct("d")
FROZEN = 1_000_000.0
"""Added to an offset: time stands still from now on."""


def set_clock(path: Path, ahead: float) -> None:
    if path.exists():
        with path.open("r+b") as file:  # in place: who has it mapped sees it at once
            file.write(_OFFSET.pack(ahead))
    else:
        path.write_bytes(_OFFSET.pack(ahead))


def shift(path: str) -> None:
    """From now on `time.time` is as far ahead as the file says."""
    with open(path, "rb") as file:  # noqa: PTH123
        shown = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    real = time.time
    frozen: list[float] = []

    def wrong() -> float:
        (ahead,) = _OFFSET.unpack(shown[: _OFFSET.size])
        if ahead < FROZEN / 2:
            frozen.clear()
            return real() + ahead
        if not frozen:
            frozen.append(real() + ahead - FROZEN)
        return frozen[0]

    time.time = wrong
    time.time_ns = lambda: int(wrong() * 1e9)


if __name__ == "__main__":
    hold()
    shift(sys.argv.pop(1))
    # After the shift: every module takes its clock from `time` when it is imported.
    from dutchdoor.server.cli import main

    main()
