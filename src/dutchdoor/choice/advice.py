"""The answer: for each client a pattern, a transport and lifetimes; what was weighed; a configuration; its limits."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final, get_args

from msgspec import Struct

from dutchdoor.choice.configuration import Line, framework_lines, settings_lines, toml
from dutchdoor.choice.figures import Figures
from dutchdoor.choice.glossary import words_in
from dutchdoor.choice.limits import LIMITS, OBJECTIONS, Outcome
from dutchdoor.choice.questions import CLIENTS, QUESTIONS, Answers, Client
from dutchdoor.choice.rules import (
    DECISIONS,
    PROXY_TOKEN,
    RULES,
    SOURCES,
    Case,
    Checking,
    Rule,
    holds_within,
    nodes_for_safety,
    processes,
    seconds,
)
from dutchdoor.model.policy import Mode
from dutchdoor.revocation.lease import Terms

__all__ = ["Advice", "Cannot", "Costs", "ForClient", "Reason", "Services", "Strength", "Weighed", "advise", "strength"]


class Costs(Struct, frozen=True, kw_only=True):
    """What one pattern costs and gives one client, with these answers."""

    sent_bytes: float
    """Bytes of each request that prove who sends it."""
    request_cpu_s: float
    """Processor seconds of a request at the sign-in server."""
    stored_bytes: float
    """Bytes of the database for one sign-in; 0 where nothing is stored."""
    signs_in_again_after_s: float
    """When a user who comes back each day must sign in again."""
    logout_within_s: float
    """When a log-out holds at every service, at the latest. At the sign-in server it holds at once."""
    listed: bool
    """Whether the owner sees the sign-in in a list, and can end it alone."""


class Weighed(Struct, frozen=True, kw_only=True):
    """One pattern for one client. `possible` is false where it cannot work."""

    pattern: Mode
    possible: bool
    against: tuple[str, ...]
    costs: Costs


class ForClient(Struct, frozen=True, kw_only=True):
    """The answer for one kind of client."""

    client: Client
    says: str
    pattern: Mode
    transport: str
    access_for_s: float | None
    """None where the client has no access token."""
    idle_for_s: float | None
    absolute_for_s: float
    rules: tuple[str, ...]
    weighed: tuple[Weighed, ...]
    runner_up: Mode | None
    runner_up_costs: str


class Services(Struct, frozen=True, kw_only=True):
    """How other services check, and what follows."""

    checking: Checking
    says: str
    lease_s: float | None
    logout_within_s: float
    outlasts_at_least_s: float | None
    """Seconds for which they go on without the sign-in server. None: they know the keys, and have no limit."""
    outlasts_at_most_s: float | None


class Reason(Struct, frozen=True, kw_only=True):
    """A decision, the rule behind it, its reason and its sources."""

    decides: str
    value: str
    rule: str
    because: str
    sources: tuple[str, ...]


class Cannot(Struct, frozen=True, kw_only=True):
    """What the choice cannot do, and the rule that says so."""

    rule: str
    says: str


class Advice(Struct, frozen=True, kw_only=True):
    """All of the answer, as `--json` prints it. Names that end in `_s` count seconds."""

    requirements: dict[str, Any]
    clients: tuple[ForClient, ...]
    services: Services
    nodes: int
    access_for_s: float
    reasons: tuple[Reason, ...]
    settings: dict[str, Any]
    configuration: str
    framework: str
    code: str
    steps: tuple[str, ...]
    limits: tuple[Cannot, ...]
    figures: str
    words: dict[str, str]


class Strength(Struct, frozen=True, kw_only=True):
    """What a configuration is worth, each value such that more is stronger."""

    logout: Mapping[Client, float]
    """For each client, minus the seconds after which its log-out holds everywhere."""
    outlasts: float
    """Seconds for which services surely go on without the sign-in server."""
    token: float
    idle: float
    absolute: float
    proof: float
    """Minus the lifetimes of an access token, of a sign-in without use and at all, and of a fresh proof."""
    password: float
    factor: float
    nodes: float
    """Those that are there whatever the load: how many may fail, and one."""
    binding: float
    """How many sign-ins are bound to a key of their client: those that can be, or all."""
    cookies: Mapping[Client, float]
    """For each client, 1 if it keeps its secret where scripts cannot read it."""


_FACTORS: Final = ("off", "optional", "admins", "required")
_BINDINGS: Final = ("off", "optional", "required")
_CHECKING: Final[Mapping[Checking, str]] = {
    "none": "no other service checks",
    "follow": "each service has a Verifier, which follows the log of what was revoked",
    "on demand": 'each function has a Verifier with follow="on demand", which polls the log when it is called',
    "ask": "each service asks the sign-in server about each token (introspection)",
    "keys": "each service checks the signature by the public keys, and knows nothing else",
}


class _Decided(Struct, frozen=True):
    """What the rules gave, for the deployment and for each client."""

    values: dict[str, Any]
    clients: dict[Client, dict[str, tuple[Any, Rule]]]

    @property
    def patterns(self) -> dict[Client, Mode]:
        return {client: of_client["pattern"][0] for client, of_client in self.clients.items()}


def _first(decides: str, case: Case) -> tuple[Any, Rule]:
    rule = next(rule for rule in RULES if rule.decides == decides and rule.applies(case))
    return rule.value(case), rule


def _decide(answers: Answers, figures: Figures) -> _Decided:
    values: dict[str, Any] = {"why": {}}
    clients: dict[Client, dict[str, tuple[Any, Rule]]] = {client: {} for client in answers.clients}
    for decides in DECISIONS:
        if decides in {"pattern", "transport"}:
            for client, of_client in clients.items():
                so_far = values | {name: value for name, (value, _) in of_client.items()}
                of_client[decides] = _first(decides, Case(answers, so_far, figures, client))
        else:
            values[decides], values["why"][decides] = _first(decides, Case(answers, values, figures))
    return _Decided(values, clients)


def advise(answers: Answers, figures: Figures) -> Advice:
    """Answer. The same answers and figures give the same advice."""
    decided = _decide(answers, figures)
    values = decided.values
    patterns = decided.patterns
    services = _services(answers, values, patterns)
    clients = tuple(_for_client(client, answers, decided, figures) for client in answers.clients)
    modes = list(dict.fromkeys(patterns.values()))
    if "session" not in modes:
        modes.append("session")
    lines = settings_lines(answers, values, modes)
    outcome = Outcome(
        answers=answers,
        decided=values,
        patterns=patterns,
        holds_within=services.logout_within_s,
        outlasts=_outlasts(values),
        processes=processes(Case(answers, values, figures)),
    )
    limits = tuple(Cannot(rule=limit.id, says=limit.says(outcome)) for limit in LIMITS if limit.applies(outcome))
    reasons = tuple(_reasons(decided))
    steps = tuple(_steps(answers, values, lines))
    read = " ".join(
        [*(limit.says for limit in limits), *steps, services.says, *get_args(Mode), *(each.because for each in reasons)]
    )
    return Advice(
        requirements={question.id: _plain(getattr(answers, question.id)) for question in QUESTIONS},
        clients=clients,
        services=services,
        nodes=values["nodes"],
        access_for_s=values["access_for"],
        reasons=reasons,
        settings={line.name: line.value for line in lines},
        configuration=toml(lines),
        framework=answers.framework,
        code=framework_lines(answers, values, lines),
        steps=steps,
        limits=limits,
        figures=figures.origin,
        words=words_in(read),
    )


def _plain(value: Any) -> Any:
    return None if isinstance(value, float) and math.isinf(value) else value


# --- other services --------------------------------------------------------------------------------------------------


def _outlasts(values: Mapping[str, Any]) -> tuple[float, float]:
    checking: Checking = values["checking"]
    if checking == "follow":
        return Terms(lease_for=values["lease"]).survives
    return (math.inf, math.inf) if checking == "keys" else (0.0, 2.0 if checking == "on demand" else 0.0)


def _services(answers: Answers, values: Mapping[str, Any], patterns: Mapping[Client, Mode]) -> Services:
    least, most = _outlasts(values)
    says = _CHECKING[values["checking"]]
    if answers.services and "pages" in patterns:
        says += ". For pages, the proxy in front asks /auth/check, and passes on a token of a minute"
    return Services(
        checking=values["checking"],
        says=says,
        lease_s=values["lease"] if values["checking"] == "follow" else None,
        logout_within_s=max(_logout(pattern, values) for pattern in patterns.values()),
        outlasts_at_least_s=None if math.isinf(least) else round(least, 1),
        outlasts_at_most_s=None if math.isinf(most) else round(most, 1),
    )


def _logout(pattern: Mode, values: Mapping[str, Any]) -> float:
    if pattern == "session" and values["checking"] == "keys":
        return PROXY_TOKEN
    return round(holds_within(values["checking"], lease=values["lease"], access_for=values["access_for"]), 1)


# --- one client ------------------------------------------------------------------------------------------------------


def _costs(pattern: Mode, values: Mapping[str, Any], figures: Figures) -> Costs:
    return Costs(
        sent_bytes=figures.get("sent", pattern).value,
        request_cpu_s=figures.get("request_cpu", pattern).value,
        stored_bytes=0.0 if pattern == "jwt" else figures[f"row_{values['database']}"],
        signs_in_again_after_s=values["access_for" if pattern == "jwt" else "absolute_for"],
        logout_within_s=_logout(pattern, values),
        listed=pattern != "jwt",
    )


def _for_client(client: Client, answers: Answers, decided: _Decided, figures: Figures) -> ForClient:
    values = decided.values
    (pattern, why), (transport, how) = decided.clients[client]["pattern"], decided.clients[client]["transport"]
    weighed = []
    for mode in get_args(Mode):
        objections = [each for each in OBJECTIONS if each.pattern == mode and each.applies(client, answers)]
        weighed.append(
            Weighed(
                pattern=mode,
                possible=not any(each.excludes for each in objections),
                against=tuple(each.says for each in objections),
                costs=_costs(mode, values, figures),
            )
        )
    others = [each for each in weighed if each.pattern != pattern and each.possible]
    second = min(others, key=lambda each: len(each.against), default=None)
    chosen = next(each for each in weighed if each.pattern == pattern)
    return ForClient(
        client=client,
        says=CLIENTS[client],
        pattern=pattern,
        transport=transport,
        access_for_s=None if pattern == "session" else values["access_for"],
        idle_for_s=None if pattern == "jwt" else values["idle_for"],
        absolute_for_s=values["access_for" if pattern == "jwt" else "absolute_for"],
        rules=(why.id, how.id),
        weighed=tuple(weighed),
        runner_up=None if second is None else second.pattern,
        runner_up_costs=_against(second, chosen, answers),
    )


def _against(second: Weighed | None, chosen: Weighed, answers: Answers) -> str:
    """Say what the runner-up would have cost, with the figures that differ."""
    if second is None:
        return "No other pattern works there."
    there, here = second.costs, chosen.costs
    said = [*second.against]
    more = there.sent_bytes - here.sent_bytes
    if more:
        said.append(
            f"Each request carries {abs(more):,.0f} bytes {'more' if more > 0 else 'less'}: "
            f"{abs(more) * answers.requests * 8 / 1000:,.0f} kbit/s at your {answers.requests:,} requests a second."
        )
    kept = there.stored_bytes - here.stored_bytes
    if kept:
        said.append(f"A sign-in takes {abs(kept):,.0f} bytes {'more' if kept > 0 else 'less'} of the database.")
    if there.logout_within_s != here.logout_within_s:
        said.append(
            f"A log-out holds at services within {seconds(there.logout_within_s)}, and not "
            f"{seconds(here.logout_within_s)}."
        )
    return " ".join(said)


# --- why, and what next ----------------------------------------------------------------------------------------------


def _reasons(decided: _Decided) -> list[Reason]:
    found = [
        _reason(f"{decides} of {client}", value, rule)
        for client, of_client in decided.clients.items()
        for decides, (value, rule) in of_client.items()
    ]
    values = decided.values
    found += [_reason(decides, values[decides], values["why"][decides]) for decides in DECISIONS if decides in values]
    return found


def _reason(decides: str, value: Any, rule: Rule) -> Reason:
    named = decides.partition(" ")[0]
    is_time = named in {"access_for", "idle_for", "absolute_for", "step_up_for", "lease"}
    return Reason(
        decides=decides,
        value=seconds(value) if is_time else rule.gives if named == "checking" else str(value),
        rule=rule.id,
        because=rule.because,
        sources=tuple(SOURCES[name][0] for name in rule.sources),
    )


def _steps(answers: Answers, values: Mapping[str, Any], lines: Sequence[Line]) -> list[str]:
    marked = ", ".join(line.name for line in lines if line.to_change)
    steps = []
    if answers.framework != "none" and not answers.services:
        steps.append(
            "Your code has the sign-in inside, with the same settings: it needs no dutchdoor.toml, which is for a "
            f"server of its own. Change in it what is marked CHANGE in the file: {marked}."
        )
    else:
        steps.append(f"In dutchdoor.toml, change what is marked CHANGE: {marked}.")
    if values["database"] != "sqlite":
        steps.append(
            "On each machine: pip install 'dutchdoor[server,postgres]'. Inside an application it is postgres, beside "
            "the name of its framework."
        )
    if values["nodes"] > 1:
        steps.append(
            f"Create one master key for all {values['nodes']} nodes: "
            "(umask 077; dutchdoor key master > dutchdoor.keys). Keep a copy apart from the database's backups."
        )
    steps.append("dutchdoor check --config dutchdoor.toml says what is unsafe.")
    steps.append("dutchdoor serve --config dutchdoor.toml serves. The first start shows a link for the administrator.")
    if values["checking"] in {"follow", "on demand", "ask"}:
        steps.append(
            "For each service: dutchdoor verifier add NAME prints its key. Give it to that service as "
            "DUTCHDOOR_VERIFIER_KEY."
        )
    return steps


# --- strength --------------------------------------------------------------------------------------------------------


def strength(answers: Answers, figures: Figures) -> Strength:
    """Measure the configuration that these answers lead to."""
    decided = _decide(answers, figures)
    values = decided.values
    logout: dict[Client, float] = {client: -_logout(pattern, values) for client, pattern in decided.patterns.items()}
    return Strength(
        logout=logout,
        outlasts=_outlasts(values)[0],
        token=-values["access_for"],
        idle=-values["idle_for"],
        absolute=-values["absolute_for"],
        proof=-values["step_up_for"],
        password=values["password_minimum"],
        factor=_FACTORS.index(values["second_factor"]),
        binding=_BINDINGS.index(values["device_binding"]),
        nodes=min(values["nodes"], nodes_for_safety(answers)),
        cookies={client: float(of_client["transport"][0] == "cookie") for client, of_client in decided.clients.items()},
    )
