"""Retention: how long audit events are kept, which are also what webhooks are still to be sent."""

from __future__ import annotations

from typing import Final

from dutchdoor.model.webhooks import KEEP_TRYING_FOR, Lane, Webhook
from dutchdoor.stores.base import Records

__all__ = ["events_kept_from"]

MARGIN: Final = 600.0
"""Seconds by which the time of an event may be before that of its commit, clocks of several machines included."""
HELD_FOR: Final = KEEP_TRYING_FOR + 86_400.0
"""Seconds beyond their age for which undelivered events are kept at most: if no server sends, the log must not grow for
ever."""


async def events_kept_from(store: Records, now: float, max_audit_for: float) -> float:
    """Return the instant before which audit events are deleted: those of an age, unless they are still to be sent."""
    oldest = now - max_audit_for
    active = {webhook.id for webhook in await store.select(Webhook) if not webhook.disabled}
    if not active:
        return oldest
    lanes = [lane.reached_at - MARGIN for lane in await store.select(Lane) if lane.webhook in active]
    return max(min([oldest, *lanes]), oldest - HELD_FOR)
