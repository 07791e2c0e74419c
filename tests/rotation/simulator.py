"""Discrete-event simulation of refreshing: honest clients on a bad network, and thieves, against any algorithm.

A session lives for hours in virtual time, in which nothing waits. An honest client is one token jar shared by tabs (a
browser) or by one process (a telephone). Requests and answers take time and get lost; a client dies between receiving a
token and storing it; tabs refresh at the same moment. A thief copies the jar once and plays one of several schedules.

The algorithm under test is dutchdoor's own `Authority.refresh` over a store on disk. Three that are in wide use stand
beside it, in their shortest form, to show what the same schedules do to them.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import random
import statistics
from collections.abc import Awaitable, Callable, Iterable
from typing import Literal, NamedTuple, Protocol

from dutchdoor.errors import InvalidToken, Superseded
from dutchdoor.model.http_client import Client, Device
from dutchdoor.model.ids import new_id
from dutchdoor.model.master_key import MasterKey, MasterKeys
from dutchdoor.model.policy import STANDARD, Policy
from dutchdoor.model.principal import Verified
from dutchdoor.services.sessions import Authority
from dutchdoor.stores.base import Store

PERIOD = 900.0
"""Seconds between two refreshes of an honest client."""
START = 1_750_000_000.0

VICTIM = Client(address="192.0.2.7", country="NL", devices=Device(browser_family="Firefox", platform="Linux"))
STRANGER = Client(address="203.0.113.66", country="BR", devices=Device(browser_family="Chrome", platform="Windows"))

Said = Literal["ok", "superseded", "refused"]


class Answer(NamedTuple):
    said: Said
    token: str = ""


class Algorithm(Protocol):
    """One session at a server."""

    ended: bool

    async def sign_in(self) -> str:
        """Give the first refresh token."""

    async def present(self, token: str, now: float, client: Client) -> Answer: ...


# --- what is compared -------------------------------------------------------------------------------------------------


class Dutchdoor:
    """The real thing: an authority of this session's own time, over a store shared by all of them."""

    master = MasterKeys(MasterKey(bytes(range(32))))

    def __init__(self, store: Store, policy: Policy = STANDARD) -> None:
        self.ended, self.thefts, self.session_id = False, 0, ""
        self._now = START
        self._authority = Authority(
            store, master=self.master, issuer="https://a.example", policy=policy, clock=lambda: self._now
        )
        self._authority.hooks.refresh_theft.append(self._noticed)

    async def _noticed(self, *_: object) -> None:
        self.thefts += 1

    async def sign_in(self) -> str:
        account = await self._authority.provide(new_id())
        verified = Verified(subject=account.subject, epoch=account.epoch, amr=("pwd",), at=self._now)
        started = await self._authority.start(verified, mode="hybrid", client=VICTIM)
        assert started.session is not None
        self.session_id = started.session.id
        return started.refresh_token

    async def present(self, token: str, now: float, client: Client) -> Answer:
        self._now = START + now
        try:
            return Answer("ok", (await self._authority.refresh(token, client)).refresh_token)
        except Superseded:
            return Answer("superseded")
        except InvalidToken:
            found = await self._authority.store.session(self.session_id)
            self.ended = found is None or found[0].ended_at is not None
            return Answer("refused")


class Simple:
    """What the simple algorithms share: tokens are numbers, and a session that saw a theft is over."""

    def __init__(self) -> None:
        self.ended = False
        self._numbers = map(str, itertools.count())
        self.current = next(self._numbers)

    async def sign_in(self) -> str:
        return self.current

    async def present(self, token: str, now: float, client: Client) -> Answer:
        new = None if self.ended else self.exchange(token, now)
        if new is None:
            self.ended = True
            return Answer("refused")
        return Answer("ok", new)

    def exchange(self, token: str, now: float) -> str | None:
        raise NotImplementedError


class Strict(Simple):
    """Single use: whatever was used before ends the session."""

    def exchange(self, token: str, now: float) -> str | None:
        if token != self.current:
            return None
        self.current = next(self._numbers)
        return self.current


class LeewayFork(Simple):
    """A spent token presented again within a leeway gets another child, independent of the first."""

    def __init__(self, leeway: float = 30.0) -> None:
        super().__init__()
        self.leeway, self.used_at = leeway, dict[str, float]()

    def exchange(self, token: str, now: float) -> str | None:
        if now - self.used_at.setdefault(token, now) > self.leeway:
            return None
        return next(self._numbers)


