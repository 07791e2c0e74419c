"""Each endpoint of the API, in the order of its description. A file of endpoints is added here, and nowhere else."""

from __future__ import annotations

from typing import Final

from dutchdoor.web import (
    account_routes,
    admin,
    admin_invitations,
    admin_programs,
    admin_webhooks,
    auth_routes,
    browser_key_routes,
    device_binding_routes,
    factor_routes,
    issuer_routes,
    life_routes,
    lost_factor_routes,
    mail_code_routes,
    oauth,
    own_events,
    passkey_routes,
    revocations,
    set_aside_routes,
    wellknown,
)
from dutchdoor.web.api import Route

__all__ = ["ROUTES"]

ROUTES: Final[tuple[Route, ...]] = (
    *auth_routes.ROUTES,
    *browser_key_routes.ROUTES,
    *device_binding_routes.ROUTES,
    *account_routes.ROUTES,
    *factor_routes.ROUTES,
    *passkey_routes.ROUTES,
    *issuer_routes.ROUTES,
    *mail_code_routes.ROUTES,
    *lost_factor_routes.ROUTES,
    *set_aside_routes.ROUTES,
    *own_events.ROUTES,
    *life_routes.ROUTES,
    *revocations.ROUTES,
    *admin.ROUTES,
    *admin_invitations.ROUTES,
    *admin_programs.ROUTES,
    *admin_webhooks.ROUTES,
    *oauth.ROUTES,
    *wellknown.ROUTES,
)
