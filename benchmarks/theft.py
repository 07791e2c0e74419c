"""How long a thief is served with copies of what a client keeps: `python -m benchmarks.theft [--quick]`.

One server in this process, with a clock of ours: nothing waits. The owner sends a request a minute. At some moment of
the sign-in everything that the client keeps is copied, but for a key that cannot leave its device. From then on the
thief sends a request every ten seconds, and refreshes as a client would. A figure is the time from the theft to the
thief's last request that was served: the longest and the median over moments of theft. Where the thief is still served
after two hours, the measurement ends.
"""

from __future__ import annotations

import asyncio
import logging
import statistics
import sys
from collections.abc import Awaitable, Callable
from typing import Any

from tests.http.world import PASSWORD, Answer, World, a_world
from tests.softbrowser import SoftBrowser

from dutchdoor.client.dpop import ProofKey

MINUTE, CAP = 60.0, 7200.0
EMAIL = "ada@example.com"
Use = Callable[[], Awaitable[bool]]
"""Sends a request, after a refresh where one is due, and says whether it was served."""


class Page(SoftBrowser[Answer]):
    """A page in a browser, with the session or the refresh cookie."""

    def __init__(self, world: World, mode: str, *, binds: bool) -> None:
        super().__init__(self.over, world.origin, clock=world.clock, binds=binds)
        self.world, self.mode, self.access = world, mode, ""

    async def over(self, method: str, path: str, headers: list[tuple[str, str]], body: bytes) -> Answer:
        return await self.world.call(method, path, headers=headers, body=body)

    async def begin(self) -> None:
        self._learn_tokens(
            await self.fetch("POST", "/auth/login", json={"email": EMAIL, "password": PASSWORD, "mode": self.mode})
        )

    async def use(self) -> bool:
        if self.mode == "session":
            return (await self.fetch("GET", "/auth/me")).status == 200
        bearer = [("authorization", f"Bearer {self.access}")]
        if (await self.fetch("GET", "/auth/me", headers=bearer, mode="omit")).status == 200:
            return True
        self._learn_tokens(await self.fetch("POST", "/auth/refresh"))
        bearer = [("authorization", f"Bearer {self.access}")]
        return (await self.fetch("GET", "/auth/me", headers=bearer, mode="omit")).status == 200

    def copied(self) -> Page:
        """The same cookies and tokens in a browser that has no key of this device."""
        thief = Page(self.world, self.mode, binds=False)
        thief.jar, thief.csrf, thief.access = dict(self.jar), self.csrf, self.access
        return thief

    def _learn_tokens(self, answer: Answer) -> None:
        if answer.status == 200:
            self.csrf, self.access = answer.json.get("csrf_token", self.csrf), answer.json.get("access_token", "")


class Program:
    """A program with tokens in its hands, which proves a key or not."""

    def __init__(self, world: World, mode: str, key: ProofKey | None) -> None:
        self.world, self.mode, self.key = world, mode, key
        self.access = self.refresh = self.nonce = ""

    async def send(self, method: str, path: str, token: str = "", **more: Any) -> Answer:
        for _ in range(2):
            headers = [("authorization", f"{'DPoP' if self.key else 'Bearer'} {token}")] if token else []
            if self.key is not None:
                url = self.world.origin + path
                proof = self.key.proof(method, url, at=self.world.clock(), nonce=self.nonce, token=token)
                headers.append(("dpop", proof))
            answer = await self.world.call(method, path, headers=headers, **more)
            self.nonce = answer.header("dpop-nonce") or self.nonce
            if answer.status != 401 or answer.code != "use_dpop_nonce":
                break
        if answer.status == 200 and answer.body.startswith(b"{"):
            self.access = answer.json.get("access_token", self.access)
            self.refresh = answer.json.get("refresh_token", self.refresh)
        return answer

    async def begin(self) -> None:
        body = {"email": EMAIL, "password": PASSWORD, "mode": self.mode}
        await self.send("POST", "/auth/login", json=body | ({"transport": "body"} if self.mode == "hybrid" else {}))

    async def use(self) -> bool:
        if (await self.send("GET", "/auth/me", self.access)).status == 200:
            return True
        if not self.refresh:
            return False
        await self.send("POST", "/auth/refresh", json={"refresh_token": self.refresh})
        return (await self.send("GET", "/auth/me", self.access)).status == 200

    def copied(self) -> Program:
        """The same tokens in a program without the key."""
        thief = Program(self.world, self.mode, None)
        thief.access, thief.refresh = self.access, self.refresh
        return thief


Client = Page | Program
KINDS: dict[tuple[str, str], Callable[[World], Client]] = {
    ("session cookie of a browser", "not bound"): lambda world: Page(world, "session", binds=False),
    ("session cookie of a browser", "bound (DBSC)"): lambda world: Page(world, "session", binds=True),
    ("refresh cookie and access token of a page", "not bound"): lambda world: Page(world, "hybrid", binds=False),
    ("refresh cookie and access token of a page", "bound (DBSC)"): lambda world: Page(world, "hybrid", binds=True),
    ("refresh and access token of a program", "not bound"): lambda world: Program(world, "hybrid", None),
    ("refresh and access token of a program", "bound (DPoP)"): lambda world: Program(
        world, "hybrid", ProofKey.generate()
    ),
    ("access token of the mode jwt", "not bound"): lambda world: Program(world, "jwt", None),
    ("access token of the mode jwt", "bound (DPoP)"): lambda world: Program(world, "jwt", ProofKey.generate()),
}


async def keep_on(owner: Client) -> None:
    """Use a sign-in, and make another where it has ended by itself: one of the mode jwt lives as long as its token."""
    if not await owner.use():
        await owner.begin()


async def served_for(make: Callable[[World], Client], stolen_after: float) -> tuple[float, bool]:
    """Seconds from the theft to the thief's last request that was served, and whether the owner is still served."""
    async with a_world() as world:
        await world.register()
        owner = make(world)
        await owner.begin()
        for _ in range(int(stolen_after // MINUTE)):
            await keep_on(owner)
            world.clock.forward(MINUTE)
        await keep_on(owner)
        world.clock.forward(stolen_after % MINUTE)
        thief, began, last, stays = owner.copied(), world.clock(), 0.0, True
        while world.clock() - began < CAP:
            if await thief.use():
                last = world.clock() - began
            elif world.clock() - began > last + 20 * MINUTE:
                break
            world.clock.forward(10)
            if round(world.clock() - began) % MINUTE == 0 and owner.mode != "jwt":
                stays = await owner.use() and stays
        return last, stays


def said(seconds: float) -> str:
    if seconds >= CAP - MINUTE:
        return "over 2 h: as long as the sign-in"
    return f"{seconds / MINUTE:.1f} min"


async def main() -> None:
    logging.disable()
    moments = [605.0 + step for step in range(0, 600, 300 if "--quick" in sys.argv else 30)]
    print("| what was copied | binding | the longest | the median | the owner then |\n|---|---|---:|---:|---|")
    for (copy, binding), make in KINDS.items():
        found = [await served_for(make, moment) for moment in moments]
        lasts = [last for last, _ in found]
        owner = "is signed in" if all(stays for _, stays in found) else "signs in anew"
        print(f"| {copy} | {binding} | {said(max(lasts))} | {said(statistics.median(lasts))} | {owner} |", flush=True)


if __name__ == "__main__":
    asyncio.run(main())
