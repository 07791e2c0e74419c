"""Write what the documentation says about the choice from the tables: rules, the schema of `--json`, and the answers in
the guides. `python -m dutchdoor.choice.pages docs` writes; a test finds every page as it would be written.

A guide has its requirements in a block of TOML, and between two comments what follows from them.
"""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, get_args

import msgspec
from msgspec.structs import replace

from dutchdoor.choice.advice import Advice, advise
from dutchdoor.choice.comparison import COLUMNS, FACTS, MEASURED, Column, Comparison, Fact
from dutchdoor.choice.comparison_page import markdown
from dutchdoor.choice.estimate import FORMULAS, Estimate, Given, estimate
from dutchdoor.choice.estimate_page import quantity
from dutchdoor.choice.figures import UNITS, Figures, read_figures
from dutchdoor.choice.glossary import WORDS
from dutchdoor.choice.limits import LIMITS, OBJECTIONS
from dutchdoor.choice.questions import QUESTIONS, in_words, read_answers
from dutchdoor.choice.rules import DECISIONS, RULES, SOURCES, seconds
from dutchdoor.model.policy import Mode

__all__ = ["pages"]

RULES_PAGE: Final = "reference/choice-rules.md"
SCHEMA: Final = "reference/choice.schema.json"
ESSAY: Final = "guides/sessions-or-jwts.md"
COMPARISON: Final = "guides/comparison.md"
"""Its figures are in `comparison.json` beside it, as `python -m benchmarks.comparison --json` printed them."""
FIGURES_PAGE: Final = "figures.md"
TEAMS: Final = ("shop", "single-page", "mobile", "serverless", "bank")
COMPARED: Final = Given(users=200_000, sessions_each=2, requests=2000, services=12, nodes=2, database="postgres")
"""The size for which the guide compares the patterns."""


def pages(docs: Path, figures: Figures) -> dict[Path, str]:
    """Return each file that this module writes, as it must be."""
    found = {docs / RULES_PAGE: _rules(), docs / SCHEMA: _schema()}
    for team in TEAMS:
        path = docs / "guides" / f"team-{team}.md"
        found[path] = _with_answer(path.read_text(), figures)
    essay, measured = docs / ESSAY, docs / FIGURES_PAGE
    found[measured] = _between(measured.read_text(), "one of each", _one_of_each(figures))
    compared = docs / COMPARISON
    printed = msgspec.json.decode(compared.with_suffix(".json").read_bytes(), type=Comparison)
    table = markdown(replace(printed, columns=_columns(printed), measured=MEASURED, facts=_facts(printed)), "../..")
    found[compared] = _between(compared.read_text(), "comparison", table)
    found[essay] = _between(essay.read_text(), "figures", _compared(figures))
    return found


def _columns(printed: Comparison) -> tuple[Column, ...]:
    """Return the columns as they are now, and after them those of other systems as they were measured."""
    ours = {each.id for each in COLUMNS}
    return (*COLUMNS, *(each for each in printed.columns if each.id not in ours))


def _facts(printed: Comparison) -> tuple[Fact, ...]:
    cells = {fact.id: fact.cells for fact in printed.facts}
    return tuple(replace(fact, cells={**cells[fact.id], **fact.cells}) for fact in FACTS)


def _between(page: str, name: str, text: str) -> str:
    begin, end = f"<!-- {name}: by python -m dutchdoor.choice.pages docs -->", f"<!-- end of {name} -->"
    before, found, rest = page.partition(begin)
    _, ended, after = rest.partition(end)
    if not found or not ended:
        raise ValueError(f"The page has no {begin} with its {end}.")
    return f"{before}{begin}\n\n{text}\n\n{end}{after}"


# --- a guide ---------------------------------------------------------------------------------------------------------


def _with_answer(page: str, figures: Figures) -> str:
    requirements = re.search(r"^```toml\n(.*?)^```", page, re.MULTILINE | re.DOTALL)
    if requirements is None:
        raise ValueError("The page has no requirements.")
    return _between(page, "answer", _answer(advise(read_answers(tomllib.loads(requirements[1])), figures)))


