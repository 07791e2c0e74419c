"""The tables that decide: every rule has its place, its reason and its source, and the pages say what they say."""

from __future__ import annotations

import itertools
import json
import math
import re
from pathlib import Path
from typing import Any, get_args

import jsonschema_rs
import msgspec
import pytest
from msgspec.structs import replace
from tests.choice.test_advice import product

from dutchdoor.choice.advice import advise
from dutchdoor.choice.estimate import FORMULAS, Given, estimate
from dutchdoor.choice.figures import PACKAGED, Figures, figure, read_figures, written
from dutchdoor.choice.glossary import WORDS, words_in
from dutchdoor.choice.limits import LIMITS, OBJECTIONS
from dutchdoor.choice.pages import TEAMS, pages
from dutchdoor.choice.questions import CLIENTS, QUESTIONS, Answers, read_answers
from dutchdoor.choice.rules import DECISIONS, RULES, SOURCES
from dutchdoor.errors import Misconfigured
from dutchdoor.model.policy import Mode
from dutchdoor.revocation.lease import Terms
from dutchdoor.server.check import findings
from dutchdoor.server.config import read_settings

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
FIGURES = read_figures()


@pytest.fixture(scope="module")
def answered() -> list[tuple[Answers, Any]]:
    """Answers of all kinds, with what follows from them."""
    some = list(itertools.islice(product(whole=False), 0, None, 37))
    some += [replace(each, users=10**9, requests=10**6) for each in some[:8]]
    some += [
        Answers(services=3, logout_within=math.inf),
        Answers(outage=60.0),
        Answers(clients=("pages", "spa-elsewhere"), copies="none"),
        Answers(run_by="team", services=2),
        Answers(services=1, logout_within=0.0, requests=5000),
    ]
    return [(each, advise(each, FIGURES)) for each in some]


def test_each_rule_decides_somewhere(answered: list[tuple[Answers, Any]]) -> None:
    """No rule is dead: each decides for some answers, and each limit is said for some."""
    used = {reason.rule for _, found in answered for reason in found.reasons}
    assert {rule.id for rule in RULES} == used
    assert {limit.id for limit in LIMITS} == {limit.rule for _, found in answered for limit in found.limits}
    against = {
        text for _, found in answered for client in found.clients for each in client.weighed for text in each.against
    }
    assert {each.says for each in OBJECTIONS} == against


def test_each_decision_is_always_made() -> None:
    """The last rule of each decision always applies; each rule has a reason and sources that are there."""
    for decides in DECISIONS:
        last = [rule for rule in RULES if rule.decides == decides][-1]
        assert last.when.startswith(("always", "in all other cases")), last.id
    assert len({each.id for each in (*RULES, *LIMITS, *OBJECTIONS)}) == len(RULES) + len(LIMITS) + len(OBJECTIONS)
    assert {rule.decides for rule in RULES} == {*DECISIONS}
    for rule in RULES:
        assert rule.because.endswith(".")
        assert rule.sources
        assert {*rule.sources} <= {*SOURCES}
    assert {name for rule in RULES for name in rule.sources} == {*SOURCES}


def test_no_choice_is_impossible(answered: list[tuple[Answers, Any]]) -> None:
    """What is chosen can work there, in every answer; a runner-up likewise, and is not the choice."""
    for answers, found in answered:
        assert [client.client for client in found.clients] == list(answers.clients)
        for client in found.clients:
            by_pattern = {each.pattern: each for each in client.weighed}
            assert {*by_pattern} == {*get_args(Mode)}
            assert by_pattern[client.pattern].possible
            assert client.runner_up is None or (
                by_pattern[client.runner_up].possible and client.runner_up != client.pattern
            )
            assert client.runner_up_costs


def test_the_pages_say_what_the_tables_say() -> None:
    """The page of rules, the schema, and the answers in the guides are what the tables give."""
    stale = [path.name for path, text in pages(DOCS, FIGURES).items() if path.read_text() != text]
    assert stale == [], "run python -m dutchdoor.choice.pages docs"


