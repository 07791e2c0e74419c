"""A clock that stands still until a test moves it: pass it wherever a `clock=` parameter exists."""

from __future__ import annotations

from dutchdoor.model.durations import Duration, read_duration

__all__ = ["Clock"]


class Clock:
    """Returns the same instant until it is moved. `at` may be set to any instant, an earlier one too."""

    def __init__(self, at: float = 1_800_000_000.0) -> None:
        self.at = at

    def __call__(self) -> float:
        return self.at

    def advance(self, by: Duration) -> float:
        """Let time pass, or run backwards by a negative number of seconds; return the new instant. Raises
        `Misconfigured` if `by` is no duration.
        """
        is_back = isinstance(by, int | float) and not isinstance(by, bool) and by < 0
        self.at += float(by) if is_back else read_duration(by, "clock.advance")  # type: ignore[arg-type] # negative
        return self.at
