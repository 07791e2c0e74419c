"""What a size costs: memory, disk, bandwidth, load of the database, and for how long a stolen secret works.

Each number has its formula in words, and the measured figures that it uses. `FORMULAS` and `STOLEN` are the tables; the
terminal, the page and the documentation show them as they are.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Final, Literal, TypeAlias, get_args

from msgspec import Struct

from dutchdoor.choice.advice import Advice
from dutchdoor.choice.figures import Figures
from dutchdoor.choice.questions import Answers
from dutchdoor.choice.rules import MONTH, PEAK, PROXY_TOKEN, USED, log_ins, refreshes, rows
from dutchdoor.errors import Misconfigured
from dutchdoor.model.device_binding import BOUND_FOR
from dutchdoor.model.durations import short_duration
from dutchdoor.model.policy import DAY, LONGEST_ACCESS, STANDARD, Mode
from dutchdoor.revocation.lease import GUARD, LONGEST, SHORTEST, Terms

__all__ = [
    "FORMULAS",
    "STOLEN",
    "Database",
    "Estimate",
    "Exposure",
    "Formula",
    "Given",
    "Number",
    "Stolen",
    "check_bounds",
    "estimate",
    "given_by",
]

Database: TypeAlias = Literal["sqlite", "postgres"]
Unit: TypeAlias = Literal["B", "B/s", "1/s", "cores", "rows", "nodes", "verifiers"]

CACHED: Final = 4096
"""Tokens that a process keeps as verified."""
HASH_MEMORY: Final = 19 * 2**20
"""Bytes that one hash of a password takes (Argon2id as OWASP recommends it)."""
KEPT_FOR: Final = LONGEST_ACCESS + Terms().kept_for
"""Seconds for which an entry of the revocation log is kept."""
EVENTS_FOR: Final = STANDARD.max_audit_for
TOUCH_EVERY: Final = STANDARD.touch_every


BOUNDS: Final[Mapping[str, tuple[float, float]]] = {
    "users": (1, 1e10),
    "sessions_each": (1, 1000),
    "requests": (0, 1e7),
    "services": (0, 1e6),
    "access_for": (1, LONGEST_ACCESS),
    "absolute_for": (60, 36_500 * DAY),
    "lease": (SHORTEST, LONGEST),
    "nodes": (1, 1e6),
    "workers": (1, 256),
}
"""The least and the most of each number that goes in."""
_DURATIONS: Final = frozenset({"access_for", "absolute_for", "lease"})


def check_bounds(name: str, value: float, typed_as: str) -> None:
    """Check one number. `typed_as` is what the message calls it. Raises `Misconfigured`."""
    least, most = BOUNDS[name]
    if not least <= value <= most:
        if name in _DURATIONS:
            raise Misconfigured(f"{typed_as}: write {short_duration(least)} to {short_duration(most)}.")
        raise Misconfigured(f"{typed_as}: write a number from {least:,.0f} to {most:,.0f}.")


class Given(Struct, frozen=True, kw_only=True):
    """The numbers that go in. Durations are seconds.

    Raises:
        Misconfigured: a number is out of bounds.
    """

    users: int = 10_000
    sessions_each: int = 2
    requests: int = 50
    services: int = 0
    access_for: float = STANDARD.access_for
    absolute_for: float = STANDARD.absolute_for
    lease: float = Terms().lease_for
    nodes: int = 1
    workers: int = 1
    database: Database = "sqlite"

    def __post_init__(self) -> None:
        for name in BOUNDS:
            check_bounds(name, getattr(self, name), name)

    @property
    def _asked(self) -> Answers:
        return Answers(users=self.users, sessions_each=self.sessions_each, requests=self.requests)

    @property
    def rows(self) -> float:
        """Sign-ins that the database has at a time."""
        return rows(self._asked, self.absolute_for)

    @property
    def log_ins(self) -> float:
        """Log-ins in the busiest second."""
        return log_ins(self._asked)

    @property
    def refreshes(self) -> float:
        """Refreshes in the busiest second."""
        return refreshes(self._asked, access_for=self.access_for, absolute_for=self.absolute_for)

    @property
    def polls(self) -> float:
        """Polls of one verifier in a second, relative to the lease at which they were measured."""
        return Terms().lease_for / self.lease


def given_by(advice: Advice, answers: Answers) -> Given:
    """Return the numbers of an answer of `advise`."""
    settings = advice.settings
    client = advice.clients[0]
    return Given(
        users=answers.users,
        sessions_each=answers.sessions_each,
        requests=answers.requests,
        services=answers.services,
        access_for=advice.access_for_s,
        absolute_for=max(each.absolute_for_s for each in advice.clients if each.pattern != "jwt")
        if any(each.pattern != "jwt" for each in advice.clients)
        else client.absolute_for_s,
        lease=advice.services.lease_s or Terms().lease_for,
        nodes=advice.nodes,
        workers=settings.get("workers", 1),
        database="sqlite" if str(settings["database"]).startswith("sqlite") else "postgres",
    )


class Formula(Struct, frozen=True, kw_only=True):
    """One number of the estimate. `patterns` is empty where the pattern makes no difference."""

    id: str
    says: str
    unit: Unit
    formula: str
    of: Callable[[Given, Figures, Mode], float]
    uses: tuple[str, ...] = ()
    patterns: bool = True


def _row(given: Given) -> str:
    return f"row_{given.database}"


def _checked_here(given: Given, mode: Mode) -> float:
    """Requests a second that the sign-in server checks: none of those by token, where services check them."""
    return 0.0 if given.services and mode != "session" else float(given.requests)


def _cores(given: Given, figures: Figures, mode: Mode) -> float:
    refreshes = given.refreshes * figures["refresh_cpu"] if mode == "hybrid" else 0.0
    polls = 0.0 if mode == "session" else given.services * given.polls * figures["polls"] * figures["poll_cpu"]
    requests = _checked_here(given, mode) * figures.get("request_cpu", mode).value
    return requests + refreshes + polls + given.log_ins * figures["login_cpu"]


def _memory(given: Given, figures: Figures, mode: Mode) -> float:
    process = figures["server_memory"] + HASH_MEMORY
    process += (0 if mode == "session" else CACHED) * figures["token_memory"]
    return given.workers * (process + given.log_ins * KEPT_FOR * figures["entry_memory"])


def _writes(given: Given, _figures: Figures, mode: Mode) -> float:
    of_use = {"session": min(given.requests, given.rows / TOUCH_EVERY), "hybrid": given.refreshes, "jwt": 0.0}[mode]
    return of_use + given.log_ins


def _reads(given: Given, _figures: Figures, mode: Mode) -> float:
    of_use = {"session": float(given.requests), "hybrid": given.refreshes, "jwt": 0.0}[mode]
    return of_use + given.log_ins


def _a_node(given: Given, figures: Figures, _mode: Mode) -> float:
    return given.workers * USED / (given.polls * figures["polls"] * figures["poll_cpu"])


FORMULAS: Final[tuple[Formula, ...]] = (
    Formula(
        id="rows",
        says="sign-ins stored at a time",
        unit="rows",
        formula="users x sign-ins a month x absolute_for / 30 days; jwt stores none",
        of=lambda given, _, mode: 0.0 if mode == "jwt" else given.rows,
    ),
    Formula(
        id="disk_sessions",
        says="disk for sign-ins",
        unit="B",
        formula="rows x bytes of a row, indexes included",
        of=lambda given, figures, mode: 0.0 if mode == "jwt" else given.rows * figures[_row(given)],
        uses=("row",),
    ),
    Formula(
        id="disk_events",
        says="disk for the audit log, after a year",
        unit="B",
        formula="users x sign-ins a month x 365 / 30 x bytes of the events of a sign-in",
        of=lambda given, figures, _: (
            given.users * given.sessions_each * EVENTS_FOR / MONTH * figures[f"events_{given.database}"]
        ),
        uses=("events",),
        patterns=False,
    ),
    Formula(
        id="memory",
        says="memory of a node",
        unit="B",
        formula="processes x (a started process + 19 MiB of one hash + 4,096 tokens + log entries of 70 minutes)",
        of=_memory,
        uses=("server_memory", "token_memory", "entry_memory"),
    ),
    Formula(
        id="bandwidth",
        says="bandwidth of the proofs",
        unit="B/s",
        formula="requests a second x bytes of the cookie or token",
        of=lambda given, figures, mode: given.requests * figures.get("sent", mode).value,
        uses=("sent",),
    ),
    Formula(
        id="writes",
        says="writes of the database, at most",
        unit="1/s",
        formula="session: one a minute for each client in use; hybrid: refreshes, one in access_for for each client in "
        "use, of which each sends a request a minute; and each log-in",
        of=_writes,
    ),
    Formula(
        id="reads",
        says="reads of the database, at most",
        unit="1/s",
        formula="session: each request whose session is not in memory; hybrid: refreshes; and each log-in",
        of=_reads,
    ),
    Formula(
        id="cores",
        says="busy cores of the sign-in server",
        unit="cores",
        formula=f"requests it checks, refreshes, polls and log-ins ({PEAK} x the mean) x their processor time",
        of=_cores,
        uses=("request_cpu", "refresh_cpu", "poll_cpu", "polls", "login_cpu"),
    ),
    Formula(
        id="verifiers",
        says="verifiers that a node holds",
        unit="verifiers",
        formula="processes x half a core / (polls a second of one verifier x processor time of a poll)",
        of=_a_node,
        uses=("polls", "poll_cpu"),
        patterns=False,
    ),
    Formula(
        id="polls",
        says="bandwidth of all verifiers' polls",
        unit="B/s",
        formula="services x polls a second of one verifier x bytes of an answer",
        of=lambda given, figures, _: given.services * given.polls * figures["polls"] * figures["poll_bytes"],
        uses=("polls", "poll_bytes"),
        patterns=False,
    ),
    Formula(
        id="nodes",
        says="nodes that the load needs",
        unit="nodes",
        formula="busy cores / (processes of a node x a half), rounded up",
        of=lambda given, figures, mode: math.ceil(max(_cores(given, figures, mode), 1e-9) / (given.workers * USED)),
        uses=("request_cpu", "refresh_cpu", "poll_cpu", "login_cpu"),
    ),
)


class Stolen(Struct, frozen=True, kw_only=True):
    """A secret that a thief has copied, and for how many seconds it works: each at most."""

    secret: str
    pattern: Mode
    unnoticed: Callable[[Given], float]
    """If no one notices."""
    at_verifiers: Callable[[Given], float]
    """After the owner has signed out: at a service with a Verifier. At the sign-in server it is 0 for each."""
    at_keys: Callable[[Given], float]
    """The same at a service that knows the public keys alone."""
    says: str


STOLEN: Final[tuple[Stolen, ...]] = (
    Stolen(
        secret="session cookie",
        pattern="session",
        unnoticed=lambda given: given.absolute_for,
        at_verifiers=lambda given: min(PROXY_TOKEN, given.lease * GUARD),
        at_keys=lambda _given: PROXY_TOKEN,
        says="A service sees a token of a minute, which the proxy gets for the cookie.",
    ),
    Stolen(
        secret="session cookie, bound",
        pattern="session",
        unnoticed=lambda _given: BOUND_FOR,
        at_verifiers=lambda given: min(PROXY_TOKEN, given.lease * GUARD),
        at_keys=lambda _given: PROXY_TOKEN,
        says="The browser proves its key (DBSC). Both cookies together work until the one of ten minutes expires, and "
        "the session cookie alone never does.",
    ),
    Stolen(
        secret="access token",
        pattern="hybrid",
        unnoticed=lambda given: given.access_for,
        at_verifiers=lambda given: min(given.access_for, given.lease * GUARD),
        at_keys=lambda given: given.access_for,
        says="It cannot be renewed.",
    ),
    Stolen(
        secret="refresh token",
        pattern="hybrid",
        unnoticed=lambda given: given.absolute_for,
        at_verifiers=lambda given: min(given.access_for, given.lease * GUARD),
        at_keys=lambda given: given.access_for,
        says="While the owner is active, the copy is noticed within the life of an access token: both have then used "
        "it, and the session is revoked. The first column is for an owner who never comes back.",
    ),
    Stolen(
        secret="refresh token, bound",
        pattern="hybrid",
        unnoticed=lambda _given: 0.0,
        at_verifiers=lambda _given: 0.0,
        at_keys=lambda _given: 0.0,
        says="Without the key of the program (DPoP), neither it nor the access token is accepted at all.",
    ),
    Stolen(
        secret="access token",
        pattern="jwt",
        unnoticed=lambda given: given.access_for,
        at_verifiers=lambda given: min(given.access_for, given.lease * GUARD),
        at_keys=lambda given: given.access_for,
        says="A plain JWT elsewhere has only the last column.",
    ),
)


class Number(Struct, frozen=True, kw_only=True):
    """One number that comes out. `pattern` is empty where all patterns have the same."""

    id: str
    says: str
    pattern: str
    value: float
    unit: Unit
    formula: str


class Exposure(Struct, frozen=True, kw_only=True):
    """For how long a stolen secret works: seconds, at most."""

    secret: str
    pattern: Mode
    unnoticed_s: float
    after_logout_here_s: float
    after_logout_at_verifiers_s: float
    after_logout_at_keys_s: float
    says: str


class Constant(Struct, frozen=True, kw_only=True):
    """A measured figure that a formula uses."""

    name: str
    subject: str
    value: float
    unit: str
    says: str
    by: str
    low: float | None
    high: float | None


class Estimate(Struct, frozen=True, kw_only=True):
    """All that `dutchdoor estimate --json` prints."""

    given: Given
    numbers: tuple[Number, ...]
    exposure: tuple[Exposure, ...]
    constants: tuple[Constant, ...]
    figures: str

    def number(self, id: str, pattern: str = "") -> float:
        return next(each.value for each in self.numbers if each.id == id and each.pattern == pattern)


def estimate(given: Given, figures: Figures) -> Estimate:
    """Calculate every number for every pattern."""
    modes: tuple[Mode, ...] = get_args(Mode)
    return Estimate(
        given=given,
        numbers=tuple(
            Number(
                id=each.id,
                says=each.says,
                pattern=mode if each.patterns else "",
                value=float(f"{each.of(given, figures, mode):.4g}"),
                unit=each.unit,
                formula=each.formula,
            )
            for each in FORMULAS
            for mode in (modes if each.patterns else modes[:1])
        ),
        exposure=tuple(
            Exposure(
                secret=each.secret,
                pattern=each.pattern,
                unnoticed_s=each.unnoticed(given),
                after_logout_here_s=0.0,
                after_logout_at_verifiers_s=round(each.at_verifiers(given), 1),
                after_logout_at_keys_s=each.at_keys(given),
                says=each.says,
            )
            for each in STOLEN
        ),
        constants=tuple(
            Constant(
                name=each.name,
                subject=each.subject,
                value=each.value,
                unit=each.unit,
                says=each.says,
                by=each.by,
                low=each.low,
                high=each.high,
            )
            for each in figures.figures
            if any(each.name in {name, f"{name}_{given.database}"} for formula in FORMULAS for name in formula.uses)
        ),
        figures=figures.origin,
    )
