"""Measure the comparison on this machine: a real engine in this process, and `dutchdoor serve` in a process of its own.

Everything happens in a folder of its own and on loopback, and is gone at the end, after Ctrl-C too. `measure` is the
whole; the two halves of a round are `_in_process` and `_over_http`.
"""

from __future__ import annotations

import asyncio
import http.client
import json
import logging
import sqlite3
import statistics
import subprocess
import threading
import time
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator, Mapping, MutableMapping, Sequence
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from msgspec import Struct
from msgspec.structs import replace

from dutchdoor.auth import Auth
from dutchdoor.choice.comparison import COLUMNS, FACTS, MEASURED, Column, Comparison
from dutchdoor.choice.figures import Figure, Unit, figure, this_machine, today
from dutchdoor.choice.own_folder import own_folder
from dutchdoor.choice.own_server import ENDS_WITHIN, end, start
from dutchdoor.choice.plain_jwt import PlainJwt
from dutchdoor.errors import InvalidToken, Unavailable
from dutchdoor.model.http_client import Client, Device
from dutchdoor.model.ids import new_id
from dutchdoor.model.policy import Mode
from dutchdoor.model.principal import Verified
from dutchdoor.revocation.lease import WAITS_FOR, Terms
from dutchdoor.services.presenting import SignedIn
from dutchdoor.verifier import Verifier

__all__ = [
    "FULL",
    "HELD",
    "QUICK",
    "Other",
    "Plan",
    "Progress",
    "Samples",
    "Scope",
    "measure",
    "requests",
    "scope_with",
]

Progress = Callable[[str, float], None]
"""Called with what is measured now, and which share of the whole is done."""
Samples = defaultdict[tuple[str, str], list[float]]
"""By row and column."""
Scope = MutableMapping[str, Any]

BY: Final = "dutchdoor compare"
MILLION: Final = 1_000_000
CLIENTS: Final = 64
PART: Final = 16
"""Requests of one client that are timed together."""
AT_ONCE: Final = 250
VERIFIERS: Final = 3
LOG_OUTS: Final = 2
REQUESTS, REFRESHES = 500, 10
"""Of one client, for the processor time of the server."""
ANSWERS_WITHIN = 30.0
HELD: Final = "held"
"""The row of samples of the last checks that were accepted in an outage."""
OFTEN: Final = 0.0005
"""Seconds between two looks at a token that is about to be refused."""
_MODES: Final[dict[str, Mode]] = {"session": "session", "jwt": "jwt", "hybrid-cookie": "hybrid", "hybrid": "hybrid"}
_FOR_ADVICE: Final[dict[tuple[str, str], tuple[Unit, str]]] = {
    ("row_sqlite", "dutchdoor"): ("B", "a session on SQLite, its indexes included"),
    ("events_sqlite", "dutchdoor"): ("B", "the audit events of one sign-in on SQLite"),
    **{
        ("request_cpu", mode): ("s", "processor time of an authenticated request")
        for mode in ("session", "hybrid", "jwt")
    },
    ("refresh_cpu", "dutchdoor"): ("s", "processor time of a refresh"),
    ("login_cpu", "dutchdoor"): ("s", "processor time of a log-in, the hash of the password included"),
}
_PERSON: Final = {"email": "ada@example.com", "password": "a quiet heron at dusk"}
_SUBJECT: Final = new_id()
_FIREFOX: Final = Client(
    address="127.0.0.1",
    devices=Device(name="Firefox on Linux", browser_family="Firefox", platform="Linux"),
)


class Plan(Struct, frozen=True, kw_only=True):
    """How much is measured. `requests` is half for one client, half for 64."""

    rounds: int
    sign_ins: int
    requests: int
    outages: int
    lease: float


class Other(Struct, frozen=True, kw_only=True):
    """A further column, of something that is not dutchdoor."""

    column: Column
    cells: Mapping[str, str]
    """What each fact says of it, by the id of the fact."""
    a_round: Callable[[Plan, Samples], None]
    """Adds one sample to each row but the last."""
    an_outage: Callable[[Plan, Samples], None]
    """Adds one sample to the row `outage`."""


FULL: Final = Plan(rounds=7, sign_ins=1536, requests=1536, outages=3, lease=10.0)
QUICK: Final = Plan(rounds=3, sign_ins=400, requests=256, outages=1, lease=2.0)


