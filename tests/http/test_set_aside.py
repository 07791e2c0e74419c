"""What is left of a thief after the owner has reset the password: nothing that signs in. And what the owner keeps."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Any

import pytest
from msgspec.structs import replace
from tests.http.test_factors import ADA, begin, code, enrolled, step
from tests.http.test_lost_factors import LOST, REMOVE, WAIT, use
from tests.http.test_passkeys import made, options, sign_in, with_key
from tests.http.world import OTHER_PASSWORD, OWN, PASSWORD, Answer, Browser, World, a_world
from tests.softkey import SoftKey, b64
from tests.standins import Gate

from dutchdoor.errors import InvalidToken
from dutchdoor.model.accounts import Account, Credential
from dutchdoor.model.audit_events import account_event
from dutchdoor.model.http_client import Client
from dutchdoor.model.policy import DAY, STANDARD
from dutchdoor.model.rate_limits import DEFAULT_LIMITS
from dutchdoor.stores.base import Log, Swap, Take

NEW, STEP = OTHER_PASSWORD, "/auth/passkeys/step"


@pytest.fixture
async def world() -> AsyncIterator[World]:
    # A proof is old after some minutes, and these tests go on for days.
    async with a_world(policy=replace(STANDARD, step_up_for=30 * DAY)) as made:
        yield made


async def account_of(world: World) -> Account:
    found = await world.store.account_by_email(ADA)
    assert found is not None
    return found


async def reset(world: World, password: str = NEW) -> None:
    await world.posted()
    assert (await world.browser().call("POST", "/auth/password/forgot", json={"email": ADA})).status == 202
    await world.posted()
    token = re.findall(r"/auth/reset#(ddo1_[\w-]+)", world.mailbox.mails[-1].text)[-1]
    body = {"token": token, "new_password": password}
    assert (await world.browser().call("POST", "/auth/password/reset", json=body)).status in {200, 202}
    await world.posted()


async def verified(world: World) -> None:
    await world.store.commit(Swap(replace(await account_of(world), email_verified_at=world.clock())))


async def methods(world: World) -> set[str]:
    return {each.method for each in await world.store.select(Credential, subject=(await account_of(world)).subject)}


async def asked(person: Browser) -> list[dict[str, Any]]:
    answer = await person.call("GET", "/auth/set-aside")
    assert answer.status == 200, answer
    return list(answer.json["ways"])


async def decide(person: Browser, verb: str, way: dict[str, Any]) -> Answer:
    answer: Answer = await person.call("POST", f"/auth/set-aside/{verb}", json={"id": way["id"]})
    return answer


async def by_second_step(world: World, key: SoftKey, password: str = NEW) -> Answer:
    """Sign in by the password, and then by a passkey."""
    person = world.browser()
    token = (await begin(person, password=password)).json["token"]
    answered = key.get(await options(person, STEP, token=token))
    return await step(person, token, answered, "passkey")


async def copied(world: World) -> tuple[Browser, Browser, SoftKey]:
    """Sign in with a passkey that is older than a week. Return the owner, a thief with a copy of the session, and the
    passkey.
    """
    _, old, _ = await with_key(world)
    await verified(world)
    world.clock.forward(8 * DAY)
    owner = world.browser()
    assert (await sign_in(owner, old)).status == 200
    thief = world.browser(agent="Mozilla/5.0 (Windows NT 10.0; Win64; x64) Chrome/131.0.0.0 Safari/537.36")
    thief.jar, thief.csrf = owner.jar, owner.csrf  # a session that was copied
    return owner, thief, old


async def test_g33_a_thiefs_passkey_does_not_outlive_a_reset(world: World) -> None:
    """A passkey of the last week signs no one in after a reset, and is asked about with its date and device; an older
    one is the owner's, and stays. What is not theirs is removed by the owner.
    """
    owner, thief, old = await copied(world)
    stolen, done = await made(thief, SoftKey(OWN), "Phone")
    assert done.status == 200, done
    world.clock.forward(DAY)
    await reset(world)
    assert "does not sign in any more until you say that it is yours" in " ".join(world.mailbox.mails[-1].text.split())
    refused = await sign_in(world.browser(), stolen)
    assert (refused.status, refused.code) == (401, "wrong_credentials")
    assert "reset after this passkey was added" in refused.json["detail"]
    owner = world.browser()
    assert (await sign_in(owner, old)).status == 200
    (way,) = await asked(owner)
    assert (way["method"], way["name"]) == ("passkey", "Phone") and "Windows" in way["device"]
    assert (await decide(owner, "remove", way)).status == 204
    assert await asked(owner) == [] and (await decide(owner, "keep", way)).status == 404
    assert (await sign_in(world.browser(), stolen)).status == 401
    listed = (await owner.call("GET", "/auth/factors")).json["factors"]
    assert [each["id"] for each in listed] == [b64(old.id)]


async def test_g33_the_owner_keeps_what_is_theirs(world: World) -> None:
    """Of an account whose first passkey was added this week, the password alone signs in after a reset. The passkey and
    its recovery codes work again once its owner keeps it.
    """
    _, key, codes = await with_key(world)
    await verified(world)
    await reset(world)
    assert not await methods(world) & {"passkey", "recovery_code"}
    owner = world.browser()
    await owner.login(password=NEW)
    page = await owner.call("GET", "/auth/account", headers=[("accept", "text/html")])
    assert page.body.count(b"/auth/set-aside/keep") == 1 and b"Firefox on Linux" in page.body
    (way,) = await asked(owner)
    copy = (await owner.call("GET", "/auth/account/export")).json["credentials"]
    assert [each["method"] for each in copy if each.get("set_aside") and "name" in each] == ["passkey"]
    assert (await decide(owner, "keep", way)).status == 204
    assert await asked(owner) == [] and {"passkey", "recovery_code"} <= await methods(world)
    assert (await sign_in(world.browser(), key)).status == 200
    person = world.browser()
    token = (await begin(person, password=NEW)).json["token"]
    assert (await step(person, token, codes[0], "recovery_code")).status == 200
    names = [each.name for each in await world.events()]
    assert "ways_set_aside" in names and "way_kept" in names


async def test_g33_who_changes_the_password_sees_what_was_added_lately(world: World) -> None:
    """A changed password leaves passkeys and log-ins as they are: honest owners change it, too. So the page lists what
    was added within the week, with its date and device, and the mail says that there is something; nothing older.
    """
    owner, thief, old = await copied(world)

    async def changed(before: str, after: str) -> tuple[str, str]:
        await world.posted()
        body = {"current_password": before, "new_password": after}
        assert (await owner.call("POST", "/auth/password", json=body)).status in {200, 202}
        await world.posted()
        html = [("accept", "text/html")]
        page = await owner.call("GET", "/auth/account?done=password_changed", headers=html)
        assert page.status == 200, page
        return page.body.decode(), " ".join(world.mailbox.mails[-1].text.split())

    page, mail = await changed(PASSWORD, NEW)
    assert "Do you know these?" not in page and "still works" not in mail
    world.clock.forward(60)
    _, done = await made(thief, SoftKey(OWN), "Phone")
    assert done.status == 200, done
    owner = world.browser()
    assert (await sign_in(owner, old)).status == 200
    page, mail = await changed(NEW, PASSWORD)
    shown = page[page.index("Do you know these?") :].split("<h2")[0]
    assert "Phone" in shown and "Chrome on Windows" in shown and shown.count("<li>") == 1 and "#passkeys" in shown
    assert "still works" in mail and "Phone" not in mail
    (way,) = await world.directory.set_aside.young(await account_of(world))
    assert (way.method, way.name) == ("passkey", "Phone")
    page = (await owner.call("GET", "/auth/account", headers=[("accept", "text/html")])).body.decode()
    assert "Do you know these?" not in page


async def test_g34_a_thiefs_app_does_not_lock_the_owner_out(world: World) -> None:
    """A week ago the mailbox alone opened the account. So an app of this week, and its codes, are not asked for after
    a reset, until the owner keeps the app.
    """
    await world.register(ADA)
    await verified(world)
    thief = world.browser()
    await thief.login()
    secret, _ = await enrolled(world, thief)
    await reset(world)
    owner = world.browser()
    await owner.login(password=NEW)
    (way,) = await asked(owner)
    assert way["method"] == "totp" and not await methods(world) & {"totp", "recovery_code"}
    assert (await decide(owner, "keep", way)).status == 204
    person = world.browser()
    token = (await begin(person, password=NEW)).json["token"]
    assert (await step(person, token, code(world, secret))).status == 200
    await reset(world, PASSWORD)
    owner = world.browser()
    await owner.login()
    (way,) = await asked(owner)
    assert (await decide(owner, "remove", way)).status == 204
    assert not await methods(world) & {"totp", "recovery_code", "set_aside"}


async def owner_with_a_lost_phone(world: World) -> Browser:
    """Sign in, by a recovery code, an owner who set up an app more than a week ago."""
    await world.register(ADA)
    await verified(world)
    owner = world.browser()
    await owner.login()
    _, codes = await enrolled(world, owner)
    world.clock.forward(8 * DAY)
    person = world.browser()
    token = (await begin(person)).json["token"]
    assert (await step(person, token, codes[0], "recovery_code")).status == 200
    return person


async def test_g34_an_older_second_factor_stays_asked_for(world: World) -> None:
    """A thief who reads the mail gains nothing by the rule: an app of last week, or codes of it, is asked for as ever,
    and so is an app that was set up this week in place of it.
    """
    person = await owner_with_a_lost_phone(world)
    secret, _ = await enrolled(world, person)  # the new phone
    await reset(world)
    person = world.browser()
    token = (await begin(person, password=NEW)).json["token"]
    assert (await step(person, token, code(world, secret))).status == 200
    assert await asked(person) == []


async def renewed_codes(person: Browser) -> list[str]:
    made = await person.call("POST", "/auth/factors/recovery-codes")
    assert made.status == 201, made
    return list(made.json["recovery_codes"])


async def test_g33_recovery_codes_of_a_thief_do_not_outlive_a_reset(world: World) -> None:
    """Codes that were made anew in the week before a reset stand in for no factor: not for a thief who learns the new
    password. The app is asked for as ever. New codes take their place; codes of an older week stay.
    """
    await world.register(ADA)
    await verified(world)
    owner = world.browser()
    await owner.login()
    secret, _ = await enrolled(world, owner)
    world.clock.forward(8 * DAY)
    stolen = await renewed_codes(owner)  # by a thief in a copied session, who cannot read the app
    await reset(world)
    thief = world.browser()
    begun = await begin(thief, password=NEW)
    assert begun.json["methods"] == ["totp"], begun
    refused = await step(thief, begun.json["token"], stolen[0], "recovery_code")
    assert (refused.status, refused.code) == (401, "wrong_credentials")
    world.clock.forward(60)
    owner = world.browser()
    token = (await begin(owner, password=NEW)).json["token"]
    assert (await step(owner, token, code(world, secret))).status == 200
    (ten,) = await asked(owner)
    assert (ten["method"], ten["device"]) == ("recovery_code", "Firefox on Linux")
    kept = await renewed_codes(owner)
    assert await asked(owner) == [] and (await decide(owner, "keep", ten)).status == 404
    thief = world.browser()
    token = (await begin(thief, password=NEW)).json["token"]
    assert (await step(thief, token, stolen[0], "recovery_code")).status == 401
    world.clock.forward(8 * DAY)
    await reset(world, PASSWORD)
    person = world.browser()
    token = (await begin(person)).json["token"]
    assert (await step(person, token, kept[0], "recovery_code")).status == 200


async def test_g33_a_thiefs_codes_do_not_come_back_with_the_owners_passkey(world: World) -> None:
    """Codes that were made anew after the owner's first passkey are a question of their own, and are removed alone."""
    owner, key, _ = await with_key(world)
    await verified(world)
    world.clock.forward(DAY)
    assert (await sign_in(owner, key)).status == 200
    await renewed_codes(owner)  # by a thief in a copied session
    await reset(world)
    owner = world.browser()
    await owner.login(password=NEW)
    way, ten = await asked(owner)
    refused = await decide(owner, "keep", ten)
    assert (refused.status, refused.code) == (403, "refused") and "authenticator app" in refused.json["detail"]
    assert (await decide(owner, "keep", way)).status == 204
    assert await asked(owner) == [ten] and "recovery_code" not in await methods(world)
    assert (await sign_in(owner, key)).status == 200
    assert (await decide(owner, "remove", ten)).status == 204
    assert not await methods(world) & {"recovery_code", "set_aside"}


