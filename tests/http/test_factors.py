"""Second factors over HTTP: an authenticator app and recovery codes, from enrolling to losing the phone."""

from __future__ import annotations

import asyncio
import itertools
import re
from collections.abc import Sequence
from typing import Any

import pyotp
import pytest
from msgspec.structs import replace
from tests.http.world import OTHER_PASSWORD, PASSWORD, Answer, Browser, Program, World, a_world, basic
from tests.standins import Clock

from dutchdoor.credentials.totp import otpauth
from dutchdoor.errors import StepUpRequired
from dutchdoor.guard.requirement import Requirement
from dutchdoor.model.accounts import Credential
from dutchdoor.model.one_time_tokens import OneTimeToken
from dutchdoor.model.policy import DAY, STANDARD
from dutchdoor.model.rate_limits import DEFAULT_LIMITS
from dutchdoor.stores.base import Remove, Swap
from dutchdoor.web.pages.qr_code import qr_code

ADA = "ada@example.com"


def code(world: World, secret: str, *, ahead: int = 0) -> str:
    return pyotp.TOTP(secret).at(int(world.clock()) + 30 * ahead)


async def enrolled(world: World, person: Browser) -> tuple[str, list[str]]:
    """Enrol an app, let its first code become old, and return its secret and the recovery codes."""
    given = await person.call("POST", "/auth/factors/totp/enrol")
    assert given.status == 201, given
    secret = given.json["secret"]
    done = await person.call(
        "POST", "/auth/factors/totp/confirm", json={"token": given.json["token"], "code": code(world, secret)}
    )
    assert done.status == 200, done
    world.clock.now += 60
    return secret, done.json.get("recovery_codes", [])


async def begin(person: Any, *, headers: Sequence[tuple[str, str]] = (), **more: Any) -> Answer:
    body = {"email": ADA, "password": PASSWORD, **more}
    answer: Answer = await person.call("POST", "/auth/login", json=body, headers=headers)
    assert (answer.status, answer.code) == (401, "sign_in_unfinished"), answer
    return answer


async def step(person: Any, token: str, response: str, method: str = "totp", **more: Any) -> Answer:
    body = {"token": token, "method": method, "response": response, **more}
    answer: Answer = await person.call("POST", "/auth/login/step", json=body)
    return answer


async def with_app(world: World, **more: Any) -> tuple[Browser, str, list[str]]:
    await world.register(ADA, **more)
    person = world.browser()
    await person.login()
    return person, *await enrolled(world, person)


@pytest.mark.parametrize("mode", ["session", "hybrid", "jwt"])
async def test_a_password_alone_starts_nothing(world: World, mode: str) -> None:
    """With an app enrolled, the password leads to a step and sets no session; the code starts it, in each pattern."""
    _, secret, codes = await with_app(world)
    assert len(codes) == 10 and len(set(codes)) == 10
    browser = world.browser()
    asked = await begin(browser, mode=mode)
    assert (asked.json["methods"], asked.json["enrol"]) == (["recovery_code", "totp"], False)
    assert not asked.set_cookies()
    done = await step(browser, asked.json["token"], code(world, secret))
    assert done.status == 200, done
    me = await browser.call("GET", "/auth/me", by_token=mode != "session")
    assert me.json["user"]["email"] == ADA


async def test_what_was_proved_is_in_the_token(world: World) -> None:
    """`amr` names both kinds of proof, and `acr` the level that they reach."""
    _, secret, _ = await with_app(world)
    program = world.program()
    asked = await begin(program, mode="hybrid")
    done = await step(program, asked.json["token"], code(world, secret))
    assert done.json["refresh_token"]
    principal = await world.auth.authority.verify(done.json["access_token"])
    assert (principal.amr, principal.acr) == (("pwd", "otp"), "aal2")


