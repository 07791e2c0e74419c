"""Every set of requirements leads to a configuration that is accepted, and more is never answered with less."""

from __future__ import annotations

import itertools
import math
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace
from tests.backing import new_database
from tests.server.running import running

from dutchdoor.choice.advice import Strength, advise, strength
from dutchdoor.choice.figures import read_figures
from dutchdoor.choice.questions import BY_ID, CLIENTS, QUESTIONS, Answers, as_toml, read_answers
from dutchdoor.choice.rules import CORES_OF_A_MACHINE, USED, Case, processes
from dutchdoor.model.policy import PRESETS
from dutchdoor.revocation.lease import Terms
from dutchdoor.server.check import findings
from dutchdoor.server.config import Settings, read_settings

FIGURES = read_figures()

# The edges of each rule: one answer on either side of each.
SERVICES = (0, 3)
LOG_OUTS = (0.0, 1.0, 2.0, 3.0, 15.0, 60.0, 300.0, 420.0, 3600.0, math.inf)
OUTAGES = (0.0, 1.0, 30.0, 199.0, 600.0)
LOADS = (Answers(), Answers(users=10**10, sessions_each=1000, requests=10**7), Answers(users=10**7, requests=5000))

tenths = st.integers(0, 864_000).map(lambda number: number / 10)

answers_of_all_kinds = st.builds(
    Answers,
    clients=st.sets(st.sampled_from(list(CLIENTS)), min_size=1).map(
        lambda chosen: tuple(name for name in CLIENTS if name in chosen)
    ),
    services=st.integers(0, 10**6),
    checked_by=st.sampled_from(list(BY_ID["checked_by"].choices)),
    logout_within=st.one_of(tenths, st.sampled_from(LOG_OUTS)),
    outage=st.one_of(tenths, st.sampled_from(OUTAGES)),
    users=st.integers(1, 10**10),
    sessions_each=st.integers(1, 1000),
    requests=st.integers(0, 10**7),
    url=st.sampled_from(["https://auth.example.com", "https://localhost", "https://id.shop.test:8443"]),
    origins=st.sampled_from([(), ("https://app.example.com", "https://other.test")]),
    assurance=st.sampled_from(list(BY_ID["assurance"].choices)),
    copies=st.sampled_from(list(BY_ID["copies"].choices)),
    run_by=st.sampled_from(list(BY_ID["run_by"].choices)),
    framework=st.sampled_from(list(BY_ID["framework"].choices)),
)


def served(folder: Path, text: str) -> Settings:
    path = folder / "dutchdoor.toml"
    path.write_text(text)
    return read_settings({"config": str(path)}, {})


def accept(folder: Path, answers: Answers) -> None:
    """`dutchdoor check` reads the configuration and finds nothing unsafe, and it is what the answer says."""
    found = advise(answers, FIGURES)
    settings = served(folder, found.configuration)
    assert [each for each in findings(settings) if each.matters] == [], answers
    assert dict(settings.doubts) == {}, answers
    assert {client.pattern for client in found.clients} <= {*settings.policy.modes}
    assert settings.policy.default_mode == found.clients[0].pattern
    assert tomllib.loads(found.configuration) == found.settings


def product(*, whole: bool) -> Iterator[Answers]:
    """Every combination of answers that a rule tells apart, for a client of each kind and for all of them together.

    With `whole`, every set of clients too, with every second edge.
    """
    few = [*((name,) for name in CLIENTS), tuple(CLIENTS)]
    yield from combined(few, LOG_OUTS, OUTAGES)
    if whole:
        sets = (chosen for size in range(2, len(CLIENTS)) for chosen in itertools.combinations(CLIENTS, size))
        yield from combined(sets, LOG_OUTS[::4], OUTAGES[::4])


def combined(sets: Iterable[Any], log_outs: Sequence[float], outages: Sequence[float]) -> Iterator[Answers]:
    for clients, services, run_by, assurance in itertools.product(
        sets, SERVICES, BY_ID["run_by"].choices, BY_ID["assurance"].choices
    ):
        answers: Any = replace(Answers(), clients=clients, services=services, run_by=run_by, assurance=assurance)
        if not services:
            yield from (
                replace(answers, users=load.users, sessions_each=load.sessions_each, requests=load.requests)
                for load in LOADS
            )
            continue
        for checked_by, logout_within, outage in itertools.product(BY_ID["checked_by"].choices, log_outs, outages):
            yield replace(answers, checked_by=checked_by, logout_within=logout_within, outage=outage)


