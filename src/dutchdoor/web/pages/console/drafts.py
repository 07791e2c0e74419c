"""Pages of the console with a form, which is shown again with what was wrong in it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from msgspec import Meta

from dutchdoor.errors import DutchdoorError, InvalidInput, Taken
from dutchdoor.web.api import Call
from dutchdoor.web.body import Body
from dutchdoor.web.http import Response
from dutchdoor.web.pages.console.frame import Console
from dutchdoor.web.pages.forms import wrong_of
from dutchdoor.web.problems import problem

__all__ = ["DraftPage", "Person"]


class Person(Body, frozen=True):
    """A person who gets an account."""

    email: Annotated[str, Meta(max_length=320)] = ""
    name: Annotated[str, Meta(max_length=200)] = ""
    roles: Annotated[str, Meta(max_length=2200)] = ""
    """Words with spaces between them."""


class DraftPage:
    """A page with one form. A subclass says what the form takes, and shows the page."""

    draft: type[Body]

    def __init__(self, console: Console) -> None:
        self.console = console

    async def show(self, call: Call) -> Response:
        return await self.show_with(call, kept=self._kept({}))

    async def show_with(
        self, call: Call, status: int = 200, *, kept: Mapping[str, str], error: Mapping[str, Any] | None = None
    ) -> Response:
        """Show the page; `error` says what was wrong in the form, where the fields are `kept`."""
        raise NotImplementedError

    async def again(self, call: Call, error: DutchdoorError, fields: Mapping[str, str]) -> Response | None:
        """Show the form again with what can be put right in it."""
        if not isinstance(error, InvalidInput | Taken):
            return None
        return await self.show_with(call, problem(error).status, kept=self._kept(fields), error=wrong_of(error))

    def _kept(self, fields: Mapping[str, str]) -> dict[str, str]:
        return {name: fields.get(name, "") for name in self.draft.__struct_fields__}
