"""The shape of the package: which room may import which, and what no file may name.

A room is a file or a folder right under the package. Rooms stand on floors (see `FLOORS`). An import points down, never
up, and never sideways between two rooms of one floor; the graph of files has no cycle. Run this file as a program to
see the graph.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "dutchdoor"

# From the roof down.
FLOORS = (
    ("server", "testing"),
    ("choice",),
    ("fastapi", "starlette", "litestar", "flask", "sqlalchemy", "django", "asgi", "wsgi"),
    ("guard",),
    ("auth",),
    ("web",),
    ("client",),
    ("services", "verifier"),
    ("stores", "mail", "issuers", "webhooks"),
    ("credentials", "revocation"),
    ("jose",),
    ("model",),
    ("errors",),
    ("texts",),
)
FLOOR_OF = {room: len(FLOORS) - number for number, rooms in enumerate(FLOORS) for room in rooms}

# Each member of these can be deleted without another noticing. What all members share is named here.
FAMILIES = ("credentials", "mail", "stores", "web")
SHARED = {
    "credentials.base",
    "stores.account_words",
    "stores.base",
    "stores.file_access",
    "stores.kinds",
    "stores.migrations",
    "stores.sql",
    "stores.transfer",
}
# A member may be several files: these belong to the member that is named.
BELONGS_TO = {
    **{("credentials", part): "password" for part in ("hashing", "legacy", "strength")},
    ("stores", "redis_connection"): "redis",
}
# In web, everything but these is what they are made of.
FRAMEWORKS = {"asgi", "django", "fastapi", "flask", "starlette"}

# Rooms that decide: they are given the time, and leave waiting and reading to others.
PURE = {"model", "revocation"}
# Modules that do I/O, wait or tell the time.
IMPURE = {
    *("asyncio", "concurrent", "glob", "http", "io", "multiprocessing", "os", "pathlib", "select", "shutil", "signal"),
    *("smtplib", "socket", "sqlite3", "ssl", "subprocess", "tempfile", "threading", "time"),
}


class Import(NamedTuple):
    """One import statement: who, what and where; `nested` if it stands inside a function."""

    importer: str
    imported: str
    line: int
    nested: bool

    def __str__(self) -> str:
        return f"{self.importer}:{self.line} imports {self.imported}"


def module_name(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {module_name(path): path for path in sorted(PACKAGE.rglob("*.py"))}


def is_package(module: str) -> bool:
    return SOURCES[module].name == "__init__.py"


def imports_of(module: str) -> Iterator[Import]:
    """Read every import statement, those under `if TYPE_CHECKING` and inside functions included."""

    def visit(node: ast.AST, *, nested: bool) -> Iterator[Import]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.expr):  # no import stands in one
                continue
            if isinstance(child, ast.Import):
                for alias in child.names:
                    yield Import(module, alias.name, child.lineno, nested)
            elif isinstance(child, ast.ImportFrom):
                origin = child.module or ""
                if child.level:
                    base = module.split(".")[: len(module.split(".")) + is_package(module) - child.level]
                    origin = ".".join([*base, origin]).rstrip(".")
                for alias in child.names:
                    inner = f"{origin}.{alias.name}"
                    yield Import(module, inner if inner in SOURCES else origin, child.lineno, nested)
            inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef)
            yield from visit(child, nested=nested or inside)

    yield from visit(ast.parse(SOURCES[module].read_text()), nested=False)


@cache
def imports() -> list[Import]:
    return [found for module in SOURCES for found in imports_of(module)]


@cache
def arrows() -> list[Import]:
    """The imports of modules of ours."""
    return [found for found in imports() if found.imported in SOURCES]


def room(module: str) -> str:
    """The room a module is in; empty for the package's own file."""
    return (*module.split("."), "")[1]


def floor(module: str) -> int:
    """The number of the floor a module stands on; the front door looks at all of them."""
    return FLOOR_OF[room(module)] if room(module) else len(FLOORS) + 1


