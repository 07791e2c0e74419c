"""The administration over HTTP: who may, what it does, and what it never does."""

from __future__ import annotations

import pytest
from tests.http.world import OTHER_PASSWORD, PASSWORD, Program, World

from dutchdoor.model.http_client import Client
from dutchdoor.model.ids import new_id
from dutchdoor.model.service_credentials import RegisteredClient, VerifierKey
from dutchdoor.web import admin, admin_programs


async def root(world: World) -> Program:
    await world.make_admin()
    program = world.program()
    await program.login("root@example.com", mode="hybrid")
    return program


ROUTES = (*admin.ROUTES, *admin_programs.ROUTES)


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method}-{route.path}")
async def test_only_an_administrator_may(world: World, route) -> None:
    """Every endpoint is 401 without proof and 403 with the proof of any other account, whatever is in the body, and
    does nothing.
    """
    await world.register()
    program = world.program()
    await program.login(mode="hybrid")
    path = route.path
    for name, value in (("subject", "x"), ("id", program.session_id), ("kid", "x"), ("name", "x")):
        path = path.replace("{" + name + "}", value)
    for body in (None, {}, {"roles": ["admin"]}, {"email": "new@example.com", "roles": ["admin"]}, {"name": "orders"}):
        sent = {"json": body} if body is not None else {}
        assert (await world.call(route.method, path, **sent)).status == 401
        refused = await program.call(route.method, path, **sent)
        assert (refused.status, refused.code) == (403, "forbidden")
        assert 'error="insufficient_scope"' in (refused.header("www-authenticate") or "")
    assert (await program.me()).status == 200
    assert len(await world.store.accounts()) == 1
    assert await world.store.select(RegisteredClient) == await world.store.select(VerifierKey) == []


async def test_accounts_are_made_found_and_shown(world: World) -> None:
    """An account is made without a password, its owner is mailed a link; it is listed, found and shown."""
    admin = await root(world)
    made = await admin.call("POST", "/admin/api/accounts", json={"email": "New@Example.com", "roles": ["staff"]})
    assert made.status == 201
    user = made.json["user"]
    assert user["roles"] == ["staff"]
    again = await admin.call("POST", "/admin/api/accounts", json={"email": "new@example.com"})
    assert (again.status, again.code) == (409, "email_taken")
    listed = (await admin.call("GET", "/admin/api/accounts?search=new@")).json["accounts"]
    assert [row["id"] for row in listed] == [user["id"]]
    first = (await admin.call("GET", "/admin/api/accounts?limit=1")).json
    second = (await admin.call("GET", f"/admin/api/accounts?limit=1&after={first['next']}")).json
    assert {first["accounts"][0]["id"], second["accounts"][0]["id"]} >= {user["id"]}
    assert (await admin.call("GET", f"/admin/api/accounts/{user['id']}")).json["status"] == "active"
    body = {"token": world.mailbox.token(), "new_password": OTHER_PASSWORD}
    assert (await world.call("POST", "/auth/password/reset", json=body)).status == 200
    assert (await world.program().login("new@example.com", OTHER_PASSWORD)).status == 200
    for limit in ("0", "501", "-1", "x", "1e2", "²", ""):
        assert (await admin.call("GET", f"/admin/api/accounts?limit={limit}")).status in {400, 422}


async def test_c17_an_administrator_never_chooses_or_sees_a_password(world: World) -> None:
    """No endpoint of the administration takes a password or gives a token: a forced reset goes to the mailbox alone."""
    admin = await root(world)
    user = await world.register()
    for path in ("/admin/api/accounts", f"/admin/api/accounts/{user['id']}/roles"):
        for name in ("password", "new_password", "hash", "proof"):
            body = {"email": "x@example.com", "roles": [], name: PASSWORD}
            assert (await admin.call("POST", path, json=body)).status == 422
    forced = await admin.call("POST", f"/admin/api/accounts/{user['id']}/reset")
    assert (forced.status, forced.json) == (202, {"accepted": True})
    assert world.mailbox.mails[-1].to == "ada@example.com"
    assert world.mailbox.token().encode() not in forced.body


