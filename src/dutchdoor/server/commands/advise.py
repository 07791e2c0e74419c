"""`dutchdoor advise`: ask what a team needs, and answer with a pattern for each client and a configuration."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import click
from msgspec.structs import replace

from dutchdoor.choice.advice import Advice, ForClient, Weighed
from dutchdoor.choice.advice import advise as answer
from dutchdoor.choice.figures import read_figures
from dutchdoor.choice.glossary import WORDS, words_in
from dutchdoor.choice.questions import (
    BY_ID,
    QUESTIONS,
    Answers,
    Question,
    as_toml,
    in_words,
    read_answer,
    read_file,
)
from dutchdoor.choice.rules import seconds
from dutchdoor.errors import Misconfigured
from dutchdoor.server.paper import columns, items, paragraph, table
from dutchdoor.server.terminal import as_json, heading, print_json, say, write

__all__ = ["advise"]

CONFIGURATION, REQUIREMENTS = "dutchdoor.toml", "requirements.toml"

_EXAMPLES = """\
\b
Examples:
  dutchdoor advise                          asks some ten questions
  dutchdoor advise --write .                and writes dutchdoor.toml
  dutchdoor advise --from requirements.toml --explain
  dutchdoor advise --from requirements.toml --framework fastapi --json
"""


@click.command(epilog=_EXAMPLES)
@click.option(
    "--from",
    "source",
    metavar="FILE",
    help=f"Read the answers from this TOML file. An empty file has the default of each question; {REQUIREMENTS} of "
    "--write is such a file.",
)
@click.option(
    "--framework",
    metavar="|".join(BY_ID["framework"].choices),
    help="The framework of your application: the answer has its lines of code.",
)
@click.option(
    "-o",
    "--write",
    "folder",
    metavar="DIR",
    help=f"Write {CONFIGURATION} there, and {REQUIREMENTS} with the answers to the questions.",
)
@click.option("--force", is_flag=True, help="Let --write overwrite these files.")
@click.option("--explain", is_flag=True, help="Say each rule with its reason and sources, and explain each word.")
@click.option("--figures", metavar="FILE", help="Use these figures in place of those of the package.")
@as_json
def advise(
    *,
    source: str | None,
    framework: str | None,
    folder: str | None,
    force: bool,
    explain: bool,
    figures: str | None,
    as_json: bool,
) -> None:
    """Sessions, JWTs or both? Answer some ten questions, and get a pattern for each client, with reasons and prices.

    It connects to nothing. Press Return for a default, and ? for the words of a question.
    """
    measured = read_figures(None if figures is None else Path(figures))
    if folder is not None:
        _refuse_to_overwrite(Path(folder), _files(source), force=force)
    given = (
        {} if framework is None else {"framework": read_answer(BY_ID["framework"], framework, typed_as="--framework")}
    )
    answers = replace(_ask(given) if source is None else read_file(Path(source)), **given)
    found = answer(answers, measured)
    if folder is not None:
        texts = {CONFIGURATION: found.configuration, REQUIREMENTS: as_toml(answers)}
        _write(Path(folder), {name: texts[name] for name in _files(source)})
    if as_json:
        print_json(found)
    else:
        _show(found, answers, explain=explain, written=folder is not None)


# --- asking ----------------------------------------------------------------------------------------------------------


def _ask(given: dict[str, Any]) -> Answers:
    if not sys.stdin.isatty():
        raise Misconfigured(
            "There is no terminal to ask questions on. Give the answers in a file: --from requirements.toml. In an "
            "empty file each question has its default."
        )
    answers = Answers(**given)
    number = 0
    try:
        say("Some ten questions. Return takes the default in brackets, ? explains words.")
        for question in QUESTIONS:
            if question.id in given or not question.is_asked(answers):
                continue
            number += 1
            answers = replace(answers, **{question.id: _ask_one(question, number)})
    except click.Abort:  # Ctrl-C, or the end of the input
        say("")
        raise click.ClickException("stopped, and nothing was written.") from None
    return answers


def _ask_one(question: Question, number: int) -> Any:
    heading(f"{number}. {question.asks}", err=True)
    paragraph(question.why, indent=3, err=True)
    columns(
        ((f"{place}  {name}", says) for place, (name, says) in enumerate(question.choices.items(), 1)),
        indent=5,
        err=True,
    )
    hint = {
        "several": "one or several, by number or name",
        "one": "one, by number or name",
        "count": "a number",
        "duration": "a duration: 0s, 15s, 10m, 1h",
        "url": "an https address",
        "origins": "https addresses, or none",
    }[question.kind]
    label = f"   {hint} [{in_words(question, question.default)}]"
    while True:
        typed = click.prompt(label, default="", show_default=False, err=True).strip()
        if not typed:
            return question.default
        if typed == "?":
            text = f"{question.asks} {question.why} {' '.join(question.choices.values())} {' '.join(question.choices)}"
            columns(words_in(text).items() or [("?", "This question has no word that needs an explanation.")], err=True)
            continue
        try:
            return read_answer(question, typed, typed_as="")
        except Misconfigured as exc:
            text = str(exc)
            paragraph(text[0].upper() + text[1:], first="! ", indent=3, err=True)


# --- writing ---------------------------------------------------------------------------------------------------------


def _files(source: str | None) -> tuple[str, ...]:
    """The files to write. Who gave the requirements in a file has that one."""
    return (CONFIGURATION, REQUIREMENTS) if source is None else (CONFIGURATION,)


def _refuse_to_overwrite(folder: Path, names: tuple[str, ...], *, force: bool) -> None:
    """Raise `Misconfigured` before a question is asked, if the files could not be written after the last one."""
    if not folder.is_dir():
        raise Misconfigured(f"--write: there is no directory {folder}. Create it first.")
    there = [name for name in names if (folder / name).exists()]
    if there and not force:
        what = (
            "is there already. --force overwrites it"
            if len(there) == 1
            else "are there already. --force overwrites them"
        )
        raise Misconfigured(f"--write: {' and '.join(there)} {what}.")


def _write(folder: Path, texts: dict[str, str]) -> None:
    for name, text in texts.items():
        # Not writable by others, whatever the umask: who can change the file chooses the settings.
        with os.fdopen(os.open(folder / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o644), "w") as file:
            file.write(text)
        say(f"Wrote {folder / name}.")


# --- showing ---------------------------------------------------------------------------------------------------------


def _show(found: Advice, answers: Answers, *, explain: bool, written: bool) -> None:
    reasons = {reason.decides: reason for reason in found.reasons}
    heading("For your clients")
    for client in found.clients:
        _show_client(client, reasons)
    heading("For the whole")
    _show_deployment(found, answers)
    heading("What was weighed")
    _show_weighed(found)
    heading("What this choice cannot do")
    items(f"{limit.says} [{limit.rule}]" if explain else limit.says for limit in found.limits)
    if explain:
        heading("Each decision, with its rule")
        for reason in found.reasons:
            paragraph(f"{reason.decides}: {reason.value}", first=f"{reason.rule}  ".ljust(5), indent=2)
            paragraph(f"{reason.because} ({'; '.join(reason.sources)})", indent=7)
    if found.code:
        heading(f"Your code ({BY_ID['framework'].choices[answers.framework]})")
        for line in found.code.splitlines():
            write(f"    {line}".rstrip())
    if not written:
        heading(CONFIGURATION)
        for line in found.configuration.splitlines():
            write(f"    {line}".rstrip())
    heading("What to do next")
    items([*([] if written else ["dutchdoor advise --write . writes this file."]), *found.steps], numbered=True)
    heading("Words")
    columns((WORDS if explain else found.words).items())
    if not explain:
        paragraph("--explain says each rule with its sources, and explains more words.", indent=2)


def _show_client(client: ForClient, reasons: dict[str, Any]) -> None:
    write()
    paragraph(f"{client.client}: {client.says}", indent=2)
    how = {"cookie": "in a cookie", "body": "in the body of the answer"}[client.transport]
    lasts = f"{seconds(client.absolute_for_s)} at most"
    lasts += ": until the token expires" if not client.idle_for_s else f", {seconds(client.idle_for_s)} without use"
    pairs = [
        ("pattern", client.pattern),
        ("transport", how),
        *([] if client.client == "pages" else [("asks for it", f'"mode": "{client.pattern}" at POST /auth/login')]),
        ("signed in for", lasts),
        *([] if client.access_for_s is None else [("access token", f"valid for {seconds(client.access_for_s)}")]),
        ("because", reasons[f"pattern of {client.client}"].because),
    ]
    columns(pairs, indent=4)


def _show_deployment(found: Advice, answers: Answers) -> None:
    services = found.services
    pairs = [("services", services.says)] if answers.services else []
    within = seconds(services.logout_within_s)
    holds = (
        "at once: at the next request"
        if not services.logout_within_s
        else f"at once here, and within {within} at most everywhere"
    )
    pairs.append(("a log-out holds", holds))
    if answers.services:
        least, most = services.outlasts_at_least_s, services.outlasts_at_most_s
        goes_on = "until their tokens expire" if least is None or most is None else f"for {least:g} to {most:g} s"
        pairs.append(("without the sign-in server", f"services go on {goes_on}" if most != 0 else "services stop"))
    nodes = "1 node" if found.nodes == 1 else f"{found.nodes} nodes"
    each = "" if found.nodes == 1 else " each"
    database = "SQLite" if str(found.settings["database"]).startswith("sqlite") else "PostgreSQL"
    workers = found.settings.get("workers", 1)
    pairs.append(("runs on", f"{nodes} with {workers} process{'' if workers == 1 else 'es'}{each}, and {database}"))
    pairs.append(("second factor", str(found.settings["second_factor"])))
    pairs.append(("passwords", f"{found.settings['password_minimum']} characters or more"))
    columns(pairs)


def _show_weighed(found: Advice) -> None:
    paragraph(f"Figures {found.figures}.", indent=2)
    alike: dict[tuple[str, tuple[Weighed, ...], str], list[str]] = {}
    for client in found.clients:
        alike.setdefault((client.pattern, client.weighed, client.runner_up_costs), []).append(client.client)
    runner_up: dict[str, str | None] = {client.client: client.runner_up for client in found.clients}
    for (chosen, weighed, costs_more), clients in alike.items():
        costs = [each.costs for each in weighed]
        write()
        paragraph(", ".join(clients), indent=2)
        table(
            [
                ["", *(_marked(each, chosen) for each in weighed)],
                ["bytes of each request", *(f"{each.sent_bytes:,.0f}" for each in costs)],
                ["processor time of it, µs", *(f"{each.request_cpu_s * 1e6:,.0f}" for each in costs)],
                ["bytes stored for a sign-in", *(f"{each.stored_bytes:,.0f}" for each in costs)],
                ["signs in again after", *(seconds(each.signs_in_again_after_s) for each in costs)],
                [
                    "log-out holds within",
                    *(seconds(each.logout_within_s) if each.logout_within_s else "at once" for each in costs),
                ],
                ["owner can end it alone", *("yes" if each.listed else "no" for each in costs)],
            ]
        )
        second = runner_up[clients[0]]
        paragraph((f"Runner-up: {second}. " if second else "") + costs_more, indent=2)
    write()
    excluded = any(not each.possible for client in found.clients for each in client.weighed)
    paragraph("* chosen" + (", () cannot work there" if excluded else ""), indent=2)


def _marked(weighed: Weighed, chosen: str) -> str:
    if weighed.pattern == chosen:
        return f"{weighed.pattern} *"
    return weighed.pattern if weighed.possible else f"({weighed.pattern})"