async def test_a_code_is_accepted_once(world: World) -> None:
    """64 tries at once with one code, in all sign-ins that wait, start one session; so do 64 with one recovery code,
    and 64 with one pending sign-in.
    """
    _, secret, codes = await with_app(world)
    before = (await world.store.counts())["sessions"]

    async def tries(response: str, method: str, token: str = "") -> list[int]:
        tokens = [token]
        if not token:  # as many as one account may have waiting, each in a network of its own
            places = [world.program(peer=f"198.51.100.{n}") for n in range(1, 25)]
            tokens = [(await begin(each, mode="session")).json["token"] for each in places]
        each_of = itertools.islice(itertools.cycle(tokens), 64)
        answers = await asyncio.gather(*(step(world.program(), each, response, method) for each in each_of))
        return sorted(answer.status for answer in answers)

    assert await tries(code(world, secret), "totp") == [200, *[401] * 63]
    assert await tries(codes[0], "recovery_code") == [200, *[401] * 63]
    world.clock.now += 60
    token = (await begin(world.program(), mode="session")).json["token"]
    assert await tries(code(world, secret), "totp", token) == [200, *[401] * 63]
    assert (await world.store.counts())["sessions"] == before + 3


async def test_codes_of_a_clock_that_is_off(world: World) -> None:
    """The step before and the step after are right, others are not, and none from before the last one is."""
    _, secret, _ = await with_app(world)
    token = (await begin(world.program())).json["token"]
    for ahead in (-3, -2, 2, 3):
        assert (await step(world.program(), token, code(world, secret, ahead=ahead))).code == "wrong_credentials"
    assert (await step(world.program(), token, code(world, secret, ahead=1))).status == 200
    token = (await begin(world.program())).json["token"]
    for ahead in (-1, 0, 1):
        assert (await step(world.program(), token, code(world, secret, ahead=ahead))).code == "wrong_credentials"
    world.clock.now += 60
    assert (await step(world.program(), token, f" {code(world, secret)[:3]} {code(world, secret)[3:]}")).status == 200


@pytest.mark.parametrize("typed", ["", "12345", "1234567", "abcdef", "１２３４５６", "0" * 200, "-1 -1", "000000\n"])
async def test_what_is_no_code_is_wrong(world: World, typed: str) -> None:
    """Anything but six digits is a wrong code, and no error of the server."""
    await with_app(world)
    token = (await begin(world.program())).json["token"]
    for method in ("totp", "recovery_code"):
        assert (await step(world.program(), token, typed, method)).code == "wrong_credentials"


async def test_steps_of_two_accounts_do_not_mix(world: World) -> None:
    """A code of one account finishes no sign-in of another, and an enrolment of one adds no app to another."""
    _, secret, codes = await with_app(world)
    await world.register("bob@example.com")
    bob = world.browser()
    await bob.login("bob@example.com")
    given = (await bob.call("POST", "/auth/factors/totp/enrol")).json
    token = (await begin(world.program())).json["token"]
    assert (await step(world.program(), token, code(world, given["secret"]))).code == "wrong_credentials"
    ada = world.browser()
    asked = await begin(ada, mode="session")
    assert (await step(ada, asked.json["token"], codes[1], "recovery_code")).status == 200
    proof = {"token": given["token"], "code": code(world, given["secret"])}
    assert (await ada.call("POST", "/auth/factors/totp/confirm", json=proof)).status == 401
    assert (await bob.call("POST", "/auth/factors/totp/confirm", json=proof)).status == 200
    assert secret != given["secret"]


async def test_a_pending_sign_in_ends_with_what_changes_the_account(world: World) -> None:
    """After a new password, after another's log-out of everything, and after ten minutes, the step leads nowhere."""
    person, secret, _ = await with_app(world)
    for change in ("password", "logout", "time"):
        token = (await begin(world.program())).json["token"]
        if change == "password":
            body = {"current_password": PASSWORD, "new_password": PASSWORD + " anew"}
            assert (await person.call("POST", "/auth/password", json=body)).status == 200
            back = {"current_password": PASSWORD + " anew", "new_password": PASSWORD}
            assert (await person.call("POST", "/auth/password", json=back)).status == 200
        elif change == "logout":
            assert (await person.call("POST", "/auth/logout/all")).status == 200
        else:
            world.clock.now += 601
        assert (await step(world.program(), token, code(world, secret))).code == "invalid_token", change


