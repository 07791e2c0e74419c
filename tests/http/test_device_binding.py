"""Device Bound Session Credentials over HTTP: what a browser does by itself, and what a thief can not."""

from __future__ import annotations

import pytest
from tests.devicekey import DeviceKey, challenge_in
from tests.http.world import Answer, Browser, World

from dutchdoor.model.audit_events import AuditEvent

REGISTER, REFRESH = "/auth/device-binding", "/auth/device-binding/refresh"
OFFER, CHALLENGE = "secure-session-registration", "secure-session-challenge"
BOTH = pytest.mark.parametrize("mode", ["session", "hybrid"])


class Bound(Browser):
    """A browser that registers a key for its session, and fetches bound cookies, when a test says so."""

    def __init__(self, world: World, key: DeviceKey | None = None) -> None:
        super().__init__(world)
        self.key = key or DeviceKey()
        self.offer = ""

    async def signed_in(self, mode: str = "session") -> str:
        answer = await self.login(mode=mode)
        self.offer = challenge_in(answer.header(OFFER))
        return self.offer

    async def sends(self, path: str, proof: str = "") -> Answer:
        headers = [("sec-secure-session-id", self.session_id)] if path == REFRESH else []
        headers += [("secure-session-response", proof)] if proof else []
        return await self.call("POST", path, csrf=False, headers=headers)

    async def register(self, challenge: str = "", key: DeviceKey | None = None) -> Answer:
        return await self.sends(REGISTER, (key or self.key).registration(challenge or self.offer))

    async def challenge(self) -> str:
        answer = await self.sends(REFRESH)
        assert answer.status == 403, answer
        return challenge_in(answer.header(CHALLENGE))

    async def prove(self, key: DeviceKey | None = None) -> Answer:
        return await self.sends(REFRESH, (key or self.key).proof(await self.challenge()))

    async def bind(self, mode: str = "session") -> None:
        await self.signed_in(mode)
        assert (await self.register()).status == 200
        assert (await self.prove()).status == 200

    async def uses(self, mode: str = "session") -> Answer:
        return await (self.me() if mode == "session" else self.call("POST", "/auth/refresh"))

    def bound(self) -> str:
        return self.world.prefix + "dd_bound"


async def recorded(world: World, name: str) -> list[AuditEvent]:
    return [event for event in await world.events() if event.name == name]


@BOTH
async def test_k01_a_browser_binds_its_session(world: World, mode: str) -> None:
    """A browser registers a key, confirms it by its first refresh, and is served with its bound cookie alone from then
    on. The copied long-lived cookie is worth nothing.
    """
    await world.register()
    browser = Bound(world)
    await browser.signed_in(mode)
    told = await browser.register()
    assert told.status == 200
    assert told.json["session_identifier"] == browser.session_id
    assert (await browser.uses(mode)).status == 200
    del browser.jar[browser.bound()]
    assert (await browser.uses(mode)).status == 200, "not confirmed yet"
    assert (await browser.prove()).status == 200
    assert (await browser.uses(mode)).status == 200
    del browser.jar[browser.bound()]
    refused = await browser.uses(mode)
    assert (refused.status, refused.code) == (401, "device_proof_required")
    assert (await browser.prove()).status == 200
    assert (await browser.uses(mode)).status == 200
    (event,) = await recorded(world, "session_bound")
    assert (event.session_id, event.detail) == (browser.session_id, "ES256")


async def test_k01_the_instructions_name_the_cookie_as_it_is_set(world: World) -> None:
    """A browser compares the attributes in the instructions with those of the cookie, and refuses a session in silence
    where they differ.
    """
    await world.register()
    for mode, rules in (("session", []), ("hybrid", ["/", "/auth/refresh"])):
        browser = Bound(world)
        await browser.signed_in(mode)
        told = await browser.register()
        (cookie,) = told.json["credentials"]
        (line,) = told.set_cookies()
        assert line.startswith(f"{cookie['name']}=")
        assert line.partition("; ")[2] == f"{cookie['attributes']}; Max-Age=110"
        assert [rule["path"] for rule in told.json["scope"]["scope_specification"]] == rules
        assert told.json["refresh_url"] == REFRESH
