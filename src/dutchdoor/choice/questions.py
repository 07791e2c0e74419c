"""The questions of `dutchdoor advise`, each with its default and the reason why it is asked; and checked answers.

`QUESTIONS` is the one table: the terminal, the file of requirements and the documentation are made from it.
"""

from __future__ import annotations

import math
import re
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, Literal, TypeAlias
from urllib.parse import urlsplit

from msgspec import Struct

from dutchdoor.errors import Misconfigured
from dutchdoor.model.choices import near
from dutchdoor.model.durations import read_duration, short_duration
from dutchdoor.model.text_file import decode_text

__all__ = [
    "BROWSERS", "BY_ID", "CLIENTS", "QUESTIONS", "Answers", "Client", "Question", "as_toml", "read_answer",
    "read_answers", "read_file",
]  # fmt: skip

Client: TypeAlias = Literal["pages", "spa", "spa-elsewhere", "mobile", "cli", "devices", "partners"]
CheckedBy: TypeAlias = Literal["python", "functions", "other"]
Copies: TypeAlias = Literal["some", "none"]
Assurance: TypeAlias = Literal["relaxed", "standard", "high"]
RunBy: TypeAlias = Literal["one-machine", "team", "platform"]
Framework: TypeAlias = Literal["none", "fastapi", "starlette", "litestar", "flask", "django"]

CLIENTS: Final[Mapping[str, str]] = {
    "pages": "pages that your server renders (templates, forms)",
    "spa": "a single-page application on the same site as its API (example.com)",
    "spa-elsewhere": "a single-page application on another site (example.net)",
    "mobile": "an app on phones",
    "cli": "a program or a command line that people run",
    "devices": "devices without a keyboard (a television, a sensor)",
    "partners": "other people's services that call your API",
}
BROWSERS: Final = frozenset({"pages", "spa", "spa-elsewhere"})
"""The clients that run in a browser, where scripts of others may run too."""

UNTIL_EXPIRY: Final = "expiry"
"""How a person writes that a log-out need not reach services before the token expires by itself."""
_FILE_AT_MOST = 64 * 1024


class Answers(Struct, frozen=True, kw_only=True):
    """The requirements of a team. Durations are seconds. `logout_within` is infinite for "until the token expires"."""

    clients: tuple[Client, ...] = ("pages",)
    services: int = 0
    checked_by: CheckedBy = "python"
    logout_within: float = 15.0
    outage: float = 0.0
    users: int = 10_000
    sessions_each: int = 2
    requests: int = 50
    url: str = "https://auth.example.com"
    origins: tuple[str, ...] = ()
    assurance: Assurance = "standard"
    copies: Copies = "some"
    run_by: RunBy = "one-machine"
    framework: Framework = "none"


class Question(Struct, frozen=True, kw_only=True):
    """`stronger` says which answer asks for more, in words. Empty: no answer is more than another."""

    id: str
    asks: str
    why: str
    kind: Literal["several", "one", "count", "duration", "url", "origins"]
    default: Any
    choices: Mapping[str, str] = {}
    least: float = 0
    most: float = math.inf
    stronger: str = ""
    is_asked: Callable[[Answers], bool] = lambda _: True