def measure(plan: Plan, progress: Progress, others: Sequence[Other] = (), *, by: str = BY) -> Comparison:
    """Measure all rows. Nothing of it is left behind. `by` is the command that does so.

    Raises:
        Unavailable: the server of the measurement does not start, or does not do what it must.
    """
    samples: Samples = defaultdict(list)
    steps = 2 * plan.rounds + 2 * plan.outages
    with own_folder("dutchdoor-compare-") as folder:
        with _server(folder, plan) as server, _following(server, plan) as verifiers:
            for number in range(plan.rounds):
                said = f"round {number + 1} of {plan.rounds}"
                progress(f"{said}: storage and requests", 2 * number / steps)
                (part := folder / str(number)).mkdir()
                asyncio.run(_in_process(part, plan, samples, backwards=bool(number % 2)))
                progress(f"{said}: log-outs", (2 * number + 1) / steps)
                _over_http(server, verifiers, samples)
                _processor(server, samples)
                for other in others:
                    other.a_round(plan, samples)
        for number in range(plan.outages):
            progress(f"outage {number + 1} of {plan.outages}", (2 * plan.rounds + 2 * number) / steps)
            with _server(folder / f"outage{number}", plan) as server, _unheard(), _following(server, plan) as verifiers:
                _outage(server, verifiers, plan, samples)
        for other in others:
            for _ in range(plan.outages):
                other.an_outage(plan, samples)
    progress("done", 1.0)
    return Comparison(
        measured_on=today(),
        machine=this_machine(),
        lease_s=plan.lease,
        figures=tuple(_figures(samples, columns := (*COLUMNS, *(other.column for other in others)), by)),
        columns=columns,
        measured=MEASURED,
        facts=tuple(
            replace(fact, cells={**fact.cells, **{other.column.id: other.cells[fact.id] for other in others}})
            for fact in FACTS
        ),
    )


def _figures(samples: Samples, columns: Sequence[Column], by: str) -> Iterator[Figure]:
    for row in MEASURED:
        for column in columns:
            rounds = samples.get((row.id, column.id))
            if rounds:
                # How long a check goes on is known from below only by the last one that was accepted.
                held = samples.get((HELD, column.id), ()) if row.id == "outage" else ()
                least = min(held, default=None)
                yield figure(row.id, rounds, row.unit, says=row.says, by=by, subject=column.id, least=least)
    # The names under which `dutchdoor advise --figures` looks for them.
    samples["row_sqlite", "dutchdoor"] = [each / MILLION for each in samples["stored", "hybrid"]]
    samples["events_sqlite", "dutchdoor"] = samples["events", "hybrid"]
    for (name, subject), (unit, says) in _FOR_ADVICE.items():
        if samples.get((name, subject)):  # processor time is known on Linux alone
            yield figure(name, samples[name, subject], unit, says=says, by=by, subject=subject)


# --- in this process -------------------------------------------------------------------------------------------------


async def _in_process(folder: Path, plan: Plan, samples: Samples, *, backwards: bool) -> None:
    """Sign in and ask in each pattern, on a database of its own. Every other round has them in the other order."""
    columns = [column.id for column in COLUMNS]
    for column in reversed(columns) if backwards else columns:
        if column == "plain":
            plain = PlainJwt()
            issued = [plain.issue(f"user{number}", time.time()) for number in range(plan.requests)]
            samples["stored", column].append(0.0)  # it has nowhere to store anything
            scopes = [scope_with("authorization", f"Bearer {token}") for token in issued]
            await requests(_checking(plain), scopes, column, samples)
            continue
        path = folder / f"{column}.db"
        async with Auth(f"sqlite:///{path}", master_key=str(folder / f"{column}.keys")) as auth:
            signed_in = await _sign_in(auth, _MODES[column], max(plan.sign_ins, plan.requests))
            sizes = _sizes(path)
            samples["stored", column].append(sizes["sessions"] / len(signed_in) * MILLION)
            samples["events", column].append(sizes["events"] / len(signed_in))
            auth.authority.forget_remembered()  # a sign-in is remembered, and here its first request is looked up
            scopes = [_proof(auth, each) for each in signed_in[: plan.requests]]
            await requests(auth.principal, scopes, column, samples)