async def test_guesses_are_few_and_lock_nothing_else(world: World) -> None:
    """Wrong codes are refused with 429 after a few, while the owner's recovery codes and sessions go on working."""
    async with a_world(limits=DEFAULT_LIMITS) as limited:
        person, _, codes = await with_app(limited)
        token = (await begin(limited.program())).json["token"]
        statuses = [(await step(limited.program(), token, f"{n:06}")).status for n in range(8)]
        assert statuses[-1] == 429 and statuses.count(401) == 5
        assert (await step(limited.program(), token, codes[0], "recovery_code")).status == 200
        assert (await person.me()).status == 200


async def test_a_thief_with_the_password_locks_the_owner_out_of_nothing() -> None:
    """Who knows the password can use up the guesses of strangers, in a burst and in a row; the owner's known browser,
    own network and session still prove the app, and a recovery code does from anywhere.
    """
    async with a_world(limits=DEFAULT_LIMITS) as limited:
        person, secret, codes = await with_app(limited)

        async def finished(who: Browser | Program, response: str, method: str = "totp") -> int:
            return (await step(who, (await begin(who)).json["token"], response, method)).status

        assert await finished(person, code(limited, secret)) == 200  # its browser and its network are known now

        async def attacked() -> int:
            """Use up the guesses of strangers, and return what a stranger with the right code gets."""
            for hour in range(7):
                thief = limited.program(peer=f"203.0.113.{hour + 1}")
                while (status := await finished(thief, "000000")) == 401:
                    pass
                assert status == 429
                for _ in range(8):
                    await finished(thief, "0" * 24, "recovery_code")
                limited.clock.now += 3600
            return await finished(limited.program(peer="203.0.113.99"), code(limited, secret))

        async def in_the_session() -> int:
            again = {"method": "totp", "response": code(limited, secret)}
            return (await person.call("POST", "/auth/reauthenticate", json=again)).status

        async def in_the_network() -> int:
            return await finished(limited.program(), code(limited, secret))

        async def in_the_browser() -> int:
            return await finished(person, code(limited, secret))

        async def by_a_recovery_code() -> int:
            return await finished(limited.program(peer="203.0.113.99"), codes[0], "recovery_code")

        for owners_way in (in_the_session, in_the_network, in_the_browser, by_a_recovery_code):
            assert await attacked() == 429
            assert await owners_way() == 200, owners_way
            limited.clock.now += 60
        assert await finished(limited.program(peer="203.0.113.98"), code(limited, secret)) == 200


async def test_no_standing_gives_a_hundred_guesses_in_a_row(world: World) -> None:
    """All that a thief can copy gives less than a hundred wrong codes in a row (SP 800-63B): strangers, the owner's
    network, known browsers and sessions have a ceiling each.
    """
    async with a_world(limits=DEFAULT_LIMITS) as limited:
        person, secret, _ = await with_app(limited)
        assert (await step(person, (await begin(person)).json["token"], code(limited, secret))).status == 200
        guesses = 0
        thieves = [limited.program(peer="203.0.113.1"), limited.program(), limited.browser()]
        thieves[2].jar = dict(person.jar)  # type: ignore[union-attr]
        for _ in range(40):
            for thief in thieves:
                answer = await step(thief, (await begin(thief)).json["token"], "000000")
                guesses += answer.status == 401
            inside = {"method": "totp", "response": "000000"}
            answer = await person.call("POST", "/auth/reauthenticate", json=inside)
            guesses += answer.code == "wrong_credentials"
            limited.clock.now += 360
        assert guesses == 100


async def test_sign_ins_that_wait_are_few(world: World) -> None:
    """Who knows the password can begin as many sign-ins as they like: few are kept, the oldest of one place ends first,
    and the one that the owner began in a known browser waits on.
    """
    person, secret, _ = await with_app(world)
    owners = (await begin(person, mode="session")).json["token"]
    mine = []
    for _ in range(4):
        world.clock.now += 1
        mine.append((await begin(world.program())).json["token"])
    for n in range(40):
        await begin(world.program(peer=f"203.0.113.{n + 1}"))
    user = (await person.me()).json["user"]["id"]
    waiting = await world.store.select(OneTimeToken, subject=user, purpose="sign_in")
    assert len(waiting) == 24
    assert (await step(world.program(), mine[0], code(world, secret))).code == "invalid_token"
    assert (await step(person, owners, code(world, secret))).status == 200


