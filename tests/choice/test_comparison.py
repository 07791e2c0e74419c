"""`dutchdoor compare`: each row is measured in one run, or is a fact with a test. Nothing of a run is left behind."""

from __future__ import annotations

import json
import logging
import re
import signal
import subprocess
import sys
import tempfile
import time
from html.parser import HTMLParser
from pathlib import Path

import jsonschema_rs
import msgspec
import pytest
from msgspec.structs import replace
from tests.running import Run

from dutchdoor.choice.comparison import COLUMNS, FACTS, MEASURED, Comparison, cell, shown, spread, together, words
from dutchdoor.choice.comparison_page import page
from dutchdoor.choice.figures import PACKAGED, Figure, Figures, read_figures
from dutchdoor.choice.glossary import WORDS
from dutchdoor.choice.measuring import Plan, measure
from dutchdoor.choice.plain_jwt import LIFETIME, PlainJwt
from dutchdoor.server.commands import compare

ROOT = Path(__file__).parents[2]
HEARD: list[str] = []
"""What the verifiers of the run wrote into the log."""
TINY = Plan(rounds=1, sign_ins=64, requests=128, outages=1, lease=2.0)
BY_HAND = ("by-hand-jwt", "by-hand-session")
TABLE = ROOT / "docs" / "guides" / "comparison.json"


@pytest.fixture(scope="module")
def found() -> Comparison:
    """A real run with tiny numbers."""
    (listener := logging.Handler()).emit = lambda record: HEARD.append(record.getMessage())  # type: ignore[method-assign]
    (log := logging.getLogger("dutchdoor.verifier")).addHandler(listener)
    try:
        return measure(TINY, lambda _says, _share: None)
    finally:
        log.removeHandler(listener)


def value(found: Figures, row: str, column: str) -> float:
    return found.get(row, column).value


def test_each_row_is_measured_in_each_column(found: Comparison) -> None:
    """One run gives a figure for each row and column, between its lowest and highest round, by the command."""
    for row in MEASURED:
        for column in COLUMNS:
            of = cell(found, row, column)
            assert of is not None, (row.id, column.id)
            assert of.low is not None
            assert of.high is not None
            assert 0 <= of.low <= of.value <= of.high
            assert of.by == "dutchdoor compare"


def test_what_each_pattern_stores(found: Comparison) -> None:
    """A session and a hybrid sign-in store a row of some hundred bytes, a JWT none."""
    million = {column.id: value(found, "stored", column.id) for column in COLUMNS}
    assert million["plain"] == million["jwt"] == 0
    for column in ("session", "hybrid", "hybrid-cookie"):
        assert 100e6 < million[column] < 2000e6


def test_a_log_out_is_measured_where_it_ends(found: Comparison) -> None:
    """Behind a fence a token ends in seconds, a plain one with its life. An outage is survived for part of a lease."""
    for column in ("session", "jwt", "hybrid", "hybrid-cookie"):
        assert 0 < value(found, "log-out", column) < 20
    assert value(found, "log-out", "plain") == value(found, "outage", "plain") == LIFETIME
    for column in ("jwt", "hybrid", "hybrid-cookie"):
        assert 0.1 < value(found, "outage", column) < TINY.lease + 10
    assert value(found, "outage", "session") < 10


def test_an_outage_that_is_meant_is_no_warning(found: Comparison) -> None:
    """The run kills its own server. A warning about it among the results would look like a fault."""
    assert found.figures
    assert HEARD == []


def test_nothing_ends_a_plain_token() -> None:
    """A plain JWT is accepted until it expires, whatever its owner did meanwhile, and refused then or when forged."""
    plain = PlainJwt()
    token = plain.issue("ada", 1000.0)
    assert plain.check(token, 1000.0 + LIFETIME - 1)["sub"] == "ada"
    with pytest.raises(ValueError, match="expired"):
        plain.check(token, 1000.0 + LIFETIME)
    with pytest.raises(ValueError, match="signature"):
        PlainJwt().check(token, 1000.0)


def test_who_checks_a_plain_token_can_make_one() -> None:
    """The object that a service needs to check plain tokens issues them as well: the secret is the same."""
    service = PlainJwt()
    assert service.check(service.issue("the administrator", 1000.0), 1001.0)["sub"] == "the administrator"


