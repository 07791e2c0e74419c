"""The life of an account over HTTP: another address, a copy of one's data, deletion."""

from __future__ import annotations

import asyncio

from msgspec.structs import replace
from tests.http.test_passkeys import made, sign_in
from tests.http.world import OTHER_PASSWORD, PASSWORD, World
from tests.standins import Gate

from dutchdoor.model.accounts import Credential
from dutchdoor.model.policy import STANDARD
from dutchdoor.stores.base import Swap, Take

ADA, NEW = "ada@example.com", "ada@new.example"


async def test_a20_the_address_changes_over_http(world: World) -> None:
    """A20: asked with a recent proof, confirmed by the new mailbox, undone from the old one; a GET consumes nothing."""
    await world.register(ADA)
    account = await world.store.account_by_email(ADA)
    assert account is not None
    await world.directory.recovery.send_reset(account, client=world.api_client())
    reset = {"token": world.mailbox.token(), "new_password": PASSWORD}
    assert (await world.call("POST", "/auth/password/reset", json=reset)).status == 200
    ada = world.browser()
    await ada.login(ADA, PASSWORD)
    await world.posted()  # what the log-in is announced with, before the mail that is looked at
    world.clock.forward(STANDARD.step_up_for + 1)
    refused = await ada.call("POST", "/auth/email/change", json={"email": NEW})
    assert (refused.status, refused.code) == (401, "step_up_required")
    assert (await ada.call("POST", "/auth/reauthenticate", json={"password": PASSWORD})).status == 200
    refused = await ada.call("POST", "/auth/email/change", json={"email": ADA})
    assert (refused.status, refused.json["field"]) == (422, "email")
    assert (await ada.call("POST", "/auth/email/change", json={"email": NEW})).status == 202
    await world.posted()
    assert world.mailbox.mails[-1].to == NEW
    token = world.mailbox.token()
    confirmed = await world.call("POST", "/auth/email/confirm", json={"token": token})
    assert (confirmed.status, confirmed.json["user"]["email"], confirmed.json["fenced"]) == (200, NEW, True)
    assert (await world.call("POST", "/auth/email/confirm", json={"token": token})).status == 401
    assert (await ada.call("GET", "/auth/me")).json["user"]["email"] == NEW
    await world.posted()
    undo = {"token": world.mailbox.token(), "new_password": OTHER_PASSWORD}
    restored = await world.call("POST", "/auth/email/restore", json=undo)
    assert (restored.status, restored.json["user"]["email"]) == (200, ADA)
    assert (await ada.call("GET", "/auth/me")).status == 401
    login = {"email": ADA, "password": OTHER_PASSWORD}
    assert (await world.call("POST", "/auth/login", json=login)).status == 200


async def test_a20_what_a_thief_adds_during_the_restore_is_removed_too(world: World) -> None:
    """A20: a thief who adds a passkey between the reading and the writing does not keep it, and the log says so."""
    await world.register(ADA)
    account = await world.store.account_by_email(ADA)
    assert account is not None
    await world.store.commit(Swap(replace(account, email_verified_at=world.clock())))
    thief = world.browser()
    await thief.login(ADA)
    assert (await thief.call("POST", "/auth/email/change", json={"email": NEW})).status == 202
    await world.posted()
    assert (await world.call("POST", "/auth/email/confirm", json={"token": world.mailbox.token()})).status == 200
    await world.posted()
    undo = {"token": world.mailbox.token(), "new_password": OTHER_PASSWORD}
    gate = Gate(world.store, "commit", only=lambda *changes: any(isinstance(each, Take) for each in changes))
    world.directory.email_change.store = gate  # type: ignore[assignment]
    restoring = asyncio.create_task(world.call("POST", "/auth/email/restore", json=undo))
    await gate.reached.wait()
    key, added = await made(thief)
    assert added.status == 200, added
    gate.open.set()
    assert (await restoring).status == 200
    assert (await sign_in(world.browser(), key)).status == 401
    left = await world.store.select(Credential, subject=account.subject)
    assert [each.method for each in left] == ["password"]
    assert [each.detail for each in await world.store.events(name="factor_removed")] == ["passkey"]


async def test_a21_a_copy_of_ones_data(world: World) -> None:
    """A21: it needs a recent proof, is saved as a file, and holds no token, hash or key."""
    await world.register(ADA)
    ada = world.browser()
    await ada.login(ADA, PASSWORD)
    assert (await world.call("GET", "/auth/account/export")).status == 401
    answer = await ada.call("GET", "/auth/account/export")
    assert answer.status == 200
    assert (answer.header("content-disposition") or "").startswith('attachment; filename="account-20')
    assert answer.json["account"]["email"] == ADA
    assert answer.json["sessions"][0]["current"]
    assert [each["method"] for each in answer.json["credentials"]] == ["password"]
    assert {each["name"] for each in answer.json["events"]} >= {"account_created", "session_started"}
    for secret in (b"argon2", b"secret_hash", b"proof", b"salt", ada.csrf.encode()):
        assert secret not in answer.body
    world.clock.forward(STANDARD.step_up_for + 1)
    assert (await ada.call("GET", "/auth/account/export")).code == "step_up_required"


