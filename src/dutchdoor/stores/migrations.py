"""Migrations: numbered SQL files, which never change once released."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Sequence
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Literal, TypeAlias

from msgspec import Struct

from dutchdoor.errors import Misconfigured

__all__ = ["Dialect", "Migration", "NoSchema", "OlderSchema", "read_migrations", "refuse_another_schema"]

Dialect: TypeAlias = Literal["sqlite", "postgres"]


class NoSchema(Misconfigured):
    """The database is empty, and was opened as it stands."""


class OlderSchema(Misconfigured):
    """An older program created or migrated the database, and it was opened as it stands."""


class Migration(Struct, frozen=True):
    name: str
    text: str

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.text.encode()).hexdigest()

    @property
    def is_additive(self) -> bool:
        """Whether programs that do not know it can still use the database."""
        return self.text.startswith("-- additive: yes\n")


def read_migrations(dialect: Dialect, folders: Iterable[Path] = ()) -> list[Migration]:
    """Read every migration in the order to apply them: the package's own, then those of each folder, by name.

    Raises:
        Misconfigured: two have one name, and the database would count the second as applied.
    """
    places: list[Traversable] = [files("dutchdoor.stores") / "schema", *folders]
    found = [migration for place in places for migration in _in(place / dialect)]
    if len({migration.name for migration in found}) < len(found):
        raise Misconfigured(f"two migrations have one name: {', '.join(migration.name for migration in found)}")
    return found


def refuse_another_schema(place: str, applied: Collection[str], migrations: Sequence[Migration]) -> None:
    """Raise `NoSchema` or `OlderSchema` if a migration is missing in a database: opening it would write."""
    lacks = [migration.name for migration in migrations if migration.name not in applied]
    if lacks and not applied:
        raise NoSchema(
            f"{place}: there is nothing of dutchdoor here. If it is the right database, start a server on it, or run "
            "`dutchdoor migrate`."
        )
    if lacks:
        raise OlderSchema(
            f"{place}: the database is older than this program: it has not had {lacks[0]}. Use the version of its "
            "servers. Or upgrade: start servers of this version, or run `dutchdoor migrate`."
        )


def _in(folder: Traversable) -> list[Migration]:
    named = {file.name: file for file in folder.iterdir() if file.name.endswith(".sql")}
    return [Migration(name, named[name].read_text("utf-8")) for name in sorted(named)]
