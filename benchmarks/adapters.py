"""What an adapter costs, beside what else a user of the framework would pick: `python -m benchmarks.adapters`.

An authenticated `GET` against the same route without authentication, by cookie and by bearer token, each contender in a
process of its own and without a network. What is counted is processor time, which a busy machine hardly changes. Short
rounds take turns; the tables have medians. `--only dutchdoor` needs no environment of a peer.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

HERE = Path(__file__).parent
ROUNDS, MILLISECONDS = 25, 60
"""Rounds, and how long each measurement of one lasts, about."""
OURS = "dutchdoor"
COOKIE, BEARER = "cookie", "bearer"


class Contender(NamedTuple):
    """A program to ask, and what it stands for in the tables."""

    framework: str
    name: str
    command: tuple[str, ...]
    ways: tuple[str, ...] = (COOKIE, BEARER)
    most: float | None = None
    """Microseconds that ours was asked to stay under."""

    @property
    def is_ours(self) -> bool:
        return self.name.startswith(OURS)


def _ours(module: str, *arguments: str) -> tuple[str, ...]:
    return (sys.executable, "-m", f"benchmarks.guarded.{module}", *arguments)


def _peer(environment: str, program: str, *arguments: str) -> tuple[str, ...]:
    return (str(HERE / ".venvs" / environment / "bin" / "python"), str(HERE / "peers" / program), *arguments)


def _better_auth(framework: str) -> tuple[str, ...]:
    return _peer("better-auth", "better_auth_guard.py", framework)


CONTENDERS = (
    Contender("FastAPI", OURS, _ours("fastapi_app"), most=60),
    Contender("FastAPI", "fastapi-users", _peer("fastapi-users", "fastapi_users_guard.py")),
    Contender("FastAPI", "crudauth, sessions in the database", _peer("crudauth", "crudauth_guard.py", "database")),
    Contender("FastAPI", "crudauth, sessions in memory", _peer("crudauth", "crudauth_guard.py", "memory")),
    Contender("FastAPI", "better-auth-server", _better_auth("fastapi")),
    Contender("Starlette", OURS, _ours("starlette_app"), most=60),
    Contender("Litestar", OURS, _ours("litestar_app")),
    Contender("Litestar", "better-auth-server", _better_auth("litestar")),
    Contender("Flask", OURS, _ours("flask_app"), most=120),
    Contender("Flask", "Flask-Login, Flask-Session", _peer("flask-login", "flask_login_guard.py", "session")),
    Contender("Flask", "Flask-Login, signed cookie", _peer("flask-login", "flask_login_guard.py", "signed")),
    Contender("Flask", "better-auth-server", _better_auth("flask")),
    Contender("Django", f"{OURS}, `request.user`", _ours("django_app", "user"), most=120),
    Contender("Django", f"{OURS}, `auth.require`", _ours("django_app", "principal"), most=120),
    Contender("Django", "sessions, db", _peer("django", "django_guard.py", "db"), (COOKIE,)),
    Contender("Django", "sessions, cached_db", _peer("django", "django_guard.py", "cached_db"), (COOKIE,)),
    Contender("Django", "allauth headless", _peer("allauth", "allauth_guard.py"), (COOKIE,)),
    Contender("Django", "better-auth-server", _better_auth("django")),
    Contender("REST framework", OURS, _ours("django_app", "rest"), (BEARER,)),
    Contender("REST framework", "simplejwt", _peer("django", "django_guard.py", "db"), (BEARER,)),
    Contender("REST framework", "allauth headless", _peer("allauth", "allauth_guard.py"), (BEARER,)),
)


class Asked:
    """A contender that runs, and what was measured."""

    def __init__(self, contender: Contender, process: subprocess.Popen[str]) -> None:
        self.contender, self._process = contender, process
        self.taken: dict[str, list[tuple[float, float]]] = {way: [] for way in contender.ways}
        self._count: dict[str, int] = {}

    def prepare(self) -> None:
        """Wait until everybody has signed in, and find out how many requests a measurement takes."""
        if self._answer() != "ready":
            raise SystemExit(f"{self.contender.framework}, {self.contender.name}: not ready")
        for way in self.contender.ways:
            self._ask(way, 100)
            self._count[way] = max(30, min(3000, round(MILLISECONDS * 1000 / max(self._ask(way, 100)))))

    def measure(self, way: str) -> None:
        self.taken[way].append(self._ask(way, self._count[way]))

    def whole(self, way: str) -> float:
        """Microseconds of a request."""
        return statistics.median(with_it for with_it, _ in self.taken[way])

    def bare(self, way: str) -> float:
        """Microseconds of the same request without authentication."""
        return statistics.median(without for _, without in self.taken[way])

    def added(self, way: str) -> float:
        """Microseconds that authentication adds: the median of the differences inside each round."""
        return statistics.median(with_it - without for with_it, without in self.taken[way])

    def _ask(self, way: str, count: int) -> tuple[float, float]:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{way} {count}\n")
        self._process.stdin.flush()
        with_it, without = self._answer().split()
        return float(with_it), float(without)

    def _answer(self) -> str:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("= "):
                return line[2:].strip()
        raise SystemExit(f"{self.contender.framework}, {self.contender.name}: the program has ended")


@contextmanager
def running(contender: Contender) -> Iterator[Asked]:
    """Start a contender with an empty database, and stop it afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        process = subprocess.Popen(
            contender.command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            cwd=HERE.parent,
            env={**os.environ, "SQLITE_PATH": f"{folder}/bench.db", "HASH": "none", "PYTHONWARNINGS": "ignore"},
        )
        try:
            yield Asked(contender, process)
        finally:
            process.communicate()


