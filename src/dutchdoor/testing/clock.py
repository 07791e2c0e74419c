"""A clock that stands still until a test moves it: pass it wherever a `clock=` parameter exists."""

from __future__ import annotations

__all__ = ["Clock"]


class Clock:
    """Returns the same instant until it is moved. `at` may be set to any instant, an earlier one too."""

    def __init__(self, at: float = 1_800_000_000.0) -> None:
        self.at = at

    def __call__(self) -> float:
        return self.at

    def advance(self, seconds: float) -> float:
        """Let time pass, or run backwards if `seconds` is negative; return the new instant."""
        self.at += seconds
        return self.at
