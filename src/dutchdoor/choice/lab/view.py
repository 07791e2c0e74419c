"""What the page shows of a lab. All of it is asked of the servers, or read from the database."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping
from typing import Any, Final, Literal, get_args

from msgspec import Struct

from dutchdoor.choice.glossary import WORDS
from dutchdoor.choice.lab.browser import Who
from dutchdoor.choice.lab.laboratory import ROLE, Lab
from dutchdoor.choice.lab.patterns import PATTERNS, PIECES, Pattern, PatternId, Where
from dutchdoor.choice.lab.places import LOG_OUT, OUTAGE, REFRESH, ROLES, Place
from dutchdoor.choice.lab.watching import Answer
from dutchdoor.texts import Text, mark
from dutchdoor.texts.languages import Language

__all__ = ["Cell", "cells", "outcomes", "view"]

HOUR: Final = 3600.0

State = Literal["yes", "no", "away", "none"]


class Cell(Struct, frozen=True):
    """One place of the table of who is accepted."""

    state: State
    text: str


WHO: Final[Mapping[Who, str]] = {"owner": mark("Owner"), "thief": mark("Thief")}
WHERE: Final[Mapping[Where, str]] = {"authority": mark("sign-in server"), "service": mark("service")}
_EMPTY: Final = Cell("none", mark("nothing to send"))
_UNKNOWN: Final[Mapping[Where, Cell]] = {
    "authority": Cell("none", mark("did not issue it")),
    "service": Cell("none", mark("never gets the cookie")),
}
_ACCEPTED, _AS_EDITOR = Cell("yes", mark("accepted")), Cell("yes", mark("accepted, as an editor"))
_REFUSED, _STALE = Cell("no", mark("refused")), Cell("no", mark("refused until it refreshes"))
_AWAY, _CANNOT_TELL = Cell("away", mark("no answer")), Cell("away", mark("cannot tell now: 503"))

_OVER: Final[Mapping[str, str]] = {
    LOG_OUT: mark("Refused everywhere %(time)s after the log-out."),
    REFRESH: mark("The theft was noticed: refused everywhere %(time)s after that refresh."),
    ROLES: mark("The old roles were gone everywhere after %(time)s."),
    OUTAGE: mark("It went on for %(time)s without the sign-in server."),
}
_NEVER: Final = mark("Refused everywhere %(time)s after the log-out; the copy was refused before.")
"""After the log-out, where the thief was not accepted even before: the key was not in the copy."""
_OPEN: Final[Mapping[str, str]] = {
    LOG_OUT: mark("Still accepted %(time)s after the log-out, and until it expires: %(left)s."),
    REFRESH: mark("Still accepted %(time)s after that refresh."),
    ROLES: mark("The old roles still hold after %(time)s, and until the token expires: %(left)s."),
    OUTAGE: mark("It goes on without the sign-in server, for %(time)s so far."),
}

_OF_KEY: Final = mark("Signs a proof of each request. It stays in this browser: a copy of a token comes without it.")
_OF_MARK: Final = mark("Recognises this browser at its next sign-in. It signs no one in.")

_STEPS: Final = (
    ("sign-in", mark("Sign in"), mark("The owner signs in six times, once by each pattern.")),
    ("steal", mark("Steal a copy"), mark("A thief copies all that the owner's browsers hold.")),
    ("log-out", mark("Log out"), mark("The owner logs out of each. See which copies still work, and for how long.")),
)
_SAID: Final[Mapping[str, str]] = {
    "": mark(
        "Begin with step 1: it starts the servers of your lab, which takes some seconds. All that you see is real."
    ),
    "sign-in": mark("The owner is signed in. Look at what each browser holds, and what each server stores."),
    "steal": mark(
        "The thief sends copies of what the owner holds. A server sees no difference, unless a key is missing."
    ),
    "log-out": mark(
        "The owner has logged out. “Measured” says how long a copy still worked. Sign in again to try the rest."
    ),
    "turns": mark("Owner and thief refreshed in turns, until one was refused. Look at what travelled."),
    "roles": mark("The roles were changed in the database. “Measured” says how long the old ones still worked."),
    "outage": mark("The sign-in server runs again. Each sign-in works as before."),
}
_KILLED: Final = mark("The sign-in server was killed. See who goes on without it.")
_NO_ANSWER: Final = mark("The sign-in server is killed, and gave no answer. Start it again first.")
_NEEDS_IT: Final = frozenset({"sign-in", "log-out", "turns", "refresh", "roles"})
"""What asks the sign-in server for something."""


def view(lab: Lab | None, language: Language) -> dict[str, Any]:
    """Return all values of the page. Before the first press of a button there is no lab."""
    now = time.time()
    table = cells(lab)
    last = "" if lab is None else lab.last
    return {
        "steps": _STEPS,
        "next": _next(lab),
        "said": _said(lab),
        "last": last,
        "has_begun": lab is not None,
        "is_up": lab is None or lab.authority.is_up,
        "is_editor": lab is not None and ROLE in lab.roles,
        "account": {} if lab is None else lab.authority.account(lab.subject),
        "who": WHO,
        "where": WHERE,
        "pieces": PIECES,
        "cells": table,
        "outcomes": outcomes(lab, language),
        "patterns": [_pattern(each, lab, now) for each in PATTERNS],
    }


def _said(lab: Lab | None) -> str:
    """Return what the last press has done, and not what it was meant to do."""
    if lab is None or (lab.last in {"steal", "log-out"} and _has_nothing(lab)):
        return _SAID[""]
    if not lab.authority.is_up and lab.last == "outage":
        return _KILLED
    return _NO_ANSWER if not lab.authority.is_up and lab.last in _NEEDS_IT else _SAID.get(lab.last, "")


def _has_nothing(lab: Lab) -> bool:
    """Whether no one has signed in yet."""
    return not any(place.has_begun for place in lab.places.values())


def _next(lab: Lab | None) -> str:
    """Return the step to press next; "" once all were pressed."""
    if lab is None or _has_nothing(lab):
        return "sign-in"
    if not any(place.thief.proof for place in lab.places.values()):
        return "steal"
    return "" if any(place.watch and place.watch.what == LOG_OUT for place in lab.places.values()) else "log-out"


# --- who is accepted -------------------------------------------------------------------------------------------------


def cells(lab: Lab | None) -> dict[str, Cell]:
    """Return the table of who is accepted now, by `pattern-who-where`."""
    found = {
        f"{pattern.id}-{who}-{where}": _EMPTY if where in pattern.wheres else _UNKNOWN[where]
        for pattern in PATTERNS
        for who in get_args(Who)
        for where in get_args(Where)
    }
    if lab is not None:
        found |= {f"{name}-{asked.who}-{asked.where}": _cell(answer) for name, asked, answer in lab.ask()}
    return found


def _cell(answer: Answer) -> Cell:
    if answer.accepted:
        return _AS_EDITOR if ROLE in answer.roles else _ACCEPTED
    if answer.status == 0:
        return _AWAY
    if answer.status == 503:  # noqa: PLR2004 - service unavailable
        return _CANNOT_TELL
    return _STALE if answer.code == "token_stale" else _REFUSED


def outcomes(lab: Lab | None, language: Language) -> dict[PatternId, str]:
    """Return what was measured in each place, as a sentence; "" where nothing was."""
    return {} if lab is None else {name: _outcome(place, language) for name, place in lab.places.items()}


def _outcome(place: Place, language: Language) -> str:
    watch = place.watch
    if watch is None or not watch.seen:
        return ""
    text = (_OVER if watch.is_over else _OPEN)[watch.what]
    if watch.what == LOG_OUT and watch.is_over and watch.refused == {"thief"}:
        text = _NEVER
    left = max(each.expires_at for each in watch.seen)
    longest = _long(max(each.lasted for each in watch.seen), language)
    return Text(text, {"time": longest, "left": _clock(left - time.time())})


def _long(seconds: float, language: Language) -> str:
    return f"{seconds * 1000:.0f} ms" if seconds < 1 else f"{language.number(round(seconds, 1))} s"


def _clock(seconds: float) -> str:
    return f"{max(int(seconds), 0) // 60}:{max(int(seconds), 0) % 60:02}"


# --- one pattern -----------------------------------------------------------------------------------------------------


def _pattern(pattern: Pattern, lab: Lab | None, now: float) -> dict[str, Any]:
    place = None if lab is None else lab.places[pattern.id]
    begun = place is not None and place.has_begun
    session = lab.authority.session(place.sid) if lab is not None and place is not None and place.sid else {}
    return {
        "id": pattern.id,
        "title": pattern.title,
        "says": pattern.says,
        "shows": pattern.shows,
        "pieces": pattern.pieces,
        "renews": pattern.renews,
        "wheres": pattern.wheres,
        "words": {word: WORDS[word] for word in pattern.words},
        "has_begun": begun,
        "browsers": {who: _browser(place, who, session, now) for who in WHO},
        "exchanges": [] if place is None else list(reversed(place.exchanges)),
        "session": session,
        "revocations": [] if lab is None or place is None else list(_revocations(lab, place)),
    }


def _browser(place: Place | None, who: Who, session: Mapping[str, str], now: float) -> dict[str, Any]:
    if place is None:
        return {"held": [], "weight": 0, "has_proof": False, "can_refresh": False}
    browser, pattern = place.browser(who), place.pattern
    return {
        "held": [
            {
                "name": held.name,
                "value": held.value,
                "attributes": held.attributes,
                "in_reach": held.in_reach,
                "piece": held.piece,
                "worth": pattern.pieces[held.piece] if held.piece else _OF_KEY if held.name == "key" else _OF_MARK,
                "claims": held.claims,
                "left": _left(held.expires_at, held.piece, session, now),
                "exact": int(held.expires_at) if held.piece == "access_token" and held.expires_at else 0,
            }
            for held in browser.held()
        ],
        "weight": place.weight(who),
        "has_proof": bool(browser.proof),
        "can_refresh": browser.can_refresh,
    }


def _left(expires_at: float | None, piece: str | None, session: Mapping[str, str], now: float) -> float:
    """Return for how many seconds a thing can work at most, 0 if that is over or not known."""
    if piece != "access_token" and session:  # the row decides, and not what the browser believes
        if session["ended_at"] != "NULL":
            return 0.0
        # In whole hours, upwards: a sign-in of 30 days is not one of 29 a second later.
        return max(math.ceil((float(session["expires_at"]) - now) / HOUR) * HOUR, 0.0)
    return 0.0 if expires_at is None else max(expires_at - now, 0.0)


def _revocations(lab: Lab, place: Place) -> Iterator[dict[str, str]]:
    """Return the entries of the log that are about this sign-in, or about the whole account."""
    for row in lab.authority.revocations() if "authority" in place.pattern.wheres and place.has_begun else ():
        if row["id"] in place.ids or (row["kind"] == "subject" and row["id"] == lab.subject):
            yield row
