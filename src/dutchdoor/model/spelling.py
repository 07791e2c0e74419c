"""Settings as a class: a name that it does not have is refused with the nearest one.

From version 3.13 on, Python itself names the nearest argument of a function. A struct has no function that it could
look at, so the classes of settings have this metaclass.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from msgspec import StructMeta

from dutchdoor.errors import Misconfigured
from dutchdoor.model.choices import nearest

__all__ = ["Spelt"]


class Spelt(StructMeta):
    """Makes classes of settings."""

    if not TYPE_CHECKING:  # a type checker reads the arguments of a class from its fields

        def __call__(cls, *args: Any, **given: Any) -> Any:  # noqa: N805 - of a metaclass
            """Create the settings. Raises `Misconfigured` for a name that they do not have."""
            known = cls.__struct_fields__
            for name in given:
                if name not in known:
                    raise Misconfigured(f"{cls.__name__}({name}=...): no such setting. {nearest(name, known)}")
            return super().__call__(*args, **given)
