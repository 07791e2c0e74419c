"""What an application's OpenAPI document says of the API and of the routes that have a guard."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

__all__ = ["merge"]

_PROBLEM = {"application/problem+json": {"schema": {"type": "object"}}}


def merge(document: dict[str, Any], ours: dict[str, Any], guarded: Iterable[dict[str, Any]]) -> None:
    """Add our paths and schemes to the application's `document`, and a requirement to each operation with a guard."""
    schemes = ours["components"]["securitySchemes"]
    security: list[dict[str, list[str]]] = [{name: []} for name in ("session", "bearer", "dpop") if name in schemes]
    for operation in guarded:
        operation["security"] = security
        refused = {"description": "Sign in to continue.", "content": _PROBLEM}
        operation.setdefault("responses", {}).setdefault("401", refused)
    document.setdefault("paths", {}).update(ours["paths"])
    components = document.setdefault("components", {})
    for kind, named in ours["components"].items():
        components.setdefault(kind, {}).update(named)