async def test_g33_an_app_that_a_thief_added_beside_a_passkey_does_not_outlive_a_reset(world: World) -> None:
    """An older passkey answers the second step, so an app of this week need not: it is asked about."""
    _, key, _ = await with_key(world)
    await verified(world)
    world.clock.forward(8 * DAY)
    owner = world.browser()
    assert (await sign_in(owner, key)).status == 200
    secret, _ = await enrolled(world, owner)  # by a thief in a copied session
    await reset(world)
    thief = world.browser()
    token = (await begin(thief, password=NEW)).json["token"]
    assert (await step(thief, token, code(world, secret))).status == 401
    owner = world.browser()
    assert (await sign_in(owner, key)).status == 200
    (way,) = await asked(owner)
    assert way["method"] == "totp"
    assert (await decide(owner, "remove", way)).status == 204


async def test_g34_the_owner_gets_a_mail_about_new_codes(world: World) -> None:
    """A thief in a copied session would make a second factor that outlives a new password, and no one would know."""
    person = await owner_with_a_lost_phone(world)
    await world.posted()  # mails of one moment come in any order
    codes = await renewed_codes(person)
    await world.posted()
    mail = world.mailbox.mails[-1]
    assert (mail.to, mail.subject) == (ADA, "New recovery codes for your account - dutchdoor")
    assert "/auth/forgot" in mail.text
    assert not [each for each in codes if each in mail.text]


