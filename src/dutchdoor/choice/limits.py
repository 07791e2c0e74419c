"""What speaks against a pattern, and what the chosen one cannot do: as data, rendered in the documentation."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from msgspec import Struct

from dutchdoor.choice.questions import BROWSERS, Answers, Client
from dutchdoor.choice.rules import CORES_OF_A_MACHINE, seconds
from dutchdoor.model.policy import Mode
from dutchdoor.model.rate_limits import DEFAULT_LIMITS

__all__ = ["LIMITS", "OBJECTIONS", "Limit", "Objection", "Outcome"]

A_KEY: Final = DEFAULT_LIMITS.ask_by_verifier_key.count
"""How often one verifier key may ask in a second."""


class Objection(Struct, frozen=True, kw_only=True):
    """Against one pattern for some clients. If it `excludes`, the pattern cannot work there at all."""

    id: str
    pattern: Mode
    when: str
    applies: Callable[[Client, Answers], bool]
    says: str
    excludes: bool = False


OBJECTIONS: Final[tuple[Objection, ...]] = (
    Objection(
        id="O1",
        pattern="session",
        when="a page of another site",
        applies=lambda client, _: client == "spa-elsewhere",
        says="Browsers send no cookie of your server from a page of another site.",
        excludes=True,
    ),
    Objection(
        id="O2",
        pattern="hybrid",
        when="a page of another site",
        applies=lambda client, _: client == "spa-elsewhere",
        says="The refresh token is in a cookie, which browsers do not send from a page of another site.",
        excludes=True,
    ),
    Objection(
        id="O3",
        pattern="session",
        when="other services must check the requests of a single-page application",
        applies=lambda client, answers: client == "spa" and answers.services > 0,
        says="The cookie goes to one host. A proxy there must ask the sign-in server about each request, and pass on a "
        "token.",
    ),
    Objection(
        id="O4",
        pattern="session",
        when="no browser",
        applies=lambda client, _: client not in BROWSERS,
        says="A program must keep cookies, and fetch a CSRF token before each write. Other services cannot check it.",
    ),
    Objection(
        id="O5",
        pattern="hybrid",
        when="pages that a server renders",
        applies=lambda client, _: client == "pages",
        says="Each page needs a script that refreshes and sends the token; links and forms alone send none.",
    ),
    Objection(
        id="O6",
        pattern="jwt",
        when="pages that a server renders",
        applies=lambda client, _: client == "pages",
        says="Each page needs a script that sends the token, and a reload signs out.",
    ),
    Objection(
        id="O7",
        pattern="jwt",
        when="every client",
        applies=lambda _client, _answers: True,
        says="The user signs in again each time the token expires, and sees it in no list of sign-ins.",
    ),
    Objection(
        id="O8",
        pattern="hybrid",
        when="no other service has to know, and the client is a browser",
        applies=lambda client, answers: client in BROWSERS and answers.services == 0,
        says="It carries a token that no one but the sign-in server checks, and refreshes it.",
    ),
)


class Outcome(NamedTuple):
    """What a limit looks at: the answers, what was decided, and what follows from it."""

    answers: Answers
    decided: Mapping[str, Any]
    patterns: Mapping[Client, Mode]
    holds_within: float
    """Seconds after which a log-out holds at every service, at the latest."""
    outlasts: tuple[float, float]
    """Seconds for which services go on without the sign-in server, at least and at most."""
    processes: int

    @property
    def in_browser(self) -> bool:
        return bool(BROWSERS & {*self.patterns})

    @property
    def has_tokens(self) -> bool:
        return {*self.patterns.values()} != {"session"}


class Limit(Struct, frozen=True, kw_only=True):
    """`says` returns the sentence, with the figures of this outcome."""

    id: str
    when: str
    applies: Callable[[Outcome], bool]
    says: Callable[[Outcome], str]


def _text(sentence: str) -> Callable[[Outcome], str]:
    return lambda _outcome: sentence


LIMITS: Final[tuple[Limit, ...]] = (
    Limit(
        id="M1",
        when="services cannot outlast the outage, because a log-out must hold sooner",
        applies=lambda outcome: outcome.outlasts[0] < outcome.answers.outage and outcome.answers.services > 0,
        says=lambda outcome: (
            f"You ask for two things that exclude each other: services that go on for "
            f"{seconds(outcome.answers.outage)} without the sign-in server, and a log-out that holds at them within "
            f"{seconds(outcome.answers.logout_within)}. A service that is cut off cannot learn of a log-out, in any "
            f"system. Here the log-out wins: services go on for {seconds(outcome.outlasts[0])} at least. More nodes "
            "make such an outage rare."
        ),
    ),
    Limit(
        id="M2",
        when="an outage must be outlasted, and no other service checks",
        applies=lambda outcome: outcome.answers.outage > 0 and outcome.answers.services == 0,
        says=_text(
            "No other service can go on when the sign-in server is away. What helps is a second node: it goes on when "
            "one fails."
        ),
    ),
    Limit(
        id="M3",
        when="it runs on one machine",
        applies=lambda outcome: outcome.decided["nodes"] == 1,
        says=_text("When the one machine is away, no one can sign in. Back up its database and, elsewhere, its key."),
    ),
    Limit(
        id="M4",
        when="one machine, and a load of more cores than one has",
        applies=lambda outcome: outcome.decided["nodes"] == 1 and outcome.processes > CORES_OF_A_MACHINE,
        says=lambda outcome: (
            f"The busiest second needs {outcome.processes:,} cores, and one machine seldom has more than "
            f"{CORES_OF_A_MACHINE}. Answer `team` or `platform` to see several nodes."
        ),
    ),
    Limit(
        id="M5",
        when="services know the public keys alone",
        applies=lambda outcome: outcome.decided["checking"] == "keys",
        says=lambda outcome: (
            f"Your services do not learn of a log-out, a disabled account or a changed role before the access token "
            f"expires: {seconds(outcome.decided['access_for'])} at most."
        ),
    ),
    Limit(
        id="M6",
        when="services ask about each token",
        applies=lambda outcome: outcome.decided["checking"] == "ask",
        says=_text(
            "Each request at a service costs a call to the sign-in server. When that is away, the services are, too."
        ),
    ),
    Limit(
        id="M17",
        when="services ask about each token, and more often than their keys may",
        applies=lambda outcome: (
            outcome.decided["checking"] == "ask" and outcome.answers.requests > outcome.answers.services * A_KEY
        ),
        says=lambda outcome: (
            f"One key may ask {A_KEY:,} times a second. With a key each, your services may ask "
            f"{outcome.answers.services * A_KEY:,} times, and you name {outcome.answers.requests:,} requests. Give a "
            "large service several keys, or let the log-out take a few seconds: then services check by themselves."
        ),
    ),
    Limit(
        id="M7",
        when="tokens must be renewed during an outage",
        applies=lambda outcome: (
            outcome.has_tokens
            and outcome.answers.services > 0
            and outcome.answers.outage > 0
            and outcome.outlasts[1] > 0
        ),
        says=lambda outcome: (
            f"During an outage no client gets a new access token. One in "
            f"{max(1, round(outcome.decided['access_for'] / max(1.0, outcome.answers.outage)))} clients has a token "
            "that expires within the time that you ask for, and waits."
        ),
    ),
    Limit(
        id="M8",
        when="a page of another site",
        applies=lambda outcome: "spa-elsewhere" in outcome.patterns,
        says=lambda outcome: (
            f"On the page of another site, users sign in again after {seconds(outcome.decided['access_for'])} and "
            "after each reload. To keep them signed in, give the page an address on the site of the sign-in server "
            "(app.example.com beside auth.example.com), or let the page's server pass /auth on; then it is `spa`."
        ),
    ),
    Limit(
        id="M9",
        when="devices without a keyboard",
        applies=lambda outcome: "devices" in outcome.patterns,
        says=_text(
            "There is no sign-in by a code on a second screen (RFC 8628). A device signs in with an account of its "
            "own, when it is set up."
        ),
    ),
    Limit(
        id="M10",
        when="other people's services",
        applies=lambda outcome: "partners" in outcome.patterns,
        says=_text(
            "There is no grant for a program without a user (client credentials), and no page on which a user consents "
            "to a partner. Each partner signs in with an account of its own."
        ),
    ),
    Limit(
        id="M11",
        when="any browser",
        applies=lambda outcome: outcome.in_browser,
        says=_text(
            "A script that is injected into your page (XSS) acts as the user while the page is open, in every pattern. "
            "It can take no session cookie and no refresh token with it. Set a content security policy."
        ),
    ),
    Limit(
        id="M12",
        when="always",
        applies=lambda _outcome: True,
        says=lambda outcome: (
            "A thief who controls the device, or copies the cookie in the seconds before the browser has proved its "
            "key, is the owner for every server (docs/guides/device-binding.md)."
            if outcome.answers.copies == "none"
            else "A stolen secret that is not bound to its device works until someone ends the sign-in or it expires. "
            "A copied refresh token is noticed when both copies are used, a copied session cookie when it is used in "
            "another country or a data centre (docs/guides/suspicion.md). Chrome on Windows and macOS binds cookies by "
            "itself, and programs that send proofs have bound tokens (docs/guides/device-binding.md)."
            if outcome.has_tokens
            else "A stolen session cookie works until someone ends the sign-in or it expires, unless the browser has "
            "bound it to its device: Chrome on Windows and macOS does (docs/guides/device-binding.md). The owner gets "
            "a mail when a copy is used in another country or a data centre (docs/guides/suspicion.md), and sees each "
            "sign-in in the list of devices."
        ),
    ),
    Limit(
        id="M18",
        when="a copy must be worth nothing anywhere, and any browser",
        applies=lambda outcome: outcome.answers.copies == "none" and outcome.in_browser,
        says=_text(
            "People cannot stay signed in with a browser that binds no cookies: Firefox and Safari, for example, and "
            "those of telephones (docs/guides/device-binding.md)."
        ),
    ),
    Limit(
        id="M19",
        when="a copy must be worth nothing anywhere, and a page of another site",
        applies=lambda outcome: outcome.answers.copies == "none" and "spa-elsewhere" in outcome.patterns,
        says=_text(
            "A page of another site has no cookie to bind. It must send proofs of a key itself (DPoP), which the "
            "module for browsers does not do."
        ),
    ),
    Limit(
        id="M13",
        when="little harm (relaxed)",
        applies=lambda outcome: outcome.answers.assurance == "relaxed",
        says=_text(
            "Passwords of 8 characters are fewer than the 15 that NIST SP 800-63B-4 asks for without a second factor."
        ),
    ),
    Limit(
        id="M14",
        when="much harm (high)",
        applies=lambda outcome: outcome.answers.assurance == "high",
        says=_text(
            "Codes of an app can be typed into a page that imitates yours; passkeys cannot (docs/guides/passkeys.md). "
            "PSD2 ends a payer's session after 5 minutes without use: set idle_for to 5m for that."
        ),
    ),
    Limit(
        id="M15",
        when="much harm (high), and clients that no one sits at",
        applies=lambda outcome: (
            outcome.answers.assurance == "high" and bool({"devices", "partners", "cli"} & {*outcome.patterns})
        ),
        says=lambda outcome: (
            f"Lifetimes are the same for all clients: programs and devices sign in again after "
            f"{seconds(outcome.decided['absolute_for'])}, with a second factor."
        ),
    ),
    Limit(
        id="M16",
        when="a log-out may take until a token expires",
        applies=lambda outcome: math.isinf(outcome.answers.logout_within) and outcome.decided["checking"] == "follow",
        says=lambda outcome: (
            f"You asked for no time within which a log-out holds. It holds within {seconds(outcome.holds_within)} all "
            "the same, at no price."
        ),
    ),
)