async def _sign_in(auth: Auth, mode: Mode, count: int) -> list[SignedIn]:
    """Start sign-ins of a quarter as many accounts, as a log-in does once the password is right."""
    accounts = [await auth.authority.provide(f"user{number}") for number in range(max(count // 4, 1))]
    found: list[SignedIn] = []
    for first in range(0, count, AT_ONCE):
        found += await asyncio.gather(
            *(
                auth.authority.start(
                    Verified(subject=each.subject, epoch=each.epoch, amr=("pwd",), at=time.time()),
                    mode=mode,
                    client=_FIREFOX,
                )
                for each in (accounts[number % len(accounts)] for number in range(first, min(first + AT_ONCE, count)))
            )
        )
    return found


def _proof(auth: Auth, signed_in: SignedIn) -> Scope:
    if signed_in.session_token:
        return scope_with("cookie", f"{auth.site.cookies.session.name}={signed_in.session_token}")
    return scope_with("authorization", f"Bearer {signed_in.access_token}")


def scope_with(name: str, value: str) -> Scope:
    """Return a request as a server of ASGI gives it to an application."""
    return {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET", "scheme": "http",
        "path": "/orders", "raw_path": b"/orders", "query_string": b"", "root_path": "",
        "headers": [(b"host", b"localhost"), (name.encode(), value.encode())],
        "client": ("127.0.0.1", 40000), "server": ("localhost", 80),
    }  # fmt: skip


def _checking(plain: PlainJwt) -> Callable[[Scope], Awaitable[object]]:
    async def principal(scope: Scope) -> object:
        headers: dict[bytes, bytes] = dict(scope["headers"])
        return plain.check(headers[b"authorization"].decode().removeprefix("Bearer "), time.time())

    return principal


async def requests(
    principal: Callable[[Scope], Awaitable[object]], scopes: Sequence[Scope], column: str, samples: Samples
) -> None:
    """Ask about each request, first by one client and then by 64 at once, and all of it again.

    Time is taken of few requests at a time, and the median of those parts is one sample: where other programs interrupt
    this one, they spoil some parts, and not the sample.
    """
    half = len(scopes) // 2
    for which in ("first", "next"):
        for clients, part in ((1, scopes[:half]), (CLIENTS, scopes[half:])):
            size = max(clients, PART)
            times = []
            for first in range(0, len(part), size):
                asked = part[first : first + size]
                begun = time.perf_counter()
                if clients == 1:
                    await _one_by_one(principal, asked)
                else:
                    await asyncio.gather(*(_one_by_one(principal, [scope]) for scope in asked))
                times.append((time.perf_counter() - begun) / len(asked))
            samples[f"{which}-{clients}", column].append(statistics.median(times))


async def _one_by_one(principal: Callable[[Scope], Awaitable[object]], scopes: Sequence[Scope]) -> None:
    for scope in scopes:
        if await principal(scope) is None:
            raise Unavailable("a request of the measurement was not recognised")


def _sizes(path: Path) -> dict[str, int]:
    """Return the bytes of pages that each table fills with its indexes: those that are free once it is emptied.

    It happens in a copy, page by page. SQLite has a table of such sizes, too, but not in every build.
    """
    sizes: dict[str, int] = {}
    with closing(sqlite3.connect(f"{path.as_uri()}?mode=ro", uri=True)) as live:
        for table in ("sessions", "events"):
            with closing(sqlite3.connect(":memory:", isolation_level=None)) as copy:
                live.backup(copy)
                before = _used(copy)
                copy.execute("PRAGMA foreign_keys = off")
                copy.execute(f"DELETE FROM {table}")  # noqa: S608 - one of two names above
                sizes[table] = before - _used(copy)
    return sizes


def _used(connection: sqlite3.Connection) -> int:
    pages, free, size = (
        connection.execute(f"PRAGMA {name}").fetchone()[0] for name in ("page_count", "freelist_count", "page_size")
    )
    return int((pages - free) * size)


# --- with a server in a process of its own ---------------------------------------------------------------------------


class _Server:
    """A running `dutchdoor serve`, and one account at it."""

    def __init__(self, process: subprocess.Popen[str], port: int) -> None:
        self.process, self.port = process, port
        self.origin = f"http://localhost:{port}"

    def spent(self) -> float:
        """Processor seconds of all its threads."""
        spent = 0
        for task in Path(f"/proc/{self.process.pid}/task").glob("*/schedstat"):
            with suppress(OSError):  # it has just ended
                spent += int(task.read_text().split()[0])
        return spent / 1e9

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(ENDS_WITHIN)


class _Person:
    """One client over one connection, and what it holds."""

    def __init__(self, server: _Server, column: str = "") -> None:
        self._origin = server.origin
        self._connection = http.client.HTTPConnection("localhost", server.port, timeout=ANSWERS_WITHIN)
        self.cookies: dict[str, str] = {}
        self.token, self._csrf = "", ""
        if column:
            self._sign_in(column)

    def call(self, method: str, path: str, body: object = None, *, is_page: bool = False) -> tuple[int, Any]:
        headers = dict(self.proof)
        if is_page or "cookie" in headers:
            headers["origin"] = self._origin
        if self._csrf and method == "POST":
            headers["x-csrf-token"] = self._csrf
        content = None
        if method == "POST":
            content, headers["content-type"] = json.dumps(body or {}), "application/json"
        self._connection.request(method, path, content, headers)
        answer = self._connection.getresponse()
        text = answer.read()
        for line in answer.headers.get_all("set-cookie", []):
            name, _, value = line.partition(";")[0].partition("=")
            self.cookies[name] = value
        return answer.status, json.loads(text) if text else {}

    def _sign_in(self, column: str) -> None:
        asked: dict[str, str] = {**_PERSON, "mode": _MODES[column]}
        if column.startswith("hybrid"):
            asked["transport"] = "cookie" if column == "hybrid-cookie" else "body"
        status, said = self.call("POST", "/auth/login", asked, is_page=column in {"session", "hybrid-cookie"})
        if status != http.HTTPStatus.OK:
            self.close()
            raise Unavailable(f"a log-in of the measurement was answered {status}: {said}")
        self.token, self._csrf = said.get("access_token", ""), said.get("csrf_token", "")
        self.refresh_token: str = said.get("refresh_token", "")

    @property
    def proof(self) -> dict[str, str]:
        """The headers by which each request proves who sends it."""
        found = {"cookie": "; ".join(f"{name}={value}" for name, value in self.cookies.items())} if self.cookies else {}
        return found | ({"authorization": f"Bearer {self.token}"} if self.token else {})

    def is_in(self, proof: dict[str, str]) -> bool:
        self._connection.request("GET", "/auth/me", headers=proof)
        answer = self._connection.getresponse()
        answer.read()
        return answer.status == http.HTTPStatus.OK

    def close(self) -> None:
        self._connection.close()


@contextmanager
def _server(folder: Path, plan: Plan) -> Iterator[_Server]:
    """Run `dutchdoor serve` in a folder until the block ends, with nothing set but the lease."""
    folder.mkdir(exist_ok=True)
    with ExitStack() as ending:
        process, port = start(folder, {"DUTCHDOOR_LEASE": f"{plan.lease:g}", "DUTCHDOOR_HANDOVER_FOR": "0s"})
        ending.callback(end, process)
        server = _Server(process, port)
        person = _Person(server)
        ending.callback(person.close)
        status, said = person.call("POST", "/auth/register", _PERSON)
        if status != http.HTTPStatus.CREATED:
            raise Unavailable(f"the registration of the measurement was answered {status}: {said}")
        yield server


@contextmanager
def _following(server: _Server, plan: Plan) -> Iterator[list[Verifier]]:
    """Start verifiers whose polls are out of step, as those of a fleet are: an outage meets each at another moment."""
    polls = min(WAITS_FOR, Terms(lease_for=plan.lease).hang_for)
    with ExitStack() as ending:
        verifiers = []
        for _ in range(VERIFIERS):
            verifiers.append(ending.enter_context(Verifier(server.origin, stale="refuse", key="")))
            time.sleep(polls / VERIFIERS)
        yield verifiers


@contextmanager
def _unheard() -> Iterator[None]:
    """Print no warning of the verifiers: the outage is meant, and a reader would look for a fault."""
    log = logging.getLogger("dutchdoor.verifier")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)


def _over_http(server: _Server, verifiers: Sequence[Verifier], samples: Samples) -> None:
    """Sign in over HTTP in each pattern, weigh what is sent, and sign out."""
    for column in (each.id for each in COLUMNS):
        if column == "plain":
            plain, now = PlainJwt(), time.time()
            token = plain.issue(_SUBJECT, now)
            samples["sent", column].append(_weight({"authorization": f"Bearer {token}"}))
            samples["log-out", column].append(plain.check(token, now)["exp"] - int(now))
            continue
        for _ in range(LOG_OUTS):
            with closing(_Person(server, column)) as person:
                samples["sent", column].append(_weight(person.proof))
                with closing(_Person(server)) as looks:
                    proof = person.proof
                    accept: Callable[[], bool]
                    if column == "session":
                        accept = lambda: looks.is_in(proof)  # noqa: B023, E731 - used in this turn alone
                    else:
                        token = person.token
                        accept = lambda: any([_accepts(each, token) for each in verifiers])  # noqa: B023, E731, C419
                    samples["log-out", column].append(_log_out(person, accept))


def _processor(server: _Server, samples: Samples) -> None:
    """Take the processor time of the server for a log-in, a request and a refresh, where the system says it."""
    if not Path(f"/proc/{server.process.pid}/schedstat").is_file():
        return
    for mode in ("session", "hybrid", "jwt"):
        begun = server.spent()
        with closing(_Person(server, mode)) as person:
            samples["login_cpu", "dutchdoor"].append(server.spent() - begun)
            proof = person.proof
            person.is_in(proof)
            begun = server.spent()
            if not all([person.is_in(proof) for _ in range(REQUESTS)]):  # noqa: C419 - each is asked
                raise Unavailable("a request of the measurement was refused")
            samples["request_cpu", mode].append((server.spent() - begun) / REQUESTS)
            if person.refresh_token:
                begun = server.spent()
                for _ in range(REFRESHES):
                    status, said = person.call("POST", "/auth/refresh", {"refresh_token": person.refresh_token})
                    if status != http.HTTPStatus.OK:
                        raise Unavailable(f"a refresh of the measurement was answered {status}: {said}")
                samples["refresh_cpu", "dutchdoor"].append((server.spent() - begun) / REFRESHES)


def _weight(proof: dict[str, str]) -> float:
    return float(sum(len(f"{name}: {value}\r\n") for name, value in proof.items()))


def _accepts(verifier: Verifier, token: str) -> bool:
    """Whether a verifier takes a token, as soon as it has a lease: on a busy machine that may run out for a moment."""
    until = time.perf_counter() + ANSWERS_WITHIN
    while True:
        try:
            verifier(token)
        except InvalidToken:
            return False
        except Unavailable:
            if time.perf_counter() > until:
                raise
            time.sleep(OFTEN)
        else:
            return True


def _log_out(person: _Person, accept: Callable[[], bool]) -> float:
    """Return the seconds from the call until it is refused everywhere."""
    if not accept():
        raise Unavailable("a sign-in of the measurement was refused before its log-out")
    answers: list[tuple[int, Any]] = []
    calling = threading.Thread(target=lambda: answers.append(person.call("POST", "/auth/logout")))
    begun = time.perf_counter()
    calling.start()
    while accept():
        if time.perf_counter() - begun > ANSWERS_WITHIN:
            raise Unavailable("a log-out of the measurement was not followed")
        time.sleep(OFTEN)
    took = time.perf_counter() - begun
    calling.join(ANSWERS_WITHIN)
    if not answers or answers[0][0] >= http.HTTPStatus.BAD_REQUEST or accept():
        raise Unavailable(f"a log-out of the measurement failed: {answers}")
    return took


def _outage(server: _Server, verifiers: Sequence[Verifier], plan: Plan, samples: Samples) -> None:
    """Kill the server, and see for how long each pattern goes on."""
    with ExitStack() as ending:
        people = {column: ending.enter_context(closing(_Person(server, column))) for column in _MODES}
        _outage_of(people, server, verifiers, plan, samples)


def _outage_of(
    people: Mapping[str, _Person], server: _Server, verifiers: Sequence[Verifier], plan: Plan, samples: Samples
) -> None:
    waiting = {
        (column, number): verifier
        for column in people
        if column != "session"
        for number, verifier in enumerate(verifiers)
    }
    for (column, _), verifier in waiting.items():
        if not _accepts(verifier, people[column].token):
            raise Unavailable("a sign-in of the measurement was refused before its outage")
    plain, now = PlainJwt(), time.time()
    token = plain.issue(_SUBJECT, now)
    cookie = people["session"].proof
    held = dict.fromkeys([("session", 0), *waiting], 0.0)
    begun = time.perf_counter()
    server.kill()
    try:
        while people["session"].is_in(cookie):
            held["session", 0] = time.perf_counter() - begun
    except (OSError, http.client.HTTPException):
        samples["outage", "session"].append(time.perf_counter() - begun)
    while waiting:
        for (column, number), verifier in list(waiting.items()):
            asked = time.perf_counter() - begun
            try:
                verifier(people[column].token)
                held[column, number] = asked
            except Unavailable:
                samples["outage", column].append(time.perf_counter() - begun)
                del waiting[column, number]
        if time.perf_counter() - begun > 3 * plan.lease + ANSWERS_WITHIN:
            raise Unavailable("a verifier of the measurement went on after its lease")
        time.sleep(10 * OFTEN)
    for (column, _), until in held.items():
        samples[HELD, column].append(until)
    samples["outage", "plain"].append(plain.check(token, time.time())["exp"] - int(now))
