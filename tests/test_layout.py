"""The shape of the package: which file may import which, and what no file may name.

    server   testing
    auth                                 Auth, the one object an application holds
    web/*                                one file a framework
    authority, issuer, fencing, directory   the verbs
      stores/*                             what keeps records, each by itself
      mail/*                               what carries mail, each by itself
    store                                the seam
    everything else                      records and decisions: no I/O, no clock

Arrows point down, or along a row; the graph has no cycle. Run this file as a program to see the graph.
"""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "src" / "dutchdoor"

DOMAIN, SEAM, VERBS, WEB, AUTH, OUTSIDE = range(6)
ROWS = ("records and decisions", "the seam", "verbs, stores and mail", "web", "auth", "server and testing")

# What is not named here is a record or a decision. A family's `__init__` is its protocol, which those may know.
ROW_OF = {
    "dutchdoor.stores.base": SEAM,
    "dutchdoor.stores.transfer": SEAM,
    "dutchdoor.services.sessions": VERBS,
    "dutchdoor.services.accounts": VERBS,
    "dutchdoor.verifier": VERBS,
    "dutchdoor.services.fencing": VERBS,
    "dutchdoor.services.retold": VERBS,
    "dutchdoor.services.tokens": VERBS,
    "dutchdoor.stores": VERBS,
    "dutchdoor.mail": VERBS,
    "dutchdoor.web": WEB,
    "dutchdoor.auth": AUTH,
    "dutchdoor.server": OUTSIDE,
    "dutchdoor.testing": OUTSIDE,
}

FAMILIES = ("access", "credentials", "mail", "stores", "web")
PROTOCOLS = {f"dutchdoor.{family}" for family in FAMILIES if family != "web"}
# A member may be several files: these belong to the member that is named.
BELONGS_TO = {
    **{("credentials", part): "password" for part in ("hashing", "legacy", "strength")},
    **{("access", part): "jwt" for part in ("cache", "inspect", "jws")},
    ("stores", "redis_link"): "redis",
}
# In web, everything but these is what they are made of.
FRAMEWORKS = {"asgi", "django", "fastapi", "flask", "starlette"}

# Modules that do I/O, wait or tell the time. A file at the root is given the time, and leaves the rest to others.
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
            inside = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            yield from visit(child, nested=nested or inside)

    yield from visit(ast.parse(SOURCES[module].read_text()), nested=False)


IMPORTS = [found for module in SOURCES for found in imports_of(module)]
ARROWS = [found for found in IMPORTS if found.imported in SOURCES]


def row(module: str) -> int:
    family = ".".join(module.split(".")[:2])
    if module == family and is_package(module) and family in PROTOCOLS:
        return DOMAIN
    return ROW_OF.get(family, DOMAIN)


def drawing(marked: list[Import] = []) -> str:  # noqa: B006 - never changed
    """Draw the graph, top row first; `marked` arrows with a cross."""
    crossed = set(marked)
    arrows: defaultdict[str, set[str]] = defaultdict(set)
    for arrow in ARROWS:
        cross = "  <-- not allowed" if arrow in crossed else ""
        arrows[arrow.importer].add(arrow.imported.removeprefix("dutchdoor.") + cross)
    lines = []
    for number in reversed(range(len(ROWS))):
        lines.append(f"{ROWS[number]}")
        for module in SOURCES:
            if row(module) == number and module != "dutchdoor":
                lines.append(f"  {module.removeprefix('dutchdoor.')}")
                lines += [f"    -> {target}" for target in sorted(arrows[module])]
    return "\n".join(lines)


def hold(wrong: list[Import], rule: str) -> None:
    if wrong:
        listed = "\n".join(f"  {found}" for found in wrong)
        pytest.fail(f"{rule}\n{listed}\n\n{drawing(wrong)}", pytrace=False)


def test_arrows_point_down() -> None:
    """A file imports from its own row or from one below, never from above."""
    hold([a for a in ARROWS if a.importer != "dutchdoor" and row(a.imported) > row(a.importer)], "Arrows point down.")


