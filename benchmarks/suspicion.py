"""How many thieves and how many honest people each preset of `suspicion` stops, over people who are made up.

    python -m benchmarks.suspicion                 # 1,000 people for a month, 1,000 thieves of each kind
    python -m benchmarks.suspicion --seed 2        # other people
    python -m benchmarks.suspicion --all-known     # with a table that knows carriers of telephones, and aeroplanes
    python -m benchmarks.suspicion --choices       # what honest people pay for stopping thieves, over several seeds

The people are drawn from a seed, and the numbers about them below are guesses, not measurements. They are chosen so
that what is hard occurs more often than it does among most users. The rules were chosen by seeds 1 to 3; any other
seed is new to them. What is said about networks comes true in the corpus only as often as tables know them in life.
"""

from __future__ import annotations

import argparse
import math
import random
import time
import timeit
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from itertools import pairwise
from typing import Final, Literal, NamedTuple, TypeAlias, get_args

from dutchdoor.model.policy import DAY, HOUR, MINUTE, STANDARD
from dutchdoor.model.sightings import AGAIN_AFTER, History, NetworkKind, Place, Sighting, first_history
from dutchdoor.model.suspicion import OF_PLACE, Assessment, Reaction, Suspicion, assess
from dutchdoor.model.travel import least_hours
from dutchdoor.services.seen_lately import SeenLately
from dutchdoor.web.api import carried_by
from dutchdoor.web.http import Request

PRESETS: Final[tuple[Suspicion, ...]] = ("quiet", "standard", "strict")

CONTINENTS: Final = {
    "Europe": "NL DE FR GB BE ES IT PL SE PT RO GR IE CH AT UA",
    "North America": "US CA MX",
    "South America": "BR AR CO CL PE",
    "Asia": "IN CN VN ID PH JP SG TH PK BD",
    "Africa": "NG ZA KE EG MA GH",
    "Oceania": "AU NZ",
}
CONTINENT_OF: Final = {country: name for name, there in CONTINENTS.items() for country in there.split()}
HOMES: Final = "NL NL NL DE DE DE FR FR GB GB BE ES IT PL SE US US CA BR IN AU".split()
BROWSERS: Final = ("Chrome", "Safari", "Firefox", "Edge")

# How many people in a hundred do what is hard to tell from theft. More than among most users.
EMPLOYED, TWO_CITIES = 60, 8
VPN, RELAY, IPV6 = 15, 12, 50
SECOND_SESSION = 60
TRIP_BY_LAND, TRIP_BY_AIR, FAR_TRIP, ON_BOARD = 8, 6, 2, 10
KNOWN_VPN = 60
"""VPN exits in a hundred that the table of networks knows; to it, the others are homes."""


class Use(NamedTuple):
    """One use of a session."""

    at: float
    seen: Sighting


def _when(use: Use) -> float:
    return use.at


class Networks:
    """Hands out networks, each once."""

    def __init__(self) -> None:
        self._given = 0

    def new(self, country: str, kind: NetworkKind = "", provider: str = "", *, six: bool = False) -> Sighting:
        self._given += 1
        at = self._given
        network = f"2a00:{at >> 8:x}:{at & 255:x}::/48" if six else f"{at >> 16}.{at >> 8 & 255}.{at & 255}.0/24"
        return Sighting(network, country, "", kind, provider)


