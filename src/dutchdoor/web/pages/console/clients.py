"""The page of registered clients: which there are, and forms that add one, change its secret and remove it."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from dutchdoor.model.service_credentials import RegisteredClient
from dutchdoor.services.service_credentials import NewClient, add_client, remove_client, rotate_client
from dutchdoor.texts import mark
from dutchdoor.web.api import Call, Route
from dutchdoor.web.body import Body
from dutchdoor.web.fences import wait_for
from dutchdoor.web.http import Response
from dutchdoor.web.pages.console.frame import Console
from dutchdoor.web.pages.console.listing import PAGE, next_page
from dutchdoor.web.pages.site import CONSOLE_PATH
from dutchdoor.web.schemas import instant

__all__ = ["routes"]

PATH = f"{CONSOLE_PATH}/clients"


class Draft(Body, frozen=True):
    name: Annotated[str, Meta(max_length=100)]
    kind: Literal["confidential", "public"] = "confidential"


def routes(console: Console) -> list[Route]:
    page = ClientsPage(console)
    return [
        console.page(PATH, page.show, query=("after",), summary="Show the registered clients."),
        console.act(PATH, page.add, body=Draft, summary="Register a client, and show its secret."),
        console.act(PATH + "/{id}/secret", page.rotate, summary="Give a client a new secret, and show it."),
        console.act(PATH + "/{id}/remove", page.remove, summary="Remove a client."),
    ]


class ClientsPage:
    """Shows the clients. Each secret is in the answer to the form that made it, and in no other."""

    def __init__(self, console: Console) -> None:
        self.console = console

    async def show(self, call: Call) -> Response:
        after = call.query.get("after", "")[:64]
        rows = await call.authority.store.select(RegisteredClient, after=(after,) if after else (), limit=PAGE + 1)
        shown = [
            {"id": row.id, "name": row.name, "confidential": row.confidential, "added": instant(row.created_at)}
            for row in rows[:PAGE]
        ]
        following = rows[PAGE - 1].id if len(rows) > PAGE else ""
        return self.console.show(call, "clients", clients=shown, following=next_page(PATH, after=following))

    async def add(self, call: Call) -> Response:
        draft: Draft = call.body
        made = await add_client(call.authority, draft.name, public=draft.kind == "public", **call.by)
        return self._with_secret(call, made, mark("The client was added"))

    async def rotate(self, call: Call) -> Response:
        made = await rotate_client(call.authority, call.params["id"], **call.by)
        return self._with_secret(call, made, mark("The client has a new secret"))

    async def remove(self, call: Call) -> Response:
        done = await remove_client(call.authority, call.params["id"], **call.by)
        return self.console.done(PATH, "client-removed", await wait_for(call, done))

    def _with_secret(self, call: Call, made: NewClient, title: str) -> Response:
        shown = [(mark("Name"), made.client.name), (mark("Client id"), made.client.id)]
        return self.console.secret(call, title, shown, made.secret, label=mark("Secret"), back=PATH)
