"""The reference is complete: each command and each error of the program stands in its table, as it is."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

import click
from tests.test_layout import FLOORS, PACKAGE

from dutchdoor import errors
from dutchdoor.errors import DutchdoorError
from dutchdoor.model.audit_events import AuditEvent, EventName
from dutchdoor.server.cli import cli
from dutchdoor.web.problems import problem

REFERENCE = Path(__file__).parents[2] / "docs" / "reference"


def commands(group: click.Group, *path: str) -> Iterator[str]:
    context = click.Context(group)
    for name in group.list_commands(context):
        found = group.get_command(context, name)
        if isinstance(found, click.Group):
            if found.invoke_without_command:
                yield " ".join([*path, name])
            yield from commands(found, *path, name)
        else:
            yield " ".join([*path, name])


def test_the_page_of_commands_has_each_command() -> None:
    """docs/reference/commands.md has a row for each command, and for no other."""
    rows = re.findall(r"^\| `dutchdoor ([a-z -]+)", (REFERENCE / "commands.md").read_text(), re.MULTILINE)
    assert sorted(row.strip() for row in rows) == sorted(commands(cli))


def make(kind: type[DutchdoorError]) -> DutchdoorError:
    needed: dict[str, dict[str, Any]] = {
        "StepUpRequired": {"max_age": 1.0},
        "RateLimited": {"retry_after": 1.0},
        "SignInUnfinished": {"token": "t", "methods": ("code",)},
    }
    if kind is errors.Misdirected:
        return kind("aud", found="a", expected="b")
    return kind("reason", **needed.get(kind.__name__, {}))


def test_the_page_of_errors_has_each_error() -> None:
    """docs/reference/errors.md has each exception with its code, and with the status that it has over HTTP."""
    page = (REFERENCE / "errors.md").read_text()
    rows = dict(re.findall(r"^\| `(\w+)` \| (`\w+` \| \d*) ?\|", page, re.MULTILINE))
    expected = {}
    for name in errors.__all__:
        kind = getattr(errors, name)
        if kind is not DutchdoorError:
            status = str(problem(make(kind)).status) if kind not in {errors.InvalidKey, errors.Misconfigured} else ""
            expected[name] = f"`{kind.code}` | {status}"
    assert rows == expected


def test_each_event_is_described() -> None:
    """The page about hooks says what each event of the audit log means, and what each of its fields is."""
    page = (REFERENCE.parent / "guides" / "hooks.md").read_text()
    rows = [row.split("|")[1] for row in page.splitlines() if row.startswith("| `")]
    named = [name for row in rows for name in re.findall(r"`(\w+)`", row)]
    assert sorted(named) == sorted([*get_args(EventName), *AuditEvent.__struct_fields__])


def test_the_page_of_the_architecture_draws_the_rooms_as_they_are() -> None:
    """docs/contributing/architecture.md lists every room of the package, and the floors that the layout test holds."""
    page = (REFERENCE.parent / "contributing" / "architecture.md").read_text()
    assert "\n".join(", ".join(rooms) for rooms in FLOORS) in page
    lines = re.findall(r"^  ((?:[a-z_]+(?:/|\.py) )+)", page, re.MULTILINE)
    listed = {name.rstrip("/") for line in lines for name in line.split()}
    there = {path.name for path in PACKAGE.iterdir() if not path.name.startswith("_") and path.name != "py.typed"}
    assert listed - {"__init__.py"} == there
    named = set(re.findall(r"`((?:web|services|model|stores)/\w+\.py)`", page))
    assert [name for name in named if not (PACKAGE / name).is_file()] == []
