"""All pages of the console, each in a file of its own."""

from __future__ import annotations

from dutchdoor.web.api import Route
from dutchdoor.web.pages.console import (
    account,
    accounts,
    clients,
    events,
    invitations,
    keys,
    overview,
    settings,
    verifiers,
    webhooks,
)
from dutchdoor.web.pages.console.frame import Console
from dutchdoor.web.pages.site import Pages

__all__ = ["routes"]


def routes(pages: Pages) -> list[Route]:
    console = Console(pages)
    return [
        *overview.routes(console),
        *accounts.routes(console),
        *account.routes(console),
        *invitations.routes(console),
        *clients.routes(console),
        *verifiers.routes(console),
        *webhooks.routes(console),
        *keys.routes(console),
        *events.routes(console),
        *settings.routes(console),
    ]
