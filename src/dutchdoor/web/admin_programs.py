"""The admin API for programs: registered clients and verifier keys.

The answer that creates a secret is the only one that contains it, and no cache may store that answer.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Annotated

from msgspec import Meta, Struct

from dutchdoor.model.service_credentials import RegisteredClient, VerifierKey
from dutchdoor.services import service_credentials
from dutchdoor.services.service_credentials import NewClient
from dutchdoor.web.api import Call, Route
from dutchdoor.web.body import Body
from dutchdoor.web.fences import applied, fence, status_of, wait_for
from dutchdoor.web.http import Response, json_response
from dutchdoor.web.schemas import Fence, instant
from dutchdoor.web.verifiers import followed

__all__ = ["ROUTES"]


class ClientDraft(Body, frozen=True):
    name: Annotated[str, Meta(max_length=100)]
    public: bool = False
    """Whether the client has no secret: an application that runs on users' machines."""


class ClientView(Struct):
    client_id: str
    name: str
    confidential: bool
    """Whether the client has a secret."""
    created_at: str


class ClientWithSecret(ClientView):
    """`client_secret` is null for a public client."""

    client_secret: str | None

    def __repr__(self) -> str:
        return f"<ClientWithSecret {self.client_id}>"


class Clients(Struct):
    clients: list[ClientView]


class VerifierDraft(Body, frozen=True):
    # The pattern is only for the description of the API: the service checks the name, with a readable message.
    name: Annotated[str, Meta(max_length=64, extra_json_schema={"pattern": "^[A-Za-z0-9_.:-]{1,64}$"})]


class VerifierWithKey(Struct):
    name: str
    id: str
    key: str

    def __repr__(self) -> str:
        return f"<VerifierWithKey {self.name}>"


class ChangedVerifier(VerifierWithKey):
    """A verifier with its new key, and the fence of the old one."""

    fenced: bool
    fenced_in_ms: int | None

    def __repr__(self) -> str:
        return f"<ChangedVerifier {self.name}>"


class VerifierView(Struct):
    """The processes that poll this node with one key."""

    name: str
    following: int
    """Number of processes."""
    behind: int
    """Entries that the slowest process has not acknowledged."""
    lease_left_ms: int
    """The longest remaining lease of a process."""


class Following(Struct):
    """One node, and the verifiers that follow its revocation log. Each process of this server is a node."""

    node: str
    log_epoch: int
    seq: int
    entries: int
    verifiers: list[VerifierView]


async def list_clients(call: Call) -> Response:
    rows = await call.authority.store.select(RegisteredClient)
    return json_response(200, Clients([_view(row) for row in rows]))


async def add_client(call: Call) -> Response:
    draft: ClientDraft = call.body
    made = await service_credentials.add_client(call.authority, draft.name, public=draft.public, **call.by)
    return json_response(201, _with_secret(made))


async def rotate_client(call: Call) -> Response:
    made = await service_credentials.rotate_client(call.authority, call.params["id"], **call.by)
    return json_response(200, _with_secret(made))


async def remove_client(call: Call) -> Response:
    done = await service_credentials.remove_client(call.authority, call.params["id"], **call.by)
    return await fence(call, done)


async def list_verifiers(call: Call) -> Response:
    fencing = call.authority.fencing
    node = fencing.node
    found = {key.name: VerifierView(key.name, 0, 0, 0) for key in await call.authority.store.select(VerifierKey)}
    for each in followed(fencing):
        found[each.credential] = VerifierView(
            each.credential, each.processes, each.behind, math.ceil(each.lease_left * 1000)
        )
    verifiers = [found[name] for name in sorted(found)]
    return json_response(200, Following(node.id, node.log_epoch, node.applied_seq, len(fencing.log), verifiers))


async def add_verifier(call: Call) -> Response:
    draft: VerifierDraft = call.body
    made = await service_credentials.add_verifier(call.authority, draft.name, **call.by)
    return json_response(201, VerifierWithKey(made.key.name, made.key.id, made.secret))


async def rotate_verifier(call: Call) -> Response:
    made = await service_credentials.rotate_verifier(call.authority, call.params["name"], **call.by)
    found = await wait_for(call, made.done)
    shown = ChangedVerifier(made.key.name, made.key.id, made.secret, found.fenced, found.fenced_in_ms)
    return json_response(status_of(found), shown, applied(call))


async def remove_verifier(call: Call) -> Response:
    done = await service_credentials.remove_verifier(call.authority, call.params["name"], **call.by)
    return await fence(call, done)


def _view(row: RegisteredClient) -> ClientView:
    return ClientView(row.id, row.name, row.confidential, instant(row.created_at))


def _with_secret(made: NewClient) -> ClientWithSecret:
    row = made.client
    return ClientWithSecret(row.id, row.name, row.confidential, instant(row.created_at), made.secret or None)


_route = partial(Route, demands="admin")

ROUTES = (
    _route(
        method="GET",
        path="/admin/api/clients",
        handler=list_clients,
        gives=Clients,
        summary="List registered clients.",
    ),
    _route(
        method="POST",
        path="/admin/api/clients",
        handler=add_client,
        body=ClientDraft,
        gives=ClientWithSecret,
        status=201,
        summary="Register a client. Only this answer contains its secret.",
    ),
    _route(
        method="POST",
        path="/admin/api/clients/{id}/secret",
        handler=rotate_client,
        gives=ClientWithSecret,
        also=(404,),
        summary="Give a client a new secret. The old one is refused at once. Only this answer contains the new one.",
    ),
    _route(
        method="DELETE",
        path="/admin/api/clients/{id}",
        handler=remove_client,
        gives=Fence,
        fences=True,
        also=(404,),
        summary="Remove a client. It is refused from then on, and its access tokens are revoked.",
    ),
    _route(
        method="GET",
        path="/admin/api/verifiers",
        handler=list_verifiers,
        gives=Following,
        summary="List verifier keys, and the verifiers that follow the revocation log at the answering process.",
    ),
    _route(
        method="POST",
        path="/admin/api/verifiers",
        handler=add_verifier,
        body=VerifierDraft,
        gives=VerifierWithKey,
        status=201,
        also=(409,),
        summary="Create a verifier key for a service. Only this answer contains it.",
    ),
    _route(
        method="POST",
        path="/admin/api/verifiers/{name}/key",
        handler=rotate_verifier,
        gives=ChangedVerifier,
        fences=True,
        also=(404,),
        summary="Replace a verifier key. The old one is refused at once. Only this answer contains the new one.",
    ),
    _route(
        method="DELETE",
        path="/admin/api/verifiers/{name}",
        handler=remove_verifier,
        gives=Fence,
        fences=True,
        also=(404,),
        summary="Remove a verifier key. It is refused from then on.",
    ),
)