QUESTIONS: Final[tuple[Question, ...]] = (
    Question(
        id="clients",
        asks="Which clients sign in?",
        why="A browser keeps a cookie that scripts cannot read. A program has no such place, and a page of another "
        "site gets no cookie at all.",
        kind="several",
        default=("pages",),
        choices=CLIENTS,
        stronger="one client more",
    ),
    Question(
        id="services",
        asks="How many other services must know who sends a request?",
        why="A session is known where it is stored. Another service needs a token that it can check by itself, or it "
        "asks for each request.",
        kind="count",
        default=0,
        most=1_000_000,
        stronger="more",
    ),
    Question(
        id="checked_by",
        asks="What are these services?",
        why="A Python service can follow the log of what was revoked. Others know only what stands in the token, or "
        "ask.",
        kind="one",
        default="python",
        choices={
            "python": "Python processes that go on running: they use dutchdoor's Verifier",
            "functions": "Python functions that start for a request and are frozen after it (AWS Lambda)",
            "other": "another language, or a gateway that checks signatures",
        },
        is_asked=lambda answers: answers.services > 0,
    ),
    Question(
        id="logout_within",
        asks="How soon must a log-out hold everywhere, even if a service is silent?",
        why="This is the time for which a stolen token still works after its owner signed out. `expiry`: until the "
        "token expires by itself.",
        kind="duration",
        default=15.0,
        most=86_400,
        stronger="shorter",
    ),
    Question(
        id="outage",
        asks="How long must services go on while the sign-in server is away?",
        why="A service that is cut off cannot learn of a log-out. The longer it goes on, the later a log-out holds.",
        kind="duration",
        default=0.0,
        most=86_400,
        stronger="longer",
    ),
    Question(
        id="users",
        asks="How many users?",
        why="With their sessions, they decide the size of the database.",
        kind="count",
        default=10_000,
        least=1,
        most=10_000_000_000,
        stronger="more",
    ),
    Question(
        id="sessions_each",
        asks="How often does one user sign in within a month, on all devices?",
        why="Each sign-in is a row of the database until it expires, and more often means more log-ins to hash.",
        kind="count",
        default=2,
        least=1,
        most=1000,
        stronger="more",
    ),
    Question(
        id="requests",
        asks="How many requests a second at the busiest time?",
        why="Each request is checked. They decide the number of processes.",
        kind="count",
        default=50,
        most=10_000_000,
        stronger="more",
    ),
    Question(
        id="url",
        asks="At which address do users reach the sign-in server?",
        why="Cookies belong to one host and one site. The address is also the name in each token.",
        kind="url",
        default="https://auth.example.com",
    ),
    Question(
        id="origins",
        asks="From which other addresses do pages call it?",
        why="A page of another address may call with a sign-in only if the server lists that address.",
        kind="origins",
        default=(),
        is_asked=lambda answers: bool({"spa", "spa-elsewhere"} & {*answers.clients}),
    ),
    Question(
        id="assurance",
        asks="How much harm can a stranger do who signs in as a user?",
        why="It decides how long a sign-in lasts, the passwords, and who needs a second factor.",
        kind="one",
        default="standard",
        choices={
            "relaxed": "little: a forum, a game (sign-ins last a quarter of a year)",
            "standard": "as with most: a shop, a tool for teams (sign-ins last a month)",
            "high": "much: money, health, administration; NIST AAL2 (sign-ins last 12 hours)",
        },
        stronger="relaxed, then standard, then high",
    ),
    Question(
        id="copies",
        asks="What may a copied cookie or token be worth?",
        why="A client that proves a key is bound to its device, so that a copy is worth nothing. Many browsers and "
        "programs cannot prove one yet.",
        kind="one",
        default="some",
        choices={
            "some": "nothing where the client can prove a key; clients that cannot sign in all the same",
            "none": "nothing anywhere: browsers and programs that cannot prove a key are turned away",
        },
        stronger="none",
        is_asked=lambda answers: answers.assurance == "high",
    ),
    Question(
        id="run_by",
        asks="Who runs it?",
        why="One machine needs no other software. Two survive the loss of one, and need a database server.",
        kind="one",
        default="one-machine",
        choices={
            "one-machine": "one machine, and no one is on call",
            "team": "people who run machines, a proxy and PostgreSQL",
            "platform": "a platform, such as Kubernetes, with a database beside it",
        },
        stronger="one-machine, then team or platform",
    ),
    Question(
        id="framework",
        asks="In which framework is your application?",
        why="The answer has its lines of code.",
        kind="one",
        default="none",
        choices={
            "none": "no Python framework, or not known yet",
            "fastapi": "FastAPI",
            "starlette": "Starlette",
            "litestar": "Litestar",
            "flask": "Flask",
            "django": "Django",
        },
    ),
)
BY_ID: Final = {question.id: question for question in QUESTIONS}


# --- reading an answer -----------------------------------------------------------------------------------------------


def read_answer(question: Question, given: object, *, typed_as: str | None = None) -> Any:
    """Return the value of one answer, from a file or as a person typed it.

    Raises:
        Misconfigured: it is no answer. The message has the fix, after what the answer was `typed_as`: an option, or ""
            for a person who sees the question. In a file, that is the id of the question.
    """
    try:
        return _READERS[question.kind](question, given.strip() if isinstance(given, str) else given)
    except Misconfigured as exc:
        name = question.id if typed_as is None else typed_as
        raise Misconfigured(f"{name}: {exc}" if name else f"{exc}") from None


def read_answers(given: Mapping[str, object]) -> Answers:
    """Return the answers of a mapping by question; what is left out has its default.

    Raises:
        Misconfigured: an unknown question, or a value that is no answer to it.
    """
    for name in given:
        if name not in BY_ID:
            meant = near(name, BY_ID)
            hint = f"Did you mean {meant}?" if meant else f"The requirements are {', '.join(BY_ID)}."
            raise Misconfigured(f"{name!r} is not a requirement. {hint}")
    return Answers(**{name: read_answer(BY_ID[name], value) for name, value in given.items()})


def read_file(path: Path) -> Answers:
    """Return the answers of a TOML file. Raises `Misconfigured`."""
    try:
        with path.open("rb") as file:
            text = file.read(_FILE_AT_MOST + 1)
    except OSError as exc:
        raise Misconfigured(f"The file of requirements {path} cannot be read: {exc.strerror}.") from None
    if len(text) > _FILE_AT_MOST:
        raise Misconfigured(f"The file of requirements {path} is too large: the limit is 64 KiB.")
    decoded = decode_text(text, f"The file of requirements {path}")
    try:
        return read_answers(tomllib.loads(decoded))
    except tomllib.TOMLDecodeError as exc:
        raise Misconfigured(
            f"The file of requirements {path} is not valid TOML: {exc}. Write texts and durations in quotes: "
            'logout_within = "15s".'
        ) from None
    except Misconfigured as exc:
        raise Misconfigured(f"{path.name}: {exc}") from None