def distinct(some: Iterator[Answers]) -> list[Answers]:
    """One of each configuration: many answers lead to the same."""
    return list({advise(each, FIGURES).configuration: each for each in some}.values())


def test_every_combination_is_accepted_in_short(tmp_path: Path) -> None:
    """Each combination that a rule tells apart, for a client of each kind, gives what `check` accepts."""
    some = itertools.islice(product(whole=False), 0, None, 61)
    for answers in distinct(some):
        accept(tmp_path, answers)


@pytest.mark.long
def test_every_combination_is_accepted(tmp_path: Path) -> None:
    """The same for every combination, every set of clients, and loads of every size."""
    every = distinct(product(whole=True))
    assert len(every) > 400
    for answers in every:
        accept(tmp_path, answers)


@given(answers=answers_of_all_kinds)
@settings(max_examples=2 * settings.default.max_examples)
def test_any_answers_are_accepted(answers: Answers, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Whatever is answered between the edges gives what `check` accepts, and carries the load that was named."""
    accept(tmp_path_factory.getbasetemp(), answers)
    found = advise(answers, FIGURES)
    needed = processes(Case(answers, decided_of(found), FIGURES))
    carried = found.nodes * found.settings.get("workers", 1)
    assert carried >= needed or (answers.run_by == "one-machine" and "M4" in {each.rule for each in found.limits})


def decided_of(found: Any) -> dict[str, Any]:
    policy = replace(PRESETS[found.requirements["assurance"]], access_for=found.access_for_s)
    lives = {"access_for": policy.access_for, "absolute_for": policy.absolute_for}
    return {"checking": found.services.checking, "lease": found.services.lease_s or Terms().lease_for, **lives}


@given(answers=answers_of_all_kinds)
def test_what_is_promised_is_kept_or_named(answers: Answers) -> None:
    """A log-out holds in the time that was asked for, always. An outage is outlasted, or the answer says why not."""
    found = advise(answers, FIGURES)
    assert found.services.logout_within_s <= round(answers.logout_within, 1) + 0.05
    least = found.services.outlasts_at_least_s
    if answers.services and answers.outage and least is not None and least < answers.outage - 0.1:
        assert "M1" in {each.rule for each in found.limits}
    if found.services.checking == "follow":
        assert found.services.lease_s is not None
        Terms(lease_for=found.services.lease_s)


@given(answers=answers_of_all_kinds)
def test_an_answer_survives_its_file(answers: Answers) -> None:
    """The file of requirements that `--write` writes gives the same answer again."""
    again = read_answers(tomllib.loads(as_toml(answers)))
    assert again == answers


# --- more is never answered with less --------------------------------------------------------------------------------

ORDERED: dict[str, list[Any]] = {
    "clients": [("pages",), ("pages", "spa"), ("pages", "spa", "mobile"), ("pages", "spa", "mobile", "partners")],
    "services": [0, 1, 3, 5000, 10**6],
    "logout_within": sorted(LOG_OUTS, reverse=True),
    "outage": sorted(OUTAGES),
    "users": [1, 10**5, 10**7, 10**10],
    "sessions_each": [1, 30, 1000],
    "requests": [0, 100, 10**5, 10**7],
    "assurance": ["relaxed", "standard", "high"],
    "copies": ["some", "none"],
    "run_by": ["one-machine", "team"],
}
"""The answers to each question, the weakest first. What is not here has no order: a framework, an address."""

TRADES = {
    # Each of these two limits the other, in every system: a service that is cut off cannot learn of a log-out.
    "outage": {"logout", "token"},
    # And a token that is checked against the log may live as long as the preset says; one that is not, only as long as
    # a log-out may take.
    "logout_within": {"outlasts", "token"},
    # A first service that checks by itself learns of a log-out a moment later than the one server did.
    "services": {"logout"},
}
"""What a stronger answer may cost, within what the other answers ask for. Nothing else."""


def test_every_question_has_its_order() -> None:
    """Each question that says which answer is stronger is tried, and no other."""
    assert {question.id for question in QUESTIONS if question.stronger} == {*ORDERED}


def is_weaker(after: Any, before: Any) -> bool:
    if isinstance(before, dict):  # of each client that was there before
        return any(is_weaker(after[client], before[client]) for client in before)
    return bool(after < before - 1e-6)


@pytest.mark.parametrize("question", ORDERED)
@given(data=st.data())
@settings(max_examples=2 * settings.default.max_examples)
def test_stronger_requirements_never_weaken(question: str, data: st.DataObject) -> None:
    """A stronger answer, all others the same, gives a configuration that is weaker in nothing that it may not trade."""
    answers = data.draw(answers_of_all_kinds)
    weak, strong = sorted(data.draw(st.tuples(*[st.integers(0, len(ORDERED[question]) - 1)] * 2)))
    before = strength(replace(answers, **{question: ORDERED[question][weak]}), FIGURES)
    after = strength(replace(answers, **{question: ORDERED[question][strong]}), FIGURES)
    weaker = [
        name
        for name in Strength.__struct_fields__
        if is_weaker(getattr(after, name), getattr(before, name)) and name not in TRADES.get(question, ())
    ]
    assert weaker == [], (before, after)


@given(answers=answers_of_all_kinds)
def test_no_configuration_is_weaker_than_its_preset(answers: Answers, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Lifetimes are at most those of the preset, and passwords at least as long as without one."""
    policy = served(tmp_path_factory.getbasetemp(), advise(answers, FIGURES).configuration).policy
    preset = PRESETS[answers.assurance]
    assert policy.access_for <= preset.access_for
    assert policy.idle_for <= preset.idle_for
    assert policy.absolute_for <= preset.absolute_for
    assert policy.password_minimum >= PRESETS["standard"].password_minimum
    assert policy.require_verified_email


def test_services_take_requests_off_the_server() -> None:
    """Where services check tokens by themselves, the sign-in server carries refreshes in place of requests."""
    alone = advise(Answers(clients=("mobile",), requests=100_000, run_by="team"), FIGURES)
    beside = advise(Answers(clients=("mobile",), requests=100_000, run_by="team", services=5), FIGURES)
    asked = advise(
        Answers(clients=("mobile",), requests=100_000, run_by="team", services=5, logout_within=0.0), FIGURES
    )
    sizes = [each.nodes * each.settings.get("workers", 1) for each in (beside, alone, asked)]
    assert sizes[0] < sizes[1] <= sizes[2]


def test_the_load_of_a_machine_is_planned_half_busy() -> None:
    """A node gets no more processes than a machine has cores, and each is half busy in the busiest second."""
    assert USED == 0.5
    answers = Answers(run_by="team", requests=10**6)
    found = advise(answers, FIGURES)
    assert found.settings["workers"] <= CORES_OF_A_MACHINE
    busy = answers.requests * FIGURES["request_cpu"]
    assert found.nodes * found.settings["workers"] * USED >= busy


# --- it serves -------------------------------------------------------------------------------------------------------

SAMPLE = {
    "one machine": Answers(),
    "much harm": Answers(assurance="high", clients=("spa", "mobile"), services=2, outage=30, logout_within=60),
    "little harm": Answers(assurance="relaxed", clients=("spa-elsewhere",)),
    "keys alone": Answers(clients=("cli",), services=4, checked_by="other", logout_within=math.inf),
    "functions": Answers(clients=("mobile",), services=1, checked_by="functions"),
    "two processes": Answers(requests=10_000, clients=("partners", "devices")),
}


@pytest.mark.long
@pytest.mark.parametrize("name", SAMPLE)
def test_the_configuration_serves(name: str, tmp_path: Path) -> None:
    """`dutchdoor serve` starts with what `advise` wrote, as it is."""
    (tmp_path / "dutchdoor.toml").write_text(advise(SAMPLE[name], FIGURES).configuration)
    with running(tmp_path, "--config", "dutchdoor.toml") as server:
        assert f"for {SAMPLE[name].url}" in server.line


@pytest.mark.long
def test_the_configuration_of_several_nodes_serves(tmp_path: Path) -> None:
    """With PostgreSQL it serves as soon as the URL of the database is that of a real one."""
    answers = Answers(run_by="team", services=3, clients=("spa", "mobile"))
    (tmp_path / "dutchdoor.toml").write_text(advise(answers, FIGURES).configuration)
    with (
        new_database() as url,
        running(tmp_path, "--config", "dutchdoor.toml", environment={"DUTCHDOOR_DATABASE": url}) as server,
    ):
        assert f"for {answers.url}" in server.line
