"""What an administrator did before a new password and what it leaves standing, as the page of the account lists it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import urlencode

from dutchdoor.model.audit_events import EventName
from dutchdoor.services.deeds import Deed
from dutchdoor.web.pages.site import CONSOLE_PATH, Pages

__all__ = ["shown"]

_UNDONE_AT: Final[Mapping[EventName, str]] = {
    "account_created": "/accounts/one",
    "roles_changed": "/accounts/one",
    "invitation_sent": "/invitations",
    "webhook_added": "/webhooks",
    "webhook_secret_changed": "/webhooks",
    "verifier_added": "/verifiers",
    "verifier_key_changed": "/verifiers",
    "client_added": "/clients",
    "client_secret_changed": "/clients",
}
"""The page of the console on which each is undone."""


def shown(deed: Deed, pages: Pages) -> dict[str, Any]:
    """Return what the template shows of a deed. `page` is "" where there is no console."""
    path = _UNDONE_AT[deed.name]
    query = f"?{urlencode({'id': deed.id})}" if path.endswith("/one") else ""
    return {
        "text": deed.text,
        "name": deed.shown,
        "roles": deed.roles,
        "added_at": deed.at,
        "device": deed.device,
        "country": deed.country,
        "undo": deed.undo,
        "page": f"{pages.base}{CONSOLE_PATH}{path}{query}" if pages.console else "",
    }