class Person:
    """One honest person and the places where they are."""

    def __init__(self, draw: random.Random, networks: Networks, *, all_known: bool = False) -> None:
        """With `all_known`, the table of networks also knows carriers of telephones, and aeroplanes."""
        chance = lambda percent: draw.random() * 100 < percent  # noqa: E731
        self.draw, self.networks = draw, networks
        self.country = draw.choice(HOMES)
        self.home = [networks.new(self.country)]
        if chance(IPV6):
            self.home.append(networks.new(self.country, six=True))
        # Carrier-grade NAT: one carrier's gateways, any of which a phone may come from.
        self.all_known = all_known
        carrier: NetworkKind = "mobile" if all_known else ""
        self.mobile = [networks.new(self.country, carrier) for _ in range(draw.randint(2, 8))]
        self.work: list[Sighting] = []
        if chance(EMPLOYED):
            self.work = [networks.new(self.country)]
            if chance(TWO_CITIES):
                self.work.append(networks.new(self.country))
        self.knows_vpn = False
        """Whether the table knows the exits of their VPN."""
        self.vpn = self._exits(chance) if chance(VPN) else []
        self.relay = [networks.new(self.country, "relay") for _ in range(12)] if chance(RELAY) else []
        self.trips = list(self._trips(chance))

    @property
    def uses_vpn(self) -> bool:
        return bool(self.vpn)

    def _exits(self, chance: Callable[[float], bool]) -> list[list[Sighting]]:
        """Return the exits of a VPN by location. Each location has several networks."""
        known = self.knows_vpn = chance(KNOWN_VPN)
        kind: NetworkKind = self.draw.choice(("vpn", "hosting")) if known else ""
        provider = f"VPN {self.draw.randint(1, 40)}" if known else ""
        countries = [self.country, *self.draw.sample(sorted(CONTINENT_OF), self.draw.randint(1, 3))]
        return [[self.networks.new(country, kind, provider) for _ in range(4)] for country in countries]

    def _trips(self, chance: Callable[[float], bool]) -> Iterator[tuple[float, float, list[Sighting], float]]:
        """Trips: when they begin and end, the networks there, and when Wi-Fi on board is used (0: it is not)."""
        draw, here = self.draw, CONTINENT_OF[self.country]
        near = [c for c in CONTINENT_OF if c != self.country and CONTINENT_OF[c] == here]
        for kind, percent in (("land", TRIP_BY_LAND), ("air", TRIP_BY_AIR), ("far", FAR_TRIP)):
            if not chance(percent):
                continue
            if kind == "far":
                to = draw.choice([c for c in CONTINENT_OF if CONTINENT_OF[c] != here])
            else:
                close = [c for c in near if (least_hours(self.country, c) == 0) is (kind == "land")]
                to = draw.choice(close or near)
            begins = draw.uniform(2, 20) * DAY
            # Roaming: most phones keep coming from their carrier's own country.
            there = [self.networks.new(to), self.networks.new(to)]
            if chance(60):
                there.append(draw.choice(self.mobile))
            on_board = begins - draw.uniform(1, 4) * HOUR if kind != "land" and chance(ON_BOARD) else 0.0
            yield begins, begins + draw.uniform(1, 8) * DAY, there, on_board

    def uses(self, *, phone: bool, days: int = 30) -> Iterator[Use]:
        """Return the uses of one session of so many days, in their order."""
        draw = self.draw
        browser = draw.choice(BROWSERS)
        found: list[Use] = []
        for day in range(days):
            for _ in range(draw.randint(2, 7)):
                at = day * DAY + min(max(draw.gauss(15, 4), 0.5), 23.9) * HOUR
                found += [Use(when, seen) for when, seen in self._burst(at, phone=phone)]
        for begins, _, _, on_board in self.trips:
            # Half of the aeroplanes come out in the country of their carrier, half where their satellite does.
            if on_board:
                country = self.country if draw.random() < 0.5 else draw.choice(("US", "DE", "GB"))
                gate = self.networks.new(country, "satellite" if self.all_known else "")
                found = [use for use in found if not on_board - HOUR < use.at < begins]
                found += [Use(on_board + n * MINUTE, gate) for n in range(5)]
            else:
                # Before landing, nothing is used for as long as the flight takes.
                found = [use for use in found if not begins - 14 * HOUR < use.at < begins]
        for use in sorted(found, key=_when):
            # A page asked for "as on a desk" changes the platform, and an update the version: not the family.
            yield Use(use.at, Sighting(*_where(use.seen), browser, use.seen.kind, use.seen.provider))

    def _burst(self, at: float, *, phone: bool) -> Iterator[tuple[float, Sighting]]:
        draw = self.draw
        for begins, ends, there, _ in self.trips:
            if begins <= at < ends:
                choices = there
                break
            if begins - 14 * HOUR < at < begins or ends <= at < ends + 14 * HOUR:  # the way there and back
                return
        else:
            hour = at % DAY / HOUR
            choices = self.work if self.work and 9 <= hour < 17 and at // DAY % 7 < 5 else self.home
            if self.vpn and draw.random() < 0.25:
                choices = draw.choice(self.vpn)
            elif self.relay and phone:
                choices = draw.sample(self.relay, 2)
            elif phone and draw.random() < 0.4:
                choices = [draw.choice(self.mobile)]
            elif phone and draw.random() < 0.1:  # at the edge of the Wi-Fi
                choices = [choices[0], draw.choice(self.mobile)]
        if choices in self.vpn:
            choices = [draw.choice(choices)]
        for number in range(draw.randint(2, 12)):
            yield at + number * draw.uniform(2, 40), draw.choice(choices)