class Counter(Simple):
    """A counter: the parent always gets the current child, anything older within a window as well."""

    def __init__(self, window: float = 10.0) -> None:
        super().__init__()
        self.window, self.moved_at = window, 0.0

    def exchange(self, token: str, now: float) -> str | None:
        behind = int(self.current) - int(token)
        if behind > 1 and now - self.moved_at >= self.window:
            return None
        if behind == 0:
            self.current = next(self._numbers)
        self.moved_at = now
        return self.current


# --- the world --------------------------------------------------------------------------------------------------------


class Scenario(NamedTuple):
    """How an honest client lives. `spread` is the seconds over which its tabs refresh."""

    name: str
    tabs: int = 1
    loss: float = 0.0
    crash: float = 0.0
    same_instant: bool = False


SCENARIOS = (
    Scenario("0.5 % loss", loss=0.005),
    Scenario("5 % loss", loss=0.05),
    Scenario("5 % loss, 1 % crash", loss=0.05, crash=0.01),
    Scenario("4 tabs, same instant", tabs=4, same_instant=True),
    Scenario("4 tabs, slow tail", tabs=4),
    Scenario("4 tabs, slow tail, 2 % loss", tabs=4, loss=0.02),
)

Schedule = Literal["lock-step", "late", "tailgate", "old copy", "once"]
SCHEDULES: tuple[Schedule, ...] = ("lock-step", "late", "tailgate", "old copy", "once")
"""Of thieves: refreshes between the victim's refreshes, first; the same, after the victim; seconds after each of the
victim's; presents its copy once, three periods old; refreshes once and falls silent."""


class Theft(NamedTuple):
    schedule: Schedule
    period: int
    client: Client


class Life(NamedTuple):
    """How one session went. Periods count from the sign-in."""

    ended_in: int | None
    """The period in which the server ended it."""
    logged_out_in: int | None
    """The period in which the honest client had to sign in again."""
    thief_last: float | None
    """When the thief last got a token."""


RETRY_AFTER = (3, 10, 40, 200, 3600)


