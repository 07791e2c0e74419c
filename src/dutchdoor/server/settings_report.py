"""The settings of the server for the console: each with where it was set, and the findings of `dutchdoor check`.

`serve` imports this module by name when a page asks for it: it needs what only `check` needs.
"""

from __future__ import annotations

from dutchdoor.model.durations import short_duration
from dutchdoor.server.check import findings, revocation_window
from dutchdoor.server.config import Settings
from dutchdoor.server.settings import SETTINGS, Setting
from dutchdoor.web.settings_report import FoundSetting, SettingsReport, ShownSetting

__all__ = ["report"]


def report(settings: Settings) -> SettingsReport:
    """Report on the settings of this process. Nothing is opened, created or changed.

    Raises:
        Misconfigured: files that the settings name are not usable any more.
    """
    return SettingsReport(
        settings=[
            ShownSetting(
                name=setting.name,
                group=setting.group,
                value=_shown(setting, settings),
                source=_source(setting, settings),
                does=setting.does,
            )
            for setting in SETTINGS
            if setting.name != "preset"  # it stands for other settings, which say where they come from
        ],
        findings=[
            FoundSetting(setting=each.setting, what=each.what, why=each.why, matters=each.matters)
            for each in findings(settings)
        ],
        window=revocation_window(settings),
    )


def _source(setting: Setting, settings: Settings) -> str:
    by_preset = setting.in_policy and setting.name not in settings.sources and "preset" in settings.sources
    return f"preset ({settings.source('preset')})" if by_preset else settings.source(setting.name)


def _shown(setting: Setting, settings: Settings) -> str:
    """Return a value as text. Of a secret, and of a URL that may hold one, only whether it is set."""
    value = getattr(settings.policy if setting.in_policy else settings, setting.name)
    if value is None or value in ("", ()):
        return "not set"
    if setting.hidden:
        return "set, and not shown"
    if isinstance(value, bool):
        return "true" if value else "false"
    if setting.kind == "duration":
        return short_duration(value)
    return ", ".join(map(str, value)) if isinstance(value, tuple) else str(value)
