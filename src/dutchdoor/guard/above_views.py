"""Decorators that stand above a view: in any other place they say where they belong, before a route is open."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

from dutchdoor.errors import Misconfigured

__all__ = ["above_views"]

DecoratorT = TypeVar("DecoratorT", bound=Callable[..., Any])


def above_views(called: str, *, on_class: str) -> Callable[[DecoratorT], DecoratorT]:
    """Return what lets a decorator of views raise `Misconfigured` for all but one view.

    Args:
        called: the decorator, as a person writes it.
        on_class: what to write for a class of views.
    """

    def around(decorate: DecoratorT) -> DecoratorT:
        @functools.wraps(decorate)
        def checked(*views: Any, **named: Any) -> Any:
            if named:
                name = next(iter(named))
                raise Misconfigured(f"{called} takes a view alone. Write auth.require({name}=...).")
            if len(views) != 1:
                raise Misconfigured(f"{called} takes a view. Write @{called} above one, without more brackets.")
            (view,) = views
            if isinstance(view, type):
                raise Misconfigured(f"{called} guards a view, and not the class {view.__name__}. {on_class}")
            if not callable(view):
                raise Misconfigured(f"{called} stands above a view, and not above an object: {type(view).__name__}.")
            return decorate(view)

        return cast("DecoratorT", checked)

    return around
