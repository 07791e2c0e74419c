"""What the console says about the settings of the program around it, which hands it down: values and findings.

No value here is secret: the program that makes the report leaves secrets and URLs with passwords out.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from msgspec import Struct

__all__ = ["FoundSetting", "Report", "SettingsReport", "ShownSetting"]


class ShownSetting(Struct, frozen=True, kw_only=True):
    """One setting, as text."""

    name: str
    group: str
    value: str
    source: str
    """Where it was set, such as `--port`."""
    does: str
    """What it does."""


class FoundSetting(Struct, frozen=True, kw_only=True):
    """A setting that is not safe, or not usual. `matters`: do not serve with it."""

    setting: str
    what: str
    why: str
    matters: bool


class SettingsReport(Struct, frozen=True, kw_only=True):
    """All settings, and what was found about them."""

    settings: list[ShownSetting]
    findings: list[FoundSetting]
    window: str
    """How long something revoked may still be accepted, as text of several lines."""


Report: TypeAlias = Callable[[], SettingsReport]
"""Makes the report, in a thread: it looks at files. May raise `Misconfigured`."""
