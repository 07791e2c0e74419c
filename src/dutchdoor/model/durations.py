"""Durations as people write them: `90s`, `10m`, `12h`, `1h30m`, a `timedelta`, or a plain number of seconds."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeAlias

from dutchdoor.errors import Misconfigured

__all__ = ["Duration", "Seconds", "read_duration", "seconds", "short_duration"]

Duration: TypeAlias = str | float | timedelta
"""`"15m"`, `timedelta(minutes=15)`, or seconds."""

if TYPE_CHECKING:

    class Seconds:
        """A field that takes a `Duration` and holds seconds. For a type checker: at run time, it is a float."""

        def __get__(self, instance: object, owner: type | None = None) -> float: ...

        def __set__(self, instance: object, value: Duration) -> None: ...
else:
    Seconds = float


def seconds(default: float) -> Any:
    """Return the default of a field that is `Seconds`."""
    return default


_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 7 * 86400.0}
_DURATION = re.compile(r"(?:[0-9]{1,9}(?:\.[0-9]{1,6})?[smhdw]\s*)+")
_AT_MOST = 10**10


def read_duration(value: object, source: str = "A duration") -> float:
    """Return a duration in seconds. `source` names the setting in the message.

    Raises:
        Misconfigured: `value` is not a duration, or is negative.
    """
    if isinstance(value, timedelta):
        value = value.total_seconds()
    if isinstance(value, str):
        text = value.strip().lower()
        if _DURATION.fullmatch(text):
            return sum(float(number) * _UNITS[unit] for number, unit in re.findall(r"([0-9.]+)([smhdw])", text))
        if re.fullmatch(r"[0-9]{1,10}(?:\.[0-9]{1,6})?", text):
            return float(text)
    elif isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value <= _AT_MOST:
        return float(value)
    raise Misconfigured(f"{source} must be a duration such as 90s, 10m, 12h or 30d.")


def short_duration(seconds: Any) -> str:
    """Format seconds in the notation of settings: 10m, 30d."""
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds and seconds % length == 0:
            return f"{seconds / length:g}{unit}"
    return f"{seconds:g}s"
