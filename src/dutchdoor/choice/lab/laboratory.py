"""One visitor's lab: a sign-in server, two services, one account, and a place for each pattern."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from functools import partial
from typing import Final, get_args

from dutchdoor.choice.lab.authority import Authority
from dutchdoor.choice.lab.browser import Who
from dutchdoor.choice.lab.patterns import PATTERNS, Pattern, PatternId
from dutchdoor.choice.lab.places import OUTAGE, ROLES, SETTLES_WITHIN, Place
from dutchdoor.choice.lab.services import Orders, PlainShop
from dutchdoor.choice.lab.watching import Answer, Asking, Question
from dutchdoor.errors import NotFound

__all__ = ["ACCESS_FOR", "ROLE", "Lab", "deeds_of"]

ACCESS_FOR: Final = "2m"
"""Short enough to see an access token expire. The default of a server is ten minutes."""
ROLE: Final = "editor"
_EMAIL: Final = "ada@lab.example"


def deeds_of(pattern: Pattern) -> Mapping[str, Callable[[Place], None]]:
    """Return what can be done in the place of one pattern, by name."""
    deeds: dict[str, Callable[[Place], None]] = {
        "sign-in": Place.sign_in,
        "steal": Place.steal,
        "log-out": Place.log_out,
    }
    for piece in pattern.pieces:
        deeds[f"steal-{piece}"] = lambda place, piece=piece: place.steal(piece)  # type: ignore[misc]
    for who in get_args(Who):
        for where in pattern.wheres:
            deeds[f"ask-{where}-{who}"] = lambda place, who=who, where=where: place.request(who, where)  # type: ignore[misc]
        if pattern.renews:
            deeds[f"refresh-{who}"] = lambda place, who=who: place.refresh(who)  # type: ignore[misc]
    if pattern.renews:
        deeds["turns"] = Place.take_turns
    return deeds


class Lab:
    """Everything of one visitor. Its methods may be called by one thread at a time: take its `lock`."""

    def __init__(self, access_for: str = ACCESS_FOR) -> None:
        """Start it, which takes a second or two. Raises `Unavailable`."""
        self.lock = threading.Lock()
        self.used_at = time.monotonic()
        self.last = ""
        """What was done last."""
        self.has_ended = False
        password = secrets.token_urlsafe()
        with ExitStack() as ending:
            self.authority = Authority(access_for)
            ending.callback(self.authority.close)
            self.subject = self.authority.register(_EMAIL, password)
            orders = ending.enter_context(Orders(self.authority.origin))
            self.plain = ending.enter_context(PlainShop(_EMAIL, password))
            self.places: Mapping[PatternId, Place] = {
                pattern.id: Place(
                    pattern,
                    self.authority.origin,
                    (orders if "authority" in pattern.wheres else self.plain).origin,
                    _EMAIL,
                    password,
                )
                for pattern in PATTERNS
            }
            for place in self.places.values():
                ending.callback(place.close)
            self._ending = ending.pop_all()

    def do(self, deed: str, of: str) -> None:
        """Do one thing, in the place of one pattern or in all that have it.

        Raises:
            NotFound: there is no such deed, or no such pattern.
            Unavailable: the sign-in server is away, and this needs it.
        """
        whole = {"roles": self._change_roles, "outage": self._toggle_outage}
        known = {name: deeds_of(place.pattern) for name, place in self.places.items()}
        chosen: list[Callable[[], None]] = [
            partial(known[name][deed], place)
            for name, place in self.places.items()
            if of in {name, "all"} and deed in known[name]
        ]
        if of == "all" and deed in whole:
            chosen = [whole[deed]]
        if not chosen:
            raise NotFound("no such deed")
        self.used_at, self.last = time.monotonic(), deed
        for each in chosen:
            each()

    def _change_roles(self) -> None:
        """Give the account the role, or take it away: in the database of each, as administrators do."""
        roles = () if self.roles else (ROLE,)
        administrator = self.authority.administrator()
        self._watch(ROLES)
        self.authority.set_roles(self.subject, roles, administrator)
        self.plain.roles = roles
        self._settle()

    def _toggle_outage(self) -> None:
        if self.authority.is_up:
            self._watch(OUTAGE)
            self.authority.kill()
        else:
            for place in self.places.values():
                place.end_watch()  # what went on until now would be counted as without a server for ever
            self.authority.start_again()
        self._settle()

    def _watch(self, what: str) -> None:
        for place in self.places.values():
            place.watch_for(what)
        for place in self.places.values():
            if place.watch is not None:
                place.watch.begin()

    def _settle(self) -> None:
        until = time.monotonic() + SETTLES_WITHIN
        for place in self.places.values():
            place.settle(max(until - time.monotonic(), 0.0))

    @property
    def roles(self) -> tuple[str, ...]:
        """The roles of the account, as the database has them."""
        return tuple(self.authority.account(self.subject)["roles"].split())

    def ask(self) -> Iterator[tuple[PatternId, Question, Answer]]:
        """Ask each server whom it accepts now."""
        with Asking() as asking:
            for name, place in self.places.items():
                for question in place.questions():
                    yield name, question, asking.ask(question)

    def close(self) -> None:
        """End it. Nothing of it is left behind."""
        self.has_ended = True
        self._ending.close()
