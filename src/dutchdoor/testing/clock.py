"""A clock that stands still until it is told otherwise: hand it over wherever `clock=` is asked for."""

from __future__ import annotations

__all__ = ["Clock"]


class Clock:
    """Gives the same instant until it is moved. `at` may be set to any instant, an earlier one too."""

    def __init__(self, at: float = 1_800_000_000.0) -> None:
        self.at = at

    def __call__(self) -> float:
        return self.at

    def advance(self, seconds: float) -> float:
        """Let time pass, or run back where `seconds` is negative; give the new instant."""
        self.at += seconds
        return self.at
