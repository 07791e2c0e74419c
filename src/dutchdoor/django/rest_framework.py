"""dutchdoor in Django REST framework.

    REST_FRAMEWORK = {"DEFAULT_AUTHENTICATION_CLASSES": ["dutchdoor.django.rest_framework.TokenAuthentication"]}

    class Orders(APIView):
        permission_classes = [require(scope="orders:write", fresh="5m")]

`request.user` is Django's user, and `request.auth` is the `Principal`. For pages of your own add REST framework's
`SessionAuthentication`, which takes the user that our cookie names, and Django's CSRF token.
"""

from __future__ import annotations

from typing import Any

import msgspec

from dutchdoor.errors import DutchdoorError, Misconfigured, NotAuthenticated
from dutchdoor.guard.extra import extra
from dutchdoor.model.durations import Duration
from dutchdoor.model.principal import Principal
from dutchdoor.model.spelling import spelt

with extra("drf"):
    from rest_framework.authentication import BaseAuthentication
    from rest_framework.exceptions import APIException
    from rest_framework.permissions import BasePermission

    from dutchdoor.django.users import TokenUser, subject_of, user_of
    from dutchdoor.django.visit import visit_of
    from dutchdoor.guard.requirement import Requirement
    from dutchdoor.web.problems import problem

__all__ = ["Refusal", "TokenAuthentication", "require"]


class Refusal(APIException):
    """What REST framework answers for an error of dutchdoor: its status, its problem document, its headers."""

    def __init__(self, error: DutchdoorError) -> None:
        answer = problem(error)
        headers = {name.decode(): value.decode("latin-1") for name, value in answer.headers}
        super().__init__(str(error), error.code)
        self.status_code, self.detail = answer.status, msgspec.json.decode(answer.body)
        self.auth_header = headers.get("www-authenticate")
        self.wait = int(headers["retry-after"]) if "retry-after" in headers else None


class TokenAuthentication(BaseAuthentication):
    """Authenticates by an access token: `Authorization: Bearer ...` (RFC 6750), or `DPoP ...` (RFC 9449)."""

    def authenticate(self, request: Any) -> tuple[Any, Principal] | None:
        """Return the user and the principal; None without a token. Raises `Refusal`."""
        if not request.headers.get("Authorization", "").lower().startswith(("bearer", "dpop")):
            return None
        visit = visit_of(request)
        try:
            known = visit.known()
            if known is None or known.token is None:
                return None
            user = user_of(request)
            if not user.is_authenticated:
                raise NotAuthenticated("the user is inactive, gone, or has another password")
        except DutchdoorError as error:
            raise Refusal(error) from None
        return user, known.principal

    def authenticate_header(self, request: Any) -> str:  # pyright: ignore[reportIncompatibleMethodOverride]  # noqa: ARG002
        """Return the challenge of a 401."""
        return 'Bearer realm="dutchdoor"'


@spelt
def require(
    *, role: str = "", scope: str = "", fresh: Duration | None = None, factors: int = 1
) -> type[BasePermission]:
    """Return a permission class with the requirement of `dutchdoor.django.auth.require`, for `permission_classes`."""
    requirement = Requirement.of(role=role, scope=scope, fresh=fresh, factors=factors)

    class Required(BasePermission):
        """The caller meets a requirement of dutchdoor."""

        def has_permission(self, request: Any, view: Any = None) -> bool:  # pyright: ignore[reportIncompatibleMethodOverride]
            if view is None:  # called on the class, which `permission_classes = [require]` makes of it
                raise Misconfigured("require needs brackets: permission_classes = [require()].")
            principal = visit_of(request).principal()
            # Another scheme may have authenticated the request, as another user than our cookie names.
            if principal is None or not _is_of(request.user, principal):
                return False  # 401 with the challenge of the authentication class, or 403
            try:
                requirement.check(principal, visit_of(request).gate.gate.clock())
            except DutchdoorError as error:
                raise Refusal(error) from None
            return True

    return Required


def _is_of(user: Any, principal: Principal) -> bool:
    if not getattr(user, "is_authenticated", False):
        return False
    return principal.subject == (user.id if isinstance(user, TokenUser) else subject_of(user))
