"""Webhooks over the admin API: each secret is in one answer."""

from __future__ import annotations

from tests.http.test_admin import root
from tests.http.world import World

HOOKS = "/admin/api/webhooks"


async def test_a_webhook_over_the_api(world: World) -> None:
    """B26: an administrator alone; the secret is in one answer; a wrong URL says what is right."""
    admin = await root(world)
    await world.register()
    other = world.browser()
    await other.login(mode="session")
    assert (await other.call("GET", HOOKS)).status == 403
    draft = {"url": "https://example.com/hooks", "events": ["account_created"]}
    added = await admin.call("POST", HOOKS, json=draft)
    assert added.status == 201
    assert added.header("cache-control") == "no-store"
    name, secret = added.json["id"], added.json["secret"]
    listed = await admin.call("GET", HOOKS)
    (row,) = listed.json["webhooks"]
    assert (row["id"], row["state"], row["events"], row["waiting"]) == (name, "active", ["account_created"], [])
    assert secret.encode() not in listed.body
    for wrong in ({"url": "http://example.com"}, {"url": "https://example.com", "events": ["nothing"]}):
        assert (await admin.call("POST", HOOKS, json=wrong)).status == 422
    assert (await admin.call("POST", f"{HOOKS}/{name}/secret")).json["secret"] != secret
    replayed = await admin.call("POST", f"{HOOKS}/{name}/replay", json={"since": "2020-01-01T00:00:00Z"})
    assert replayed.status == 200
    assert replayed.json["behind_since"] is not None
    assert (await admin.call("POST", f"{HOOKS}/{name}/replay", json={"since": "yesterday"})).status == 422
    assert (await admin.call("POST", f"{HOOKS}/{name}/enable")).status == 200
    assert (await admin.call("DELETE", f"{HOOKS}/{name}")).status == 204
    assert (await admin.call("POST", f"{HOOKS}/{name}/test")).status == 404
    assert (await admin.call("DELETE", f"{HOOKS}/{name}")).status == 404