def _where(seen: Sighting) -> tuple[str, str]:
    return seen.network, seen.country


Overrule: TypeAlias = Callable[[Assessment, Sighting, Sighting], Assessment]
"""What `on_suspicion` may do: takes what was decided, the last sighting and the new one."""


def within_a_continent(decided: Assessment, last: Sighting, seen: Sighting) -> Assessment:
    """A hook that asks no one who stays on a continent: their owner gets a mail."""
    near = CONTINENT_OF.get(last.country) == CONTINENT_OF.get(seen.country)
    return Assessment("notify", decided.reasons) if near and decided.reasons == ("too_fast",) else decided


class Watched:
    """A session under a preset: what the server keeps of it, and what it does."""

    def __init__(
        self,
        first: Use,
        preset: Suspicion,
        familiar: list[Place],
        *,
        by_cookie: bool,
        overrule: Overrule | None = None,
    ) -> None:
        self.history: History = first_history(first.seen, first.at)
        self.overrule = overrule
        self.preset, self.familiar, self.by_cookie = preset, familiar, by_cookie
        self.last_use, self.at, self._looked = first.at, first.seen, {first.seen.network: first.at}
        familiar.extend(self.history.places)

    def see(self, use: Use, *, replayed: bool = False) -> Assessment:
        known = self._looked.get(use.seen.network, -AGAIN_AFTER)
        same = use.seen.network == self.at.network and use.seen.browser == self.at.browser
        if same or (use.at - known < AGAIN_AFTER and use.seen.browser == self.at.browser and not replayed):
            self.last_use = use.at
            return Assessment("calm")
        decided = assess(
            self.history, use.seen, self.preset, now=use.at, last_use=self.last_use,
            familiar=self.familiar, by_cookie=self.by_cookie, replayed=replayed,
        )  # fmt: skip
        if self.overrule is not None:
            decided = self.overrule(decided, self.at, use.seen)
        if decided.reaction not in REFUSED:
            self.history = self.history.moved(use.seen, use.at, last_use=self.last_use)
            if decided.reaction == "notify":
                self.history = self.history.reporting()
            self.at, self.last_use = use.seen, use.at
            self._looked[use.seen.network] = use.at
        return decided

    def prove(self, use: Use) -> None:
        """The owner proves again: what they proved is familiar to all their sessions."""
        self.history = self.history.moved(use.seen, use.at, last_use=self.last_use, proved=True)
        self.familiar.append(self.history.places[-1])
        self.at, self.last_use = use.seen, use.at
        self._looked[use.seen.network] = use.at


class Honest(NamedTuple):
    sessions: int
    vpn_sessions: int
    asked: int
    """Sessions without a VPN that were asked to prove again."""
    vpn_asked: int
    """Sessions with one."""
    most: int
    """The most that one person was asked, journeys aside, whose VPN the table knows."""
    most_unknown: int
    """The most that one person with another VPN was asked."""
    mailed: int
    """People who got a mail."""
    revoked: int
    why: Counter[str]
    by_place: int
    """Sessions without a VPN that were asked, each time for their place alone: their browser can answer."""


def honest(
    seed: int, people: int, preset: Suspicion, *, all_known: bool = False, overrule: Overrule | None = None
) -> Honest:
    """Let honest people live for a month."""
    draw, networks = random.Random(seed), Networks()
    sessions = vpn_sessions = asked = vpn_asked = most = most_unknown = mailed = revoked = by_place = 0
    why: Counter[str] = Counter()
    for _ in range(people):
        person, familiar = Person(draw, networks, all_known=all_known), list[Place]()
        times, mails = 0, 0
        abroad = {seen.network for _, _, there, _ in person.trips for seen in there}
        lives = [
            list(person.uses(phone=phone)) for phone in (True, False)[: 1 + (draw.random() < SECOND_SESSION / 100)]
        ]
        watched: list[Watched | None] = [None] * len(lives)
        here, place_alone = [False] * len(lives), [True] * len(lives)
        for use, number in sorted(
            ((use, number) for number, life in enumerate(lives) for use in life), key=lambda each: each[0].at
        ):
            session = watched[number]
            if session is None:  # it begins by a sign-in
                watched[number] = Watched(use, preset, familiar, by_cookie=True, overrule=overrule)
                continue
            decided = session.see(use)
            why.update(f"{decided.reaction}: {reason}" for reason in decided.reasons)
            mails += decided.reaction == "notify"
            if decided.reaction in REFUSED:
                here[number] |= decided.reaction == "step_up"
                place_alone[number] &= decided.reaction == "step_up" and OF_PLACE.issuperset(decided.reasons)
                times += decided.reaction == "step_up" and use.seen.network not in abroad
                revoked += decided.reaction == "revoke"
                session.prove(use)
        sessions += len(lives)
        vpn_sessions += len(lives) * person.uses_vpn
        asked += 0 if person.uses_vpn else sum(here)
        by_place += 0 if person.uses_vpn else sum(a and b for a, b in zip(here, place_alone, strict=True))
        vpn_asked += sum(here) if person.uses_vpn else 0
        mailed += bool(mails)
        if person.knows_vpn:
            most = max(most, times)
        elif person.uses_vpn:
            most_unknown = max(most_unknown, times)
    return Honest(sessions, vpn_sessions, asked, vpn_asked, most, most_unknown, mailed, revoked, why, by_place)