@pytest.mark.parametrize("way", ["new codes", "removed before", "replaced and removed before"])
async def test_g34_a_new_phone_is_no_week_without_a_second_factor(world: World, way: str) -> None:
    """An owner who has had a second factor for long, and this week a new phone with new codes, is asked for it after a
    reset: a reader of the mail does not get past it.
    """
    person = await owner_with_a_lost_phone(world)
    if way == "replaced and removed before":
        await enrolled(world, person)
    if "removed before" in way:
        removed = await person.call("POST", "/auth/factors/remove", json={"method": "totp"})
        assert removed.status == 204, removed
    secret, _ = await enrolled(world, person)
    if way == "new codes":
        assert (await person.call("POST", "/auth/factors/recovery-codes")).status == 201
    world.clock.forward(DAY)
    await reset(world)
    person = world.browser()
    token = (await begin(person, password=NEW)).json["token"]
    assert (await step(person, token, code(world, secret))).status == 200
    # The codes of this week stand in for it once they are kept.
    assert [each["method"] for each in await asked(person)] == ["recovery_code"]


async def test_g34_a_factor_that_was_lost_and_removed_by_mail_this_week_counts(world: World) -> None:
    """An owner who waited until a lost factor was removed, and has a new one, is asked for that after a reset."""
    await owner_with_a_lost_phone(world)
    person = world.browser()
    token = (await begin(person)).json["token"]
    assert (await person.call("POST", "/auth/login/lost", json={"token": token})).status == 202
    await world.posted()
    assert (await use(world, LOST)).status == 200
    world.clock.forward(WAIT)
    assert (await use(world, REMOVE)).status in {200, 202}
    person = world.browser()
    await person.login()
    secret, _ = await enrolled(world, person)
    await reset(world)
    person = world.browser()
    token = (await begin(person, password=NEW)).json["token"]
    assert (await step(person, token, code(world, secret))).status == 200