async def test_a_password_is_changed_by_who_proved_the_factor(world: World) -> None:
    """A session from before the factor, and one in a remembered browser, need the factor besides the password; the
    session that proved it keeps what it proved.
    """
    await world.register(ADA)
    before, person = world.browser(), world.browser()
    await before.login()
    await person.login()
    secret, _ = await enrolled(world, person)
    remembered = world.browser()
    token = (await begin(remembered, mode="session")).json["token"]
    assert (await step(remembered, token, code(world, secret), remember=True)).status == 200
    await remembered.login()
    world.clock.now += 60
    body = {"current_password": PASSWORD, "new_password": PASSWORD + " anew"}
    for thief in (before, remembered):
        refused = await thief.call("POST", "/auth/password", json=body)
        assert (refused.status, refused.code) == (401, "step_up_required")
        assert refused.json["factors"] == 2
        proved = {"method": "totp", "response": code(world, secret)}
        assert (await thief.call("POST", "/auth/reauthenticate", json=proved)).status == 200
        world.clock.now += 60
    changed = await remembered.call("POST", "/auth/password", json=body)
    assert changed.status == 200, changed
    assert (await remembered.call("GET", "/auth/account/export")).status == 200


@pytest.mark.parametrize("name", ["x" * 320, "\U0001f469" * 100, "é" * 300], ids=["long", "emoji", "accents"])
def test_a_name_of_any_length_has_a_qr_code(name: str) -> None:
    """However long the names of an account and of the product are, the code for the app can be drawn and scanned."""
    uri = otpauth("A" * 32, name=name, product=name)
    assert len(uri) < 800
    assert qr_code(uri).startswith("data:image/svg")


@pytest.mark.parametrize("who", ["required", "admins"])
async def test_a_factor_is_demanded_also_while_time_passes(who: str) -> None:
    """A policy without a time of grace demands the factor at the first sign-in, however long the hash takes."""

    class Running(Clock):
        def __call__(self) -> float:
            self.now += 0.001
            return self.now

    async with a_world(policy=replace(STANDARD, second_factor=who), clock=Running()) as world:
        user = await world.register(ADA)
        if who == "admins":
            await world.directory.admin.set_roles(user["id"], ["admin"], client=world.api_client(), actor="cli")
        assert (await begin(world.browser())).json["enrol"] is True


async def test_a_remembered_browser_skips_the_step(world: World) -> None:
    """Only where its owner asked for it, for as long as the policy says, until the password or a factor changes; an
    administrator's never does. Its sign-in counts as one kind of proof.
    """
    person, secret, _ = await with_app(world)
    browser = world.browser()
    token = (await begin(browser, mode="session")).json["token"]
    assert (await step(browser, token, code(world, secret), remember=True)).status == 200
    assert "__Host-dd_remembered" in browser.jar
    kept = dict(browser.jar)
    done = await browser.login(mode="jwt")
    assert (await world.auth.authority.verify(done.json["access_token"])).acr == "aal1"
    await begin(world.browser())  # another browser is asked
    other = world.browser()
    other.jar["__Host-dd_remembered"] = kept["__Host-dd_remembered"].swapcase()
    await begin(other)
    user = (await person.me()).json["user"]["id"]
    await world.directory.admin.set_roles(user, ["admin"], client=world.api_client(), actor="cli")
    await begin(browser)
    await world.make_admin()
    await world.directory.admin.set_roles(user, [], client=world.api_client(), actor="cli")
    assert (await browser.call("POST", "/auth/login", json={"email": ADA, "password": PASSWORD})).status == 200
    body = {"current_password": PASSWORD, "new_password": PASSWORD + " anew"}
    assert (await person.call("POST", "/auth/password", json=body)).status == 200
    back = {"current_password": PASSWORD + " anew", "new_password": PASSWORD}
    assert (await person.call("POST", "/auth/password", json=back)).status == 200
    await begin(browser)
    browser.jar = kept
    await begin(browser)


