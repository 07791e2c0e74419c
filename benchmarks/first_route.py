"""How much an author types before a first route is protected: `python -m benchmarks.first_route`.

Counts the lines of each program in `examples/` that its route `/hello` needs, and the commands of its docstring; then
the lines of what the peers' programs here have for theirs. Not counted: blank lines, comments and docstrings, other
routes, other ways to sign in, what starts the server, and what only a measurement needs.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
PEERS = ROOT / "benchmarks" / "peers"

_MEASURING = frozenset(
    "ACCOUNT anyone bare event hashlib hmac in_process no_hash NoHash passwords pwdlib pwdlib.hashers.argon2 "
    "fastapi_users.password secrets serve_asgi serve_wsgi set_pragmas store sys".split()
)
_MORE_ROUTES = frozenset({"index", "order"})
_SERVING = frozenset({"uvicorn"})


class Program(NamedTuple):
    """A program, and the names of what its first protected route does not need."""

    name: str
    file: Path
    needless: frozenset[str] = frozenset()


_OTHER_WAYS_OF_FASTAPI_USERS = frozenset(
    "by_jwt with_jwt jwt_strategy me_by_jwt by_database with_database me_by_database".split()
)
PROGRAMS = (
    *(
        Program(file.stem.replace("_", " "), file)
        for pattern in ("*_app.py", "verifier_*.py")
        for file in sorted((ROOT / "examples").glob(pattern))
    ),
    Program("fastapi-users, cookie", PEERS / "fastapi_users_app.py", _OTHER_WAYS_OF_FASTAPI_USERS),
    Program("crudauth", PEERS / "crudauth_guard.py"),
    Program(
        "Flask-Login, Flask-Session",
        PEERS / "flask_login_guard.py",
        frozenset({"ApiKey", "load_user_from_request", "token"}),
    ),
)


def lines(program: Program) -> int:
    """Count the lines of what the route needs."""
    text = program.file.read_text()
    needless = program.needless | _MEASURING | _MORE_ROUTES | _SERVING
    counted = {number for node in ast.parse(text).body for number in _needed(node, needless)}
    written = text.splitlines()
    return sum(
        1 for number in counted if written[number - 1].strip() and not written[number - 1].strip().startswith("#")
    )


def _needed(node: ast.stmt, needless: frozenset[str]) -> Iterator[int]:
    """Return the numbers of the lines of a statement, without those of needless statements inside."""
    if _is_needless(node, needless):
        return
    inside = getattr(node, "body", [])
    if not inside:
        yield from range(node.lineno, (node.end_lineno or node.lineno) + 1)
        return
    yield from range(_start(node), _start(inside[0]))
    for each in inside:
        yield from _needed(each, needless)


def _start(node: ast.stmt) -> int:
    return min([node.lineno, *(each.lineno for each in getattr(node, "decorator_list", []))])


def _is_needless(node: ast.stmt, needless: frozenset[str]) -> bool:
    match node:
        case ast.ImportFrom(module=module, names=names):
            return module == "__future__" or module in needless or all(each.name in needless for each in names)
        case ast.Import(names=names):
            return all(each.name in needless for each in names)
        case ast.Expr(value=ast.Constant()):  # a docstring
            return True
        case ast.If(test=ast.Compare(left=ast.Name(id="__name__"))):
            return True
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            return name in needless
        case ast.Assign(targets=targets):
            return all(isinstance(each, ast.Name) and each.id in needless for each in targets)
        case ast.Expr():
            return any(isinstance(each, ast.Name) and each.id in needless for each in ast.walk(node))
    return False


def commands(program: Program) -> int | None:
    """Count the commands of the docstring: those that are indented, and the one that registers an account."""
    doc = ast.get_docstring(ast.parse(program.file.read_text())) or ""
    if program.file.parent == PEERS:
        return None
    return sum(line.startswith("    ") for line in doc.splitlines()) + sum(
        line.startswith("Then: ") for line in doc.splitlines()
    )


def main() -> None:
    print("| program | lines to a first protected route | commands |\n|---|---:|---:|")
    for program in PROGRAMS:
        typed = commands(program)
        print(f"| {program.name} | {lines(program)} | {'' if typed is None else typed} |")


if __name__ == "__main__":
    main()
