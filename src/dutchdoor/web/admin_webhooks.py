"""The admin API for webhooks: endpoints that are sent audit events.

The answer that creates a secret is the only one that contains it, and no cache may store that answer.
"""

from __future__ import annotations

from datetime import datetime
from functools import partial
from typing import Annotated, Literal

from msgspec import Meta, Struct

from dutchdoor.model.audit_events import EventName
from dutchdoor.model.webhooks import Webhook
from dutchdoor.services.webhooks import NewWebhook, Standing
from dutchdoor.web.api import Call, Route
from dutchdoor.web.body import Body
from dutchdoor.web.http import Response, json_response
from dutchdoor.web.schemas import instant

__all__ = ["ROUTES"]


class WebhookDraft(Body, frozen=True):
    url: Annotated[str, Meta(max_length=2000)]
    events: Annotated[tuple[Annotated[str, Meta(max_length=64)], ...], Meta(max_length=200)] = ()
    """The names of the audit events that it gets; all of them if empty."""
    with_client: bool = False
    """Whether it gets the address, country and device of the client behind an event, too."""


class ReplayDraft(Body, frozen=True):
    since: Annotated[datetime, Meta(tz=True)]
    """The instant from which on events are sent again."""
    account: Annotated[str, Meta(max_length=256)] = ""
    """The id of the account whose events are sent; all if empty."""


class LaneView(Struct):
    """An account whose events the endpoint does not take: they wait, and those of others go on."""

    subject: str
    event_at: str
    """When the first event happened that waits."""
    tries: int
    """Failed attempts."""
    next_at: str | None
    """When the next attempt is made."""
    failure: str


class WebhookView(Struct):
    id: str
    url: str
    events: tuple[EventName, ...]
    """The audit events that it gets; all of them if empty."""
    with_client: bool
    state: Literal["active", "failing", "gone"]
    """`failing` and `gone` are disabled: the endpoint took nothing for days, or answered 410."""
    created_at: str
    delivered_at: str | None
    """When the endpoint last took an event."""
    behind_since: str | None
    """When the oldest event happened that was not delivered; null if there is none."""
    waiting: list[LaneView]


class WebhookWithSecret(Struct):
    id: str
    url: str
    secret: str

    def __repr__(self) -> str:
        return f"<WebhookWithSecret {self.id}>"


class WebhookViews(Struct):
    webhooks: list[WebhookView]


class Attempt(Struct):
    """What the endpoint answered to the message: `status` is 0 if nothing."""

    delivered: bool
    status: int
    failure: str


async def list_webhooks(call: Call) -> Response:
    found = [await call.webhooks.standing(webhook) for webhook in await call.webhooks.listed()]
    return json_response(200, WebhookViews([_view(each) for each in found]))


async def add_webhook(call: Call) -> Response:
    draft: WebhookDraft = call.body
    made = await call.webhooks.add(draft.url, events=draft.events, with_client=draft.with_client, **call.by)
    return json_response(201, _with_secret(made))


async def rotate_webhook(call: Call) -> Response:
    made = await call.webhooks.rotate(call.params["id"], **call.by)
    return json_response(200, _with_secret(made))


async def test_webhook(call: Call) -> Response:
    answer = await call.webhooks.test(call.params["id"])
    return json_response(200, Attempt(answer.ok, answer.status, answer.failure))


async def enable_webhook(call: Call) -> Response:
    webhook = await call.webhooks.enable(call.params["id"], **call.by)
    return await _shown(call, webhook)


async def replay_webhook(call: Call) -> Response:
    draft: ReplayDraft = call.body
    webhook = await call.webhooks.replay(call.params["id"], draft.since.timestamp(), subject=draft.account, **call.by)
    return await _shown(call, webhook)


async def remove_webhook(call: Call) -> Response:
    await call.webhooks.remove(call.params["id"], **call.by)
    return Response(204)


async def _shown(call: Call, webhook: Webhook) -> Response:
    return json_response(200, _view(await call.webhooks.standing(webhook)))


def _view(found: Standing) -> WebhookView:
    webhook, main = found.webhook, found.main
    return WebhookView(
        id=webhook.id,
        url=webhook.url,
        events=webhook.events,  # type: ignore[arg-type]  # `add` has checked them
        with_client=webhook.with_client,
        state=webhook.disabled or "active",  # type: ignore[arg-type]  # one of the three
        created_at=instant(webhook.created_at),
        delivered_at=_instant(main.delivered_at),
        behind_since=_instant(found.behind_since),
        waiting=[
            LaneView(
                subject=lane.subject,
                event_at=instant(lane.reached_at),
                tries=lane.tries,
                next_at=_instant(max(lane.next_at, main.next_at)),
                failure=lane.failure,
            )
            for lane in found.waiting
        ],
    )


def _instant(at: float) -> str | None:
    return instant(at) if at else None


def _with_secret(made: NewWebhook) -> WebhookWithSecret:
    return WebhookWithSecret(made.webhook.id, made.webhook.url, made.secret)


_route = partial(Route, demands="admin")

ROUTES = (
    _route(
        method="GET",
        path="/admin/api/webhooks",
        handler=list_webhooks,
        gives=WebhookViews,
        summary="List webhooks, and how far each has got.",
    ),
    _route(
        method="POST",
        path="/admin/api/webhooks",
        handler=add_webhook,
        body=WebhookDraft,
        gives=WebhookWithSecret,
        status=201,
        summary="Add a webhook: audit events from now on are sent to its URL, signed. Only this answer contains its "
        "secret.",
    ),
    _route(
        method="POST",
        path="/admin/api/webhooks/{id}/secret",
        handler=rotate_webhook,
        gives=WebhookWithSecret,
        also=(404,),
        summary="Give a webhook a new secret. The old one signs beside it for a day. Only this answer contains the new "
        "one.",
    ),
    _route(
        method="POST",
        path="/admin/api/webhooks/{id}/test",
        handler=test_webhook,
        gives=Attempt,
        also=(404,),
        summary="Send a message of the type `test` now, and return what the endpoint answered.",
    ),
    _route(
        method="POST",
        path="/admin/api/webhooks/{id}/enable",
        handler=enable_webhook,
        gives=WebhookView,
        also=(404,),
        summary="Send to a disabled webhook again, from where it stopped. What waits is sent at once.",
    ),
    _route(
        method="POST",
        path="/admin/api/webhooks/{id}/replay",
        handler=replay_webhook,
        body=ReplayDraft,
        gives=WebhookView,
        also=(404,),
        summary="Send again what happened from an instant on, under the same ids.",
    ),
    _route(
        method="DELETE",
        path="/admin/api/webhooks/{id}",
        handler=remove_webhook,
        status=204,
        also=(404,),
        summary="Remove a webhook. What was not delivered is not sent any more.",
    ),
)