Thief = Literal[
    "another continent",
    "hosting",
    "Tor",
    "same continent",
    "same country",
    "same city",
    "slow and patient",
    "malware on the device",
]
THIEVES: Final[tuple[Thief, ...]] = get_args(Thief)
REFUSED: Final[frozenset[Reaction]] = frozenset({"step_up", "revoke"})
STRIKES_AFTER: Final = 20 * MINUTE
"""The mean from the owner's use in which the copy was taken to the thief's first one. The patient thief waits."""
IMITATES: Final = 70
"""Thieves in a hundred who send the owner's User-Agent."""
WITH_KEY = 95
"""Sessions in a hundred that have the key of their browser until they end: they began on our pages, with a script, and
the browser has kept its storage. An assumption: it depends on how an application signs people in."""
STAYS: Final = 24 * HOUR
TOKEN_LIVES: Final = STANDARD.access_for / MINUTE
REPORTED_AFTER: Final = 2.5 / 60
"""Minutes until a verifier has reported a use, and knows what the authority made of it, at most."""


class Theft(NamedTuple):
    """One copy of a session, and what its owner and its thief do."""

    uses: list[Use]
    stolen: int
    """The owner's use in which it is copied."""
    theirs: list[Use]


class Caught:
    """What became of thieves."""

    def __init__(self) -> None:
        self.runs = self.first = self.day = self.known = 0
        self.answered: list[float] = []
        """For each thief, the minutes from the first request to the last one that is answered: 0 for none, endless if
        nothing stops the thief."""

    def row(self) -> str:
        """Return the cells: refused at the first request, within a day, and known to the owner."""
        return " | ".join(f"{n / self.runs:.1%}" for n in (self.first, self.day, self.known))

    def minutes(self, *, lives: float = math.inf, later: float = 0.0) -> str:
        """Return for how many minutes a thief is answered: the median, and the 95th of a hundred.

        Args:
            lives: the minutes after which what was stolen expires by itself.
            later: the minutes until the service that is asked knows of a doubt.
        """
        taken = sorted(min(each + later, lives) for each in self.answered)
        return " / ".join(_minutes(taken[int(len(taken) * part)]) for part in (0.5, 0.95))


