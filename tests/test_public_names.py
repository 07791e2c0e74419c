"""What `import dutchdoor` offers: every public name is there, and says what it takes, gives and raises."""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from collections.abc import Iterator

import pytest

import dutchdoor
from dutchdoor.services.administration import Administration
from dutchdoor.services.fencing import Fencing
from dutchdoor.services.presenting import SignedIn
from dutchdoor.services.recovery import Recovery
from dutchdoor.services.registration import Registration
from dutchdoor.services.sessions import Authority
from dutchdoor.services.sign_in import SignIn

NAMES = {name: getattr(dutchdoor, name) for name in dutchdoor.__all__}
VERBS = (Authority, Registration, SignIn, Recovery, Administration)
"""What an application reaches by `auth.authority` and `auth.directory`. Only the first is made by an application."""
CLASSES = {kind.__name__: kind for kind in (*NAMES.values(), *VERBS, Fencing, SignedIn) if inspect.isclass(kind)}


def test_every_public_name_is_there() -> None:
    """Each name in `dutchdoor.__all__` can be imported, and the list is complete."""
    assert set(NAMES) == set(dutchdoor._WHERE)


def public_methods(kind: type) -> Iterator[tuple[str, object]]:
    for name, method in inspect.getmembers(kind, inspect.isfunction):
        made_here = method.__module__.startswith("dutchdoor.")
        is_internal = name.startswith("_") and name not in {"__init__", "__call__"}
        if made_here and not is_internal and not (name == "__init__" and kind in VERBS[1:]):
            yield name, method


@pytest.mark.parametrize("kind", CLASSES.values(), ids=CLASSES)
def test_every_parameter_is_described(kind: type) -> None:
    """Each parameter of a public class and of its methods is named in the docstring of the method, or, where many
    methods share it, in that of the class.
    """
    shared = "\n".join(base.__doc__ or "" for base in kind.__mro__ if base.__module__.startswith("dutchdoor."))
    missing = []
    for name, method in public_methods(kind):
        described = f"{method.__doc__ or ''}\n{shared}"
        parameters = [parameter for parameter in inspect.signature(method).parameters if parameter != "self"]
        missing += [
            f"{name}({parameter})"
            for parameter in parameters
            if not re.search(rf"`{parameter}`|\b{parameter}(, \w+)*:", described)
        ]
        if not described.strip():
            missing.append(name)
    assert missing == []


@pytest.mark.parametrize(
    "kind", [kind for kind in CLASSES.values() if hasattr(kind, "__struct_fields__")], ids=lambda kind: kind.__name__
)
def test_every_field_is_described(kind: type) -> None:
    """Each field of a public record has a sentence below it, or in the docstring of the record."""
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(kind))).body
    assert isinstance(tree, ast.ClassDef)
    missing = []
    for field, after in zip(tree.body, [*tree.body[1:], None], strict=True):
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name):
            described = isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
            if not described and f"`{field.target.id}`" not in (kind.__doc__ or ""):
                missing.append(field.target.id)
    assert missing == []