def drawing(marked: list[Import] = []) -> str:  # noqa: B006 - never changed
    """Draw the graph, the top floor first; `marked` arrows with a cross."""
    crossed = set(marked)
    arrows: defaultdict[str, set[str]] = defaultdict(set)
    for arrow in arrows():
        cross = "  <-- not allowed" if arrow in crossed else ""
        arrows[arrow.importer].add(arrow.imported.removeprefix("dutchdoor.") + cross)
    lines = []
    for rooms in FLOORS:
        lines.append(", ".join(rooms))
        for module in SOURCES:
            if room(module) in rooms:
                lines.append(f"  {module.removeprefix('dutchdoor.')}")
                lines += [f"    -> {target}" for target in sorted(arrows[module])]
    return "\n".join(lines)


def hold(wrong: list[Import], rule: str) -> None:
    if wrong:
        listed = "\n".join(f"  {found}" for found in wrong)
        pytest.fail(f"{rule}\n{listed}\n\n{drawing(wrong)}", pytrace=False)


def test_every_room_has_its_floor() -> None:
    """A new room is put on a floor, here, before anything imports it."""
    assert {room(module) for module in SOURCES} - {""} == set(FLOOR_OF)


def test_arrows_point_down() -> None:
    """A file imports from its own room or from a floor below, never from above, nor from its neighbour."""
    hold(
        [
            arrow
            for arrow in arrows()
            if room(arrow.imported) != room(arrow.importer) and floor(arrow.imported) >= floor(arrow.importer)
        ],
        "Arrows point down.",
    )


def test_the_graph_has_no_cycle() -> None:
    """No file can be reached from itself, so each can be read and tested before what stands on it."""
    below: defaultdict[str, set[str]] = defaultdict(set)
    for arrow in arrows():
        below[arrow.importer].add(arrow.imported)
    done: set[str] = set()

    def walk(module: str, way: tuple[str, ...]) -> None:
        if module in way:
            pytest.fail("A cycle: " + " -> ".join([*way[way.index(module) :], module]), pytrace=False)
        if module not in done:
            for target in sorted(below[module]):
                walk(target, (*way, module))
            done.add(module)

    for module in SOURCES:
        walk(module, ())


def member_of(module: str) -> tuple[str, str] | None:
    """Family and name of the member that a module belongs to; None for a family itself and for all else."""
    if module.removeprefix("dutchdoor.") in SHARED:
        return None
    match module.split("."):
        case ["dutchdoor", "web", name, *_]:
            return ("web", name) if name in FRAMEWORKS else None
        case ["dutchdoor", family, name, *_] if family in FAMILIES:
            return family, BELONGS_TO.get((family, name), name)
    return None


def test_members_of_a_family_never_import_each_other() -> None:
    """A store, a credential, a carrier of mail or a framework can be deleted without another noticing."""
    wrong = [
        arrow
        for arrow in arrows()
        if (target := member_of(arrow.imported))
        and room(arrow.importer) == target[0]
        and member_of(arrow.importer) != target
    ]
    hold(wrong, "Members of a family never import each other, and a family never imports its members.")


def test_no_import_inside_a_function() -> None:
    """What a file needs stands at its top: nothing fails at the first request that could have failed at the start."""
    hold([found for found in imports() if found.nested], "No import inside a function.")


def test_nothing_imports_the_front_door() -> None:
    """Inside the package a name comes from the file that defines it; `dutchdoor` itself is for those outside."""
    hold([a for a in arrows() if a.imported == "dutchdoor"], "Import from the file that defines it.")


