"""What stands where session data is looked for before it was read."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from typing import Any, Final, NoReturn

from dutchdoor.errors import Misconfigured

__all__ = ["NOT_KEPT", "NOT_LOADED", "STORED", "Unloaded"]

STORED: Final = (
    "Session data is stored when the response starts. Change it before that: not in a stream or in a background task."
)
"""What a change of session data says that comes too late."""


class Unloaded(MutableMapping[str, Any]):
    """Refuses every use, and says `why`."""

    __slots__ = ("why",)

    def __init__(self, why: str) -> None:
        self.why = why

    def refuse(self) -> NoReturn:
        """Raise `Misconfigured`."""
        raise Misconfigured(self.why)

    def __getitem__(self, key: str) -> Any:
        self.refuse()

    def __setitem__(self, key: str, value: Any) -> None:
        self.refuse()

    def __delitem__(self, key: str) -> None:
        self.refuse()

    def __iter__(self) -> Iterator[str]:
        self.refuse()

    def __len__(self) -> int:  # noqa: PLE0303 - nor does it return anything else
        self.refuse()


NOT_LOADED: Final = Unloaded(
    "Session data is read for the requests that ask for it, and this one did not. Begin with: "
    "session = await auth.session(request)."
)
NOT_KEPT: Final = Unloaded(
    "This service only verifies tokens, and keeps no session data: the database with the sessions is at its issuer. "
    "Keep such data in a database of your own, under principal.session_id."
)
