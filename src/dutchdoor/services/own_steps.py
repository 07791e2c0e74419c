"""Steps of a sign-in that an application adds: accepting its terms, choosing a tenant.

A step comes after all proofs and before the session. So it is asked of the person whose account it is, and nothing is
started without it. The sign-in waits for it as for a second factor: by a one-time token, in a cookie of our pages or
in the hands of the program that signs in.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from typing import Final

from dutchdoor.errors import InvalidInput, Misconfigured
from dutchdoor.model.spelling import spelt
from dutchdoor.services.calling import Calling, asking
from dutchdoor.texts import mark

__all__ = ["OwnSteps", "SignInStep"]

THREADS = 8
"""Threads for plain functions of the application."""
_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,31}")
_SCOPE: Final = re.compile(r"(?:[!#-\[\]-~]+(?: [!#-\[\]-~]+)*)?")
"""Words with a space between them (RFC 6749, 3.3)."""
_SCOPE_AT_MOST: Final = 500
_PATH: Final = re.compile(r"/(?![/\\])[!-\[\]-~]*")


class SignInStep:
    """A step that your application adds to each sign-in.

        terms = SignInStep("terms", page="/terms", asks=has_not_accepted, takes=accept)
        auth = Auth(app, steps=[terms])

    Args:
        name: its name in the API, such as `terms`: small letters, digits and underscores.
        page: the path of your page that shows it. Its form posts `method` (the name) and `response` to
            `/auth/login/step`.
        asks: returns whether the person with this subject has to take it now. It may be called several times in one
            sign-in.
        takes: gets the subject and the response, at most 200 characters, and does what the step is for. It returns the
            scope that the sign-in gets besides, such as `tenant:acme`, "" for none, or None to refuse the response. Two
            requests at once may both call it, and a sign-in may fail after it: taking a step twice must be harmless.

    Both may be coroutine functions; a plain one runs in a thread. If one raises, the sign-in is answered 503.

    Raises:
        Misconfigured: the name or the page is not of this form, or a function cannot be called.
    """

    @spelt
    def __init__(
        self,
        name: str,
        *,
        page: str,
        asks: Callable[[str], object],
        takes: Callable[[str, str], object],
    ) -> None:
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise Misconfigured(f"SignInStep({name!r}): a name is 1 to 32 of a-z, 0-9 and _, with a letter first.")
        if not isinstance(page, str) or not _PATH.fullmatch(page):
            raise Misconfigured(f"SignInStep: page {page!r} is not a path of this host. Use one such as /terms.")
        for what, given in (("asks", asks), ("takes", takes)):
            if not callable(given):
                raise Misconfigured(f"SignInStep: {what} is a function, and not {given!r}.")
        self.name, self.page, self.asks, self.takes = name, page, asks, takes

    def __repr__(self) -> str:
        return f"SignInStep({self.name!r})"


class OwnSteps:
    """The steps of one application, in the order in which they are taken."""

    def __init__(self, steps: Sequence[SignInStep], *, taken: Collection[str]) -> None:
        """`taken` are names that mean something else. Raises `Misconfigured`."""
        if isinstance(steps, SignInStep) or not all(isinstance(each, SignInStep) for each in steps):
            raise Misconfigured("steps is a list of SignInStep: steps=[SignInStep(...)].")
        names = [each.name for each in steps]
        wrong = [name for name in names if name in taken or names.count(name) > 1]
        if wrong:
            raise Misconfigured(f"steps: {wrong[0]!r} is the name of something else already. Choose another one.")
        self.by_name = {each.name: each for each in steps}
        self.calling = Calling(THREADS, in_request=True)

    async def asked(self, subject: str, taken: Collection[str]) -> str:
        """Return the name of the first step that a person has to take and has not `taken`; "" for none.

        Raises:
            Unavailable: the application's function failed.
        """
        for name, step in self.by_name.items():
            if name not in taken:
                with asking(f"step {name}"):
                    answer = await self.calling(step.asks, subject)
                if not isinstance(answer, bool):
                    # None, from a forgotten `return`, would let everyone pass.
                    raise Misconfigured(f"asks of the step {name!r} returned {answer!r}. Return True or False.")
                if answer:
                    return name
        return ""

    async def take(self, name: str, subject: str, response: str) -> str:
        """Take a step, and return the scope that it adds to the sign-in.

        Raises:
            InvalidInput: the application refuses the response.
            Unavailable: the application's function failed.
        """
        with asking(f"step {name}"):
            scope = await self.calling(self.by_name[name].takes, subject, response)
        if scope is None:
            raise InvalidInput(mark("This answer is not accepted."), field="response")
        if not isinstance(scope, str) or len(scope) > _SCOPE_AT_MOST or not _SCOPE.fullmatch(scope):
            raise Misconfigured(f'takes of the step {name!r} returned no scope. Return words, "" or None.')
        return scope

    def close(self) -> None:
        self.calling.close()