async def test_g34_a_thief_who_adds_and_removes_often_does_not_choose_the_answer(world: World) -> None:
    """A thief adds an app and removes it again and again, until no page of the log shows the beginning: the last one is
    not asked for after a reset.
    """
    await world.register(ADA)
    await verified(world)
    thief = world.browser()
    await thief.login()
    account = await account_of(world)
    pairs = [
        Log(account_event(name, account, Client(), world.clock(), detail="totp"))
        for _ in range(120)
        for name in ("factor_added", "factor_removed")
    ]
    await world.store.commit(*pairs)
    await enrolled(world, thief)
    world.clock.forward(DAY)
    await reset(world)
    await world.browser().login(password=NEW)


async def test_g33_a_thief_who_adds_often_does_not_hide_where_a_passkey_came_from(world: World) -> None:
    """The device stands beside what was set aside, however much was added since."""
    _, _, _ = await with_key(world)
    await verified(world)
    world.clock.forward(60)
    account = await account_of(world)
    later = [account_event("factor_added", account, Client(), world.clock(), detail="totp") for _ in range(120)]
    await world.store.commit(*map(Log, later))
    await reset(world)
    owner = world.browser()
    await owner.login(password=NEW)
    (way,) = await asked(owner)
    assert "Firefox" in way["device"]