async def test_p06_ending_says_whether_anything_ended(world: World) -> None:
    """Ending, disabling, killing what is not there is 404; ending twice counts 0; the numbers are true."""
    admin = await root(world)
    user = await world.register()
    programs = [world.program() for _ in range(3)]
    for program in programs:
        await program.login(mode="hybrid")
    base = f"/admin/api/accounts/{user['id']}"
    assert len((await admin.call("GET", f"{base}/sessions")).json["sessions"]) == 3
    one = f"/admin/api/sessions/{programs[0].session_id}"
    assert [(await admin.call("DELETE", one)).json["ended"] for _ in range(2)] == [1, 0]
    assert [(await admin.call("DELETE", f"{base}/sessions")).json["ended"] for _ in range(2)] == [2, 0]
    for program in programs:
        assert (await program.me()).status == 401
    unknown = new_id()
    for method, path in (
        ("DELETE", f"/admin/api/sessions/{unknown}"),
        ("DELETE", f"/admin/api/accounts/{unknown}/sessions"),
        ("POST", f"/admin/api/accounts/{unknown}/disable"),
        ("POST", f"/admin/api/accounts/{unknown}/enable"),
        ("POST", f"/admin/api/accounts/{unknown}/reset"),
        ("DELETE", f"/admin/api/keys/{unknown}"),
        ("GET", f"/admin/api/accounts/{unknown}"),
    ):
        assert (await admin.call(method, path)).status == 404, path
    assert (await admin.call("POST", f"/admin/api/accounts/{unknown}/roles", json={"roles": []})).status == 404


async def test_s29_an_administrator_signs_everyone_out(world: World) -> None:
    """One call of an administrator with a fresh proof ends every session and token, the administrator's too; with an
    old proof it is 401 `step_up_required`, and for any other account 403.
    """
    admin = await root(world)
    await world.register()
    programs = [world.program() for _ in range(3)]
    for program, mode in zip(programs, ("hybrid", "jwt", "hybrid"), strict=True):
        await program.login(mode=mode)
    assert (await programs[0].call("DELETE", "/admin/api/sessions")).status == 403
    world.clock.forward(world.auth.authority.policy.step_up_for - 60)
    stale = await admin.call("POST", "/auth/refresh", json={"refresh_token": admin.refresh}, bearer="")
    assert stale.status == 200
    world.clock.forward(120)
    refused = await admin.call("DELETE", "/admin/api/sessions")
    assert (refused.status, refused.code) == (401, "step_up_required")
    await admin.login("root@example.com", mode="hybrid")
    await programs[1].login(mode="jwt")
    answer = await admin.call("DELETE", "/admin/api/sessions")
    assert (answer.status, answer.json["fenced"]) == (200, True)
    assert answer.json["ended"] == 4
    for person in (admin, *programs):
        assert (await person.me()).status == 401
        if person.refresh:
            again = await person.call("POST", "/auth/refresh", json={"refresh_token": person.refresh}, bearer="")
            assert again.status == 401
    await programs[0].login(mode="hybrid")
    assert (await programs[0].me()).status == 200


async def test_an_administrator_who_is_one_no_longer_stops_at_once(world: World) -> None:
    """Losing the role, or the account, ends what the administrator's own token could do, at the next request (I-20)."""
    admin = await root(world)
    account = await world.store.account_by_email("root@example.com")
    assert account is not None
    await world.make_admin("second@example.com")
    await world.directory.admin.set_roles(account.subject, [], client=Client(), actor="cli")
    assert (await admin.call("GET", "/admin/api/accounts")).status == 401, "the token is stale"
    await admin.call("POST", "/auth/refresh", json={"refresh_token": admin.refresh}, bearer="")
    assert (await admin.call("GET", "/admin/api/accounts")).status == 403


async def test_the_last_administrator_cannot_go_by_accident(world: World) -> None:
    """An administrator cannot disable themselves or give up the role over the network. Another administrator
    can, and oneself can have more roles.
    """
    admin = await root(world)
    own = (await admin.me()).json["user"]["id"]
    for path, body in (("disable", None), ("roles", {"roles": []}), ("roles", {"roles": ["editor"]})):
        answer = await admin.call("POST", f"/admin/api/accounts/{own}/{path}", json=body)
        assert (answer.status, answer.code) == (403, "refused")
        assert "Another administrator can" in answer.json["detail"]
    assert (await admin.me()).json["user"]["roles"] == ["admin"]
    more = await admin.call("POST", f"/admin/api/accounts/{own}/roles", json={"roles": ["admin", "editor"]})
    assert more.json["user"]["roles"] == ["admin", "editor"]
    await world.make_admin("other@example.com")
    other = world.program()
    await other.login("other@example.com", mode="hybrid")
    assert (await other.call("POST", f"/admin/api/accounts/{own}/disable")).status == 200


