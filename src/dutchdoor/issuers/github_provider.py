"""GitHub: OAuth 2 without OpenID Connect. The person is named by their number, which is never reassigned.

There is no ID token, so the answers of GitHub's API over TLS say who it is: `/user`, and `/user/emails` for the primary
address and whether it was verified (a profile shows another one, or none).
"""

from __future__ import annotations

import hashlib
import hmac
from typing import Any, Final
from urllib.parse import urlencode

from dutchdoor.errors import InvalidToken, IssuerUnavailable
from dutchdoor.issuers.identity import Flow, Identity
from dutchdoor.issuers.issuer import Issuer
from dutchdoor.issuers.outbound import Outbound, refused_us
from dutchdoor.model.ids import encode

__all__ = ["GithubProvider"]

API: Final = "https://api.github.com"
NUMBER_AT_MOST: Final = 2**63
OK: Final = 200
BUSY: Final = frozenset({408, 429})
FAILED: Final = 500


class GithubProvider:
    """Speaks to GitHub, or to a GitHub Enterprise Server at another URL."""

    def __init__(self, issuer: Issuer, outbound: Outbound) -> None:
        self.issuer, self._outbound = issuer, outbound
        base = issuer.url.rstrip("/")
        self._api = API if base == "https://github.com" else f"{base}/api/v3"
        self._base = base

    async def way_to(self, flow: Flow) -> str:
        asked = {
            "client_id": self.issuer.client_id,
            "redirect_uri": flow.redirect_uri,
            "scope": self.issuer.scope,
            "state": flow.state,
            "code_challenge": encode(hashlib.sha256(flow.verifier.encode()).digest()),
            "code_challenge_method": "S256",
        }
        return f"{self._base}/login/oauth/authorize?{urlencode(asked)}"

    async def identify(self, code: str, flow: Flow, *, iss: str | None) -> Identity:
        if iss is not None and not hmac.compare_digest(
            iss.encode("utf-8", "replace"), f"{self._base}/login/oauth".encode()
        ):
            raise InvalidToken("the answer is one of another issuer")
        if flow.anew:
            raise InvalidToken("GitHub cannot ask for a new proof")
        form = {
            "client_id": self.issuer.client_id,
            "client_secret": self.issuer.client_secret,
            "code": code,
            "redirect_uri": flow.redirect_uri,
            "code_verifier": flow.verifier,
        }
        status, answer = await self._outbound.post(f"{self._base}/login/oauth/access_token", form)
        token = answer.get("access_token")
        if answer.get("error") == "bad_verification_code":  # with the status 200
            raise InvalidToken("GitHub refuses the code: it is used, too old, or another client's")
        if status != OK or type(token) is not str:
            if status in BUSY or status >= FAILED:
                raise IssuerUnavailable(f"issuer: {self.issuer.name} answered {status} to a code")
            raise refused_us(self.issuer.name, self.issuer.title, status, answer.get("error"))
        user = await self._outbound.get(f"{self._api}/user", bearer=token)
        number = user.get("id") if isinstance(user, dict) else None
        if not isinstance(user, dict) or type(number) is not int or not 0 < number < NUMBER_AT_MOST:
            raise IssuerUnavailable(f"issuer: {self.issuer.name} does not say who it is")
        email, verified = _primary(await self._outbound.get(f"{self._api}/user/emails", bearer=token))
        name = user.get("name") or user.get("login")
        return Identity(
            issuer=self.issuer.url,
            subject=str(number),
            email=email,
            email_verified=verified,
            name=name if type(name) is str else "",
        )

    async def close(self) -> None:
        pass


def _primary(found: dict[str, Any] | list[Any]) -> tuple[str, bool]:
    """Return the primary address, and whether GitHub verified it."""
    for each in found if isinstance(found, list) else []:
        if isinstance(each, dict) and each.get("primary") is True and type(each.get("email")) is str:
            return each["email"], each.get("verified") is True
    return "", False
