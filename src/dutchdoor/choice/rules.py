"""What decides: rules as data, each with its condition in words and as code, its reason and its sources.

For each thing that is decided, the first rule that applies decides it. The last rule of each always applies.
`docs/reference/choice-rules.md` is made from these tables.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, Final, Literal, NamedTuple, TypeAlias

from msgspec import Struct

from dutchdoor.choice.figures import Figures
from dutchdoor.choice.questions import BROWSERS, Answers, Client
from dutchdoor.model.policy import DAY, HOUR, MINUTE, PRESETS, Policy
from dutchdoor.revocation.lease import GUARD, LONGEST, SHORTEST, WAITS_FOR, Terms

__all__ = [
    "CORES_OF_A_MACHINE", "DECISIONS", "IN_USE", "MONTH", "ON_DEMAND", "PEAK", "PROXY_TOKEN", "RULES",
    "SOURCES", "USED", "Case", "Checking", "Rule", "holds_within", "log_ins", "nodes_for_safety", "processes",
    "refreshes", "rows", "seconds",
]  # fmt: skip

Checking: TypeAlias = Literal["none", "follow", "on demand", "ask", "keys"]
"""How other services learn who sends a request: there are none; they follow the log; they poll it when they are called;
they ask the sign-in server about each token; or they know the public keys alone."""

ON_DEMAND: Final = 2.5
"""Seconds after which a log-out holds at a function at the latest: its lease of two seconds, and the clock margin."""
PROXY_TOKEN: Final = 60.0
"""Seconds that the token of `/auth/check` lives."""
KEYS_AT_LEAST: Final = 5 * MINUTE
"""A service that knows the keys alone accepts a token until it expires. With a shorter life than this, clients would
refresh so often that asking about each token costs no more."""
CORES_OF_A_MACHINE: Final = 16
USED: Final = 0.5
"""The share of a core that is planned for. The rest is for a busy minute, and for a node that is away."""
PEAK: Final = 10
"""The busiest second of a month has this many times its mean of log-ins."""
MONTH: Final = 30 * DAY
IN_USE: Final = MINUTE
"""A client in use sends a request once in this time at least."""
LEASE_FOR: Final = Terms().lease_for

_ASVS: Final = "https://github.com/OWASP/ASVS/tree/v5.0.0/5.0/en"

SOURCES: Final[Mapping[str, tuple[str, str]]] = {
    "ASVS 3.3": ("OWASP ASVS 5.0, V3.3 Cookie Setup", _ASVS),
    "ASVS 6.2": ("OWASP ASVS 5.0, V6.2 Password Security", _ASVS),
    "ASVS 7.3": ("OWASP ASVS 5.0, V7.3 Session Timeout", _ASVS),
    "ASVS 7.4": ("OWASP ASVS 5.0, V7.4 Session Termination", _ASVS),
    "ASVS 7.5": ("OWASP ASVS 5.0, V7.5 Defenses Against Session Abuse", _ASVS),
    "ASVS 9.2": ("OWASP ASVS 5.0, V9.2 Token content", _ASVS),
    "ASVS 10.4": ("OWASP ASVS 5.0, V10.4 OAuth Authorization Server", _ASVS),
    "DBSC": ("W3C, Device Bound Session Credentials (draft)", "https://w3c.github.io/webappsec-dbsc/"),
    "browser apps": (
        "OAuth 2.0 for Browser-Based Applications (IETF draft)",
        "https://datatracker.ietf.org/doc/draft-ietf-oauth-browser-based-apps/",
    ),
    "CAP": ("Gilbert and Lynch, Brewer's conjecture (2002)", "https://doi.org/10.1145/564585.564601"),
    "cheat: authentication": (
        "OWASP Authentication Cheat Sheet",
        "https://cheatsheetseries.owasp.org/cheatsheets/Authentication_Cheat_Sheet.html",
    ),
    "cheat: HTML5": (
        "OWASP HTML5 Security Cheat Sheet",
        "https://cheatsheetseries.owasp.org/cheatsheets/HTML5_Security_Cheat_Sheet.html",
    ),
    "cheat: JWT": (
        "OWASP JSON Web Token Cheat Sheet",
        "https://cheatsheetseries.owasp.org/cheatsheets/JSON_Web_Token_for_Java_Cheat_Sheet.html",
    ),
    "cheat: sessions": (
        "OWASP Session Management Cheat Sheet",
        "https://cheatsheetseries.owasp.org/cheatsheets/Session_Management_Cheat_Sheet.html",
    ),
    "leases": ("Gray and Cheriton, Leases (1989)", "https://doi.org/10.1145/74851.74870"),
    "measured": ("dutchdoor's figures", "../figures.md"),
    "NIST 63B-4": ("NIST SP 800-63B-4", "https://pages.nist.gov/800-63-4/sp800-63b.html"),
    "RFC 6265bis": ("RFC 6265bis, Cookies", "https://datatracker.ietf.org/doc/draft-ietf-httpbis-rfc6265bis/"),
    "RFC 7662": ("RFC 7662, Token Introspection", "https://www.rfc-editor.org/rfc/rfc7662"),
    "RFC 8252": ("RFC 8252, OAuth 2.0 for Native Apps", "https://www.rfc-editor.org/rfc/rfc8252"),
    "RFC 9068": ("RFC 9068, JWT Profile for Access Tokens", "https://www.rfc-editor.org/rfc/rfc9068"),
    "RFC 9449": ("RFC 9449, DPoP", "https://www.rfc-editor.org/rfc/rfc9449"),
    "RFC 9470": ("RFC 9470, Step Up Authentication", "https://www.rfc-editor.org/rfc/rfc9470"),
    "RFC 9700": ("RFC 9700, OAuth 2.0 Security", "https://www.rfc-editor.org/rfc/rfc9700"),
}


class Case(NamedTuple):
    """What a rule looks at: the answers, one client where the decision is about one, and what is decided so far."""

    answers: Answers
    decided: Mapping[str, Any]
    figures: Figures
    client: Client = "pages"

    @property
    def in_browser(self) -> bool:
        return self.client in BROWSERS

    @property
    def policy(self) -> Policy:
        return PRESETS[self.answers.assurance]


class Rule(Struct, frozen=True, kw_only=True):
    """`when` and `gives` say in words what `applies` and `value` do."""

    id: str
    decides: str
    when: str
    applies: Callable[[Case], bool] = lambda _case: True
    gives: str
    value: Callable[[Case], Any]
    because: str
    sources: tuple[str, ...]


DECISIONS: Final[Mapping[str, str]] = {
    "checking": "how other services check who sends a request",
    "lease": "for how long a service trusts its copy of the revocation log",
    "pattern": "the pattern of a client",
    "transport": "how a client gets and sends its secret",
    "access_for": "how long an access token is valid",
    "idle_for": "after what time without use a sign-in expires",
    "absolute_for": "after what time a sign-in expires in any case",
    "step_up_for": "how old the proof may be for what matters most",
    "password_minimum": "the least number of characters of a password",
    "second_factor": "who needs a second factor",
    "device_binding": "which sign-ins are bound to a key of their client",
    "nodes": "the number of nodes",
    "database": "the kind of database",
    "workers": "the number of processes of a node",
}
"""In the order in which they are decided. The pattern and the transport are decided for each client."""


def _is(value: Any) -> Callable[[Case], Any]:
    return lambda _case: value


def seconds(value: float) -> str:
    """Write a duration for people: 0.5 s, 12.2 s, 10 min, 14 days."""
    for unit, length in (("days", DAY), ("h", HOUR), ("min", MINUTE)):
        if value >= length and value % length == 0:
            return "1 day" if value == DAY else f"{value / length:g} {unit}"
    return f"{value:.3g} s" if value < 100 else f"{value:,.0f} s"  # noqa: PLR2004 - three digits


# --- leases and outages ----------------------------------------------------------------------------------------------


def _longest_lease(answers: Answers) -> float:
    """The longest lease with which a log-out still holds in time."""
    return min(
        LONGEST, math.floor(answers.logout_within / GUARD * 10) / 10 if answers.logout_within < MONTH else LONGEST
    )


def _lease_for(outage: float) -> float:
    """The shortest lease with which services surely outlast an outage: `Terms.survives`, turned round."""
    if outage <= Terms().survives[0]:
        return LEASE_FOR
    return min(LONGEST, float(math.ceil((outage + 2 * WAITS_FOR) * GUARD * 6 / 5)))


def _lease(case: Case) -> float:
    return max(SHORTEST, min(_longest_lease(case.answers), _lease_for(case.answers.outage)))


def _outlasts_every_lease(case: Case) -> bool:
    """Whether no lease outlasts the outage, and the answers allow a log-out as late as the expiry of a token."""
    answers = case.answers
    return answers.outage > Terms(lease_for=LONGEST).survives[0] and answers.logout_within >= KEYS_AT_LEAST


def holds_within(checking: Checking, *, lease: float, access_for: float) -> float:
    """Seconds after which a log-out holds at every service, at the latest."""
    return {
        "none": 0.0,
        "ask": 0.0,
        "follow": lease * GUARD,
        "on demand": ON_DEMAND,
        "keys": access_for,
    }[checking]


# --- load ------------------------------------------------------------------------------------------------------------


def log_ins(answers: Answers) -> float:
    """Log-ins in the busiest second."""
    return answers.users * answers.sessions_each / MONTH * PEAK


def rows(answers: Answers, absolute_for: float) -> float:
    """Sign-ins that the database has at a time: each stays for `absolute_for`."""
    return answers.users * answers.sessions_each * absolute_for / MONTH


def refreshes(answers: Answers, *, access_for: float, absolute_for: float) -> float:
    """Refreshes in the busiest second: each client in use sends a request a minute at least, and refreshes in time."""
    return min(rows(answers, absolute_for), answers.requests * IN_USE) / access_for


def processes(case: Case) -> int:
    """Processes of the sign-in server that carry the busiest second, each half busy."""
    answers, figures, decided = case.answers, case.figures, case.decided
    checks_here = not answers.services or decided["checking"] == "ask" or "pages" in answers.clients
    load = answers.requests * figures["request_cpu"] if checks_here else 0.0
    load += log_ins(answers) * figures["login_cpu"]
    if {*answers.clients} != {"pages"}:
        lives = {name: decided[name] for name in ("access_for", "absolute_for")}
        load += refreshes(answers, **lives) * figures["refresh_cpu"]
    if decided["checking"] == "follow":
        load += answers.services * figures["polls"] * figures["poll_cpu"] * LEASE_FOR / decided["lease"]
    return max(1, math.ceil(load / USED))


def nodes_for_safety(answers: Answers) -> int:
    """Nodes without a thought of the load: what may fail, and what may be replaced meanwhile."""
    if answers.run_by == "one-machine":
        return 1
    return 3 if answers.outage > 0 or answers.assurance == "high" else 2


def _nodes(case: Case) -> int:
    return max(nodes_for_safety(case.answers), math.ceil(processes(case) / CORES_OF_A_MACHINE))


def _workers(case: Case) -> int:
    nodes: int = case.decided["nodes"]
    return min(256, math.ceil(processes(case) / nodes))


RULES: Final[tuple[Rule, ...]] = (
    Rule(
        id="C1",
        decides="checking",
        when="no other service has to know",
        applies=lambda case: case.answers.services == 0,
        gives="none",
        value=_is("none"),
        because="The sign-in server, or your application with dutchdoor inside, answers each request itself.",
        sources=("cheat: sessions",),
    ),
    Rule(
        id="C2",
        decides="checking",
        when=f"a log-out must hold sooner than the shortest lease allows ({SHORTEST * GUARD:.2g} s)",
        applies=lambda case: case.answers.logout_within < SHORTEST * GUARD,
        gives="ask about each token",
        value=_is("ask"),
        because="A service that decides by itself learns of a log-out a moment later. Only the sign-in server knows at "
        "once.",
        sources=("RFC 7662", "ASVS 7.4"),
    ),
    Rule(
        id="C3",
        decides="checking",
        when="services must outlast an outage longer than any lease, and a log-out may take 5 minutes or more",
        applies=_outlasts_every_lease,
        gives="public keys alone",
        value=_is("keys"),
        because="The keys do not run out. The price is known: a revoked token is accepted until it expires.",
        sources=("CAP", "RFC 9068"),
    ),
    Rule(
        id="C4",
        decides="checking",
        when="the services are in another language, and a log-out must hold within less than 5 minutes",
        applies=lambda case: case.answers.checked_by == "other" and case.answers.logout_within < KEYS_AT_LEAST,
        gives="ask about each token",
        value=_is("ask"),
        because="A library for JWTs does not know what was revoked. A token of less than 5 minutes would be refreshed "
        "so often that asking costs no more.",
        sources=("RFC 7662", "cheat: JWT"),
    ),
    Rule(
        id="C5",
        decides="checking",
        when="the services are in another language",
        applies=lambda case: case.answers.checked_by == "other",
        gives="public keys alone",
        value=_is("keys"),
        because="Any library checks the signature. A log-out holds when the token expires, and the answers allow that.",
        sources=("RFC 9068", "ASVS 9.2"),
    ),
    Rule(
        id="C6",
        decides="checking",
        when=f"the services are functions, and a log-out must hold within less than {ON_DEMAND:g} s",
        applies=lambda case: case.answers.checked_by == "functions" and case.answers.logout_within < ON_DEMAND,
        gives="ask about each token",
        value=_is("ask"),
        because="A function that is frozen learns of nothing. It trusts what it knows for two seconds.",
        sources=("RFC 7662", "leases"),
    ),
    Rule(
        id="C7",
        decides="checking",
        when="the services are functions",
        applies=lambda case: case.answers.checked_by == "functions",
        gives='Verifier with follow="on demand"',
        value=_is("on demand"),
        because="It polls the log when it is called and its lease has run out, so no process must wait for news.",
        sources=("leases",),
    ),
    Rule(
        id="C8",
        decides="checking",
        when="in all other cases",
        gives="Verifier",
        value=_is("follow"),
        because="It checks tokens in memory, and refuses what was revoked as soon as the log-out says `fenced`.",
        sources=("leases", "ASVS 7.4"),
    ),
    Rule(
        id="L1",
        decides="lease",
        when="services follow the log",
        applies=lambda case: case.decided["checking"] == "follow",
        gives="10 s; longer for an outage, as far as the log-out allows; shorter for a quicker log-out",
        value=_lease,
        because="A lease is both: a log-out waits 1.22 leases at most for a service that is silent, and services "
        "outlast a part of a lease without the server.",
        sources=("leases", "CAP"),
    ),
    Rule(
        id="L2",
        decides="lease",
        when="in all other cases",
        gives="10 s",
        value=_is(LEASE_FOR),
        because="No service holds one, so the default stays.",
        sources=("leases",),
    ),
    Rule(
        id="P1",
        decides="pattern",
        when="a single-page application on another site",
        applies=lambda case: case.client == "spa-elsewhere",
        gives="jwt",
        value=_is("jwt"),
        because="Browsers send no cookie of your server from a page of another site, and a refresh token is nothing "
        "for scripts. What is left is an access token in memory.",
        sources=("RFC 6265bis", "browser apps"),
    ),
    Rule(
        id="P2",
        decides="pattern",
        when="no browser: an app, a program, a device, a partner's service",
        applies=lambda case: not case.in_browser,
        gives="hybrid",
        value=_is("hybrid"),
        because="It stays signed in by a refresh token that changes with each use. A copy is noticed, the owner sees "
        "each device in a list, and can end it.",
        sources=("RFC 9700", "RFC 8252", "ASVS 10.4"),
    ),
    Rule(
        id="P3",
        decides="pattern",
        when="a single-page application whose requests other services must check",
        applies=lambda case: case.client == "spa" and case.answers.services > 0,
        gives="hybrid",
        value=_is("hybrid"),
        because="A session cookie goes to one host. An access token goes to each service, and the refresh token stays "
        "in a cookie that scripts cannot read.",
        sources=("browser apps", "RFC 9700"),
    ),
    Rule(
        id="P4",
        decides="pattern",
        when="in all other cases: pages of one server",
        gives="session",
        value=_is("session"),
        because="One cookie means nothing by itself, works without a script, and is refused the moment it is revoked.",
        sources=("cheat: sessions", "ASVS 7.4"),
    ),
    Rule(
        id="T1",
        decides="transport",
        when="the pattern is session, or hybrid in a browser",
        applies=lambda case: (
            case.decided["pattern"] == "session" or (case.decided["pattern"] == "hybrid" and case.in_browser)
        ),
        gives="cookie",
        value=_is("cookie"),
        because="The cookie is HttpOnly, Secure and bound to one host: a script that was injected cannot read it.",
        sources=("ASVS 3.3", "cheat: HTML5"),
    ),
    Rule(
        id="T2",
        decides="transport",
        when="in all other cases",
        gives="body",
        value=_is("body"),
        because="The client keeps the secret itself: an app in the system's key store, a program in a file of its "
        "owner, a page in memory and nowhere else.",
        sources=("RFC 8252", "cheat: HTML5"),
    ),
    Rule(
        id="A1",
        decides="access_for",
        when="services know the keys alone, and a log-out must hold sooner than a token of the preset expires",
        applies=lambda case: case.decided["checking"] == "keys" and case.answers.logout_within < case.policy.access_for,
        gives="the time within which a log-out must hold",
        value=lambda case: case.answers.logout_within,
        because="For such a service the life of the token is the time that a log-out takes.",
        sources=("RFC 9700", "ASVS 9.2"),
    ),
    Rule(
        id="A2",
        decides="access_for",
        when="in all other cases",
        gives="of the preset: high 5 min, standard 10 min, relaxed 15 min",
        value=lambda case: case.policy.access_for,
        because="Short enough that a copied token is worth little, long enough that refreshes are few.",
        sources=("RFC 9700", "ASVS 9.2"),
    ),
    Rule(
        id="I1",
        decides="idle_for",
        when="always",
        gives="of the preset: high 30 min, standard 14 days, relaxed 30 days",
        value=lambda case: case.policy.idle_for,
        because="A browser that was left open is a sign-in for the next person. NIST allows 1 hour at AAL2.",
        sources=("NIST 63B-4", "ASVS 7.3"),
    ),
    Rule(
        id="I2",
        decides="absolute_for",
        when="always",
        gives="of the preset: high 12 h, standard 30 days, relaxed 90 days",
        value=lambda case: case.policy.absolute_for,
        because="A copy that is never noticed ends some day. NIST allows 24 hours at AAL2, and 30 days at AAL1.",
        sources=("NIST 63B-4", "ASVS 7.3"),
    ),
    Rule(
        id="S1",
        decides="step_up_for",
        when="much harm is possible (high)",
        applies=lambda case: case.answers.assurance == "high",
        gives="5 min",
        value=_is(5 * MINUTE),
        because="A browser that was left open must not be enough to change an address or a role.",
        sources=("RFC 9470", "ASVS 7.5"),
    ),
    Rule(
        id="S2",
        decides="step_up_for",
        when="in all other cases",
        gives="10 min",
        value=lambda case: case.policy.step_up_for,
        because="Long enough for one task.",
        sources=("RFC 9470",),
    ),
    Rule(
        id="W1",
        decides="password_minimum",
        when="little harm is possible (relaxed)",
        applies=lambda case: case.answers.assurance == "relaxed",
        gives="8",
        value=_is(8),
        because="The least that ASVS accepts. NIST asks for 15 where the password is the only factor.",
        sources=("ASVS 6.2", "NIST 63B-4"),
    ),
    Rule(
        id="W2",
        decides="password_minimum",
        when="in all other cases",
        gives="15",
        value=_is(15),
        because="NIST asks for 15 characters where the password is the only factor. A sentence of four words has more.",
        sources=("NIST 63B-4", "ASVS 6.2"),
    ),
    Rule(
        id="F1",
        decides="second_factor",
        when="much harm is possible (high)",
        applies=lambda case: case.answers.assurance == "high",
        gives="required",
        value=_is("required"),
        because="AAL2 means two factors, for everyone.",
        sources=("NIST 63B-4", "cheat: authentication"),
    ),
    Rule(
        id="F2",
        decides="second_factor",
        when="ordinary harm is possible (standard)",
        applies=lambda case: case.answers.assurance == "standard",
        gives="admins",
        value=_is("admins"),
        because="An administrator's password opens every account. Everyone else may protect theirs.",
        sources=("cheat: authentication",),
    ),
    Rule(
        id="F3",
        decides="second_factor",
        when="in all other cases",
        gives="optional",
        value=_is("optional"),
        because="People may protect themselves, and no one is surprised.",
        sources=("cheat: authentication",),
    ),
    Rule(
        id="B1",
        decides="device_binding",
        when="a copy must be worth nothing anywhere",
        applies=lambda case: case.answers.copies == "none",
        gives="required",
        value=_is("required"),
        because="What is not bound works for a thief as well. So a sign-in that its client does not bind is refused.",
        sources=("DBSC", "RFC 9449", "ASVS 10.4"),
    ),
    Rule(
        id="B2",
        decides="device_binding",
        when="in all other cases",
        gives="optional",
        value=_is("optional"),
        because="A client that proves a key is bound from then on, and the others work as before.",
        sources=("DBSC", "RFC 9449"),
    ),
    Rule(
        id="N1",
        decides="nodes",
        when="it runs on one machine",
        applies=lambda case: case.answers.run_by == "one-machine",
        gives="1",
        value=_is(1),
        because="That is the answer. It needs no other software.",
        sources=("measured",),
    ),
    Rule(
        id="N2",
        decides="nodes",
        when="in all other cases",
        gives=f"2, or 3 for an outage or for high; more where the load takes more than {CORES_OF_A_MACHINE} cores each",
        value=_nodes,
        because="Two survive the loss of one. With three, one can be replaced while another fails.",
        sources=("measured",),
    ),
    Rule(
        id="D1",
        decides="database",
        when="there is one node",
        applies=lambda case: case.decided["nodes"] == 1,
        gives="SQLite",
        value=_is("sqlite"),
        because="A file, with nothing to set up. On one machine it is faster than a database server.",
        sources=("measured",),
    ),
    Rule(
        id="D2",
        decides="database",
        when="in all other cases",
        gives="PostgreSQL",
        value=_is("postgres"),
        because="All nodes share it.",
        sources=("measured",),
    ),
    Rule(
        id="K1",
        decides="workers",
        when="always",
        gives=f"what carries requests, refreshes, polls, and log-ins ({PEAK} times the mean of a month), half busy",
        value=_workers,
        because="Processor time is measured: a log-in is hundreds of times a request, because the password's hash is "
        "slow on purpose.",
        sources=("measured",),
    ),
)