def _words(given: object) -> list[str] | None:
    if isinstance(given, str):
        return re.split(r"[,\s]+", given.strip()) if given.strip() else []
    if isinstance(given, list | tuple) and all(isinstance(each, str) for each in given):
        return list(given)
    return None


def _choice(question: Question, word: str) -> str:
    names = list(question.choices)
    if word.isdecimal() and 1 <= int(word) <= len(names):  # the number beside it in the list
        return names[int(word) - 1]
    if word in question.choices:
        return word
    meant = near(word, names)
    hint = f" Did you mean {meant}?" if meant else ""
    raise Misconfigured(f"{word[:40]!r} is not one of {', '.join(names)}.{hint}")


def _several(question: Question, given: object) -> tuple[str, ...]:
    words = _words(given)
    if not words:
        raise Misconfigured(f"name at least one of {', '.join(question.choices)}.")
    chosen = {_choice(question, word) for word in words}
    return tuple(name for name in question.choices if name in chosen)


def _one(question: Question, given: object) -> str:
    if not isinstance(given, str):
        raise Misconfigured(f"write one of {', '.join(question.choices)}.")
    return _choice(question, given.lower())


_COUNT = re.compile(r"([0-9][0-9_,. ]*)([km]?)", re.IGNORECASE)
_TIMES = {"": 1, "k": 1000, "m": 1_000_000}


def _count(question: Question, given: object) -> int:
    found = _COUNT.fullmatch(given) if isinstance(given, str) and len(given) <= 30 else None  # noqa: PLR2004 - a number
    if found:
        digits = re.sub(r"[_,. ]", "", found[1])
        # 1.5m is half of what a reader means by 15m: a point is a separator of thousands, or it is refused.
        if not re.fullmatch(r"[0-9]+|[0-9]{1,3}([_,. ][0-9]{3})+", found[1].strip()):
            raise Misconfigured("write a whole number, such as 1500000 or 1,500,000.")
        given = int(digits) * _TIMES[found[2].lower()]
    if isinstance(given, bool) or not isinstance(given, int):
        raise Misconfigured("write a whole number, such as 2000 or 2k.")
    if not question.least <= given <= question.most:
        raise Misconfigured(f"write a number from {question.least:,.0f} to {question.most:,.0f}.")
    return given


def _duration(question: Question, given: object) -> float:
    if isinstance(given, str) and given.lower() == UNTIL_EXPIRY and question.id == "logout_within":
        return math.inf
    more = f", or {UNTIL_EXPIRY}" if question.id == "logout_within" else ""
    try:
        seconds = read_duration(given)
    except Misconfigured:
        raise Misconfigured(f"write a duration such as 0s, 15s, 10m or 1h{more}.") from None
    if not question.least <= seconds <= question.most:
        raise Misconfigured(f"write a duration of at most {short_duration(question.most)}{more}.")
    return seconds


_HOST = re.compile(r"(?=.{1,253}\Z)[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*")


def _origin(_question: Question, given: object) -> str:
    text = given.rstrip("/") if isinstance(given, str) else ""
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    host = parts.hostname or ""
    fits = _HOST.fullmatch(host) and text.lower() == f"{parts.scheme}://{host}" + (f":{port}" if port else "")
    if parts.scheme != "https" or not fits:
        raise Misconfigured(
            "write an https address without a path, such as https://auth.example.com. Browsers keep "
            "the cookies of a sign-in for https alone."
        )
    return text.lower()


def _origins(question: Question, given: object) -> tuple[str, ...]:
    words = _words(given)
    if words is None:
        raise Misconfigured("write a list of addresses, such as https://app.example.com.")
    return tuple(dict.fromkeys(_origin(question, word) for word in words if word != "none"))


_READERS: Mapping[str, Callable[[Question, object], Any]] = {
    "several": _several,
    "one": _one,
    "count": _count,
    "duration": _duration,
    "url": _origin,
    "origins": _origins,
}


# --- writing answers -------------------------------------------------------------------------------------------------


def in_words(question: Question, value: Any) -> str:
    """Write an answer as a person types it."""
    if question.kind == "duration":
        return UNTIL_EXPIRY if math.isinf(value) else short_duration(value)
    if isinstance(value, tuple):
        return ", ".join(value) or "none"
    return f"{value:,}" if question.kind == "count" else str(value)


def as_toml(answers: Answers) -> str:
    """Write the answers as a file that `--from` reads, each below its question."""
    lines = []
    for question in QUESTIONS:
        value = getattr(answers, question.id)
        if isinstance(value, tuple):
            written = "[" + ", ".join(f'"{each}"' for each in value) + "]"
        elif question.kind == "count":
            written = f"{value:_}"
        else:
            written = f'"{in_words(question, value)}"'
        lines += [f"# {question.asks}", f"{question.id} = {written}", ""]
    return "\n".join(lines).rstrip() + "\n"
