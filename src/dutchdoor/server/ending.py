"""A command that has begun something ends it in order, however it is ended itself."""

from __future__ import annotations

import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["ends_in_order"]


@contextmanager
def ends_in_order() -> Iterator[None]:
    """Leave each block in order also when this process is asked to end, or its terminal is closed."""

    def end(number: int, _frame: object) -> None:
        sys.exit(128 + number)

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