@pytest.mark.parametrize("team", TEAMS)
def test_the_configuration_of_a_team_is_accepted(team: str, tmp_path: Path) -> None:
    """`dutchdoor check` accepts the configuration as it stands on the page of each kind of team."""
    page = (DOCS / "guides" / f"team-{team}.md").read_text()
    requirements, configuration = re.findall(r"^```toml\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    (tmp_path / "dutchdoor.toml").write_text(configuration)
    settings = read_settings({"config": str(tmp_path / "dutchdoor.toml")}, {})
    assert [each for each in findings(settings) if each.matters] == []
    assert requirements


def test_json_is_as_the_schema_says(answered: list[tuple[Answers, Any]]) -> None:
    """Advice, estimates and figures as JSON are what the schema of the documentation describes."""
    schema = json.loads((DOCS / "reference" / "choice.schema.json").read_text())
    valid = jsonschema_rs.Draft202012Validator(schema)
    for _, found in answered[:20]:
        valid.validate(json.loads(msgspec.json.encode(found)))
    valid.validate(json.loads(msgspec.json.encode(estimate(Given(), FIGURES))))
    valid.validate(json.loads(PACKAGED.read_text()))
    assert not valid.is_valid({"clients": []})


def test_a_lease_for_an_outage_outlasts_it() -> None:
    """A service with the lease of the answer goes on for the outage that was named, as far as any lease can."""
    for outage in (1.0, 1.8, 2.0, 7.0, 30.0, 100.0, 199.0):
        found = advise(Answers(services=1, outage=outage, logout_within=math.inf), FIGURES)
        assert found.services.lease_s is not None
        assert Terms(lease_for=found.services.lease_s).survives[0] >= outage


# --- figures and words -----------------------------------------------------------------------------------------------


def test_the_figures_are_measured() -> None:
    """The figures of the package name the command, the day and the machine, and each formula finds its own."""
    assert FIGURES.measured_on >= "2026-11-29"
    assert FIGURES.machine.processor
    assert all(each.by.startswith("python -m benchmarks.") for each in FIGURES.figures)
    assert all(each.low is not None and each.low <= each.value <= (each.high or 0) for each in FIGURES.figures)
    names = {each.name for each in FIGURES.figures}
    used = {name for formula in FORMULAS for name in formula.uses}
    assert {name for name in used if not {name, f"{name}_sqlite"} & names} == set()


def test_a_file_of_figures_is_read_as_it_was_written(tmp_path: Path) -> None:
    """What a program measures and writes is what is read; another form, and a number that is none, is refused."""
    path = tmp_path / "figures.json"
    path.write_bytes(written([figure("sent", [3.0, 1.0, 2.0], "B", says="a cookie", by="a test", subject="session")]))
    found = read_figures(path)
    assert (found.get("sent", "session").value, found.get("sent").low, found.get("sent").rounds) == (2.0, 1.0, 3)
    with pytest.raises(Misconfigured, match="have no nothing"):
        found.get("nothing")
    path.write_bytes(msgspec.json.encode(replace(found, form=2)))
    with pytest.raises(Misconfigured, match="has the form 2"):
        read_figures(path)
    path.write_bytes(msgspec.json.encode(replace(found, figures=(replace(found.figures[0], value=-1.0),))))
    with pytest.raises(Misconfigured, match="sent is out of bounds"):
        read_figures(path)
    path.write_text('{"figures": []}')
    with pytest.raises(Misconfigured, match="cannot be used"):
        read_figures(path)
    assert Figures.__struct_fields__[0] == "form"


def test_a_word_has_one_line() -> None:
    """Each explanation is short, and a word is found in a text as it stands there, in the plural too."""
    assert all(len(meaning) <= 100 for meaning in WORDS.values())
    assert {"session", "refresh token"} <= {*words_in("Sessions and refresh tokens")}
    assert "site" not in words_in("opposite")


def test_each_client_and_question_is_described() -> None:
    """Each question says why it is asked, in one or two sentences, and each of its choices what it means."""
    assert len(QUESTIONS) <= 14
    assert {*CLIENTS} == {*QUESTIONS[0].choices}
    for question in QUESTIONS:
        assert question.asks.endswith("?")
        assert question.why.endswith(".")
        assert all(question.choices.values())
        assert read_answers({question.id: question.default} if question.kind != "duration" else {}) == Answers()