def measure(contenders: list[Contender], rounds: int) -> list[Asked]:
    """Measure all in one run: every round asks each contender in turn, every second one backwards."""
    with ExitStack() as stack:
        asked = [stack.enter_context(running(each)) for each in contenders]
        for each in asked:
            each.prepare()
        for number in range(rounds):
            for each in asked[:: -1 if number % 2 else 1]:
                for way in each.contender.ways:
                    each.measure(way)
        return asked


# --- the tables ------------------------------------------------------------------------------------------------------


def tables(asked: list[Asked]) -> str:
    """Write what was measured as Markdown, a table for each way to be signed in."""
    lines: list[str] = []
    for way in (COOKIE, BEARER):
        some = [each for each in asked if way in each.contender.ways]
        ours = {each.contender.framework: each for each in reversed(some) if each.contender.is_ours}
        lines += [f"| by {way} | | route alone | with it | adds | added by ours | whole by ours | asked |"]
        lines += ["|---|---|---:|---:|---:|---:|---:|---|"]
        for each in some:
            lines.append(_row(each, way, ours.get(each.contender.framework)))
        lines.append("")
    return "\n".join(lines)


def _row(each: Asked, way: str, ours: Asked | None) -> str:
    contender, added = each.contender, each.added(way)
    cells = [contender.framework, contender.name, f"{each.bare(way):.0f}", f"{each.whole(way):.0f}", f"{added:.0f} us"]
    if contender.is_ours or ours is None:
        cells += ["", ""]
    else:
        cells += [f"{added / ours.added(way):.1f} ×", f"{each.whole(way) / ours.whole(way):.1f} ×"]
    most = contender.most
    cells.append("" if most is None else f"under {most:.0f} us: {'yes' if added < most else '**no**'}")
    return f"| {' | '.join(cells)} |"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a few rounds")
    parser.add_argument("--only", nargs="+", metavar="NAME", default=[], help="frameworks or contenders by their names")
    options = parser.parse_args()
    names = [name.lower() for name in options.only]
    chosen = [
        each
        for each in CONTENDERS
        if not names or any(name in {each.framework.lower(), each.name.lower().split(",")[0]} for name in names)
    ]
    missing = {each.command[0] for each in chosen if not Path(each.command[0]).exists()}
    if missing:
        raise SystemExit(f"Not set up: {', '.join(sorted(missing))}. `make bench-adapters` does it.")
    before = os.getloadavg()[0]
    asked = measure(chosen, 5 if options.quick else ROUNDS)
    print(tables(asked))
    print(
        f"Microseconds of processor time, medians of {len(asked[0].taken[chosen[0].ways[0]])} rounds. "
        f"Load of the machine: {before:.1f} before, {os.getloadavg()[0]:.1f} after, on {os.cpu_count()} cores."
    )


if __name__ == "__main__":
    main()
