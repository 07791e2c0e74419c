"""`dutchdoor advise` as a person and as a program meets it."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.running import Run
from tests.server.running import clean_environment, command

from dutchdoor.choice.advice import Advice, advise
from dutchdoor.choice.figures import read_figures
from dutchdoor.choice.glossary import WORDS
from dutchdoor.choice.questions import QUESTIONS, Answers

WIDE = 80
SERVICES = 'clients = ["spa", "mobile"]\nservices = 12\noutage = "1m"\nrun_by = "team"\n'

EVERYTHING = """
clients = ["pages", "spa", "spa-elsewhere", "mobile", "cli", "devices", "partners"]
services = 9
outage = "1h"
assurance = "high"
run_by = "platform"
framework = "django"
"""


def requirements(text: str) -> str:
    Path("requirements.toml").write_text(text)
    return "requirements.toml"


def test_a_person_answers_with_return_alone(run: Run) -> None:
    """Return takes each default; the questions are on standard error, and the answer on standard output."""
    ran = run("advise", text="\n" * 20, terminal=True)
    assert ran.code == 0
    for question in QUESTIONS:
        if question.is_asked(Answers()):
            assert question.asks in " ".join(ran.err.split())
    assert "For your clients" in ran.out
    assert "pattern        session" in ran.out
    assert 'public_url = "https://auth.example.com"' in ran.out


def test_a_question_that_follows_from_another_is_asked_then_alone(run: Run) -> None:
    """Only who has other services is asked what they are, and only a page elsewhere has an address of its own."""
    without = run("advise", text="\n" * 20, terminal=True).err
    asked = run("advise", text="spa\n3\nother\n" + "\n" * 20, terminal=True).err
    assert "What are these services?" not in without
    assert "What are these services?" in asked
    assert "do pages call it?" in " ".join(asked.split())


@pytest.mark.parametrize(
    ("typed", "says"),
    [
        ("pgaes\n", "Did you mean pages?"),
        ("9\n", "is not one of pages"),
        ("1\nmany\n", "! Write a whole number"),
        ("1\n1.5k\n", "! Write a whole number, such as 1500000"),
        ("1\n0\nsoon\n", "! Write a duration such as 0s, 15s, 10m or 1h, or expiry"),
        ("1\n0\n40d\n", "a duration of at most 1d, or expiry"),
        ("1\n0\n\n\n0\n", "a number from 1 to"),
        ("1\n0\n\n\n\n\n\nhttp://auth.example.com\n", "! Write an https address without a path"),
    ],
    ids=["misspelt", "no such number", "words", "a point", "no duration", "too long", "too few", "plain http"],
)
def test_a_mistake_is_asked_again(run: Run, typed: str, says: str) -> None:
    """A wrong answer gets a sentence that says the fix, and the same question again."""
    ran = run("advise", text=typed + "\n" * 20, terminal=True)
    assert says in " ".join(ran.err.split())
    assert ran.code == 0


def test_a_wrong_option_is_named_as_it_was_typed(run: Run) -> None:
    """A wrong answer that was given as an option is refused by the name of the option."""
    ran = run("advise", "--framework", "fastapy")
    assert ran.code == 2
    assert ran.err.startswith("dutchdoor: --framework: 'fastapy' is not one of ")


def test_a_question_mark_explains_the_words(run: Run) -> None:
    """Who does not know a word of a question types ?, and reads one line about each."""
    ran = run("advise", text="?\n" + "\n" * 20, terminal=True)
    assert WORDS["cookie"] in " ".join(ran.err.split())


def test_without_a_terminal_it_says_what_to_give(run: Run) -> None:
    """A script gets no questions, but the option that answers them."""
    ran = run("advise")
    assert ran.code == 2
    assert "--from requirements.toml" in ran.err
    assert ran.out == ""


def test_the_end_of_the_input_writes_nothing(run: Run) -> None:
    """Where the input ends in the middle, nothing is written, and it says so."""
    ran = run("advise", "--write", ".", text="1\n", terminal=True)
    assert ran.code == 1
    assert "nothing was written" in ran.err
    assert list(Path().iterdir()) == []


@pytest.mark.long
def test_ctrl_c_ends_it_cleanly(tmp_path: Path) -> None:
    """Ctrl-C ends the questions with one sentence and no traceback."""
    ours, theirs = os.openpty()
    process = subprocess.Popen(
        command("advise"), cwd=tmp_path, env=clean_environment(), stdin=theirs, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    os.close(theirs)
    assert process.stderr is not None
    seen = ""
    until = time.monotonic() + 60
    while "by number or name" not in seen and time.monotonic() < until:
        seen += process.stderr.read(1)
    for _ in range(6):
        process.send_signal(signal.SIGINT)
        try:
            out, err = process.communicate(timeout=10)
            break
        except subprocess.TimeoutExpired:
            pass  # Python's `input` drops a Ctrl-C that comes while it writes the prompt; a person presses it again
    else:
        process.kill()
        pytest.fail("Ctrl-C does not end it")
    os.close(ours)
    assert process.returncode == 1
    assert "nothing was written" in err
    assert "Traceback" not in err
    assert out == ""


def test_a_file_answers_all_questions(run: Run) -> None:
    """--from reads the answers, and an empty file has every default."""
    assert run("advise", "--from", requirements("")).out == run("advise", text="\n" * 20, terminal=True).out
    found = run("advise", "--from", requirements(SERVICES), "--json").json
    assert [client["pattern"] for client in found["clients"]] == ["hybrid", "hybrid"]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("servces = 3", "'servces' is not a requirement. Did you mean services?"),
        ("services = -1", "services: write a number from 0 to 1,000,000."),
        ("clients = []", "clients: name at least one of pages"),
        ('clients = ["tv"]', "clients: 'tv' is not one of pages"),
        ("clients = 3", "clients: name at least one of"),
        ("logout_within = 15s", 'Write texts and durations in quotes: logout_within = "15s".'),
        ('outage = "expiry"', "outage: write a duration"),
        ('url = "https://a.test/x"', "url: write an https address without a path"),
        ('url = "https://a b"', "url: write an https address"),
        ('assurance = "hgih"', "Did you mean high?"),
        ("users = true", "users: write a whole number"),
        ('origins = ["http://a.test"]', "origins: write an https address"),
    ],
    ids=lambda value: value if " = " in value else "",
)
def test_a_mistake_in_the_file_says_the_fix(run: Run, text: str, says: str) -> None:
    """A file that cannot be used is refused with its name and what to write instead."""
    ran = run("advise", "--from", requirements(text))
    assert ran.code == 2
    assert says in ran.err
    assert "requirements.toml" in ran.err


def test_a_file_that_is_not_there_is_named(run: Run) -> None:
    """A wrong path, of the requirements or of the figures, is named."""
    assert "nowhere.toml cannot be read: No such file" in run("advise", "--from", "nowhere.toml").err
    assert "none.json cannot be read" in run("advise", "--from", requirements(""), "--figures", "none.json").err
    Path("none.json").write_text("{}")
    assert "cannot be used" in run("advise", "--from", requirements(""), "--figures", "none.json").err


def test_it_writes_what_check_accepts(run: Run) -> None:
    """--write writes the configuration, which `dutchdoor check` accepts, and after questions the answers, which --from
    reads.
    """
    ran = run("advise", "--write", ".", text="spa\n3\n" + "\n" * 20, terminal=True)
    assert ran.code == 0
    assert run("check", "--config", "dutchdoor.toml").code == 0
    again = run("advise", "--from", "requirements.toml", "--json").json
    assert again["configuration"] == Path("dutchdoor.toml").read_text()
    assert Path("dutchdoor.toml").stat().st_mode & 0o022 == 0


def test_the_command_of_the_guides_works_beside_its_file(run: Run) -> None:
    """A file of requirements that was given stays as it is, and is in the way of nothing."""
    requirements(SERVICES)
    assert run("advise", "--from", "requirements.toml", "--write", ".").code == 0
    assert Path("requirements.toml").read_text() == SERVICES
    assert Path("dutchdoor.toml").exists()
    assert "--force overwrites it." in run("advise", "--from", "requirements.toml", "--write", ".").err
    assert run("advise", "--from", "requirements.toml", "--write", ".", "--force").code == 0


def test_it_overwrites_nothing(run: Run) -> None:
    """A file that is there stays as it is, before a question is asked, unless --force says otherwise."""
    Path("dutchdoor.toml").write_text("port = 1")
    ran = run("advise", "--write", ".", text="\n" * 20, terminal=True)
    assert ran.code == 2
    assert "dutchdoor.toml is there already. --force overwrites it." in ran.err
    assert "Which clients" not in ran.err
    assert Path("dutchdoor.toml").read_text() == "port = 1"
    assert not Path("requirements.toml").exists()
    assert "no directory none" in run("advise", "--write", "none", text="", terminal=True).err


@pytest.mark.parametrize(
    "text",
    [
        "",
        SERVICES,
        EVERYTHING,
    ],
    ids=["defaults", "services", "everything"],
)
@pytest.mark.parametrize("more", [[], ["--explain"]], ids=["short", "explained"])
def test_it_fits_80_columns_and_is_plain(run: Run, text: str, more: list[str]) -> None:
    """No line of the answer is longer than 80 columns, and nothing in it steers a terminal; questions likewise."""
    ran = run("advise", "--from", requirements(text), *more)
    assert ran.code == 0
    asked = run("advise", text="spa\n2\n" + "\n" * 20, terminal=True).err
    lines = [line for line in [*ran.out.splitlines(), *asked.splitlines()] if "postgresql://" not in line]
    assert [line for line in lines if len(line) > WIDE] == []
    assert "\x1b" not in ran.out + asked


def test_headings_are_bold_on_a_terminal_alone() -> None:
    """A terminal gets bold headings; with NO_COLOR it gets none, as a pipe does."""
    code = "import sys; sys.stdout.isatty = lambda: True\nfrom dutchdoor.server.terminal import heading\nheading('For')"
    said = {
        name: subprocess.run(
            [sys.executable, "-c", code], env={**os.environ, "TERM": "xterm", **more}, capture_output=True, text=True,
            check=True,
        ).stdout
        for name, more in (("bold", {"NO_COLOR": ""}), ("plain", {"NO_COLOR": "1"}))
    }  # fmt: skip
    assert said == {"bold": "\n\x1b[1mFor\x1b[0m\n", "plain": "\nFor\n"}


def test_each_word_is_explained(run: Run) -> None:
    """The answer ends with one line about each word in it that a newcomer may not know; --explain has all, and each
    rule with its source.
    """
    ran = run("advise", "--from", requirements(SERVICES))
    said = " ".join(ran.out.split())
    for word in ("Verifier", "access token", "refresh token", "lease", "hybrid", "jwt", "revoked"):
        assert WORDS[word] in said
    explained = " ".join(run("advise", "--from", requirements(SERVICES), "--explain").out.split())
    assert all(meaning in explained for meaning in WORDS.values())
    advice = advise(Answers(clients=("spa", "mobile"), services=12, outage=60, run_by="team"), read_figures())
    for reason in advice.reasons:
        assert reason.because in explained
        assert reason.rule in explained
        assert all(source in explained for source in reason.sources)


def test_json_says_the_same(run: Run) -> None:
    """--json prints the whole answer, as the schema in the documentation describes it."""
    ran = run("advise", "--from", requirements(SERVICES), "--framework", "flask", "--json")
    found = ran.json
    assert set(found) == set(Advice.__struct_fields__)
    assert "from dutchdoor.flask import" in found["code"]
    assert json.loads(ran.out)["requirements"]["services"] == 12


def test_help_has_examples(run: Run) -> None:
    """`--help` shows commands to type, in lines as they are."""
    for name in ("advise", "estimate"):
        said = run(name, "--help").out
        assert re.search(rf"^  +dutchdoor {name} ", said, re.MULTILINE)
