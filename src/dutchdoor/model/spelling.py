"""Settings as arguments: a call that Python would refuse with a `TypeError` says which setting is meant, and how to
write it.

`Spelt` makes classes of settings that are structs. `spelt` decorates the constructor of every other class that an
application calls with settings, and each function with them, such as `require`.
"""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypeVar, get_args, get_origin, get_type_hints

from msgspec import Struct, StructMeta

from dutchdoor.errors import Misconfigured
from dutchdoor.model.choices import nearest

__all__ = ["Spelt", "spelt"]

_PLAIN = (str, bytes, int, float, timedelta, list, tuple, set, frozenset)
"""What a setting may be. Anything else in its place is an object of a framework, which called the wrong function."""

P = ParamSpec("P")
R = TypeVar("R")


class Spelt(StructMeta):
    """Makes classes of settings."""

    if not TYPE_CHECKING:  # a type checker reads the arguments of a class from its fields

        def __call__(cls, *args: Any, **given: Any) -> Any:  # noqa: N805 - of a metaclass
            """Create the settings. Raises `Misconfigured` for a call that does not fit."""
            try:
                return super().__call__(*args, **given)
            except TypeError:
                _explain(cls.__name__, inspect.signature(cls), args, given, _choices(cls, args))
                raise


def spelt(function: Callable[P, R]) -> Callable[P, R]:
    """Decorate a constructor, a method or a function, so that it raises `Misconfigured` for a call that does not fit.
    For `__call__`, the text of its object is the name.
    """
    signature = inspect.signature(function)
    is_method = next(iter(signature.parameters), "") == "self"
    own = signature.replace(parameters=list(signature.parameters.values())[is_method:])

    @functools.wraps(function)
    def checked(*args: P.args, **given: P.kwargs) -> R:
        try:
            return function(*args, **given)
        except TypeError:
            called, values = function.__name__, args[is_method:]
            if called in {"__init__", "__call__"}:
                called = type(args[0]).__name__ if called == "__init__" else str(args[0])
            elif values and not isinstance(values[0], _PLAIN):  # `@auth.require` above a view, or guards=[auth.require]
                example = f"{called}({next(iter(own.parameters))}=...)"
                raise Misconfigured(f"{called} needs brackets: {called}(), or {example}.") from None
            _explain(called, own, values, given)
            raise

    return checked


def _explain(
    called: str,
    signature: inspect.Signature,
    args: Sequence[Any],
    given: Mapping[str, Any],
    instead: Sequence[str] = (),
) -> None:
    """Raise `Misconfigured` if a call does not fit. Else, the `TypeError` came from within. No value is repeated that
    could be a secret.
    """
    parameters = signature.parameters.values()
    places = [each.name for each in parameters if each.kind is each.POSITIONAL_OR_KEYWORD]
    named = [each.name for each in parameters if each.kind is each.KEYWORD_ONLY]
    takes_all = any(each.kind is each.VAR_KEYWORD for each in parameters)
    for name in given:
        if not takes_all and name not in (*places, *named):
            inner = next((each for each in parameters if name in _fields(each.default)), None)
            if inner is not None:
                kind = f"{inner.name}={type(inner.default).__name__}({name}=...)"
                raise Misconfigured(
                    f"{called}({name}=...): this is a setting within another: {called}({kind})."
                ) from None
            raise Misconfigured(f"{called}({name}=...): no such setting. {nearest(name, [*places, *named])}") from None
    if len(args) > len(places):
        example = instead or [f"{called}({', '.join([*places, f'{named[0]}=...'])})"]
        alone = f"Only {' and '.join(places)} may stand without a name" if places else "Write the name of each setting"
        raise Misconfigured(f"{called}: {alone}, as in {' or '.join(example)}.") from None
    twice = next((name for name in places[: len(args)] if name in given), None)
    if twice is not None:
        raise Misconfigured(f"{called}: {twice} is given twice, once without its name.") from None
    required = {each.name for each in parameters if each.default is each.empty and each.kind is not each.VAR_KEYWORD}
    missing = [name for name in (*places[len(args) :], *named) if name in required and name not in given]
    if missing:
        raise Misconfigured(f"{called} needs {missing[0]}: {called}({missing[0]}=...).") from None


def _fields(settings: object) -> Sequence[str]:
    return settings.__struct_fields__ if isinstance(settings, Struct) else ()


def _choices(cls: type, args: Sequence[Any]) -> list[str]:
    """Return the settings that have the first value among their choices, as a person writes them."""
    kinds = get_type_hints(cls) if args and isinstance(args[0], str) else {}
    return [
        f'{cls.__name__}({name}="{args[0]}")'
        for name, kind in kinds.items()
        if get_origin(kind) is Literal and args[0] in get_args(kind)
    ]