# --- facts -----------------------------------------------------------------------------------------------------------


def test_each_fact_has_its_columns_and_its_tests() -> None:
    """Each fact says something of each pattern, and each test that it names is there."""
    for fact in FACTS:
        assert {*fact.cells} == {column.id for column in COLUMNS}, fact.id
        assert all(fact.cells.values())
        assert fact.tests
        for test in fact.tests:
            path, _, name = test.partition("::")
            assert re.search(rf"^(async )?def {name}\(", (ROOT / path).read_text(), re.MULTILINE), test


def test_the_rows_that_such_tables_have_are_there() -> None:
    """Each row of the table that articles copy is measured or a fact, and is so once."""
    ids = [each.id for each in (*MEASURED, *FACTS)]
    assert len(set(ids)) == len(ids)
    assert {*ids} >= {
        "state", "stored", "revocation", "log-out", "horizontal", "stateless", "sent", "first-1", "first-64", "outage",
        "cross-origin", "csrf", "xss", "mobile", "services", "wrong",
    }  # fmt: skip


def test_the_table_of_the_documentation_is_a_run_of_the_command() -> None:
    """The page is made from what one run printed, with these rows, and with what people build by hand beside them."""
    printed = msgspec.json.decode(TABLE.read_bytes(), type=Comparison)
    assert printed.machine.processor
    assert {column.id for column in printed.columns} >= {*(each.id for each in COLUMNS), *BY_HAND}
    assert all(cell(printed, row, column) for row in MEASURED for column in printed.columns)
    assert all({*fact.cells} == {column.id for column in printed.columns} for fact in printed.facts)
    assert printed.lease_s == 10.0


# --- the command -----------------------------------------------------------------------------------------------------


@pytest.fixture
def measured(found: Comparison, monkeypatch: pytest.MonkeyPatch) -> Comparison:
    """The command gives the run above, so that each test need not measure."""
    monkeypatch.setattr(compare, "measure", lambda _plan, _progress: found)
    return found


def test_it_shows_rows_facts_and_words_in_80_columns(run: Run, measured: Comparison) -> None:
    """The table has each row, each fact, each figure and where it is from, plain and in 80 columns."""
    ran = run("compare")
    said = " ".join(ran.out.split())
    assert ran.code == 0
    assert ran.err == ""  # no terminal, no progress
    for row in MEASURED:
        assert row.says in said
        assert row.how in said
        for column in COLUMNS:
            of = cell(measured, row, column)
            assert of is not None
            assert shown(of.value, of.unit) in said
    for fact in FACTS:
        assert all(text in said for text in fact.cells.values())
        assert all(test.partition("::")[0] in said for test in fact.tests)
    assert measured.origin in said
    assert {*words(measured)} >= {"CSRF", "XSS", "HS256", "fence", "lease", "look-up", "median", "Verifier"}
    assert all(WORDS[word] in said for word in words(measured))
    assert [line for line in ran.out.splitlines() if len(line) > 80] == []
    assert "\x1b" not in ran.out


