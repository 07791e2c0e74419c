"""The texts that people read on pages and in mails, in their language."""

from __future__ import annotations

__all__ = ["mark"]


def mark(text: str) -> str:
    """Name a text for the catalogues. The template that shows it translates it: `{{ _(text) }}`."""
    return text
