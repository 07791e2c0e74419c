"""`dutchdoor estimate`: what a number of users and requests costs, for each pattern."""

from __future__ import annotations

from pathlib import Path
from typing import Any, get_args

import click
from msgspec.structs import replace

from dutchdoor.choice.advice import advise
from dutchdoor.choice.estimate import Database, Estimate, Given, Number, check_bounds, given_by
from dutchdoor.choice.estimate import estimate as calculate
from dutchdoor.choice.estimate_page import page, quantity
from dutchdoor.choice.figures import read_figures
from dutchdoor.choice.questions import BY_ID, read_answer, read_file
from dutchdoor.choice.rules import seconds
from dutchdoor.model.choices import check_choice
from dutchdoor.model.durations import read_duration, short_duration
from dutchdoor.server.html_file import refuse_to_overwrite, write_html
from dutchdoor.server.paper import columns, paragraph, table
from dutchdoor.server.terminal import as_json, heading, print_json, write

__all__ = ["estimate"]

_EXAMPLES = """\
\b
Examples:
  dutchdoor estimate --users 200k --requests 2000
  dutchdoor estimate --users 200k --services 40 --lease 5s --database postgres
  dutchdoor estimate --from requirements.toml --html estimate.html
"""
_NUMBERS = {
    "users": "How many users.",
    "sessions_each": "How often one user signs in within a month, on all devices.",
    "requests": "Requests a second at the busiest time.",
    "services": "Processes of other services that check tokens.",
}
_DURATIONS = {
    "access_for": "Lifetime of an access token.",
    "absolute_for": "After this time a sign-in expires.",
    "lease": "For how long a verifier trusts its copy of the revocation log.",
}


def _inputs(command: Any) -> Any:
    default = Given()
    for name, says in reversed((_NUMBERS | _DURATIONS).items()):
        value = getattr(default, name)
        shown = short_duration(value) if name in _DURATIONS else f"{value:,}"
        command = click.option(
            f"--{name.replace('_', '-')}",
            name,
            metavar="DURATION" if name in _DURATIONS else "NUMBER",
            help=f"{says}  [default: {shown}]",
        )(command)
    return command


@click.command(epilog=_EXAMPLES)
@_inputs
@click.option("--nodes", type=int, help="Machines that run the sign-in server.  [default: 1]")
@click.option("--workers", type=int, help="Processes of each.  [default: 1]")
@click.option("--database", metavar="sqlite|postgres", help="The kind of database.  [default: sqlite]")
@click.option(
    "--from",
    "source",
    metavar="FILE",
    help="Take the numbers from the requirements of `dutchdoor advise`, and its answer.",
)
@click.option("--html", metavar="FILE", help="Write a page that needs nothing else, to be mailed.")
@click.option("--force", is_flag=True, help="Let --html overwrite its file.")
@click.option("--figures", metavar="FILE", help="Use these figures in place of those of the package.")
@as_json
def estimate(
    *, source: str | None, html: str | None, force: bool, figures: str | None, as_json: bool, **numbers: Any
) -> None:
    """Estimate memory, disk, bandwidth and load for each pattern, and for how long a stolen secret works.

    Every formula is shown, with the measured figures that it uses. It connects to nothing.
    """
    if html is not None:
        refuse_to_overwrite(Path(html), force=force)
    measured = read_figures(None if figures is None else Path(figures))
    given = Given()
    if source is not None:
        answers = read_file(Path(source))
        given = given_by(advise(answers, measured), answers)
    found = calculate(replace(given, **dict(_read(numbers))), measured)
    if html is not None:
        write_html(Path(html), page(found), force=force)
    if as_json:
        print_json(found)
    elif html is None:
        _show(found)


def _read(numbers: dict[str, Any]) -> Any:
    for name, typed in numbers.items():
        if typed is None:
            continue
        option = f"--{name.replace('_', '-')}"
        value = typed
        if name in _NUMBERS:
            value = read_answer(BY_ID[name], typed, typed_as=option)
        elif name in _DURATIONS:
            value = read_duration(typed, option)
        if name == "database":
            check_choice(typed, get_args(Database), option)
        else:
            check_bounds(name, value, option)
        yield name, value


def _show(found: Estimate) -> None:
    given = found.given
    nodes = "1 node" if given.nodes == 1 else f"{given.nodes:,} nodes"
    processes = "1 process" if given.workers == 1 else f"{given.workers} processes"
    database = "SQLite" if given.database == "sqlite" else "PostgreSQL"
    lives = f"access token {seconds(given.access_for)}, sign-in {seconds(given.absolute_for)}"
    heading("For")
    columns(
        [
            ("users", f"{given.users:,}, each signs in {given.sessions_each:,} times a month"),
            ("requests", f"{given.requests:,} a second at the busiest time"),
            ("services", f"{given.services:,} that check tokens"),
            ("lifetimes", f"{lives}, lease {seconds(given.lease)}"),
            ("runs on", f"{nodes} with {processes}, {database}"),
        ]
    )
    heading("By pattern")
    rows = [["", "session", "hybrid", "jwt"]]
    alike: list[Number] = []
    by_id: dict[str, list[Number]] = {}
    for each in found.numbers:
        by_id.setdefault(each.id, []).append(each)
    for numbers in by_id.values():
        if len(numbers) == 1:
            alike += numbers
        else:
            rows.append([numbers[0].says, *(quantity(each.value, each.unit) for each in numbers)])
    table(rows)
    heading("The same for each pattern")
    table([[each.says, quantity(each.value, each.unit)] for each in alike])
    heading("A stolen secret works for, at most")
    table(
        [
            ["", "unnoticed", "server", "Verifier", "keys alone"],
            *(
                [
                    f"{each.secret} ({each.pattern})",
                    seconds(each.unnoticed_s),
                    seconds(each.after_logout_here_s),
                    seconds(each.after_logout_at_verifiers_s),
                    seconds(each.after_logout_at_keys_s),
                ]
                for each in found.exposure
            ),
        ]
    )
    paragraph(
        "Unnoticed: no one ends the sign-in. The others count from a log-out: at the sign-in server, at a service "
        "with a Verifier, and at a service that knows the public keys alone.",
        indent=2,
    )
    for stolen in found.exposure:
        paragraph(f"{stolen.secret} ({stolen.pattern}): {stolen.says}", indent=2)
    heading("Formulas")
    columns((numbers[0].says, numbers[0].formula) for numbers in by_id.values())
    heading("Measured")
    paragraph(f"Figures {found.figures}, by {', '.join(sorted({each.by for each in found.constants}))}.", indent=2)
    table(
        [
            [
                each.says + (f" ({each.subject})" if each.subject != "dutchdoor" else ""),
                quantity(each.value, each.unit),
            ]
            for each in found.constants
        ]
    )
    write()
    paragraph("`dutchdoor advise` says which pattern suits you. A node is half busy in these numbers.", indent=2)
