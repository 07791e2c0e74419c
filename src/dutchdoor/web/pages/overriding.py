"""Templates in place of ours: what each has, and whether those of a folder fit.

A page of the folder replaces the one of the same name. It may extend ours: `{% extends "dutchdoor/login.html" %}`. What
a page has (its blocks, the values that it shows) is read from our own templates, and docs/reference/templates.md lists
it: `python -m dutchdoor.web.pages.overriding` writes that page. A template that uses anything else is refused at the
start, and not at the first visit.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from jinja2 import Environment, TemplateSyntaxError, meta, nodes
from markupsafe import Markup, escape
from msgspec import Struct

from dutchdoor.errors import Misconfigured
from dutchdoor.model.choices import near
from dutchdoor.texts.languages import ENGLISH, Language
from dutchdoor.texts.templates import OURS, environment

__all__ = ["Described", "check_templates", "described", "page_templates"]

TEMPLATES = Path(__file__).parent / "templates"
"""Our own."""


def page_templates(language: Language, replacing: Path | None = None) -> Environment:
    """Return the templates of all pages in a language, with those of a folder in place of ours."""
    made = environment(TEMPLATES, language, replacing)
    made.filters["prose"] = _prose
    return made


def _prose(text: str) -> Markup:
    """Escape a text, and mark text between backticks as code. The only Python code that writes markup."""
    parts = str(text).split("`")
    if len(parts) % 2 == 0:
        return escape(text)
    return Markup("").join(
        Markup("<code>{}</code>").format(part) if odd % 2 else escape(part) for odd, part in enumerate(parts)
    )


class Described(Struct, frozen=True):
    """What a template has, with those that it extends."""

    blocks: frozenset[str]
    values: frozenset[str]
    macros: frozenset[str]
    """Of a file of macros, which other templates import."""


def names() -> list[str]:
    return sorted(path.relative_to(TEMPLATES).as_posix() for path in TEMPLATES.rglob("*.html"))


def described(name: str) -> Described:
    """Return what our template of this name has."""
    return _described((TEMPLATES / name).read_text())


def _described(source: str) -> Described:
    tree = page_templates(ENGLISH).parse(source)
    blocks = {block.name for block in tree.find_all(nodes.Block)}
    values = _used(tree)
    named = [found.template for found in tree.find_all(nodes.Extends)]
    named += [found.template for found in tree.find_all(nodes.Include)]
    for name in (name for template in named for name in _named(template)):
        above = described(name.removeprefix(OURS))
        blocks |= above.blocks
        values |= above.values
    macros = {macro.name for macro in tree.body if isinstance(macro, nodes.Macro)}
    return Described(frozenset(blocks), frozenset(values), frozenset(macros))


def _used(tree: nodes.Template) -> set[str]:
    """The values that a template uses and does not make: what it imports and defines at its top is seen in its blocks.

    Raises `TemplateSyntaxError` for a filter or a test that is not there.
    """
    own = {macro.name for macro in tree.find_all(nodes.Macro)} | {each.target for each in tree.find_all(nodes.Import)}
    for imported in tree.find_all(nodes.FromImport):
        own |= {name if isinstance(name, str) else name[1] for name in imported.names}
    for statement in tree.body:
        if isinstance(statement, nodes.Assign):
            own |= {name.name for name in statement.find_all(nodes.Name) if name.ctx == "store"}
    return meta.find_undeclared_variables(tree) - page_templates(ENGLISH).globals.keys() - own


def _named(template: nodes.Expr) -> Iterator[str]:
    """The templates that a statement names: one, or all that a name with a variable in it may be."""
    if isinstance(template, nodes.Const):
        yield str(template.value)
        return
    parts = template.nodes if isinstance(template, nodes.Concat) else []
    start, *_, end = [part.value for part in parts if isinstance(part, nodes.Const)] or ["", ""]
    yield from (name for name in names() if parts and name.startswith(start) and name.endswith(end))


def check_templates(folder: Path) -> None:
    """Raise `Misconfigured` for a file of the folder that replaces no page, is no template, or names a template, a
    block or a value that is not there. Names that begin with `_` are the folder's own.
    """
    ours = names()
    for path in sorted(found for found in folder.rglob("*") if found.is_file()):
        name = path.relative_to(folder).as_posix()
        if name.startswith("assets/") or path.name.startswith((".", "_")):
            continue
        if name not in ours:
            meant = near(name, ours)
            hint = f" Did you mean {meant}?" if meant else ""
            raise Misconfigured(
                f"{path} replaces no page.{hint} A file of your own begins with _, and what pages show is below "
                f"assets/. The pages are {', '.join(ours)}."
            )
        _check(path, name, page_templates(ENGLISH, folder))


def _check(path: Path, name: str, beside: Environment) -> None:
    try:
        source = path.read_text(encoding="utf-8")
        tree = page_templates(ENGLISH).parse(source)
        used = _used(tree)
    except UnicodeDecodeError:
        raise Misconfigured(f"{path} is not UTF-8.") from None
    except TemplateSyntaxError as exc:
        raise Misconfigured(f"{path}, line {exc.lineno}: {exc.message}") from None
    _check_named(path, name, tree, beside)
    page = described(name)
    if unknown := sorted(used - page.values):
        raise Misconfigured(f"{path} uses {unknown[0]}, which this page does not have. {_has('values', page.values)}")
    parent = next(tree.find_all(nodes.Extends), None)
    if parent is not None and isinstance(parent.template, nodes.Const):
        above = str(parent.template.value).removeprefix(OURS)
        there = described(above).blocks if (TEMPLATES / above).is_file() else None
        for block in tree.body:  # a block inside of another may be new
            if isinstance(block, nodes.Block) and there is not None and block.name not in there:
                raise Misconfigured(
                    f"{path}, line {block.lineno}: {parent.template.value} has no block {block.name}, so that nothing "
                    f"would show it. {_has('blocks', there)}"
                )


def _check_named(path: Path, name: str, tree: nodes.Template, beside: Environment) -> None:
    statements: list[nodes.Extends | nodes.Include | nodes.Import | nodes.FromImport] = [
        *tree.find_all(nodes.Extends),
        *(each for each in tree.find_all(nodes.Include) if not each.ignore_missing),
        *tree.find_all(nodes.Import),
        *tree.find_all(nodes.FromImport),
    ]
    known = beside.list_templates()
    for statement in statements:
        if not isinstance(statement.template, nodes.Const):
            continue
        line, named = f"{path}, line {statement.lineno}", str(statement.template.value)
        if named == name:  # it would have no end
            raise Misconfigured(f"{line}: it names itself. Ours is {OURS}{name}.")
        if named not in known:
            meant = near(named, known)
            hint = f" Did you mean {meant}?" if meant else ""
            raise Misconfigured(f"{line}: there is no template {named}.{hint}")


def _has(what: str, these: frozenset[str]) -> str:
    return f"Its {what}: {', '.join(sorted(these)) or 'none'}."


def page() -> str:
    """Write docs/reference/templates.md."""
    lines = [
        "# Templates",
        "",
        "You replace a page, and want to know what its template may use. [Branding](../guides/branding.md) says how.",
        "",
        "A template has the blocks and values of the one that it extends, which are in its row. `lang`, `dir` and `_`",
        "are in each. `python -m dutchdoor.web.pages.overriding` writes this page.",
        "",
        "| template | blocks | values |",
        "|---|---|---|",
    ]
    macros = []
    for name in names():
        has = described(name)
        if has.macros and not has.blocks:
            macros.append(f"| `{name}` | {_list(has.macros)} |")
        else:
            lines.append(f"| `{name}` | {_list(has.blocks)} | {_list(has.values)} |")
    lines += [
        "",
        'Files of macros, for `{% from "parts.html" import email %}`:',
        "",
        "| file | macros |",
        "|---|---|",
        *macros,
    ]
    return "\n".join(lines) + "\n"


def _list(these: frozenset[str]) -> str:
    return ", ".join(f"`{each}`" for each in sorted(these)) or "none"


if __name__ == "__main__":
    print(page(), end="")  # noqa: T201 - the page
