"""Clients and verifier keys over the admin API: each secret is in one answer, and what is removed is refused."""

from __future__ import annotations

import base64

from tests.http.test_admin import root
from tests.http.world import PASSWORD, Answer, World

CLIENTS, VERIFIERS = "/admin/api/clients", "/admin/api/verifiers"


def basic(client_id: str, secret: str) -> tuple[str, str]:
    return "authorization", "Basic " + base64.b64encode(f"{client_id}:{secret}".encode()).decode()


async def introspect(world: World, client_id: str, secret: str, token: str = "x") -> Answer:
    return await world.call("POST", "/oauth2/introspect", form={"token": token}, headers=[basic(client_id, secret)])


async def test_w10_a_client_is_added_changed_and_removed(world: World) -> None:
    """Its secret is in one answer and works from then on; a new one replaces it at once; removed, the client signs no
    one in, refreshes nothing, and its access tokens are refused. Each step is an audit event of the administrator.
    """
    admin = await root(world)
    await world.register()
    added = await admin.call("POST", CLIENTS, json={"name": " orders "})
    assert (added.status, added.json["name"], added.json["confidential"]) == (201, "orders", True)
    client_id, first = added.json["client_id"], added.json["client_secret"]
    listed = await admin.call("GET", CLIENTS)
    assert [row["client_id"] for row in listed.json["clients"]] == [client_id]
    assert first.encode() not in listed.body

    body = {"email": "ada@example.com", "password": PASSWORD, "mode": "hybrid", "client_id": client_id}
    signed_in = await world.call("POST", "/auth/login", json=body, headers=[basic(client_id, first)])
    token, refresh = signed_in.json["access_token"], {"refresh_token": signed_in.json["refresh_token"]}
    assert (await introspect(world, client_id, first, token)).json["active"] is True

    second = (await admin.call("POST", f"{CLIENTS}/{client_id}/secret")).json["client_secret"]
    assert (await introspect(world, client_id, first)).status == 401
    assert (await introspect(world, client_id, second, token)).json["active"] is True

    removed = await admin.call("DELETE", f"{CLIENTS}/{client_id}")
    assert (removed.status, removed.json["fenced"]) == (200, True)
    assert (await introspect(world, client_id, second)).status == 401
    assert (await world.call("GET", "/auth/me", bearer=token)).status == 401
    proof = [basic(client_id, second)]
    sent = {**refresh, "client_id": client_id}
    assert (await world.call("POST", "/auth/refresh", json=sent, headers=proof)).status == 401
    assert (await world.call("POST", "/auth/refresh", json=refresh)).status == 401
    assert (await world.call("POST", "/auth/login", json=body, headers=proof)).status == 422
    assert (await admin.call("DELETE", f"{CLIENTS}/{client_id}")).status == 404
    assert (await admin.call("POST", f"{CLIENTS}/{client_id}/secret")).status == 404

    events = [event for event in await world.store.events() if event.client_id == client_id]
    acts = [(event.name, event.detail) for event in events if event.name.startswith("client_")]
    assert sorted(acts) == [(name, "orders") for name in ("client_added", "client_removed", "client_secret_changed")]
    root_id = (await admin.me()).json["user"]["id"]
    assert {event.actor for event in events if event.name.startswith("client_")} == {root_id}


async def test_a_public_client_has_no_secret(world: World) -> None:
    """It gets none when it is added, and asking for one says why there is none."""
    admin = await root(world)
    added = await admin.call("POST", CLIENTS, json={"name": "app", "public": True})
    assert (added.json["client_secret"], added.json["confidential"]) == (None, False)
    refused = await admin.call("POST", f"{CLIENTS}/{added.json['client_id']}/secret")
    assert (refused.status, "public" in refused.json["detail"]) == (422, True)
    for name in ("", " ", "a\nb", "x" * 101, "\u202eevil"):
        assert (await admin.call("POST", CLIENTS, json={"name": name})).status == 422, name


async def test_w10_a_verifier_key_is_added_replaced_and_removed(world: World) -> None:
    """Its key is in one answer and polls from then on; another key in its place ends the first at once; removed, it
    polls no more.
    """
    admin = await root(world)

    async def poll(key: str) -> int:
        await world.directory.authority.fencing.follow()
        body = {"holder": "A" * 22, "log_epoch": 0, "applied_seq": 0, "wait_ms": 0}
        return (await world.call("POST", "/auth/revocations/poll", json=body, bearer=key)).status

    added = await admin.call("POST", VERIFIERS, json={"name": "orders"})
    assert added.status == 201
    first = added.json["key"]
    assert await poll(first) == 200
    again = await admin.call("POST", VERIFIERS, json={"name": "orders"})
    assert (again.status, "already exists" in again.json["detail"]) == (409, True)
    assert (await admin.call("POST", VERIFIERS, json={"name": "two words"})).status == 422

    changed = await admin.call("POST", f"{VERIFIERS}/orders/key", headers=[("prefer", "wait=0")])
    assert (changed.status, changed.json["fenced"]) == (202, False), "the lease of the old key is still running"
    second = changed.json["key"]
    assert (await poll(first), await poll(second)) == (401, 200)
    listed = await admin.call("GET", VERIFIERS)
    assert [row["name"] for row in listed.json["verifiers"]] == ["orders"]
    assert second.encode() not in listed.body

    assert (await admin.call("DELETE", f"{VERIFIERS}/orders", headers=[("prefer", "wait=0")])).status == 202
    assert await poll(second) == 401
    assert (await admin.call("DELETE", f"{VERIFIERS}/orders")).status == 404
    assert (await admin.call("POST", f"{VERIFIERS}/orders/key")).status == 404
    names = [event.name for event in await world.store.events() if event.name.startswith("verifier_")]
    assert sorted(names) == ["verifier_added", "verifier_key_changed", "verifier_removed"]
