"""One pattern in one lab: the browsers of owner and thief, and what they do."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any, Final

from dutchdoor.choice.lab.browser import Browser, Exchange, Who, claims_of
from dutchdoor.choice.lab.patterns import Pattern, Piece, Where
from dutchdoor.choice.lab.watching import Answer, Question, Watch

__all__ = ["LOG_OUT", "OUTAGE", "REFRESH", "ROLES", "SETTLES_WITHIN", "Place"]

KEPT: Final = 8
"""Exchanges that a place remembers."""
TURNS: Final = 6
SETTLES_WITHIN: Final = 0.6
"""Seconds that an answer to the visitor waits for what was just watched to be over."""

LOG_OUT: Final = "log-out"
REFRESH: Final = "refresh"
ROLES: Final = "roles"
OUTAGE: Final = "outage"


class Place:
    """The browsers, and the servers that they talk to."""

    def __init__(self, pattern: Pattern, authority: str, service: str, email: str, password: str) -> None:
        self.pattern = pattern
        self._authority, self._service = authority, service
        self._person = {"email": email, "password": password}
        self._origin = authority if pattern.by_page else ""
        self.owner, self.thief = self._new("owner"), self._new("thief")
        self.exchanges: deque[Exchange] = deque(maxlen=KEPT)
        """The latest is the last."""
        self.watch: Watch | None = None
        self.sid = ""
        self.ids: set[str] = set()
        """The ids of the sign-in, and of its tokens, by which the log of what was revoked names them."""
        self.has_begun = False

    def _new(self, who: Who) -> Browser:
        return Browser(who, self._origin, bound=self.pattern.bound and who == "owner")

    def browser(self, who: Who) -> Browser:
        return self.owner if who == "owner" else self.thief

    # --- what they do ---

    def sign_in(self) -> None:
        """Let the owner sign in, in a new browser; the thief has nothing yet."""
        self.close()
        self.owner, self.thief = self._new("owner"), self._new("thief")
        self.sid, self.ids, self.watch = "", set(), None
        self.exchanges.clear()
        url = f"{self._authority}/auth/login" if "authority" in self.pattern.wheres else f"{self._service}/login"
        exchange = self._note(self.owner.send("POST", url, {**self._person, **self.pattern.asks}))
        self._keep(self.owner, exchange)
        self.has_begun = exchange.status == 200  # noqa: PLR2004 - OK
        self.sid = str(exchange.body.get("session", {}).get("id", ""))
        self.ids |= {self.sid} - {""}

    def request(self, who: Who, where: Where) -> None:
        """Send one request, as any page or app does all day."""
        self._note(self.browser(who).send("GET", self._url(where)))

    def steal(self, *pieces: Piece) -> None:
        """Copy these pieces from the owner's browser into the thief's; all of them, if none is named."""
        for piece in pieces or self.pattern.pieces:
            self.thief.copy(piece, self.owner)

    def refresh(self, who: Who) -> None:
        """Send the refresh token, and keep what comes back."""
        with_cookie = "cookie" in self.pattern.pieces
        browser = self.browser(who)
        self._begin(REFRESH)
        if with_cookie and who == "thief" and "csrf_token" not in browser.memory:
            # It comes with the cookie: who has that can ask for it.
            browser.keep(browser.send("GET", f"{self._authority}/auth/csrf", with_token=False).body)
        body = {} if with_cookie else {"refresh_token": browser.memory.get("refresh_token", "")}
        exchange = self._note(browser.send("POST", f"{self._authority}/auth/refresh", body, with_token=False))
        self._keep(browser, exchange)
        self.settle()

    def take_turns(self) -> None:
        """Let owner and thief refresh in turns, as both do who do not know of each other, until one is refused."""
        if not self.owner.can_refresh:
            self.sign_in()
        if not self.thief.can_refresh:
            self.steal()
        for number in range(TURNS):
            self.refresh("owner" if number % 2 == 0 else "thief")
            if self.exchanges[-1].status != 200:  # noqa: PLR2004 - OK
                return

    def log_out(self) -> None:
        """Let the owner sign out. Of a plain JWT, no server has a list: its owner can only delete the own copy."""
        self._begin(LOG_OUT)
        if "authority" in self.pattern.wheres:
            self._note(self.owner.send("POST", f"{self._authority}/auth/logout", {}))
        self.owner.forget()
        self.settle()

    def watch_for(self, what: str) -> None:
        """Watch what someone else is about to do."""
        self._begin(what)

    def _begin(self, what: str) -> None:
        self._stop()
        self.watch = Watch(what, self.questions(), _same_roles if what == ROLES else _accepted)

    def settle(self, within: float = SETTLES_WITHIN) -> None:
        """Give what is watched a moment to be over."""
        if self.watch is not None:
            self.watch.settle(within)
            if self.watch.what == REFRESH and not any(each.after for each in self.watch.seen):
                self._stop()
                self.watch = None  # a refresh ends nothing, unless it shows a theft

    def end_watch(self) -> None:
        """Watch no more. What was measured stays."""
        self._stop()
        if self.watch is not None and not self.watch.is_over:
            self.watch = None

    def _stop(self) -> None:
        if self.watch is not None:
            self.watch.stop()

    def _note(self, exchange: Exchange) -> Exchange:
        self.exchanges.append(exchange)
        return exchange

    def _keep(self, browser: Browser, exchange: Exchange) -> None:
        browser.keep(exchange.body)
        if exchange.body.get("access_token"):
            claims: dict[str, Any] = claims_of(str(exchange.body["access_token"]))
            self.ids |= {str(claims[name]) for name in ("jti", "sid") if name in claims}

    # --- whom the servers accept ---

    def questions(self) -> Iterator[Question]:
        """What to ask now, with what each browser holds now. A browser that holds nothing has nothing to ask with."""
        for browser in (self.owner, self.thief):
            proof = browser.proof
            for where in self.pattern.wheres:
                if (where == "authority" and proof) or "authorization" in proof:
                    headers = proof if where == "authority" else {"authorization": proof["authorization"]}
                    yield Question(browser.who, where, self._url(where), headers, browser.signer)

    def weight(self, who: Who) -> int:
        """Return the bytes of a request that prove who sends it."""
        asked = next((each for each in self.questions() if each.who == who), None)
        return 0 if asked is None else sum(len(f"{name}: {value}\r\n") for name, value in asked.signed().items())

    def _url(self, where: Where) -> str:
        return f"{self._authority}/auth/me" if where == "authority" else f"{self._service}/orders"

    def close(self) -> None:
        self._stop()
        self.owner.close()
        self.thief.close()


def _accepted(_before: Answer, now: Answer) -> bool:
    return now.accepted


def _same_roles(before: Answer, now: Answer) -> bool:
    return now.accepted and now.roles == before.roles