def _answer(found: Advice) -> str:
    rows = [
        [
            client.client,
            f"`{client.pattern}`",
            client.transport,
            "" if client.access_for_s is None else seconds(client.access_for_s),
            seconds(client.absolute_for_s)
            + ("" if not client.idle_for_s else f", {seconds(client.idle_for_s)} unused"),
        ]
        for client in found.clients
    ]
    within = found.services.logout_within_s
    said = [
        _table(("client", "pattern", "transport", "access token", "signed in for at most"), rows),
        "",
        f"- **Other services:** {found.services.says}.",
        "- **A log-out holds** at the next request"
        + (f" here, and within {seconds(within)} everywhere." if within else "."),
        "",
        "What it cannot do:",
        "",
        *(f"- {limit.says}" for limit in found.limits),
        "",
        "`dutchdoor.toml`:",
        "",
        "```toml",
        found.configuration.rstrip(),
        "```",
    ]
    if found.code:
        said += ["", "The lines of the application:", "", "```py", found.code.rstrip(), "```"]
    return "\n".join(said)


def _compared(figures: Figures) -> str:
    found = estimate(COMPARED, figures)
    modes = get_args(Mode)
    rows = [
        ["processor time of a request", *(quantity(figures.get("request_cpu", mode).value, "s") for mode in modes)],
        ["bytes of a request for the proof", *(quantity(figures.get("sent", mode).value, "B") for mode in modes)],
    ]
    for formula in FORMULAS:
        if formula.patterns:
            cells = [quantity(found.number(formula.id, mode), formula.unit) for mode in modes]
            rows.append([formula.says, *cells])
    stolen = [
        [
            f"{each.secret} ({each.pattern})",
            *map(
                seconds,
                (
                    each.unnoticed_s,
                    each.after_logout_here_s,
                    each.after_logout_at_verifiers_s,
                    each.after_logout_at_keys_s,
                ),
            ),
        ]
        for each in found.exposure
    ]
    given = COMPARED
    size = (
        f"{given.users:,} users who sign in {given.sessions_each} times a month, {given.requests:,} requests a second "
        f"at the busiest time, {given.services} other services, PostgreSQL. Figures {found.figures}."
    )
    return "\n".join(
        [
            size,
            "",
            _table(("", "session", "hybrid", "jwt"), rows, numbers=True),
            "",
            "For how long a stolen secret works, at most:",
            "",
            _table(("", "unnoticed", "after log-out: here", "a `Verifier`", "keys alone"), stolen, numbers=True),
        ]
    )


def _one_of_each(figures: Figures) -> str:
    rows = [
        [
            each.says + ("" if each.subject == "dutchdoor" else f" ({each.subject})"),
            quantity(each.value, each.unit),
            ""
            if each.low is None or each.high is None
            else f"{quantity(each.low, each.unit)} to {quantity(each.high, each.unit)}, {each.rounds}",
        ]
        for each in figures.figures
    ]
    origin = f"{figures.origin[0].upper()}{figures.origin[1:]}."
    return f"{origin}\n\n{_table(('', 'median', 'lowest to highest, rounds'), rows, numbers=True)}"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]], *, numbers: bool = False) -> str:
    line = "|---|" + ("---:|" if numbers else "---|") * (len(head) - 1)
    return "\n".join([f"| {' | '.join(head)} |", line, *(f"| {' | '.join(row)} |" for row in rows)])


# --- the rules -------------------------------------------------------------------------------------------------------

_HEAD: Final = """\
# Rules of the choice

`dutchdoor advise` answers by the tables below. `python -m dutchdoor.choice.pages docs` writes this page from them, and
a test checks that it is current. For each thing that is decided, the first rule that applies decides it.

[Sessions or JWTs?](../guides/sessions-or-jwts.md) is the short answer. `dutchdoor advise --json`,
`dutchdoor estimate --json` and `dutchdoor compare --json` print what [the schema](choice.schema.json) describes."""


