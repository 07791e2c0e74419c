"""The import time and the memory that each adapter adds to its framework: `python -m benchmarks.importing`.

Each program is a fresh process: the framework and an application, then the same with `Auth`, which embeds the engine or
only verifies tokens. No request is sent. What is printed are differences of medians; the time is processor time.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

ROUNDS = 7
REPORT = """
import resource, time
pages = int(open("/proc/self/statm").read().split()[1])
print(time.process_time() * 1e3, pages * resource.getpagesize() / 2**20)
"""
EMBEDDED, VERIFYING = '"sqlite:///bench.db"', 'issuer="http://localhost:8000", audience="api"'

_DJANGO = """
import django
from django.conf import settings
settings.configure(
    SECRET_KEY="x" * 50,
    ROOT_URLCONF=__name__,
    INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "django.contrib.sessions", *{apps}],
    MIDDLEWARE=[
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        *{middleware},
    ],
    DATABASES={{"default": {{"ENGINE": "django.db.backends.sqlite3", "NAME": "django.db"}}}},
    DUTCHDOOR=dict({arguments}),
)
django.setup()
urlpatterns = []
import django.contrib.auth.models
from django.core.wsgi import get_wsgi_application
app = get_wsgi_application()
"""
_DJANGO_WITH = _DJANGO.replace("{apps}", '["dutchdoor.django"]').replace(
    "{middleware}", '["dutchdoor.django.middleware.DutchdoorMiddleware"]'
)


def _with(module: str, call: str) -> tuple[str, str]:
    """Return what makes an `Auth` that embeds the engine, and one that verifies."""
    embedded, verifying = (
        f"from dutchdoor.{module} import Auth\nauth = {call.format(arguments)}\n" for arguments in (EMBEDDED, VERIFYING)
    )
    return embedded, verifying


_FASTAPI = "from fastapi import FastAPI\napp = FastAPI()\n"
_STARLETTE = "from starlette.applications import Starlette\napp = Starlette()\n"
_LITESTAR = "from litestar import Litestar\n"
_FLASK = "from flask import Flask\napp = Flask('app')\n"


def programs() -> dict[str, tuple[str, str, str]]:
    """Return for each framework a program without an adapter, with the engine, and with a verifier."""
    made = {}
    for name, alone, module, call in (
        ("FastAPI", _FASTAPI, "fastapi", "Auth(app, {})"),
        ("Starlette", _STARLETTE, "starlette", "Auth(app, {})"),
        ("Litestar", _LITESTAR, "litestar", "Auth({})"),
        ("Flask", _FLASK, "flask", "Auth(app, {})"),
    ):
        embedded, verifying = _with(module, call)
        end = "app = Litestar(plugins=[auth])\n" if name == "Litestar" else ""
        plain = "app = Litestar()\n" if name == "Litestar" else ""
        made[name] = (alone + plain, alone + embedded + end, alone + verifying + end)
    made["Django"] = (
        _DJANGO.format(apps="[]", middleware="[]", arguments=""),
        _DJANGO_WITH.format(arguments=EMBEDDED.replace('"sql', 'database="sql', 1)),
        _DJANGO_WITH.format(arguments=VERIFYING),
    )
    return made


def run(program: str) -> tuple[float, float]:
    """Run a program. Returns its milliseconds and its MiB."""
    with tempfile.TemporaryDirectory() as folder:
        ran = subprocess.run(
            [sys.executable, "-c", program + REPORT],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent / "src")},
            capture_output=True,
            text=True,
            check=False,
        )
    if ran.returncode:
        raise SystemExit(f"{program}\n{ran.stderr}")
    milliseconds, mib = ran.stdout.split()
    return float(milliseconds), float(mib)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="a few rounds")
    rounds = 3 if parser.parse_args().quick else ROUNDS
    asked = programs()
    taken: dict[tuple[str, int], list[tuple[float, float]]] = {}
    for number in range(rounds + 1):
        for name, three in asked.items():
            for kind, program in enumerate(three):
                figures = run(program)
                if number:  # the first compiles what it imports
                    taken.setdefault((name, kind), []).append(figures)
    print("| | framework alone | the engine adds | a verifier adds |\n|---|---:|---:|---:|")
    for name in asked:
        (time, memory), *more = (
            [statistics.median(column) for column in zip(*taken[name, kind], strict=True)] for kind in range(3)
        )
        cells = [f"{other[0] - time:.0f} ms, {other[1] - memory:.1f} MiB" for other in more]
        print(f"| {name} | {time:.0f} ms, {memory:.1f} MiB | {' | '.join(cells)} |")
    print(f"\nMedians of {rounds} rounds. Load of the machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores.")


if __name__ == "__main__":
    main()
