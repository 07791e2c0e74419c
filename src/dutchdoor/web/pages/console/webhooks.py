"""The page of webhooks: which there are, how far each has got, and forms that add, test, change and remove one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from msgspec import Meta

from dutchdoor.services.webhooks import NewWebhook, Standing
from dutchdoor.texts import mark
from dutchdoor.web.api import Call, Route
from dutchdoor.web.body import Body
from dutchdoor.web.http import Response
from dutchdoor.web.pages.console.drafts import DraftPage
from dutchdoor.web.pages.console.frame import Console
from dutchdoor.web.pages.site import CONSOLE_PATH
from dutchdoor.web.schemas import instant

__all__ = ["routes"]

PATH = f"{CONSOLE_PATH}/webhooks"


class Draft(Body, frozen=True):
    url: Annotated[str, Meta(max_length=2000)]
    events: Annotated[str, Meta(max_length=4000)] = ""
    """Words with spaces between them."""
    client: Annotated[str, Meta(max_length=3)] = ""
    """`yes` for the place of clients, too: the value of a checkbox."""


def routes(console: Console) -> list[Route]:
    page = WebhooksPage(console)
    return [
        console.page(PATH, page.show, summary="Show the webhooks, and how far each has got."),
        console.act(PATH, page.add, body=Draft, again=page.again, summary="Add a webhook, and show its secret."),
        console.act(PATH + "/{id}/secret", page.rotate, summary="Give a webhook a new secret, and show it."),
        console.act(PATH + "/{id}/test", page.test, summary="Send a test message, and show the answer."),
        console.act(PATH + "/{id}/enable", page.enable, summary="Send to a webhook again at once."),
        console.act(PATH + "/{id}/remove", page.remove, summary="Remove a webhook."),
    ]


class WebhooksPage(DraftPage):
    """Shows the webhooks. Each secret is in the answer to the form that made it, and in no other."""

    draft = Draft

    async def show_with(
        self,
        call: Call,
        status: int = 200,
        *,
        kept: Mapping[str, str],
        error: Mapping[str, Any] | None = None,
        answer: str = "",
    ) -> Response:
        """Show the page; `answer` says why a test message was not delivered."""
        found = [await call.webhooks.standing(webhook) for webhook in await call.webhooks.listed()]
        return self.console.show(
            call,
            "webhooks",
            status,
            webhooks=[_shown(each) for each in found],
            error=error,
            kept=kept,
            answer=answer,
        )

    async def add(self, call: Call) -> Response:
        draft: Draft = call.body
        made = await call.webhooks.add(
            draft.url, events=draft.events.split(), with_client=draft.client == "yes", **call.by
        )
        return self._with_secret(call, made, mark("The webhook was added"))

    async def rotate(self, call: Call) -> Response:
        made = await call.webhooks.rotate(call.params["id"], **call.by)
        return self._with_secret(call, made, mark("The webhook has a new secret"))

    async def test(self, call: Call) -> Response:
        answer = await call.webhooks.test(call.params["id"])
        if answer.ok:
            return self.console.done(PATH, "webhook-tested")
        return await self.show_with(call, kept=self._kept({}), answer=answer.failure)

    async def enable(self, call: Call) -> Response:
        await call.webhooks.enable(call.params["id"], **call.by)
        return self.console.done(PATH, "webhook-enabled")

    async def remove(self, call: Call) -> Response:
        await call.webhooks.remove(call.params["id"], **call.by)
        return self.console.done(PATH, "webhook-removed")

    def _with_secret(self, call: Call, made: NewWebhook, title: str) -> Response:
        shown = [(mark("URL"), made.webhook.url), (mark("Id"), made.webhook.id)]
        return self.console.secret(call, title, shown, made.secret, label=mark("Secret"), back=PATH, sealed=True)


def _shown(found: Standing) -> dict[str, Any]:
    webhook = found.webhook
    return {
        "id": webhook.id,
        "url": webhook.url,
        "events": webhook.events,
        "with_client": webhook.with_client,
        "disabled": webhook.disabled,
        "delivered": instant(found.main.delivered_at) if found.main.delivered_at else "",
        "behind": instant(found.behind_since) if found.behind_since else "",
        "waiting": len(found.waiting),
        "failure": found.waiting[0].failure if found.waiting else "",
    }