async def test_keys_rotate_and_die(world: World) -> None:
    """A key made now is published before it signs; a killed key's tokens are dead at once, and another signs."""
    admin = await root(world)
    listed = (await admin.call("GET", "/admin/api/keys")).json["keys"]
    assert [key["state"] for key in listed] == ["signing"]
    made = await admin.call("POST", "/admin/api/keys/rotate")
    assert (made.status, made.json["state"]) == (201, "upcoming")
    again = await admin.call("POST", "/admin/api/keys/rotate")
    assert (again.status, again.code) == (409, "conflict"), "a retry of a lost answer creates no second key"
    assert f"Key {made.json['kid']} is the next one already" in again.json["detail"]
    assert len((await world.call("GET", "/.well-known/jwks.json")).json["keys"]) == 2
    assert (await admin.call("DELETE", f"/admin/api/keys/{listed[0]['kid']}")).json["fenced"] is True
    assert (await admin.me()).status == 401
    again = world.program()
    await again.login("root@example.com", mode="hybrid")
    assert (await again.me()).status == 200
    states = {key["kid"]: key["state"] for key in (await again.call("GET", "/admin/api/keys")).json["keys"]}
    assert states[listed[0]["kid"]] == "revoked"
    for key in (await again.call("GET", "/admin/api/keys")).json["keys"]:
        assert set(key) == {"kid", "alg", "state", "created_at", "signs_at", "signs_until", "verifies_until"}


async def test_p50_events_are_followed_with_a_cursor(world: World) -> None:
    """The stream of audit events begins with the oldest, comes in pages, ends with a cursor to ask again with, and
    refuses a cursor of another database, and what is no cursor.
    """
    admin = await root(world)
    path, seen = "/admin/api/events/stream?limit=2", list[str]()
    page = (await admin.call("GET", path)).json
    while page["events"]:
        seen += [event["id"] for event in page["events"]]
        page = (await admin.call("GET", f"{path}&after={page['next']}")).json
    assert sorted(seen) == sorted(event.id for event in await world.events())
    assert page["next"]
    assert (await admin.call("GET", f"{path}&after={page['next']}")).json == page, "nothing new: the same cursor"
    later = await world.register("later@example.com")
    page = (await admin.call("GET", f"{path}&after={page['next']}")).json
    assert {event["subject"] for event in page["events"]} == {later["id"]}
    log, rest = page["next"].split(".", 1)
    for wrong in (f"other.{rest}", f"{log}.1", f"{log}.-1.2.x", f"{log}.{'9' * 19}.1.x", "x" * 200, "1.%C2%B23.4.5"):
        refused = await admin.call("GET", f"{path}&after={wrong}")
        assert (refused.status, refused.json["field"]) == (422, "after"), wrong


async def test_events_are_paged_and_filtered(world: World) -> None:
    """Audit events come newest first, a page at a time, by subject and by name, each with who, what and from where. A
    name that is misspelt is refused: an empty list would say that nothing happened.
    """
    admin = await root(world)
    user = await world.register()
    await world.program().login()
    page = (await admin.call("GET", "/admin/api/events?limit=2")).json
    rest = (await admin.call("GET", f"/admin/api/events?limit=500&before={page['next']}")).json
    seen = [event["id"] for event in (*page["events"], *rest["events"])]
    assert len(set(seen)) == len(seen)
    times = [event["at"] for event in (*page["events"], *rest["events"])]
    assert times == sorted(times, reverse=True)
    mine = (await admin.call("GET", f"/admin/api/events?subject={user['id']}&name=session_started")).json["events"]
    assert [event["address"] for event in mine] in ([], ["192.0.2.7"])
    assert {event["subject"] for event in mine} <= {user["id"]}
    for wrong in ("name=sesion_started", "before=x", f"before={page['next']}x"):
        refused = await admin.call("GET", f"/admin/api/events?{wrong}")
        assert (refused.status, refused.json["field"]) == (422, wrong.split("=", 1)[0]), wrong


async def test_s09_an_administrator_proves_the_password_again_before_changing_anything(world: World) -> None:
    """Ten minutes after the log-in an administrator may look, and may change things only after proving it again."""
    admin = await root(world)
    world.clock.forward(601)
    await admin.call("POST", "/auth/refresh", json={"refresh_token": admin.refresh}, bearer="")
    assert (await admin.call("GET", "/admin/api/keys")).status == 200
    stale = await admin.call("POST", "/admin/api/keys/rotate")
    assert (stale.status, stale.code) == (401, "step_up_required")
    assert 'error="insufficient_user_authentication", max_age="600"' in (stale.header("www-authenticate") or "")
    assert len((await admin.call("GET", "/admin/api/keys")).json["keys"]) == 1
    fresh = await admin.call("POST", "/auth/reauthenticate", json={"password": PASSWORD})
    assert fresh.status == 200
    assert (await admin.call("POST", "/admin/api/keys/rotate")).status == 201
