"""The page of verifiers and nodes: who follows the revocation log, how far behind, and under which lease."""

from __future__ import annotations

import math
from typing import Annotated, Any

from msgspec import Meta

from dutchdoor.model.service_credentials import VerifierKey
from dutchdoor.revocation.node_messages import NodeRow
from dutchdoor.services.fencing import Fencing
from dutchdoor.services.service_credentials import NewVerifier, add_verifier, remove_verifier, rotate_verifier
from dutchdoor.texts import mark
from dutchdoor.web.api import Call, Route
from dutchdoor.web.body import Body
from dutchdoor.web.fences import wait_for
from dutchdoor.web.http import Response
from dutchdoor.web.pages.console.frame import Console
from dutchdoor.web.pages.console.listing import PAGE, next_page
from dutchdoor.web.pages.site import CONSOLE_PATH
from dutchdoor.web.schemas import instant
from dutchdoor.web.verifiers import Followed, followed

__all__ = ["routes"]

PATH = f"{CONSOLE_PATH}/verifiers"


class Draft(Body, frozen=True):
    name: Annotated[str, Meta(max_length=64)]


def routes(console: Console) -> list[Route]:
    page = VerifiersPage(console)
    return [
        console.page(PATH, page.show, query=("after",), summary="Show who follows the revocation log."),
        console.act(PATH, page.add, body=Draft, summary="Create a verifier key, and show it."),
        console.act(PATH + "/{name}/key", page.rotate, summary="Replace a verifier key, and show the new one."),
        console.act(PATH + "/{name}/remove", page.remove, summary="Remove a verifier key."),
    ]


class VerifiersPage:
    """Shows the keys of verifiers, and the nodes. Each key is in the answer to the form that made it, and in no
    other.
    """

    def __init__(self, console: Console) -> None:
        self.console = console

    async def show(self, call: Call) -> Response:
        store, fencing = call.authority.store, call.authority.fencing
        after = call.query.get("after", "")[:128].split(" ", 1)  # the name and the id of the last key
        keys = await store.select(VerifierKey, after=after if len(after) > 1 else (), limit=PAGE + 1)
        nodes = await store.node_rows()
        await fencing.follow()
        following = f"{keys[PAGE - 1].name} {keys[PAGE - 1].id}" if len(keys) > PAGE else ""
        return self.console.show(
            call,
            "verifiers",
            verifiers=_verifiers(keys[:PAGE], followed(fencing)),
            following=next_page(PATH, after=following),
            nodes=[_node(row, fencing) for row in sorted(nodes.rows, key=lambda row: row.id)],
            this=fencing.node.id,
            log={"epoch": fencing.node.log_epoch, "seq": fencing.node.applied_seq, "entries": len(fencing.log)},
        )

    async def add(self, call: Call) -> Response:
        draft: Draft = call.body
        made = await add_verifier(call.authority, draft.name, **call.by)
        return self._with_key(call, made, mark("The verifier was added"))

    async def rotate(self, call: Call) -> Response:
        made = await rotate_verifier(call.authority, call.params["name"], **call.by)
        return self._with_key(call, made, mark("The verifier has a new key"))

    async def remove(self, call: Call) -> Response:
        done = await remove_verifier(call.authority, call.params["name"], **call.by)
        return self.console.done(PATH, "verifier-removed", await wait_for(call, done))

    def _with_key(self, call: Call, made: NewVerifier, title: str) -> Response:
        shown = [(mark("Name"), made.key.name)]
        return self.console.secret(call, title, shown, made.secret, label=mark("Key"), back=PATH)


def _verifiers(keys: list[VerifierKey], seen: list[Followed]) -> list[dict[str, Any]]:
    by_name = {each.credential: each for each in seen}
    found = [{**_follows(by_name.get(key.name)), "name": key.name, "added": instant(key.created_at)} for key in keys]
    # A key that was removed, or a verifier without one in development: its leases still hold up fences.
    known = {key.name for key in keys}
    return found + [
        {**_follows(each), "name": each.credential, "added": ""} for each in seen if each.credential not in known
    ]


def _follows(each: Followed | None) -> dict[str, int]:
    if each is None:
        return {"processes": 0, "behind": 0, "lease": 0}
    return {"processes": each.processes, "behind": each.behind, "lease": math.ceil(each.lease_left)}


def _node(row: NodeRow, fencing: Fencing) -> dict[str, Any]:
    # The acknowledged sequence of a row counts in the log of that row only.
    same = row.log_epoch == fencing.node.log_epoch
    behind = max(0, fencing.node.applied_seq - row.acked_seq) if same else None
    return {"id": row.id, "behind": behind, "lease": row.lease_for}