async def test_g34_adding_factors_is_limited() -> None:
    """Each writes events, and a reset reads those of a week."""
    few = replace(DEFAULT_LIMITS.factors_by_account, burst=2)
    async with a_world(limits=replace(DEFAULT_LIMITS, factors_by_account=few)) as world:
        await world.register(ADA)
        person = world.browser()
        await person.login()
        await enrolled(world, person)
        await enrolled(world, person)
        given = (await person.call("POST", "/auth/factors/totp/enrol")).json
        answer = {"token": given["token"], "code": code(world, given["secret"])}
        refused = await person.call("POST", "/auth/factors/totp/confirm", json=answer)
        assert (refused.status, refused.code) == (429, "rate_limited")
        _, refused = await made(person)
        assert (refused.status, refused.code) == (429, "rate_limited")
        refused = await person.call("POST", "/auth/factors/recovery-codes")
        assert (refused.status, refused.code) == (429, "rate_limited")


async def test_g34_renaming_passkeys_is_limited() -> None:
    """Each writes an event."""
    few = replace(DEFAULT_LIMITS.change_name_by_account, burst=2)
    async with a_world(limits=replace(DEFAULT_LIMITS, change_name_by_account=few)) as world:
        person, key, _ = await with_key(world)
        named = [
            (await person.call("POST", "/auth/passkeys/rename", json={"id": b64(key.id), "name": f"Key {n}"})).status
            for n in range(3)
        ]
        assert named == [204, 204, 429]


async def test_g34_a_new_passkey_in_place_of_an_old_one_is_asked_for_and_can_be_lost(world: World) -> None:
    """A passkey that replaced an older one this week is asked for after a reset. An owner who has lost it has it
    removed by mail, after the waiting time.
    """
    _, old, _ = await with_key(world)
    await verified(world)
    world.clock.forward(8 * DAY)
    owner = world.browser()
    assert (await sign_in(owner, old)).status == 200
    _, done = await made(owner, SoftKey(OWN), "Phone")
    assert done.status == 200, done
    gone = await owner.call("POST", "/auth/factors/remove", json={"method": "passkey", "id": b64(old.id)})
    assert gone.status == 204, gone
    await reset(world)
    assert (await begin(world.browser(), password=NEW)).status == 401
    person = world.browser()
    token = (await begin(person, password=NEW)).json["token"]
    assert (await person.call("POST", "/auth/login/lost", json={"token": token})).status == 202
    await world.posted()
    assert (await use(world, LOST)).status == 200
    world.clock.forward(WAIT)
    assert (await use(world, REMOVE)).status in {200, 202}
    assert not await methods(world) & {"passkey", "recovery_code", "set_aside"}
    await world.browser().login(password=NEW)


async def test_g35_an_administrators_factor_is_asked_for_as_ever(world: World) -> None:
    """No mail removes an administrator's factor. A passkey of this week does not sign in alone after a reset; with the
    new password it does, and is kept by that.
    """
    _, key, _ = await with_key(world)
    await verified(world)
    account = await account_of(world)
    await world.directory.admin.set_roles(account.subject, ["admin"], client=Client(), actor="cli")
    await reset(world)
    assert (await sign_in(world.browser(), key)).status == 401
    assert (await by_second_step(world, SoftKey(OWN))).status == 401
    assert (await sign_in(world.browser(), key)).status == 401
    assert (await by_second_step(world, key)).status == 200
    assert (await sign_in(world.browser(), key)).status == 200
    owner = world.browser()
    assert (await sign_in(owner, key)).status == 200
    assert [each["method"] for each in await asked(owner)] == ["recovery_code"]


