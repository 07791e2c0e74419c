"""The files in deploy/, read as what they configure."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
KUBERNETES = DEPLOY / "kubernetes"
HOST = "auth.example.com"


def compose() -> dict[str, Any]:
    text = (DEPLOY / "compose.yaml").read_text()
    read: dict[str, Any] = yaml.safe_load(re.sub(r"\$\{DUTCHDOOR_PUBLIC_URL:\?[^}]*\}", f"https://{HOST}", text))
    return read


def pairs(text: str) -> dict[str, str]:
    """Read `NAME=value` lines."""
    return dict(line.split("=", 1) for line in text.splitlines() if line and not line.startswith("#"))


def unit() -> dict[str, list[str]]:
    """The systemd unit's lines, by name, over all sections."""
    found: dict[str, list[str]] = {}
    for line in (DEPLOY / "dutchdoor.service").read_text().splitlines():
        name, equals, value = line.partition("=")
        if equals and not line.startswith("#"):
            found.setdefault(name, []).append(value)
    return found


def environments() -> dict[str, dict[str, str]]:
    """The environment that each example gives to the program."""
    return {
        **{name: each["environment"] for name, each in compose()["services"].items() if name.startswith("node")},
        "kubernetes": pairs((KUBERNETES / "settings.env").read_text()),
    }
