"""The lines of code that `advise` gives run as they are."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from dutchdoor.choice.advice import advise
from dutchdoor.choice.figures import read_figures
from dutchdoor.choice.questions import BY_ID, Answers

FRAMEWORKS = [name for name in BY_ID["framework"].choices if name != "none"]
OTHERS = {
    "on demand": Answers(services=2, checked_by="functions", framework="fastapi"),
    "ask": Answers(services=2, logout_within=0.0, framework="fastapi"),
    "keys": Answers(services=2, checked_by="other", logout_within=600.0, framework="fastapi"),
}

# A project as small as can be, with these settings: its checks pass, and it knows who is not signed in.
DJANGO = """
import django
from django.conf import settings

settings.configure(
    SECRET_KEY="for this test only",
    ROOT_URLCONF="urls",
    ALLOWED_HOSTS=["*"],
    INSTALLED_APPS=["django.contrib.auth", "django.contrib.contenttypes", "dutchdoor.django"],
    MIDDLEWARE=[
        "django.contrib.sessions.middleware.SessionMiddleware",
        "django.contrib.auth.middleware.AuthenticationMiddleware",
        "dutchdoor.django.middleware.DutchdoorMiddleware",
    ],
    DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}},
    DUTCHDOOR=DUTCHDOOR,
)
django.setup()

import sys, types
from django.core.management import call_command
from dutchdoor.django import auth
from django.urls import include, path

urls = sys.modules["urls"] = types.ModuleType("urls")
urls.urlpatterns = [path("", include("dutchdoor.django.urls"))] if "database" in DUTCHDOOR else []
call_command("check")
auth.require()
"""


def code(answers: Answers) -> str:
    return advise(answers, read_figures()).code


def runs(text: str, folder: Path) -> None:
    done = subprocess.run([sys.executable, "-c", text], cwd=folder, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{text}\n{done.stderr}"


@pytest.mark.parametrize("assurance", ["standard", pytest.param("high", marks=pytest.mark.long)])
@pytest.mark.parametrize("services", [0, 3])
@pytest.mark.parametrize(
    "framework", [name if name == "flask" else pytest.param(name, marks=pytest.mark.long) for name in FRAMEWORKS]
)
def test_the_lines_for_a_framework_run(framework: str, services: int, assurance: str, tmp_path: Path) -> None:
    """An application with these lines is made, with the sign-in inside or as a service that checks."""
    answers = Answers(framework=framework, services=services, assurance=assurance, clients=("pages", "spa"))  # type: ignore[arg-type]
    text = code(answers)
    if framework == "django":
        text += DJANGO
    runs(text, tmp_path)


@pytest.mark.parametrize("name", OTHERS)
def test_a_service_that_follows_no_log_gets_other_lines(name: str, tmp_path: Path) -> None:
    """A function, and a service that asks or knows the keys alone, gets what it needs in place of an adapter."""
    text = code(OTHERS[name])
    if name == "on demand":
        runs(text, tmp_path)
    else:
        assert {"ask": "/oauth2/introspect", "keys": "/.well-known/jwks.json"}[name] in text


def test_no_framework_no_lines() -> None:
    """Where no framework was named there is no code to read."""
    assert code(Answers()) == ""