async def test_signing_out_everywhere_forgets_every_browser(world: World) -> None:
    """Each browser is asked for the second factor again, also the one that signs out, and can be remembered anew."""
    person, secret, _ = await with_app(world)
    browser = world.browser()
    for _ in range(2):
        token = (await begin(browser, mode="session")).json["token"]
        assert (await step(browser, token, code(world, secret), remember=True)).status == 200
        await browser.login()
        world.clock.now += 60
        assert (await browser.call("POST", "/auth/logout/all")).status == 200
    assert (await person.me()).status == 401


async def test_a_browser_is_remembered_for_a_time() -> None:
    """After `remember_device_for`, the browser is asked again."""
    async with a_world(policy=replace(STANDARD, remember_device_for=DAY)) as world:
        _, secret, _ = await with_app(world)
        browser = world.browser()
        token = (await begin(browser, mode="session")).json["token"]
        assert (await step(browser, token, code(world, secret), remember=True)).status == 200
        world.clock.now += DAY - 60
        await browser.login()
        world.clock.now += 120
        await begin(browser)


async def test_a_factor_is_removed_only_by_who_has_proved_one(world: World) -> None:
    """A session from before the app, and a remembered browser, cannot remove it, replace it or make recovery codes:
    they are asked for a second factor. Afterwards, the password is enough again.
    """
    await world.register(ADA)
    old = world.browser()
    await old.login()
    person = world.browser()
    await person.login()
    secret, _ = await enrolled(world, person)
    for method, path in (
        ("POST", "/auth/factors/remove"),
        ("POST", "/auth/factors/recovery-codes"),
        ("POST", "/auth/factors/totp/enrol"),
    ):
        refused = await old.call(method, path, json={"method": "totp"} if path.endswith("remove") else None)
        assert (refused.status, refused.code, refused.json["factors"]) == (401, "step_up_required", 2)
    again = {"method": "totp", "response": code(world, secret)}
    assert (await old.call("POST", "/auth/reauthenticate", json=again)).status == 200
    fresh = await old.call("POST", "/auth/factors/recovery-codes")
    assert fresh.status == 201 and len(fresh.json["recovery_codes"]) == 10
    listed = (await old.call("GET", "/auth/factors")).json
    assert ([each["method"] for each in listed["factors"]], listed["recovery_codes_left"]) == (["totp"], 10)
    assert (await old.call("POST", "/auth/factors/remove", json={"method": "totp"})).status == 204
    assert (await old.call("POST", "/auth/factors/remove", json={"method": "totp"})).status == 404
    listed = (await old.call("GET", "/auth/factors")).json
    assert (listed["factors"], listed["recovery_codes_left"]) == ([], 0)
    await world.browser().login()


async def test_an_administrator_with_a_factor_acts_only_after_proving_it(world: World) -> None:
    """An administrator's session from before the app changes nothing, also after the password was proved again: the
    app is asked for. Their own app is not removed by the API of administrators, which asks for no proof of it.
    """
    user = await world.register(ADA)
    await world.directory.admin.set_roles(user["id"], ["admin"], client=world.api_client(), actor="cli")
    old = world.browser()
    await old.login()
    person = world.browser()
    await person.login()
    secret, _ = await enrolled(world, person)
    assert (await old.call("POST", "/auth/reauthenticate", json={"password": PASSWORD})).status == 200
    path = f"/admin/api/accounts/{user['id']}/factors/remove"
    made = {"email": "accomplice@example.com", "roles": ["admin"]}
    for where, body in ((path, {"method": "totp"}), ("/admin/api/accounts", made)):
        refused = await old.call("POST", where, json=body)
        assert (refused.status, refused.code, refused.json["factors"]) == (401, "step_up_required", 2), where
    again = {"method": "totp", "response": code(world, secret)}
    assert (await old.call("POST", "/auth/reauthenticate", json=again)).status == 200
    assert (await old.call("POST", "/admin/api/accounts", json=made)).status == 201
    own = await old.call("POST", path, json={"method": "totp"})
    assert (own.status, "your own account" in own.json["detail"]) == (403, True), own