async def test_g35_an_operator_removes_what_locks_an_administrator_out(world: World) -> None:
    """Where the passkey of this week is a thief's, the operator sees it and removes it, with the codes it came with."""
    _, key, _ = await with_key(world)
    account = await account_of(world)
    await world.directory.admin.set_roles(account.subject, ["admin"], client=Client(), actor="cli")
    await reset(world)
    factors = world.directory.factors
    (found,), _ = await factors.of(account.subject, aside=True)
    assert found.set_aside
    await world.make_admin()
    root = world.browser()
    await root.login("root@example.com")
    listed = (await root.call("GET", f"/admin/api/accounts/{account.subject}/factors")).json["factors"]
    assert [each["set_aside"] for each in listed] == [True]
    await factors.remove(await account_of(world), "passkey", found.handle, amr=None, client=Client())
    assert not await methods(world) & {"passkey", "recovery_code", "set_aside"}
    await world.browser().login(password=NEW)
    assert (await sign_in(world.browser(), key)).status == 401


async def test_g33_what_is_added_during_the_reset_is_set_aside_too(world: World) -> None:
    """A thief who adds a passkey between the reading and the writing of a reset does not keep it."""
    await world.register(ADA)
    await verified(world)
    thief = world.browser()
    await thief.login()
    gate = Gate(world.store, "commit", only=lambda *changes: any(isinstance(each, Take) for each in changes))
    world.directory.recovery.store = gate  # type: ignore[assignment]
    resetting = asyncio.create_task(reset(world))
    await gate.reached.wait()
    key, added = await made(thief, SoftKey(OWN))
    assert added.status == 200, added
    gate.open.set()
    await resetting
    assert (await sign_in(world.browser(), key)).status == 401
    assert "set_aside" in await methods(world)


async def test_g33_a_kept_app_takes_no_other_ones_place(world: World) -> None:
    """An owner who has set up an app since reads that they should remove the one that was set aside; no answer concerns
    another account's.
    """
    await world.register(ADA)
    await verified(world)
    person = world.browser()
    await person.login()
    await enrolled(world, person)
    await reset(world)
    owner = world.browser()
    await owner.login(password=NEW)
    secret, _ = await enrolled(world, owner)
    (way,) = await asked(owner)
    refused = await decide(owner, "keep", way)
    assert (refused.status, refused.code) == (403, "refused") and "another authenticator app" in refused.json["detail"]
    await world.register("bob@example.com")
    bob = world.browser()
    await bob.login("bob@example.com")
    assert (await decide(bob, "remove", way)).status == 404
    assert (await decide(owner, "remove", way)).status == 204
    person = world.browser()
    token = (await begin(person, password=NEW)).json["token"]
    assert (await step(person, token, code(world, secret))).status == 200


async def test_g35_an_invitation_of_a_thief_makes_no_administrator_after_a_reset(world: World) -> None:
    """A thief in a copied session of an administrator invites an accomplice as another one. The link is void once the
    owner has reset the password. Invitations without roles stay: the thief gains nothing by them.
    """
    await world.register(ADA)
    await verified(world)
    subject = (await account_of(world)).subject
    await world.directory.admin.set_roles(subject, ["admin"], client=Client(), actor="cli")
    tokens = {}
    for email, roles in (("mallory@example.com", ["admin"]), ("bob@example.com", [])):
        await world.directory.invitations.invite(email, client=Client(), actor=subject, roles=roles)
        await world.posted()
        (tokens[email],) = set(re.findall(r"#(ddo1_[\w-]+)", world.mailbox.mails[-1].text))
    await reset(world)
    accept = world.directory.invitations.accept
    with pytest.raises(InvalidToken):
        await accept(tokens["mallory@example.com"], PASSWORD, "Mallory", client=Client())
    assert (await accept(tokens["bob@example.com"], PASSWORD, "Bob", client=Client())).roles == ()
    assert [each.actor for each in await world.events() if each.name == "invitation_withdrawn"] == [subject]