def thefts(seed: int, runs: int, kind: Thief, *, all_known: bool) -> Iterator[Theft]:
    """Make up thefts of one kind: a session of ten days is copied when it is three to five days old."""
    draw, networks = random.Random(f"{seed} {kind}"), Networks()
    for _ in range(runs):
        person = Person(draw, networks, all_known=all_known)
        uses = list(person.uses(phone=draw.random() < 0.5, days=10))
        stolen = draw.randrange(len(uses) * 3 // 10, len(uses) // 2)
        owner = uses[stolen]
        if kind == "slow and patient":
            # While the owner sleeps: near the end of the longest pause that follows.
            pause, begins = max((b.at - a.at, a.at) for a, b in pairwise(uses[stolen:]))
            strikes = begins + 0.95 * pause
        else:
            strikes = owner.at + draw.expovariate(1 / STRIKES_AFTER)
        seen = thief_at(kind, person, owner.seen, draw)
        yield Theft(uses, stolen, [Use(strikes + n * draw.uniform(30, 600), seen) for n in range(20)])


def thief_at(kind: Thief, person: Person, owner: Sighting, draw: random.Random) -> Sighting:
    """Return what a thief is seen as."""
    here, networks = CONTINENT_OF[person.country], person.networks
    far = draw.choice([c for c in CONTINENT_OF if CONTINENT_OF[c] != here])
    browser = owner.browser if draw.random() * 100 < IMITATES else draw.choice(BROWSERS)
    match kind:
        case "malware on the device":
            return owner
        case "another continent":
            seen = networks.new(far)
        case "hosting":
            seen = networks.new(draw.choice((person.country, far)), "hosting", f"Cloud {draw.randint(1, 48)}")
        case "Tor":
            seen = networks.new(draw.choice(("DE", "NL", "US", "FR")), "tor", "Tor")
        case "same continent":
            near = [c for c in CONTINENT_OF if CONTINENT_OF[c] == here and c != person.country]
            seen = networks.new(draw.choice(near))
        case "same country" | "same city":
            # No table says more of a network than its country: for the rules, the two are one.
            seen = networks.new(person.country)
        case "slow and patient":
            seen = networks.new(draw.choice((person.country, far)))
    return Sighting(seen.network, seen.country, browser, seen.kind, seen.provider)


def play(
    theft: Theft,
    preset: Suspicion,
    caught: Caught,
    *,
    by_cookie: bool,
    overrule: Overrule | None = None,
    has_key: bool = False,
) -> None:
    """Let a theft happen under a preset. With `has_key`, the thief has copied the whole profile of the browser, and
    answers for it where a browser may.
    """
    uses, theirs = theft.uses, set(theft.theirs)
    session = Watched(uses[0], preset, [], by_cookie=by_cookie, overrule=overrule)
    strikes, stopped, mail, last = theft.theirs[0].at, None, False, theft.theirs[0].at
    for use in sorted([*uses[1:], *theirs], key=_when):
        if use.at > strikes + STAYS:
            break
        decided = session.see(use)
        if decided.reaction in REFUSED and use.at < strikes:
            session.prove(use)  # the owner, who goes on; what is copied is copied after that
        elif has_key and decided.reaction == "step_up" and OF_PLACE.issuperset(decided.reasons):
            session.prove(use)
        elif decided.reaction in REFUSED:
            stopped = use
            break
        mail |= decided.reaction == "notify" and use.at >= strikes
        last = use.at if use in theirs else last
    caught.runs += 1
    caught.known += mail or stopped is not None
    if stopped is not None:
        caught.first += stopped.at == strikes
        caught.day += 1
    caught.answered.append(math.inf if stopped is None else (last - strikes) / MINUTE)


def cost() -> tuple[float, float]:
    """Return the microseconds of an unchanged sighting, and of an assessment of a full history."""
    lately, request = SeenLately(), Request("GET", "/", b"", [(b"user-agent", b"Firefox")], "192.0.2.1", "https")
    carried = carried_by(request)
    for number in range(1000):
        lately.keep(str(number), carried, 0.0)
    history = first_history(Sighting("192.0.2.0/24", "NL", "Firefox"), 0.0)
    for number in range(20):
        history = history.moved(
            Sighting(f"198.51.{number}.0/24", "NL"), float(number), last_use=float(number), proved=True
        )
    away = Sighting("203.0.113.0/24", "AU", "Firefox")
    same = min(timeit.repeat(lambda: lately.is_same("7", carried_by(request), time.time()), number=20_000, repeat=7))
    judged = min(timeit.repeat(lambda: assess(history, away, "strict", now=60.0, last_use=0.0), number=2_000, repeat=7))
    return same / 20_000 * 1e6, judged / 2_000 * 1e6


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--people", type=int, default=1000)
    parser.add_argument("--all-known", action="store_true", help="the table also knows carriers, and aeroplanes")
    parser.add_argument("--why", action="store_true", help="print how often each reason led where")
    parser.add_argument("--choices", action="store_true", help="print what honest people pay for stopping thieves")
    asked = parser.parse_args(argv)
    if asked.choices:
        choices(range(asked.seed, asked.seed + 5), asked.people)
        return
    began = time.perf_counter()
    same, judged = cost()
    print(f"An unchanged sighting costs {same:.2f} microseconds, an assessment {judged:.1f}.\n")
    print(f"Seed {asked.seed}, {asked.people:,} people for 30 days, as many thieves of each kind.\n")
    print("| honest people | quiet | standard | strict |\n|---|---:|---:|---:|")
    lived = [honest(asked.seed, asked.people, preset, all_known=asked.all_known) for preset in PRESETS]
    rows = [
        ("sessions", [f"{h.sessions:,}" for h in lived]),
        ("revoked", [str(h.revoked) for h in lived]),
        ("asked again, of 1,000 without a VPN", [_per_mille(h.asked, h.sessions - h.vpn_sessions) for h in lived]),
        *(
            (
                f"the person, where {share} of 100 sessions have the key of their browser",
                [_per_mille(h.asked - h.by_place * share / 100, h.sessions - h.vpn_sessions) for h in lived],
            )
            for share in (80, 90, WITH_KEY, 99)
        ),
        ("asked again, of 1,000 with a VPN", [_per_mille(h.vpn_asked, h.vpn_sessions) for h in lived]),
        ("times that one person was asked, at most: a VPN that is known", [str(h.most) for h in lived]),
        ("the same, a VPN that no table knows", [str(h.most_unknown) for h in lived]),
        ("people who got a mail, of 1,000", [_per_mille(h.mailed, asked.people) for h in lived]),
    ]
    for name, cells in rows:
        print(f"| {name} | {' | '.join(cells)} |")
    if asked.why:
        for preset, h in zip(PRESETS, lived, strict=True):
            print(preset, dict(h.why))
    proofs = (("cookie", True), ("token", False), ("whole profile", True))
    of_standard: dict[tuple[str, Thief], Caught] = {}
    for name, by_cookie in proofs:
        print(f"\n| thief of a {name} | preset | refused at once | within a day | owner knows |")
        print("|---|---|---:|---:|---:|")
        for kind in THIEVES:
            caught = {preset: Caught() for preset in PRESETS}
            for theft in thefts(asked.seed, asked.people, kind, all_known=asked.all_known):
                for preset in PRESETS:
                    play(theft, preset, caught[preset], by_cookie=by_cookie, has_key=name == "whole profile")
            for preset in PRESETS:
                print(f"| {kind} | {preset} | {caught[preset].row()} |")
            of_standard[name, kind] = caught["standard"]
    print("\n| `standard` answers a thief for | cookie | refresh token | stateless token | the same, elsewhere |")
    print("|---|---:|---:|---:|---:|")
    for kind in THIEVES:
        cookie, token = of_standard["cookie", kind], of_standard["token", kind]
        times = (
            cookie.minutes(), token.minutes(), token.minutes(lives=TOKEN_LIVES),
            token.minutes(lives=TOKEN_LIVES, later=REPORTED_AFTER),
        )  # fmt: skip
        print(f"| {kind} | {' | '.join(times)} |")
    print(f"\n{time.perf_counter() - began:.0f} s")


def choices(seeds: Sequence[int], people: int) -> None:
    """Print what honest people pay for stopping thieves: under `standard`, with other tables and a hook."""
    heads = (
        "`standard`", "asked again, of 1,000 without a VPN", "people who got a mail, of 1,000",
        "refused at once: cookie, another continent", "token, another continent", "token, same continent",
    )  # fmt: skip
    print(f"| {' | '.join(heads)} |")
    print("|---|---:|---:|---:|---:|---:|")
    rows = (
        ("as shipped", False, None),
        ("with a hook that asks no one within a continent", False, within_a_continent),
        ("with a table that knows all carriers and aeroplanes", True, None),
        ("with both", True, within_a_continent),
    )
    for name, all_known, overrule in rows:
        lived = [honest(seed, people, "standard", all_known=all_known, overrule=overrule) for seed in seeds]
        cells = [
            _per_mille(sum(h.asked for h in lived), sum(h.sessions - h.vpn_sessions for h in lived)),
            _per_mille(sum(h.mailed for h in lived), people * len(seeds)),
        ]
        kinds: tuple[tuple[Thief, bool], ...] = (
            ("another continent", True), ("another continent", False), ("same continent", False),
        )  # fmt: skip
        for kind, by_cookie in kinds:
            caught = Caught()
            for seed in seeds:
                for theft in thefts(seed, people, kind, all_known=all_known):
                    play(theft, "standard", caught, by_cookie=by_cookie, overrule=overrule)
            cells.append(f"{caught.first / caught.runs:.1%}")
        print(f"| {name} | {' | '.join(cells)} |", flush=True)


def _minutes(value: float) -> str:
    if value == math.inf:
        return "not stopped"
    return f"{value:.0f}" if value >= 1 or not value else f"{60 * value:.1f} s"


def _per_mille(part: float, whole: int) -> str:
    return f"{1000 * part / max(1, whole):.1f}"


if __name__ == "__main__":
    main()