async def test_a_stranger_locks_nobody_out_of_an_address_by_a_factor(world: World) -> None:
    """Of an account whose address was never verified, the link to a new password removes the second factor: a stranger
    may have registered the address and enrolled an app. Once it is verified, a factor that is older than a week stays.
    """
    await with_app(world)
    for kept in (False, True):
        await world.posted()  # the letters about what was before
        await world.browser().call("POST", "/auth/password/forgot", json={"email": ADA})
        await world.posted()
        body = {"token": world.mailbox.token(), "new_password": PASSWORD}
        assert (await world.browser().call("POST", "/auth/password/reset", json=body)).status == 200
        if kept:
            await begin(world.browser())
        else:
            owner = world.browser()
            await owner.login()
            await enrolled(world, owner)
            world.clock.now += 8 * DAY


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/auth/email/change", {"email": "thief@example.com"}),
        ("POST", "/auth/account/delete", None),
        ("GET", "/auth/account/export", None),
        ("DELETE", "/auth/sessions?except=current", None),
        ("DELETE", "/auth/sessions/AAAAAAAAAAAAAAAAAAAAAA", None),
    ],
)
async def test_what_asks_for_a_fresh_proof_asks_for_the_factor(world: World, method: str, path: str, body: Any) -> None:
    """A session from before the app, and the password, change no address, delete and export nothing; the app is asked
    for once, and is a fresh proof, too.
    """
    await world.register(ADA)
    old = world.browser()
    await old.login()
    person = world.browser()
    await person.login()
    secret, _ = await enrolled(world, person)
    world.clock.now += 3600
    for _ in range(2):
        refused = await old.call(method, path, json=body)
        assert (refused.status, refused.code, refused.json["factors"]) == (401, "step_up_required", 2)
        assert (await old.call("POST", "/auth/reauthenticate", json={"password": PASSWORD})).status == 200
    world.clock.now += 3600
    again = {"method": "totp", "response": code(world, secret)}
    assert (await old.call("POST", "/auth/reauthenticate", json=again)).status == 200
    assert (await old.call(method, path, json=body)).status in {200, 202, 404}


@pytest.mark.parametrize("again", ["/auth/reauthenticate", "/auth/password"])
async def test_a_copied_sign_in_and_the_password_are_no_fresh_second_factor(world: World, again: str) -> None:
    """Malware copies the cookie of a sign-in that proved the app an hour ago, and the saved password. The password is a
    fresh proof of itself alone: the app is asked for before a factor is added, the address changed or a route served
    that wants both kinds.
    """
    _, secret, _ = await with_app(world)
    thief = world.browser()
    token = (await begin(thief)).json["token"]
    assert (await step(thief, token, code(world, secret))).status == 200
    world.clock.now += 3600
    both, acts = Requirement.of(factors=2, fresh="5m"), ("/auth/factors/totp/enrol", "/auth/email/change")
    body = {"email": "thief@example.com"}

    async def refused() -> None:
        for path in acts:
            answer = await thief.call("POST", path, json=body if "email" in path else None)
            assert (answer.status, answer.code, answer.json["factors"]) == (401, "step_up_required", 2), answer
        caller = await world.auth.authority.resume(thief.jar["__Host-dd_session"])
        with pytest.raises(StepUpRequired) as asked:
            both.check(caller.principal, world.clock())
        assert asked.value.factors == 2

    await refused()
    knows = {"password": PASSWORD, "current_password": PASSWORD, "new_password": OTHER_PASSWORD}
    taken = ("password",) if again == "/auth/reauthenticate" else ("current_password", "new_password")
    answer = await thief.call("POST", again, json={name: knows[name] for name in taken})
    assert answer.status in {200, 202}, answer
    await refused()
    proof = {"method": "totp", "response": code(world, secret)}
    assert (await thief.call("POST", "/auth/reauthenticate", json=proof)).status == 200
    both.check((await world.auth.authority.resume(thief.jar["__Host-dd_session"])).principal, world.clock())
    assert (await thief.call("POST", acts[1], json=body)).status == 202


async def test_a_step_is_taken_by_the_client_of_the_sign_in(world: World) -> None:
    """The token of an unfinished sign-in of a client with a secret starts nothing without the secret."""
    _, secret, _ = await with_app(world)
    service = await world.add_client()
    asked = await begin(world.program(), mode="hybrid", client_id=service[0], headers=[basic(service)])
    body = {"token": asked.json["token"], "method": "totp", "response": code(world, secret)}
    refused = await world.program().call("POST", "/auth/login/step", json=body)
    assert (refused.status, refused.code) == (401, "not_authenticated")
    done = await world.program().call("POST", "/auth/login/step", json=body, headers=[basic(service)])
    assert done.status == 200 and done.json["refresh_token"]


