"""Records of one kind in memory. Each change notes how to undo it: a commit applies all of its changes, or none."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Generic, TypeAlias, TypeVar

from msgspec import Struct
from msgspec.structs import replace

from dutchdoor.errors import Conflict
from dutchdoor.model.ids import decode, is_id
from dutchdoor.stores.kinds import Kind

__all__ = ["Table", "Undo", "drop", "order", "put"]

Undo: TypeAlias = Callable[[], object]
K = TypeVar("K")
V = TypeVar("V")
R = TypeVar("R", bound=Struct)


class Table(Generic[R]):
    """Records of one kind by their keys, with the unique values that they have and the accounts that own them."""

    def __init__(self, kind: Kind[R]) -> None:
        self.kind = kind
        self.rows: dict[tuple[Any, ...], R] = {}
        self._claimed: dict[tuple[tuple[str, ...], tuple[Any, ...]], tuple[Any, ...]] = {}
        self._owned: dict[str, dict[tuple[Any, ...], None]] = {}

    def clear(self) -> None:
        self.rows, self._claimed, self._owned = {}, {}, {}

    def find(self, unique: Mapping[str, str | int]) -> R | None:
        group = self.kind.group(unique)
        key = self._claimed.get((group, tuple([unique[name] for name in group])))
        return None if key is None else self.rows[key]

    def select(self, values: Mapping[str, str | int]) -> list[R]:
        self.kind.must_index(values)
        rows: Iterable[R] = self.rows.values()
        if tuple(values) == self.kind.key:
            found = self.rows.get(tuple(values.values()))
            return [] if found is None else [found]
        if self.kind.owner in values:
            rows = [self.rows[key] for key in self._owned.get(str(values[self.kind.owner]), ())]
        return [r for r in rows if all(getattr(r, name) == value for name, value in values.items())]

    def expired(self, before: float) -> list[R]:
        field = self.kind.expires
        return [record for record in self.rows.values() if getattr(record, field) < before] if field else []

    def place(self, values: Sequence[str | int], names: Sequence[str]) -> tuple[Any, ...]:
        """The sort key of values: ids sort by their bytes."""
        ids = self.kind.ids
        return tuple([order(v) if n in ids and isinstance(v, str) else v for n, v in zip(names, values, strict=True)])

    def insert(self, record: R, undo: list[Undo]) -> None:
        if self.kind.key_of(record) in self.rows:
            raise Conflict("record is there already")
        self.write(replace(record, revision=0) if self.kind.has_revision else record, undo)

    def swap(self, record: R, undo: list[Undo]) -> None:
        if not self.kind.has_revision:
            raise TypeError(f"{type(record).__name__} is not swapped")
        revision: int = getattr(record, "revision")  # noqa: B009 - a field of this kind, and not of every record
        stored = self.rows.get(self.kind.key_of(record))
        if stored is None or getattr(stored, "revision") != revision:  # noqa: B009
            raise Conflict("record is not there or was written since it was read")
        self.write(replace(record, revision=revision + 1), undo)

    def write(self, record: R, undo: list[Undo]) -> None:
        """Replace the record that has the same key. Raises `Conflict` if another has one of its unique values."""
        key = self.kind.key_of(record)
        claims = list(self.kind.claims(record))
        if any(self._claimed.get(claim, key) != key for claim in claims):
            raise Conflict("another record has a unique value of this one")
        if (old := self.rows.get(key)) is not None:
            for claim in self.kind.claims(old):
                drop(self._claimed, claim, undo)
            drop(self._of_owner(old), key, undo)
        for claim in claims:
            put(self._claimed, claim, key, undo)
        put(self._of_owner(record), key, None, undo)
        put(self.rows, key, record, undo)

    def drop(self, record: R, undo: list[Undo]) -> R | None:
        """Delete the record of this key, and return it."""
        key = self.kind.key_of(record)
        if (old := self.rows.get(key)) is not None:
            for claim in self.kind.claims(old):
                drop(self._claimed, claim, undo)
            drop(self._of_owner(old), key, undo)
            drop(self.rows, key, undo)
        return old

    def _of_owner(self, record: R) -> dict[tuple[Any, ...], None]:
        return self._owned.setdefault(str(getattr(record, self.kind.owner)), {}) if self.kind.owner else {}


def put(table: dict[K, V], key: K, value: V, undo: list[Undo]) -> None:
    if key in table:
        old = table[key]
        undo.append(lambda: table.__setitem__(key, old))
    else:
        undo.append(lambda: table.pop(key, None))
    table[key] = value


def drop(table: dict[K, V], key: K, undo: list[Undo]) -> None:
    if key in table:
        old = table.pop(key)
        undo.append(lambda: table.__setitem__(key, old))


def order(id: str) -> tuple[bool, bytes]:
    """Ids issued here sort by their bytes, which begin with the time of creation; their text sorts otherwise."""
    return (True, decode(id)) if is_id(id) else (False, id.encode())