class World:
    """One session's events in the order of virtual time."""

    def __init__(self, server: Algorithm, lots: random.Random, scenario: Scenario, periods: int) -> None:
        self.server, self.lots, self.scenario, self.periods = server, lots, scenario, periods
        self._queue: list[tuple[float, int, Callable[[], Awaitable[None]]]] = []
        self._number = itertools.count()
        self.jar = ""
        self.logged_out_in: int | None = None
        self.stolen, self.thief_last = "", None

    def at(self, time: float, do: Callable[[], Awaitable[None]]) -> None:
        heapq.heappush(self._queue, (time, next(self._number), do))

    async def run(self, theft: Theft | None = None) -> Life:
        self.jar = await self.server.sign_in()
        for period in range(1, self.periods):
            self.at(period * PERIOD, lambda period=period: self._wake(period))  # type: ignore[misc]
        if theft:
            self._plan(theft)
        ended_in = None
        while self._queue:
            time, _, do = heapq.heappop(self._queue)
            if time > self.periods * PERIOD:
                break
            await do()
            if self.server.ended and ended_in is None:
                ended_in = int(time // PERIOD)
        return Life(ended_in, self.logged_out_in, self.thief_last)

    # The honest client

    async def _wake(self, period: int) -> None:
        """A tab, or some of them, find the access token old and refresh."""
        for _ in range(1 if self.scenario.tabs == 1 else self.lots.randint(1, self.scenario.tabs)):
            spread = 0.2 if self.scenario.same_instant else self.lots.choice([0.2, 3, 20])
            self._send(period * PERIOD + self.lots.uniform(0, spread))

    def _latency(self) -> float:
        kind = self.lots.random()
        low, high = (0.02, 0.3) if kind < 0.8 else (0.3, 3) if kind < 0.995 else (3, 25)
        return self.lots.uniform(low, high)

    def _lost(self) -> bool:
        return self.lots.random() < self.scenario.loss / 2

    def _send(self, when: float, tries: int = 0, asked_again: bool = False) -> None:
        async def send() -> None:
            if self.logged_out_in is not None:
                return
            token = self.jar
            if self._lost():
                self._retry(when, tries)
            else:
                arrives = when + self._latency()
                self.at(arrives, lambda: self._arrive(token, arrives, tries, asked_again))

        self.at(when, send)

    def _retry(self, when: float, tries: int) -> None:
        if tries < len(RETRY_AFTER):
            self._send(when + RETRY_AFTER[tries] * self.lots.uniform(0.8, 1.2), tries + 1)

    async def _arrive(self, token: str, now: float, tries: int, asked_again: bool) -> None:
        answer = await self.server.present(token, now, VICTIM)
        if self._lost():
            self._retry(now, tries)
            return
        back = now + self._latency()
        self.at(back, lambda: self._receive(token, answer, back, tries, asked_again))

    async def _receive(self, token: str, answer: Answer, now: float, tries: int, asked_again: bool) -> None:
        if self.logged_out_in is not None:
            return
        if answer.said == "ok":
            if self.lots.random() >= self.scenario.crash:  # else it dies here, before it stores what it received
                self.jar = answer.token
        elif not asked_again and (answer.said == "superseded" or self.jar != token):
            self._send(now + 0.3, tries, asked_again=True)  # the jar may hold a newer one by now
        else:
            self.logged_out_in = int(now // PERIOD)

    # The thief

    def _plan(self, theft: Theft) -> None:
        schedule, first, client = theft

        async def steal() -> None:
            self.stolen = self.jar

        self.at(first * PERIOD + 400, steal)
        for period in range(first, self.periods):
            begins, is_first = period * PERIOD, period == first
            when = {
                "lock-step": begins + (401 if is_first else 450),
                "late": begins + PERIOD + 300,
                "tailgate": begins + PERIOD + 26,
                "old copy": begins + 450 if period == first + 3 else None,
                "once": begins + 401 if is_first else None,
            }[schedule]
            if when is not None:
                self.at(when, lambda when=when: self._use(when, client))  # type: ignore[misc]

    async def _use(self, now: float, client: Client) -> None:
        if self.server.ended:
            return
        answer = await self.server.present(self.stolen, now, client)
        if answer.said == "ok":
            self.stolen, self.thief_last = answer.token, now


# --- the tables -------------------------------------------------------------------------------------------------------

Make = Callable[[], Algorithm]

TOGETHER = 64
"""Sessions simulated side by side, so that their commits share a flush of the disk."""


async def lives(
    make: Make, scenario: Scenario, periods: int, plans: Iterable[tuple[int, Theft | None]]
) -> list[tuple[Life, Algorithm]]:
    """Live through a number of sessions, each with a seed of its own."""
    limit = asyncio.Semaphore(TOGETHER)

    async def one(seed: int, theft: Theft | None) -> tuple[Life, Algorithm]:
        async with limit:
            server = make()
            length = theft.period + periods if theft else periods
            return await World(server, random.Random(seed), scenario, length).run(theft), server

    return await asyncio.gather(*(one(seed, theft) for seed, theft in plans))


async def false_logouts(make: Make, scenario: Scenario, sessions: int, periods: int) -> float:
    """Honest sessions that were revoked, or had to sign in again, of each 1,000."""
    lived = await lives(make, scenario, periods, ((1234 + n, None) for n in range(sessions)))
    lost = [life for life, server in lived if server.ended or life.logged_out_in is not None]
    return 1000 * len(lost) / sessions


class Caught(NamedTuple):
    """Of the thefts: which share was ended by the server, after how many periods at the median, and which share of
    thieves still got tokens at the end.
    """

    share: float
    after: float | None
    still_in: float


async def caught(make: Make, schedule: Schedule, client: Client, thefts: int, periods: int = 24) -> Caught:
    """What becomes of a session whose token was copied. The victim is one client that loses 0.5 % of what it sends."""
    plans = [(99 + n, Theft(schedule, 3 + n % 5, client)) for n in range(thefts)]
    lived = await lives(make, SCENARIOS[0], periods, plans)
    after: list[int] = []
    counted = still_in = 0
    for (_, theft), (life, _) in zip(plans, lived, strict=True):
        assert theft is not None
        if any(when is not None and when < theft.period for when in (life.ended_in, life.logged_out_in)):
            continue  # it was over before the theft: a false log-out, which the other table counts
        counted += 1
        if life.ended_in is not None:
            after.append(life.ended_in - theft.period)
        elif life.thief_last is not None and life.thief_last > (theft.period + periods - 2) * PERIOD:
            still_in += 1
    share = len(after) / counted if counted else 0.0
    return Caught(share, statistics.median(after) if after else None, still_in / max(1, counted))
