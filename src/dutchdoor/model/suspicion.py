"""Suspicion: what a sighting says about a live session, and what is done about it.

One pure function, `assess`, takes a history, the new sighting and the policy's preset, and returns a reaction with its
reasons. `PRESETS` says which reason leads to which reaction. docs/guides/suspicion.md explains the reasons to people,
and `python -m benchmarks.suspicion` measures how many thieves and how many honest people each preset stops.

What was proved once is familiar: the network, the provider of an exit, and the country. Otherwise a VPN would be asked
for at each use.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Final, Literal, TypeAlias, get_args

from msgspec import Struct

from dutchdoor.model.sightings import History, Place, Question, Sighting
from dutchdoor.model.travel import least_hours

__all__ = [
    "MANY_FAILURES",
    "OF_PLACE",
    "PRESETS",
    "TOGETHER",
    "Assessment",
    "Reaction",
    "Reason",
    "Suspected",
    "Suspicion",
    "assess",
    "assess_sign_in",
    "may_answer",
    "stronger",
    "weaker",
]

Suspicion: TypeAlias = Literal["off", "quiet", "standard", "strict"]
"""Nothing is watched; the owner gets a mail; the owner is asked to prove again; or less is enough for that."""
Reaction: TypeAlias = Literal["calm", "record", "notify", "step_up", "revoke"]
"""Nothing; an entry in the owner's activity; a mail to the owner, too; the session is refused until its owner proves
again; or it ends. Each is more than the one before it."""
Reason: TypeAlias = Literal[
    "two_places", "too_fast", "other_browser", "hosting", "tor", "replayed", "new_country", "failures"
]
"""Why a sighting is suspicious:

- `two_places`: the network changes to and fro within minutes, or the country faster than an airliner, so two clients
  use one session.
