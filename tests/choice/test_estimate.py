"""`dutchdoor estimate`: its numbers are those of real sessions, its formulas are shown, its page needs nothing else."""

from __future__ import annotations

import asyncio
import re
import sqlite3
import time
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace
from tests.running import Run

from dutchdoor.auth import Auth
from dutchdoor.choice.estimate import FORMULAS, STOLEN, Given, estimate
from dutchdoor.choice.estimate_page import page, quantity
from dutchdoor.choice.figures import read_figures
from dutchdoor.errors import Misconfigured
from dutchdoor.model.http_client import Client
from dutchdoor.model.policy import DAY
from dutchdoor.model.principal import Verified

FIGURES = read_figures()
SESSIONS = 2000
WITHIN = 1.5
"""A prediction may be this many times as large or as small as what was measured: a page of SQLite is 4 KiB."""


async def sign_in(path: Path) -> None:
    async with Auth(f"sqlite:///{path}", master_key=str(path.with_suffix(".keys"))) as auth:
        accounts = [await auth.authority.provide(f"user{number}") for number in range(SESSIONS // 4)]
        for first in range(0, SESSIONS, 500):
            await asyncio.gather(
                *(
                    auth.authority.start(
                        Verified(subject=account.subject, epoch=account.epoch, amr=("pwd",), at=time.time()),
                        mode="hybrid",
                        client=Client(address="203.0.113.7", country="NL"),
                    )
                    for account in (accounts[number % len(accounts)] for number in range(first, first + 500))
                )
            )


def table_bytes(path: Path, table: str) -> int:
    connection = sqlite3.connect(path)
    try:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        names = "SELECT name FROM sqlite_schema WHERE tbl_name = ?"
        found: int = connection.execute(f"SELECT sum(pgsize) FROM dbstat WHERE name IN ({names})", (table,)).fetchone()[
            0
        ]
    except sqlite3.OperationalError:
        pytest.skip("this SQLite does not count the pages of a table")
    finally:
        connection.close()
    return found


def test_the_disk_of_2000_sign_ins_is_as_predicted(tmp_path: Path) -> None:
    """2,000 real sign-ins take as many bytes on SQLite as is predicted, within a factor of 1.5: rows and events."""
    asyncio.run(sign_in(tmp_path / "door.db"))
    found = estimate(Given(users=SESSIONS // 4, sessions_each=4, absolute_for=30 * DAY), FIGURES)
    for number, table in (("disk_sessions", "sessions"), ("disk_events", "events")):
        predicted = found.number(number, "hybrid" if number == "disk_sessions" else "")
        if table == "events":
            predicted *= 30 / 365  # one month of a year
        measured = table_bytes(tmp_path / "door.db", table)
        assert measured / WITHIN < predicted < measured * WITHIN, (table, measured, predicted)


def test_a_jwt_stores_nothing() -> None:
    """Where no session is stored, there are no rows, and a request writes nothing."""
    found = estimate(Given(users=10**6, requests=1000), FIGURES)
    assert found.number("rows", "jwt") == 0
    assert found.number("disk_sessions", "jwt") == 0
    assert found.number("writes", "jwt") == pytest.approx(found.given.log_ins, rel=0.01)
    assert found.number("rows", "hybrid") == found.number("rows", "session") == 2_000_000


@given(
    st.builds(
        Given,
        users=st.integers(1, 10**9),
        sessions_each=st.integers(1, 1000),
        requests=st.integers(0, 10**6),
        services=st.integers(0, 10**5),
        access_for=st.floats(60, 3600),
        absolute_for=st.floats(3600, 90 * DAY),
        lease=st.floats(1, 300),
        workers=st.integers(1, 16),
        database=st.sampled_from(["sqlite", "postgres"]),
    )
)
def test_more_costs_no_less(smaller: Given) -> None:
    """No number of a larger size is smaller, but how many verifiers fit; and nothing is negative or infinite."""
    larger = replace(smaller, users=2 * smaller.users, requests=2 * smaller.requests, services=2 * smaller.services)
    if bool(larger.services) != bool(smaller.services):
        return
    before, after = estimate(smaller, FIGURES), estimate(larger, FIGURES)
    for less, more in zip(before.numbers, after.numbers, strict=True):
        assert 0 <= less.value < float("inf")
        assert more.value >= less.value * 0.999
    page(after)


def test_a_log_out_shortens_what_a_thief_has() -> None:
    """A stolen secret never works longer after a log-out than before it, and never at the sign-in server."""
    for each in estimate(Given(services=3, access_for=60, lease=300), FIGURES).exposure:
        assert each.after_logout_here_s == 0
        assert each.after_logout_at_verifiers_s <= each.unnoticed_s
        assert each.after_logout_at_keys_s <= each.unnoticed_s


def test_a_number_out_of_bounds_is_refused() -> None:
    """A number that no system has is refused with what is allowed, before anything is calculated."""
    with pytest.raises(Misconfigured, match="users: write a number from 1 to 10,000,000,000"):
        Given(users=0)
    with pytest.raises(Misconfigured, match="lease: write 1s to 5m"):
        Given(lease=0.5)


# --- the command -----------------------------------------------------------------------------------------------------


def test_it_shows_numbers_formulas_and_figures(run: Run) -> None:
    """The answer has each number, its formula, each measured figure and where it is from, in 80 columns."""
    ran = run("estimate", "--users", "200k", "--requests", "2,000", "--services", "40")
    said = " ".join(ran.out.split())
    assert ran.code == 0
    assert "200,000, each signs in 2 times a month" in said
    for each in FORMULAS:
        assert each.formula in said
        assert each.says in said
    for constant in estimate(Given(), FIGURES).constants:
        assert constant.says in said
    assert FIGURES.origin in said
    for each in STOLEN:
        assert f"{each.secret} ({each.pattern})" in said
    assert [line for line in ran.out.splitlines() if len(line) > 80] == []
    assert "\x1b" not in ran.out


def test_it_takes_the_numbers_of_an_answer(run: Run) -> None:
    """--from takes the requirements of `advise`, and an option beside it is the stronger one."""
    Path("requirements.toml").write_text(
        'clients = ["mobile"]\nservices = 9\nusers = 5000\nassurance = "high"\nrun_by = "team"'
    )
    given = run("estimate", "--from", "requirements.toml", "--users", "77", "--json").json["given"]
    assert (given["users"], given["services"], given["access_for"], given["absolute_for"]) == (77, 9, 300.0, 43200.0)
    assert (given["database"], given["nodes"]) == ("postgres", 3)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--users", "many"), "--users: write a whole number"),
        (("--sessions-each", "0"), "--sessions-each: write a number from 1 to 1,000"),
        (("--lease", "soon"), "--lease must be a duration such as 90s"),
        (("--lease", "10m"), "--lease: write 1s to 5m"),
        (("--access-for", "2h"), "--access-for: write 1s to 1h"),
        (("--database", "oracle"), '--database is "sqlite" or "postgres", and not \'oracle\''),
        (("--workers", "0"), "--workers: write a number from 1 to 256"),
        (("--from", "nowhere.toml"), "nowhere.toml cannot be read"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_mistake_says_the_fix(run: Run, arguments: tuple[str, ...], says: str) -> None:
    """Each wrong argument is refused by its name, with what to write."""
    ran = run("estimate", *arguments)
    assert ran.code == 2
    assert says in ran.err
    assert "Traceback" not in ran.err


class Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.names: list[str] = []
        self.links: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.links += [value or "" for name, value in attrs if name in {"src", "href"} or name.startswith("on")]


def test_the_page_needs_nothing_else(run: Run) -> None:
    """--html writes one file without a script, a link or a picture from elsewhere, with every number and formula."""
    ran = run("estimate", "--users", "200k", "--html", "estimate.html")
    assert ran.code == 0
    assert "Wrote estimate.html." in ran.err
    text = Path("estimate.html").read_text()
    tags = Tags()
    tags.feed(text)
    assert "script" not in tags.names
    assert tags.links == []
    assert "default-src 'none'" in text
    assert tags.names.count("svg") == len(FORMULAS) + len(STOLEN)
    assert text.count('role="img" aria-label="') == len(FORMULAS) + len(STOLEN)
    for number in estimate(Given(users=200_000), FIGURES).numbers:
        assert quantity(number.value, number.unit) in text
    again = run("estimate", "--html", "estimate.html")
    assert again.code == 2
    assert "--force overwrites it" in again.err
    assert run("estimate", "--html", "estimate.html", "--force").code == 0
    assert "no directory" in run("estimate", "--html", "none/estimate.html").err


def test_a_page_escapes_what_it_shows() -> None:
    """A file of figures from elsewhere puts no markup into the page."""
    evil = replace(FIGURES, machine=replace(FIGURES.machine, processor="<script>alert(1)</script>"))
    text = page(estimate(Given(), evil))
    assert "<script>" not in text
    assert "&lt;script&gt;" in text


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (0, "B", "0 B"), (999, "B", "999 B"), (1234, "B", "1.23 kB"), (5e9, "B", "5 GB"), (1500, "B/s", "1.5 kB/s"),
        (7.6e-5, "s", "76 µs"), (0.021, "s", "21 ms"), (2, "s", "2 s"), (1234567, "rows", "1,234,567"),
        (0.35, "1/s", "0.35 a second"),
    ],
    ids=str,
)  # fmt: skip
def test_quantities_are_written_for_people(value: float, unit: str, text: str) -> None:
    """A number has three digits and the unit that fits it."""
    assert quantity(value, unit) == text


def test_examples_can_be_typed(run: Run) -> None:
    """The examples in --help are accepted."""
    Path("requirements.toml").write_text("")
    for name in ("advise", "estimate"):
        for line in re.findall(rf"^ +dutchdoor {name} (.*)$", run(name, "--help").out, re.MULTILINE):
            words = [word for word in re.split(r"  +", line)[0].split() if word]
            if "--from" in words or name == "estimate":
                assert run(name, *words).code == 0, line