async def test_an_account_whose_codes_are_used_up_enrols_anew() -> None:
    """Recovery codes without an app, as the undo of a change of the address may leave them: after the last one, a
    sign-in enrols an app, and gets new codes.
    """
    async with a_world(policy=replace(STANDARD, second_factor="required")) as world:
        user = await world.register(ADA)
        browser = world.browser()
        token = (await begin(browser, mode="session")).json["token"]
        given = (await browser.call("POST", "/auth/login/enrol", json={"token": token})).json
        done = await step(browser, token, code(world, given["secret"]), enrolment=given["token"])
        app = await world.store.get(Credential, user["id"], "totp", "")
        assert app is not None
        await world.store.commit(Remove(app))
        for each in done.json["recovery_codes"]:
            token = (await begin(world.browser(), mode="session")).json["token"]
            assert (await step(world.browser(), token, each, "recovery_code")).status == 200
        asked = await begin(browser, mode="session")
        assert (asked.json["methods"], asked.json["enrol"]) == (["passkey", "totp"], True)
        token = asked.json["token"]
        given = (await browser.call("POST", "/auth/login/enrol", json={"token": token})).json
        done = await step(browser, token, code(world, given["secret"]), enrolment=given["token"])
        assert done.status == 200 and len(done.json["recovery_codes"]) == 10


async def test_an_old_proof_enrols_nothing(world: World) -> None:
    """A browser that was left open cannot enrol a stranger's app: the password is asked for."""
    await world.register(ADA)
    person = world.browser()
    await person.login()
    world.clock.now += 3600
    assert (await person.call("POST", "/auth/factors/totp/enrol")).code == "step_up_required"
    assert (await person.call("POST", "/auth/reauthenticate", json={"password": PASSWORD})).status == 200
    await enrolled(world, person)


async def test_a_new_phone_replaces_the_old_one(world: World) -> None:
    """A second enrolment replaces the app: the old secret signs no one in, and the recovery codes stay."""
    person, old, codes = await with_app(world)
    new, more = await enrolled(world, person)
    assert more == []
    token = (await begin(world.program())).json["token"]
    assert (await step(world.program(), token, code(world, old))).code == "wrong_credentials"
    assert (await step(world.program(), token, code(world, new))).status == 200
    token = (await begin(world.program())).json["token"]
    typed = codes[3].lower().replace("-", " ")
    assert (await step(world.program(), token, typed, "recovery_code")).status == 200


@pytest.mark.parametrize("demanded", ["required", "admins"])
async def test_a_sign_in_enrols_what_the_policy_demands(demanded: str) -> None:
    """Who needs a second factor and has none signs in by enrolling one; a password alone starts nothing, and a second
    app is not enrolled that way.
    """
    async with a_world(policy=replace(STANDARD, second_factor=demanded)) as world:
        user = await world.register(ADA)
        if demanded == "admins":
            await world.browser().login()  # an ordinary account
            await world.directory.admin.set_roles(user["id"], ["admin"], client=world.api_client(), actor="cli")
        browser = world.browser()
        asked = await begin(browser, mode="session")
        assert (asked.json["methods"], asked.json["enrol"]) == (["passkey", "totp"], True)
        token = asked.json["token"]
        assert (await step(browser, token, "123456")).code == "wrong_credentials"
        given = (await browser.call("POST", "/auth/login/enrol", json={"token": token})).json
        assert re.fullmatch(
            r"otpauth://totp/dutchdoor:ada%40example.com\?secret=[A-Z2-7]{32}&issuer=dutchdoor", given["uri"]
        )
        assert (await step(browser, token, "000000", enrolment=given["token"])).code == "wrong_credentials"
        done = await step(browser, token, code(world, given["secret"]), enrolment=given["token"])
        assert done.status == 200 and len(done.json["recovery_codes"]) == 10
        world.clock.now += 60
        token = (await begin(world.browser())).json["token"]
        assert (await world.browser().call("POST", "/auth/login/enrol", json={"token": token})).status == 403
        if demanded == "required":
            assert (await browser.call("POST", "/auth/factors/remove", json={"method": "totp"})).status == 403
        assert (await step(world.program(), token, code(world, given["secret"]))).status == 200


