"""What `Auth` of every framework has in common: the gate it stands at, and the requirements of its routes.

    auth = Auth(app)                                                    # the engine runs in this application
    auth = Auth(app, issuer="https://auth.example.com", audience="orders")    # it only verifies

Both have the same guards.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from importlib import import_module
from typing import TYPE_CHECKING, Any

from dutchdoor.errors import Misconfigured
from dutchdoor.guard.gates import Gate, Verifying
from dutchdoor.verifier import Verifier

if TYPE_CHECKING:
    from dutchdoor.auth import Auth
    from dutchdoor.stores.base import Store

__all__ = ["engine_of", "make_gate"]

DATABASE = "sqlite:///dutchdoor.db"
_VERIFYING = frozenset(inspect.signature(Verifier).parameters) - {"issuer"}


def make_gate(
    database: str | Store | Auth | Verifier | None,
    issuer: str | None,
    audience: str | Iterable[str] | None,
    options: Mapping[str, Any],
) -> Gate:
    """Return the gate that the arguments of an adapter's `Auth` describe.

    Raises:
        Misconfigured: an argument is unknown, or belongs to the other of the two.
    """
    if isinstance(database, Verifier):
        _none_left(options, "Give them to the Verifier.")
        return Verifying(database)
    if issuer is not None:
        if database is not None:
            raise Misconfigured("Auth takes a database or an issuer: with `issuer`, another server keeps the accounts.")
        return Verifying(Verifier(issuer, audience=audience, **options))
    # Imported now: a service that only verifies does not have its packages.
    engine: type[Auth] = import_module("dutchdoor").Auth
    embedded: Callable[..., Gate] = import_module("dutchdoor.guard.embedded").Embedded
    if isinstance(database, engine):
        page = options.get("sign_in_page")
        options = {name: value for name, value in options.items() if name != "sign_in_page"}
        _none_left(options if audience is None else {**options, "audience": audience}, "Give them to dutchdoor.Auth.")
        return embedded(database, sign_in_page=page)
    for name in sorted(options.keys() & _VERIFYING - set(inspect.signature(engine).parameters)):
        raise Misconfigured(f"{name!r} is for a service that only verifies: Auth(issuer=..., {name}=...).")
    if audience is not None:
        options = {**options, "audience": (audience,) if isinstance(audience, str) else audience}
    where: str | Store = DATABASE if database is None else database  # type: ignore[assignment] # not an engine
    return embedded(engine(where, **options))


def engine_of(gate: Gate) -> Auth:
    """Return the engine of a gate. Raises `Misconfigured` in a service that only verifies."""
    engine: Auth | None = getattr(gate, "auth", None)
    if engine is None:
        raise Misconfigured("This service only verifies tokens: the engine is at its issuer.")
    return engine


def _none_left(options: Mapping[str, Any], where: str) -> None:
    if options:
        raise Misconfigured(f"Auth got {', '.join(sorted(options))} beside an object that is made already. {where}")