- `too_fast`: from country to country faster than an airliner.
- `other_browser`: one cookie, another browser.
- `hosting`: from a home, a telephone or an office to a data centre or a VPN exit.
- `tor`: to a Tor exit.
- `replayed`: a refresh token that was used already, now from another network.
- `new_country`: a country in which the account was not seen before.
- `failures`: wrong passwords shortly before the sign-in.
"""

REACTIONS: Final = get_args(Reaction)

PRESETS: Final[Mapping[Suspicion, Mapping[Reason, Reaction]]] = {
    "off": {},
    "quiet": {
        "two_places": "notify",
        "too_fast": "notify",
        "other_browser": "notify",
        "hosting": "notify",
        "tor": "notify",
        "replayed": "notify",
        "new_country": "record",
        "failures": "record",
    },
    "standard": {
        "two_places": "notify",
        "too_fast": "step_up",
        "other_browser": "step_up",
        "hosting": "step_up",
        "tor": "step_up",
        "replayed": "step_up",
        "new_country": "record",
        "failures": "record",
    },
    "strict": {
        "two_places": "step_up",
        "too_fast": "step_up",
        "other_browser": "step_up",
        "hosting": "step_up",
        "tor": "revoke",
        "replayed": "step_up",
        "new_country": "step_up",
        "failures": "record",
    },
}
"""Which reason leads where. A reason that is not named leads nowhere."""

TOGETHER: Final[frozenset[Suspicion]] = frozenset({"standard", "strict"})
"""Presets that end a session which another browser uses from a place that alone would be asked about: no browser takes
its cookies along to another browser in another country."""
_OF_A_COUNTRY: Final[frozenset[Reason]] = frozenset({"too_fast", "new_country", "two_places"})
"""Reasons for which the owner gets one mail for a country, and not one for each network there."""
OF_PLACE: Final[frozenset[str]] = frozenset({"too_fast", "new_country"})
"""Reasons that say no more than where a session is: a browser that has its key has moved. Each of the others shows what
a moving browser does not do (`other_browser`, `two_places`, `replayed`), or where a copied profile is put to use
(`hosting`, `tor`).
"""
_FROM_AFAR: Final[frozenset[Reason]] = frozenset({"too_fast", "hosting", "tor"})

TO_AND_FRO: Final = 8
"""Changes between two networks that show two clients: A B A B A. Fewer happen to a telephone in a lift."""
WITHIN: Final = 600.0
"""Seconds in which they must come."""
NEW_FOR: Final = 86_400.0
"""Seconds for which a network is new. An owner's telephone goes to and fro between networks that it had yesterday, too.
"""
_EXITS: Final = frozenset({"hosting", "vpn", "tor"})
_MOVING: Final = frozenset({"mobile", "satellite"})
_ELSEWHERE: Final = _EXITS | _MOVING
_CHANGING: Final = frozenset({"mobile", "satellite", "relay"})
"""Networks that change by themselves."""


class Assessment(Struct, frozen=True):
    """What is done, and why."""

    reaction: Reaction
    reasons: tuple[Reason, ...] = ()


class Suspected(Struct, frozen=True, kw_only=True):
    """What the hook `on_suspicion` gets: a suspicious use, and what the policy does about it."""

    subject: str
    """The account."""
    session_id: str
    """The session; "" for a stateless token."""
    reaction: Reaction
    """`record`, `notify`, `step_up` or `revoke`."""
    reasons: tuple[Reason, ...]
    """Why, such as `too_fast`."""
    address: str
    """The address of the client."""
    country: str
    """Its country; "" is unknown."""
    device: str
    """Its device, such as `Firefox on Linux`."""


CALM: Final = Assessment("calm")


def assess(
    history: History,
    seen: Sighting,
    preset: Suspicion,
    *,
    now: float,
    last_use: float,
    familiar: Sequence[Place] = (),
    by_cookie: bool = False,
    replayed: bool = False,
    bound: bool = False,
) -> Assessment:
    """Decide about a sighting of a live session or token that differs from the last one.

    Args:
        history: what it was seen as until now.
        seen: the new sighting.
        preset: the policy's.
        now: the instant of the sighting.
        last_use: when it was last used at its last place, as far as is known: an earlier instant suspects less.
        familiar: the places of the account's other sessions.
        by_cookie: whether a cookie was the proof. An application may use one token in two programs; a cookie stays in
            the browser that got it.
        replayed: whether a refresh token was sent that had been used already.
        bound: whether the client has proved the key that it is bound to. A copy cannot, so there is no question.
    """
    if preset == "off" or bound:
        return CALM
    found: list[Reason] = []
    last = history.last
    moved = seen.network != last.network
    if by_cookie and last.browser and seen.browser and seen.browser != last.browser:
        found.append("other_browser")
    if moved:
        known = (*history.places, *familiar)
        if replayed:
            found.append("replayed")
        if _to_and_fro(history, seen, known, now):
            found.append("two_places")
        if not any(place.sighting.network == seen.network for place in known):
            found += _of_a_new_network(history, seen, known, now=now, last_use=last_use)
        elif "two_places" not in found and _came_back_too_fast(history, seen, known, now=now, last_use=last_use):
            found.append("two_places")
    decided = _reacting(found, preset)
    if decided.reaction == "notify" and _OF_A_COUNTRY.issuperset(found) and seen.country in history.reported:
        return Assessment("record", decided.reasons)
    return decided


def assess_sign_in(seen: Sighting, preset: Suspicion, *, familiar: Sequence[Place], failures: int) -> Assessment:
    """Decide about a sign-in, which has just been proved: at most, it is recorded.

    Args:
        seen: from where.
        preset: the policy's.
        familiar: the places of the account so far; with none, no country is new.
        failures: how many proofs of this account were wrong in the last hour.
    """
    found: list[Reason] = []
    if seen.country and familiar and all(place.sighting.country != seen.country for place in familiar):
        found.append("new_country")
    if failures >= MANY_FAILURES:
        found.append("failures")
    decided = _reacting(found, preset)
    return Assessment("record", decided.reasons) if decided.reaction != "calm" else CALM


def may_answer(question: Question | None, seen: Sighting) -> bool:
    """Whether the key of its browser may answer for a session in doubt, in place of its owner. `seen` is from where.

    *A thief who copied the cookie* has no key, and is asked. *The owner, after a thief was seen elsewhere*: their
    browser has the key, but the use in question was not theirs, so they are asked. Their proof starts another session,
    and the copy is dead; an answer by the key would let the copy live.
    """
    if question is None or not question.reasons or not OF_PLACE.issuperset(question.reasons):
        return False
    asked = question.seen
    return seen.country == asked.country and seen.browser == asked.browser and seen.kind not in _EXITS


MANY_FAILURES: Final = 5
"""Wrong proofs within an hour. An owner who tries to remember a password is done after three or four."""


def stronger(one: Reaction, other: Reaction) -> Reaction:
    """Return the one that does more."""
    return one if REACTIONS.index(one) >= REACTIONS.index(other) else other


def weaker(one: Reaction, other: Reaction) -> Reaction:
    """Return the one that does less."""
    return one if REACTIONS.index(one) <= REACTIONS.index(other) else other


def _of_a_new_network(
    history: History, seen: Sighting, known: Sequence[Place], *, now: float, last_use: float
) -> list[Reason]:
    found: list[Reason] = []
    if seen.kind in _EXITS:
        if seen.provider and any(_is_of(place.sighting, seen) for place in known):
            return []  # another exit of a provider that was let in: its countries are as familiar
        found.append("tor" if seen.kind == "tor" else "hosting")
    if seen.country and seen.kind != "satellite":
        left, since = _where_last(history, last_use)
        # Proved, and not only seen: a thief who waited for the time of a flight has been seen, too.
        proved = any(place.proved and place.sighting.country == seen.country for place in known)
        if not proved and now - since < 3600 * least_hours(left, seen.country):
            found.append("too_fast")
        elif all(place.sighting.country != seen.country for place in known):
            found.append("new_country")
    return found


def _is_of(one: Sighting, other: Sighting) -> bool:
    return (one.kind, one.provider) == (other.kind, other.provider)


def _where_last(history: History, last_use: float) -> tuple[str, float]:
    """Return the country where the client last was for certain, and when. A telephone abroad comes from the country of
    its carrier until it finds Wi-Fi: what counts is the last network that stands still. Behind an exit, a client is
    where it was before, and did not fly; the country of the exit says nothing.
    """
    last = history.places[-1].sighting
    if last.kind not in _ELSEWHERE:
        return last.country, last_use
    still = [place for place in history.places if place.sighting.kind not in _ELSEWHERE]
    if not still:
        return ("", last_use) if last.kind in _EXITS else (last.country, last_use)
    newest = max(still, key=lambda place: place.until)
    return newest.sighting.country, last_use if last.kind in _EXITS else newest.until


def _came_back_too_fast(
    history: History, seen: Sighting, known: Sequence[Place], *, now: float, last_use: float
) -> bool:
    """Whether a session is back in a network that it knows, faster than an airliner from another country: the thief who
    waited for as long as a flight takes did not wait for the owner.
    """
    last = history.last
    if {last.kind, seen.kind} & (_ELSEWHERE | _CHANGING) or last.country in history.reported:
        return False
    proved = any(place.proved and place.sighting.country == last.country for place in known)
    return not proved and now - last_use < 3600 * least_hours(last.country, seen.country)


def _to_and_fro(history: History, seen: Sighting, known: Sequence[Place], now: float) -> bool:
    """Whether two networks alternate, one of which is new. One home has an IPv4 and an IPv6 network, and browsers use
    both at once: two networks of different versions show nothing.
    """
    both = {seen.network, history.last.network}
    last = history.changes[-TO_AND_FRO:]
    if len(last) < TO_AND_FRO or now - last[0].at > WITHIN or both <= set(history.reported):
        return False
    networks = [*(change.network for change in last), seen.network]
    if set(networks) != both or any(a == b for a, b in pairwise(networks)) or len({":" in one for one in both}) > 1:
        return False
    if seen.kind in _CHANGING or history.last.kind in _CHANGING:
        return False
    old = {place.sighting.network for place in known if place.proved or now - place.since > NEW_FOR}
    return not both <= old


def _reacting(found: Sequence[Reason], preset: Suspicion) -> Assessment:
    leads = PRESETS[preset]
    reaction: Reaction = "calm"
    for reason in found:
        reaction = stronger(reaction, leads.get(reason, "calm"))
    if preset in TOGETHER and "other_browser" in found and _FROM_AFAR & set(found):
        reaction = "revoke"
    return CALM if reaction == "calm" else Assessment(reaction, tuple(found))