async def test_there_is_a_time_of_grace() -> None:
    """From the first sign-in that lacks a factor, the account may sign in for the time of grace, and not longer."""
    async with a_world(policy=replace(STANDARD, second_factor="required", second_factor_grace=DAY)) as world:
        await world.register(ADA)
        world.clock.now += 5 * DAY  # no one signed in: no one was notified
        await world.browser().login()
        world.clock.now += DAY - 60
        await world.browser().login()
        world.clock.now += 120
        assert (await begin(world.browser())).json["enrol"]


async def test_off_offers_none_and_asks_for_what_is_there() -> None:
    """`second_factor=off` lets no one enrol."""
    async with a_world(policy=replace(STANDARD, second_factor="off")) as world:
        await world.register(ADA)
        person = world.browser()
        await person.login()
        assert (await person.call("POST", "/auth/factors/totp/enrol")).status == 403
        assert (await person.call("GET", "/auth/factors")).json["offered"] == []


async def test_before_the_password_nothing_tells_of_a_factor(world: World) -> None:
    """A wrong password gets one answer, with an app and without."""
    await with_app(world)
    await world.register("bob@example.com")
    answers = [
        await world.call("POST", "/auth/login", json={"email": email, "password": "not the one"})
        for email in (ADA, "bob@example.com", "nobody@example.com")
    ]
    assert len({(answer.status, answer.body) for answer in answers}) == 1


async def test_a_stolen_database_makes_no_codes(world: World) -> None:
    """Neither the secret of an app nor a recovery code stands in the store."""
    _, secret, codes = await with_app(world)
    user = await world.store.account_by_email(ADA)
    assert user is not None
    rows = await world.store.select(Credential, subject=user.subject)
    text = " ".join(row.proof for row in rows)
    assert secret not in text
    assert not any(each in text or each.replace("-", "") in text for each in codes)


async def test_an_administrator_removes_what_an_owner_has_lost(world: World) -> None:
    """The admin API lists the factors of an account and removes one; the event names the administrator. An ordinary
    caller cannot.
    """
    person, _, _ = await with_app(world)
    user = (await person.me()).json["user"]["id"]
    await world.make_admin()
    root = world.browser()
    await root.login("root@example.com")
    path = f"/admin/api/accounts/{user}/factors"
    assert [each["method"] for each in (await root.call("GET", path)).json["factors"]] == ["totp"]
    assert (await person.call("GET", path)).status == 403
    assert (await person.call("POST", f"{path}/remove", json={"method": "totp"})).status == 403
    assert (await root.call("POST", f"{path}/remove", json={"method": "password"})).status == 404
    assert (await root.call("POST", f"{path}/remove", json={"method": "totp"})).status == 204
    assert (await root.call("GET", path)).json["recovery_codes_left"] == 0
    (event,) = [each for each in await world.events() if each.name == "factor_removed"]
    assert (event.subject, event.actor) == (user, (await root.me()).json["user"]["id"])
    await world.browser().login()


async def test_the_owner_is_written_to(world: World) -> None:
    """An app that was added or removed, and a recovery code that was used, is a notice to the verified address: an
    attacker who got that far is noticed.
    """
    await world.register(ADA)
    account = await world.store.account_by_email(ADA)
    assert account is not None
    await world.store.commit(Swap(replace(account, email_verified_at=1.0)))
    person = world.browser()
    await person.login()
    _, codes = await enrolled(world, person)
    token = (await begin(world.program())).json["token"]
    assert (await step(world.program(), token, codes[0], "recovery_code")).status == 200
    assert (await person.call("POST", "/auth/factors/remove", json={"method": "totp"})).status == 204
    await world.posted()
    subjects = {mail.subject.partition(" - ")[0] for mail in world.mailbox.mails if "sign-in" not in mail.subject}
    assert subjects == {
        "An authenticator app was added to your account",
        "A recovery code of your account was used",
        "The authenticator app was removed from your account",
    }
    assert not any(codes[0] in mail.text for mail in world.mailbox.mails)
