"""Ask a server whom it accepts; and measure, while something happens, until when it accepted whom."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from types import TracebackType
from typing import Final, NamedTuple, Self
from urllib.parse import urlsplit

from msgspec import Struct

from dutchdoor.choice.lab.browser import Signer, Who, claims_of
from dutchdoor.choice.lab.patterns import Where

__all__ = ["Answer", "Asking", "Question", "Seen", "Watch"]

ANSWERS_WITHIN: Final = 3.0
OFTEN, OFTEN_FOR, SELDOM = 0.002, 1.0, 0.25
"""Seconds between two questions, for how long that often, and then."""


class Answer(Struct, frozen=True):
    """What a server said: the status, 0 for none, and the roles that it gave the sender of the request."""

    status: int
    roles: tuple[str, ...] = ()
    code: str = ""
    """Of a refusal: the code of the problem document."""

    @property
    def accepted(self) -> bool:
        return self.status == HTTPStatus.OK


class Question(NamedTuple):
    """Whom a server accepts by these headers."""

    who: Who
    where: Where
    url: str
    headers: Mapping[str, str]
    signer: Signer | None = None
    """Proves each request anew, where the sign-in is bound to a key."""

    def signed(self) -> dict[str, str]:
        """Return the headers of one request."""
        if self.signer is None:
            return dict(self.headers)
        return {**self.headers, "dpop": self.signer.sign("GET", self.url, self._token)}

    @property
    def expires_at(self) -> float:
        """When the access token that it sends expires by itself. 0: it sends none."""
        return float(claims_of(self._token)["exp"]) if self._token else 0.0

    @property
    def _token(self) -> str:
        return self.headers.get("authorization", "").rpartition(" ")[2]

    def learn(self, headers: Mapping[str, str]) -> bool:
        """Keep the nonce of an answer. Returns whether another proof may be right where this one was refused."""
        return self.signer is not None and self.signer.learn(self.url, headers)


class Asking:
    """Asks over connections that stay open, one to each server."""

    def __init__(self) -> None:
        self._connections: dict[str, HTTPConnection] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for connection in self._connections.values():
            connection.close()

    def ask(self, question: Question, *, again: bool = False) -> Answer:
        parts = urlsplit(question.url)
        connection = self._connections.get(parts.netloc)
        if connection is None:
            connection = self._connections[parts.netloc] = HTTPConnection(parts.netloc, timeout=ANSWERS_WITHIN)
        try:
            connection.request("GET", parts.path, headers=question.signed())
            answer = connection.getresponse()
            said = json.loads(answer.read())
            refused = answer.status == HTTPStatus.UNAUTHORIZED
            if refused and question.learn({name.lower(): value for name, value in answer.getheaders()}) and not again:
                return self.ask(question, again=True)
        except (OSError, HTTPException, ValueError):
            connection.close()  # the next question opens it again
            return Answer(0)
        roles = said.get("user", said).get("roles", ())
        return Answer(answer.status, tuple(sorted(roles)), str(said.get("code", "")))


class Seen(Struct):
    """What is known of one question so far. Times are seconds since the beginning."""

    who: Who
    where: Where
    before: Answer
    expires_at: float
    """When what was sent expires by itself: its browser may hold it no more."""
    lasted: float = 0.0
    """Until when the answer was still the old one."""
    after: Answer | None = None
    """The first answer that was another one. None: there was none yet."""


class Watch:
    """Asks with what owner and thief held at the beginning, until each answer has changed. It sees nothing else."""

    def __init__(self, what: str, questions: Iterable[Question], same: Callable[[Answer, Answer], bool]) -> None:
        """Begin. `same` says of two answers whether the second is still that of before. What is not accepted at the
        beginning is not watched.
        """
        self.what, self._same = what, same
        self._asked: list[tuple[Question, Seen]] = []
        self._stopped = threading.Event()
        self._begun = 0.0
        refused: set[Who] = set()
        with Asking() as asking:
            for question in questions:
                answer = asking.ask(question)
                if answer.accepted:
                    self._asked.append((question, Seen(question.who, question.where, answer, question.expires_at)))
                else:
                    refused.add(question.who)
        self.seen: Sequence[Seen] = [seen for _, seen in self._asked]
        self.refused = refused - {seen.who for seen in self.seen}
        """Who was accepted by no server at the beginning, though they had something to send."""
        self._thread = threading.Thread(target=self._ask, daemon=True)
        self.begin()
        self._thread.start()

    def begin(self) -> None:
        """Count from now: what is watched begins."""
        self._begun = time.perf_counter()

    def settle(self, within: float) -> None:
        """Wait until each answer has changed, but not longer than this."""
        self._thread.join(within)

    @property
    def is_over(self) -> bool:
        """Whether each answer has changed."""
        return all(each.after is not None for each in self.seen)

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()

    def _ask(self) -> None:
        # One thread asks in turn: with one for each question, they would wait for each other, and that be measured.
        with Asking() as asking:
            while not self._stopped.is_set() and not self.is_over:
                for question, seen in self._asked:
                    if seen.after is None:
                        answer = asking.ask(question)
                        seen.lasted = time.perf_counter() - self._begun
                        if not self._same(seen.before, answer):
                            seen.after = answer
                self._stopped.wait(OFTEN if time.perf_counter() - self._begun < OFTEN_FOR else SELDOM)