def declared() -> tuple[set[str], set[str]]:
    """Import names of the distributions that are always there, and of those that an extra brings."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    def names(requirements: list[str]) -> set[str]:
        found = {re.split(r"[^\w.-]", line, maxsplit=1)[0].replace("-", "_").lower() for line in requirements}
        # The distributions of OpenTelemetry share one package, and REST framework has another name than its own.
        found = {"opentelemetry" if name.startswith("opentelemetry_") else name for name in found}
        return {"rest_framework" if name == "djangorestframework" else name for name in found}

    optional = set().union(*map(names, project["optional-dependencies"].values()))
    return names(project["dependencies"]), optional - {"dutchdoor"}  # an extra may name another one


BASE, OPTIONAL = declared()


@cache
def foreign() -> list[Import]:
    """The imports of packages of others."""
    ours = {"dutchdoor", "__future__", *sys.stdlib_module_names}
    return [found for found in imports() if found.imported.split(".")[0] not in ours]


def test_what_is_imported_is_declared() -> None:
    """Whatever the package imports stands in pyproject.toml; what only tests need may be imported by `testing`."""
    known = BASE | OPTIONAL
    wrong = [
        found
        for found in foreign()
        if found.imported.split(".")[0] not in known and not found.importer.startswith("dutchdoor.testing")
    ]
    hold(wrong, "An import that pyproject.toml does not declare.")


def test_what_is_declared_is_imported() -> None:
    """The package requires no library that nothing of the package imports: it is one more to trust and to keep."""
    imported = {found.imported.split(".")[0] for found in foreign()}
    assert imported >= BASE | OPTIONAL


# An application that brings its own users keeps no e-mail addresses, and a verifier neither.
ONE_FILE_NEEDS = {("dutchdoor.model.email_address", "idna")}
PLAIN = {"errors", "model", "jose", "revocation", "verifier"}


def test_the_rooms_below_import_nothing_optional() -> None:
    """Records, tokens, the log and the verifier run on the base dependencies alone, but for the exceptions named."""
    wrong = [
        found
        for found in foreign()
        if found.imported.split(".")[0] not in BASE
        and room(found.importer) in PLAIN
        and (found.importer, found.imported) not in ONE_FILE_NEEDS
    ]
    hold(wrong, "The rooms below import no optional dependency.")


def test_decisions_do_no_io_and_read_no_clock() -> None:
    """A record or a decision imports nothing that waits, reads or tells the time: time comes in."""
    wrong = [found for found in imports() if found.imported.split(".")[0] in IMPURE and room(found.importer) in PURE]
    hold(wrong, "Decisions do no I/O and read no clock.")


def test_importing_dutchdoor_costs_nothing_optional() -> None:
    """`import dutchdoor` in a fresh Python loads no optional dependency, whatever is installed."""
    code = "import sys, dutchdoor; print(*{name.split('.')[0] for name in sys.modules})"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split()
    assert {name.lower() for name in loaded} & OPTIONAL == set()


# --- what no file may name -------------------------------------------------------------------------------------------

# With spaces, so that this file does not name what it looks for.
REGISTRIES = tuple(
    name.replace(" ", "")
    for name in (
        *("pypi .org", "python hosted.org", "npm js.org", "npm js.com", "yarn pkg.com", "crates .io", "debian .org"),
        *("ubuntu .com", "golang .org", "docker .io", "gh cr.io", "quay .io", "anaconda .org"),
        *("index -url", "find -links"),
    )
)
# A path on one machine: at the start of a word, so that a URL's path is none.
MACHINE_PATH = re.compile(r"(?<![\w.:/$}~-])/(?:work|root|tmp|Users|home)/\w")


def tracked() -> list[Path]:
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=False)
    if listed.returncode:
        pytest.skip("not a git checkout")
    return [ROOT / name for name in listed.stdout.decode().split("\0") if name and (ROOT / name).is_file()]


def lines_of(path: Path) -> Iterator[tuple[int, str]]:
    try:
        yield from enumerate(path.read_text(encoding="utf-8").splitlines(), 1)
    except UnicodeDecodeError:
        return


def test_no_file_names_a_registry() -> None:
    """Where packages come from is the machine's business: no file names a registry or an index."""
    wrong = [
        f"{path.relative_to(ROOT)}:{number}: {name}"
        for path in tracked()
        for number, line in lines_of(path)
        for name in REGISTRIES
        if name in line.lower()
    ]
    assert wrong == []


def test_no_file_names_a_path_of_one_machine() -> None:
    """A checkout works wherever it lies: no file names a home, temporary or working folder."""
    wrong = [
        f"{path.relative_to(ROOT)}:{number}: {line.strip()[:80]}"
        for path in tracked()
        for number, line in lines_of(path)
        if MACHINE_PATH.search(line)
    ]
    assert wrong == []


# --- tests -----------------------------------------------------------------------------------------------------------


def test_every_test_says_what_it_defends() -> None:
    """A test's docstring is the sentence it defends, so a failure reads as what is no longer true."""
    wrong = [
        f"{path.relative_to(ROOT)}:{node.lineno}: {node.name}"
        for path in sorted((ROOT / "tests").rglob("test_*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        if node.name.startswith("test_") and not ast.get_docstring(node)
    ]
    assert wrong == []


if __name__ == "__main__":
    print(drawing())