async def test_a22_an_account_is_deleted_and_kept_over_http(world: World) -> None:
    """A22: with a recent proof; the browser's cookies go, the letter's link keeps it, an administrator erases it."""
    user = await world.register(ADA)
    ada = world.browser()
    await ada.login(ADA, PASSWORD)
    world.clock.forward(STANDARD.step_up_for + 1)
    assert (await ada.call("POST", "/auth/account/delete")).code == "step_up_required"
    await ada.call("POST", "/auth/reauthenticate", json={"password": PASSWORD})
    answer = await ada.call("POST", "/auth/account/delete")
    assert (answer.status, answer.json["fenced"]) == (200, True)
    assert answer.json["erased_at"].startswith("2025-06-29T")
    assert answer.cookie("__Host-dd_session") == ""
    login = {"email": ADA, "password": PASSWORD}
    assert (await world.call("POST", "/auth/login", json=login)).code == "wrong_credentials"
    await world.make_admin()
    root = world.browser()
    await root.login("root@example.com", PASSWORD)
    shown = await root.call("GET", f"/admin/api/accounts/{user['id']}")
    assert (shown.json["status"], shown.json["erased_at"]) == ("disabled", answer.json["erased_at"])
    await world.posted()
    token = world.mailbox.token()
    kept = await world.call("POST", "/auth/account/keep", json={"token": token})
    assert (kept.status, kept.json["user"]["email"]) == (200, ADA)
    assert (await world.call("POST", "/auth/account/keep", json={"token": token})).status == 401
    assert (await world.call("POST", "/auth/login", json=login)).status == 200
    own = await root.call("GET", "/auth/me")
    assert (await root.call("DELETE", f"/admin/api/accounts/{own.json['user']['id']}")).status == 403
    assert (await root.call("DELETE", f"/admin/api/accounts/{user['id']}")).status == 200
    assert (await root.call("DELETE", f"/admin/api/accounts/{user['id']}")).status == 404
    assert (await world.call("POST", "/auth/login", json=login)).status == 401
    assert (await root.call("POST", "/auth/account/delete")).code == "last_administrator"


async def test_a23_a_person_is_invited_over_http(world: World) -> None:
    """A23: administrators invite, list, send again and withdraw; the invited person reads who invites, and joins."""
    await world.make_admin()
    root, other = world.browser(), world.browser()
    await root.login("root@example.com", PASSWORD)
    draft = {"email": NEW, "roles": ["editor"]}
    assert (await world.call("POST", "/admin/api/invitations", json=draft)).status == 401
    await world.register(ADA)
    await other.login(ADA, PASSWORD)
    assert (await other.call("POST", "/admin/api/invitations", json=draft)).status == 403
    sent = await root.call("POST", "/admin/api/invitations", json=draft)
    assert (sent.status, sent.json["email"], sent.json["inviter"]) == (201, NEW, "root@example.com")
    listed = (await root.call("GET", "/admin/api/invitations?limit=1")).json
    assert [each["id"] for each in listed["invitations"]] == [sent.json["id"]]
    page = await root.call("GET", f"/admin/api/invitations?after={sent.json['id']}")
    assert (page.json["invitations"], page.json["next"]) == ([], None)
    again = await root.call("POST", f"/admin/api/invitations/{sent.json['id']}/send")
    assert again.status == 200
    assert (await root.call("DELETE", f"/admin/api/invitations/{sent.json['id']}")).status == 404
    token = world.mailbox.token()
    seen = await world.call("POST", "/auth/join/look", json={"token": token})
    assert (seen.status, seen.json["email"], seen.json["invited_by"]) == (200, NEW, "root@example.com")
    joined = await world.call("POST", "/auth/join", json={"token": token, "password": OTHER_PASSWORD, "name": "Ada"})
    assert (joined.status, joined.json["user"]["roles"]) == (201, ["editor"])
    assert (await world.call("POST", "/auth/join", json={"token": token, "password": OTHER_PASSWORD})).status == 401
    sent = await root.call("POST", "/admin/api/invitations", json={"email": "third@example.com"})
    assert (await root.call("DELETE", f"/admin/api/invitations/{sent.json['id']}")).status == 200
    withdrawn = {"token": world.mailbox.token(), "password": OTHER_PASSWORD}
    assert (await world.call("POST", "/auth/join", json=withdrawn)).code == "invalid_token"