def _rules() -> str:
    said = [_HEAD, "", "## Questions", ""]
    said.append(
        _table(
            ("requirement", "question", "why it is asked", "answers", "default", "stronger is"),
            [
                [
                    f"`{question.id}`",
                    question.asks,
                    question.why,
                    "<br>".join(f"`{name}`: {says}" for name, says in question.choices.items())
                    or _KINDS[question.kind],
                    f"`{in_words(question, question.default)}`",
                    question.stronger,
                ]
                for question in QUESTIONS
            ],
        )
    )
    said += [
        "",
        "A stronger answer, all others the same, never gives a configuration that is weaker in its lifetimes,",
        "passwords, factors, cookies, nodes or log-out. Three exceptions are in the nature of the thing:",
        "",
        "- How soon a log-out holds, and how long services go on without the sign-in server, limit each other in every",
        "  system. The log-out wins.",
        "- At the first service that checks by itself, a log-out holds a moment later than at the sign-in server.",
        "- An access token that is checked against the log may live as long as the preset says. One that is not lives",
        "  no longer than a log-out may take.",
        "",
        "## Decisions",
    ]
    for decides, says in DECISIONS.items():
        said += ["", f"### `{decides}`: {says}", ""]
        said.append(
            _table(
                ("rule", "when", "decides", "because", "sources"),
                [
                    [rule.id, rule.when, rule.gives, rule.because, ", ".join(map(_source, rule.sources))]
                    for rule in RULES
                    if rule.decides == decides
                ],
            )
        )
    said += ["", "## What speaks against a pattern", ""]
    said.append(
        _table(
            ("", "pattern", "where", "objection"),
            [
                [each.id, f"`{each.pattern}`", each.when, each.says + (" **Impossible.**" if each.excludes else "")]
                for each in OBJECTIONS
            ],
        )
    )
    said += [
        "",
        "The runner-up is the possible pattern with the fewest objections.",
        "",
        "## What an answer says that it cannot do",
        "",
        _table(("", "when"), [[each.id, each.when] for each in LIMITS]),
        "",
        "## Formulas of `dutchdoor estimate`",
        "",
        _table(
            ("number", "formula", "figures"),
            [[each.says, each.formula, ", ".join(f"`{name}`" for name in each.uses)] for each in FORMULAS],
        ),
        "",
        "The figures are in [`figures.json`](../../src/dutchdoor/choice/figures.json), which\n"
        "`python -m benchmarks.choice` writes. Units are "
        + ", ".join(f"`{unit}` ({says})" for unit, says in UNITS.items())
        + ".",
        "",
        "## Words",
        "",
        _table(("word", "meaning"), [[word, meaning] for word, meaning in WORDS.items()]),
    ]
    return "\n".join(said) + "\n"


_KINDS: Final[Mapping[str, str]] = {
    "count": "a number",
    "duration": "a duration: `15s`, `10m`",
    "url": "an https address",
    "origins": "https addresses",
}


def _source(name: str) -> str:
    title, url = SOURCES[name]
    return f"[{title}]({url})"


def _schema() -> str:
    (advice, estimated, compared, figures), components = msgspec.json.schema_components(
        [Advice, Estimate, Comparison, Figures], ref_template="#/$defs/{name}"
    )
    schema: dict[str, Any] = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "dutchdoor advise --json, estimate --json, compare --json, and a file of figures",
        "description": "Names that end in _s count seconds. null stands for no limit.",
        "anyOf": [advice, estimated, compared, figures],
        "$defs": components,
    }
    return msgspec.json.format(msgspec.json.encode(schema), indent=2).decode() + "\n"


if __name__ == "__main__":
    for path, text in pages(Path(sys.argv[1]), read_figures()).items():
        path.write_text(text)