def test_progress_is_for_a_terminal_alone(run: Run, found: Comparison, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal one line says what is measured, and is gone at the end; the result is untouched."""

    def measuring(_plan: Plan, progress: object) -> Comparison:
        assert callable(progress)
        progress("round 1 of 7", 0.25)
        return found

    monkeypatch.setattr(compare, "measure", measuring)
    monkeypatch.setattr("dutchdoor.server.commands.compare.is_screen", lambda **_: True)
    ran = run("compare", "--json")
    assert " 25%  round 1 of 7" in ran.err
    assert ran.err.endswith("\r")
    assert ran.err.rsplit("\r", 2)[1].isspace()
    assert "\x1b" not in ran.out


def test_json_is_a_file_of_figures(run: Run, measured: Comparison, tmp_path: Path) -> None:
    """--json is as the schema says, and `advise` and `estimate` calculate with it, and name what it did not have."""
    printed = run("compare", "--json").out
    schema = json.loads((ROOT / "docs" / "reference" / "choice.schema.json").read_text())
    jsonschema_rs.Draft202012Validator(schema).validate(json.loads(printed))
    path = tmp_path / "figures.json"
    path.write_text(printed)
    read = read_figures(path)
    assert read["row_sqlite"] == measured["row_sqlite"]
    assert read["row_postgres"] == read_figures(PACKAGED)["row_postgres"]
    assert read.get("sent", "session").value == value(measured, "sent", "session")
    assert "what is not among them, measured on" in read.origin
    if Path("/proc/self/schedstat").is_file():
        for name, subject in (("request_cpu", "jwt"), ("refresh_cpu", "dutchdoor"), ("login_cpu", "dutchdoor")):
            assert read.get(name, subject).by == "dutchdoor compare"
            assert 1e-6 < read.get(name, subject).value < 1
    (tmp_path / "requirements.toml").write_text("")
    assert run("advise", "--from", "requirements.toml", "--figures", str(path)).code == 0
    assert "what is not among them" in " ".join(run("estimate", "--figures", str(path)).out.split())


class Tags(HTMLParser):
    """The elements of a page: each that must be closed is closed, in order."""

    EMPTY = ("meta", "rect", "line")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.names: list[str] = []
        self.open: list[str] = []
        self.from_elsewhere: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.from_elsewhere += [name for name, _ in attrs if name in {"src", "href"} or name.startswith("on")]
        if tag not in self.EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.names.append(tag)
        self.from_elsewhere += [name for name, _ in attrs if name in {"src", "href"}]

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_file_needs_nothing_else(run: Run, measured: Comparison) -> None:
    """--html writes one valid file without a script or anything from elsewhere, for light and dark, with each row."""
    ran = run("compare", "--html", "table.html")
    assert ran.code == 0
    assert "Wrote table.html." in ran.err
    text = Path("table.html").read_text()
    tags = Tags(text)
    assert "script" not in tags.names
    assert tags.from_elsewhere == []
    assert "default-src 'none'" in text
    assert "color-scheme: light dark" in text
    assert tags.names.count("svg") == text.count('role="img" aria-label="') == len(MEASURED)
    assert tags.names.count("table") == 1
    assert tags.names.count("rect") == len(MEASURED) * len(COLUMNS)
    widths = [float(width) for width in re.findall(r'<rect [^>]*width="([\d.]+)"', text)]
    assert 0 <= min(widths) <= max(widths) <= 150
    assert all(test in text for fact in FACTS for test in fact.tests)
    evil = replace(measured, machine=replace(measured.machine, processor="<script>alert(1)</script>"))
    assert "<script>" not in page(evil)


def test_a_file_that_is_there_is_named_before_anything_is_measured(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two minutes are not spent on a result that cannot be written."""
    monkeypatch.setattr(compare, "measure", lambda _plan, _progress: pytest.fail("it measures"))
    Path("table.html").write_text("mine")
    ran = run("compare", "--html", "table.html")
    assert (ran.code, Path("table.html").read_text()) == (2, "mine")
    assert "--force overwrites it" in ran.err
    assert "no directory" in run("compare", "--html", "none/table.html").err


@pytest.mark.parametrize(
    ("low", "high", "unit", "text"),
    [
        (1, 1, "s", ""),
        (0, 0.002, "s", "0-2 ms"),
        (0.001, 0.002, "s", "1-2 ms"),
        (0.0005, 0.002, "s", "500 µs-2 ms"),
        (7, 1500, "B", "7 B-1.5 kB"),
    ],
    ids=str,
)
def test_a_spread_is_short(low: float, high: float, unit: str, text: str) -> None:
    """The lowest and the highest round share their unit where they can, and say nothing where they are alike."""
    of = msgspec.convert(
        {"name": "x", "value": low, "low": low, "high": high, "unit": unit, "says": "x", "by": "x"}, type=Figure
    )
    assert spread(of) == text


def test_cells_that_are_alike_are_said_once() -> None:
    """A fact names patterns together of which it says the same."""
    mobile = next(fact for fact in FACTS if fact.id == "mobile")
    assert (["plain JWT", "JWT with fence"], "works; the user signs in again when it expires") in together(
        mobile, COLUMNS
    )


@pytest.mark.long
def test_what_people_build_by_hand_is_measured_beside_it() -> None:
    """The table with two more columns has a figure and a fact in each row of them, from the same run."""
    ran = subprocess.run(
        [sys.executable, "-m", "benchmarks.comparison", "--quick", "--json"],
        cwd=ROOT, capture_output=True, text=True, check=True, timeout=280,
    )  # fmt: skip
    printed = msgspec.json.decode(ran.stdout, type=Comparison)
    assert [column.id for column in printed.columns] == [*(column.id for column in COLUMNS), *BY_HAND]
    assert all(cell(printed, row, column) for row in MEASURED for column in printed.columns)
    assert all(fact.cells[column] for fact in printed.facts for column in BY_HAND)


def children(pid: int) -> list[int]:
    found = Path(f"/proc/{pid}/task/{pid}/children")
    return [int(child) for child in found.read_text().split()] if found.is_file() else []


def is_alive(pid: int) -> bool:
    state = Path(f"/proc/{pid}/stat")
    return state.is_file() and state.read_text().rpartition(")")[2].split()[0] != "Z"


@pytest.mark.long
@pytest.mark.skipif(not Path("/proc/self/task").is_dir(), reason="the children of a process are read from /proc")
@pytest.mark.parametrize("by", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_ctrl_c_leaves_nothing_behind(by: signal.Signals, tmp_path: Path) -> None:
    """A run that is stopped ends its server and deletes its files: by Ctrl-C, an order to end, or a closed terminal."""
    process = subprocess.Popen(
        [sys.executable, "-m", "dutchdoor.server", "compare"],
        env={"PATH": "/usr/bin:/bin", "TMPDIR": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    until = time.monotonic() + 60
    while not (servers := children(process.pid)) or not list(tmp_path.glob("dutchdoor-compare-*/0")):
        assert time.monotonic() < until, "no server was started"
        time.sleep(0.02)
    process.send_signal(by)
    out, err = process.communicate(timeout=60)
    assert process.returncode != 0
    assert out == ""
    assert "Traceback" not in err
    assert [pid for pid in servers if is_alive(pid)] == []
    assert list(tmp_path.iterdir()) == []
    assert tempfile.gettempdir() != str(tmp_path)


@pytest.mark.long
@pytest.mark.timeout(600)
def test_two_runs_differ_by_less_than_their_spread() -> None:
    """Of each row and column, the medians of two runs differ by no more than the lowest and the highest of either.

    That holds as long as the machine is as busy. What else runs beside the tests begins and ends as it likes, so a cell
    is wrong only if it is wrong each time.
    """
    plan = Plan(rounds=7, sign_ins=400, requests=256, outages=2, lease=2.0)
    wrong = {(row.id, column.id) for row in MEASURED for column in COLUMNS}
    for _ in range(3):
        pair = [measure(plan, lambda _says, _share: None) for _ in range(2)]
        wrong &= _further_apart_than_their_spread(*pair)
        if not wrong:
            break
    assert wrong == set()


def _further_apart_than_their_spread(once: Comparison, again: Comparison) -> set[tuple[str, str]]:
    found = set()
    for row in MEASURED:
        for column in COLUMNS:
            two = [each for each in (cell(run, row, column) for run in (once, again)) if each is not None]
            assert len(two) == 2
            most = max((each.high or 0) - (each.low or 0) for each in two)
            if abs(two[0].value - two[1].value) > most:
                found.add((row.id, column.id))
    return found


@pytest.mark.long
def test_an_outage_is_measured_from_both_sides() -> None:
    """The lowest of an outage is the last check that was accepted: a session had none after the server was killed.

    The polls of the verifiers are out of step, so that one outage meets them at moments a part of a poll apart.
    """
    measured = measure(Plan(rounds=1, sign_ins=16, requests=64, outages=1, lease=2.0), lambda _says, _share: None)
    row = next(each for each in MEASURED if each.id == "outage")
    session, jwt = (
        cell(measured, row, next(each for each in COLUMNS if each.id == name)) for name in ("session", "jwt")
    )
    assert session is not None
    assert session.low == 0
    assert session.value > 0
    assert jwt is not None
    assert jwt.rounds == 3
    assert jwt.low is not None
    assert jwt.high is not None
    assert jwt.high - jwt.low > 2.0 / 4 / 3
