"""What a route requires of its caller: `auth.require(role="admin", fresh="5m")`. A pure decision over a `Principal`."""

from __future__ import annotations

from msgspec import Struct

from dutchdoor.errors import Forbidden, Misconfigured, StepUpRequired
from dutchdoor.model.durations import Duration, read_duration
from dutchdoor.model.principal import Principal, factors_of
from dutchdoor.texts import mark

__all__ = ["Requirement"]

_MOST_FACTORS = 2


class Requirement(Struct, frozen=True):
    """A requirement. The empty one asks for any signed-in caller."""

    role: str = ""
    """A role that the account has."""
    scope: frozenset[str] = frozenset()
    """Words that the scope of the sign-in contains (RFC 6749, 3.3)."""
    fresh: float | None = None
    """The greatest age of the last proof, in seconds."""
    factors: int = 1
    """How many kinds of proof the sign-in took."""

    @classmethod
    def of(cls, *, role: str = "", scope: str = "", fresh: Duration | None = None, factors: int = 1) -> Requirement:
        """Read the arguments of `require`. Raises `Misconfigured`."""
        if type(factors) is not int or factors not in range(1, _MOST_FACTORS + 1):
            raise Misconfigured(f"require(factors={factors!r}): use 1 or 2.")
        for name, value in (("role", role), ("scope", scope)):
            if not isinstance(value, str):
                # A framework that calls the wrong thing, or a list of roles: it must not become "anyone signed in".
                raise Misconfigured(f"require({name}={value!r}): {name} is text.")
        if " " in role:
            raise Misconfigured(f"require(role={role!r}): one role. Stack two requirements to require two roles.")
        age = None if fresh is None else read_duration(fresh, f"require(fresh={fresh!r}): fresh")
        return cls(role, frozenset(scope.split()), age, factors)

    def check(self, principal: Principal, now: float) -> None:
        """Let a principal pass.

        Raises:
            Forbidden: the role or the scope is missing.
            StepUpRequired: the proof is too old, or too few kinds of proof were given.
        """
        if self.role and not principal.has_role(self.role):
            raise Forbidden.without_role(self.role)
        if not self.scope <= set(principal.scope.split()):
            wanted = " ".join(sorted(self.scope))
            message = mark("This needs the scope %(scope)s, which this sign-in does not have.", scope=wanted)
            raise Forbidden(f"the caller needs the scope {wanted}", message=message)
        # One that is not in the table is a proof, too: a log-in at another provider, for one.
        if self.factors > max(1, factors_of(principal.amr)):
            raise StepUpRequired("the caller gave too few factors", max_age=self.fresh, factors=self.factors)
        if self.fresh is not None and now - principal.auth_time > self.fresh:
            raise StepUpRequired("the caller authenticated too long ago", max_age=self.fresh, factors=self.factors)