def test_the_graph_has_no_cycle() -> None:
    """No file can be reached from itself, so each can be read and tested before what stands on it."""
    below: defaultdict[str, set[str]] = defaultdict(set)
    for arrow in ARROWS:
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
    match module.split("."):
        case ["dutchdoor", "web", name, *_]:
            return ("web", name) if name in FRAMEWORKS else None
        case ["dutchdoor", family, name, *_] if family in FAMILIES:
            return family, BELONGS_TO.get((family, name), name)
    return None


def test_members_of_a_family_never_import_each_other() -> None:
    """A store, a credential, a token format, a carrier or a framework can be deleted without another noticing."""
    wrong = [
        arrow
        for arrow in ARROWS
        if (target := member_of(arrow.imported))
        and arrow.importer.split(".")[1:2] == [target[0]]
        and member_of(arrow.importer) != target
    ]
    hold(wrong, "Members of a family never import each other, and a family never imports its members.")


def test_no_import_inside_a_function() -> None:
    """What a file needs stands at its top: nothing fails at the first request that could have failed at the start."""
    hold([found for found in IMPORTS if found.nested], "No import inside a function.")


def test_nothing_imports_the_front_door() -> None:
    """Inside the package a name comes from the file that defines it; `dutchdoor` itself is for those outside."""
    hold([a for a in ARROWS if a.imported == "dutchdoor"], "Import from the file that defines it.")


def declared() -> tuple[set[str], set[str]]:
    """Names of the distributions that are always there, and of those that an extra brings."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    def names(requirements: list[str]) -> set[str]:
        return {re.split(r"[^\w.-]", line, maxsplit=1)[0].replace("-", "_").lower() for line in requirements}

    optional = set().union(*map(names, project["optional-dependencies"].values()))
    return names(project["dependencies"]), optional


BASE, OPTIONAL = declared()
FOREIGN = [
    found
    for found in IMPORTS
    if (top := found.imported.split(".")[0]) not in sys.stdlib_module_names and top not in {"dutchdoor", "__future__"}
]


def test_what_is_imported_is_declared() -> None:
    """Whatever the package imports stands in pyproject.toml; what only tests need may be imported by `testing`."""
    known = BASE | OPTIONAL
    wrong = [
        found
        for found in FOREIGN
        if found.imported.split(".")[0] not in known and not found.importer.startswith("dutchdoor.testing")
    ]
    hold(wrong, "An import that pyproject.toml does not declare.")


# uvicorn looks for it by itself.
FOUND_BY_UVICORN = {"uvloop"}


def test_what_is_declared_is_imported() -> None:
    """Nobody installs a library that nothing of the package imports: it is one more to trust and to keep."""
    imported = {found.imported.split(".")[0] for found in FOREIGN}
    assert (BASE | OPTIONAL) - imported == FOUND_BY_UVICORN


# An application that brings its own users keeps no e-mail addresses, and a verifier neither.
ONE_FILE_NEEDS = {("dutchdoor.model.email_address", "idna")}


def test_the_root_imports_nothing_optional() -> None:
    """Files at the root and protocols of families run on the base dependencies alone, but for the exceptions named."""
    wrong = [
        found
        for found in FOREIGN
        if found.imported.split(".")[0] not in BASE and (found.importer.count(".") <= 1 or found.importer in PROTOCOLS)
        if row(found.importer) != OUTSIDE and (found.importer, found.imported) not in ONE_FILE_NEEDS
    ]
    hold(wrong, "The root imports no optional dependency.")


def test_the_root_does_no_io_and_reads_no_clock() -> None:
    """A record or a decision at the root imports nothing that waits, reads or tells the time: time comes in."""
    wrong = [
        found
        for found in IMPORTS
        if found.imported.split(".")[0] in IMPURE and row(found.importer) <= SEAM and not is_package(found.importer)
        if found.importer.count(".") == 1
    ]
    hold(wrong, "The root does no I/O and reads no clock.")


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
# A path on somebody's machine: at the start of a word, so that a URL's path is none.
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
    """A checkout works wherever it lies: no file names a home, temporary or working folder of somebody's machine."""
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
