"""Requests to issuers: few, bounded in time and size, and never led elsewhere.

Server-side request forgery: an operator names the issuer, and its metadata names further addresses. They must have the
issuer's own scheme, and no redirect is followed. Private addresses are allowed, because a company's issuer has one.
"""

from __future__ import annotations

import asyncio
from base64 import b64encode
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import quote

import httpx2

from dutchdoor.errors import IssuerUnavailable
from dutchdoor.jose import strict_json
from dutchdoor.texts import mark

__all__ = ["Outbound", "refused_us"]

ANSWERED_WITHIN: Final = 8.0
"""Seconds for a whole request, from the look-up of the name to the last byte."""
CONNECTED_WITHIN: Final = 4.0
ANSWER_AT_MOST: Final = 256 * 1024
"""Bytes. The key set of the largest issuer has about 15 kB."""
OK: Final = 200


class Outbound:
    """One client for all issuers of an application."""

    def __init__(self) -> None:
        self._client: httpx2.AsyncClient | None = None

    async def get(self, url: str, *, bearer: str = "") -> dict[str, Any] | list[Any]:
        """Return the JSON at an address. Raises `IssuerUnavailable`."""
        headers = {"accept": "application/json"}
        if bearer:
            headers["authorization"] = f"Bearer {bearer}"
        status, body = await self._send("GET", url, headers, None)
        if status != OK:
            raise IssuerUnavailable(f"issuer: {_host(url)} answered {status}")
        return _read(body, url)

    async def post(
        self, url: str, form: Mapping[str, str], *, basic: tuple[str, str] | None = None
    ) -> tuple[int, dict[str, Any]]:
        """Post a form, and return the status and the JSON of the answer. Raises `IssuerUnavailable`."""
        headers = {"accept": "application/json"}
        if basic is not None:
            # RFC 6749, 2.3.1: both are encoded first, or a colon in the id would end it.
            both = ":".join(quote(each, safe="") for each in basic)
            headers["authorization"] = f"Basic {b64encode(both.encode()).decode()}"
        status, body = await self._send("POST", url, headers, dict(form))
        answer = _read(body, url)
        if not isinstance(answer, dict):
            raise IssuerUnavailable(f"issuer: {_host(url)} answered no object")
        return status, answer

    async def close(self) -> None:
        """Close the connections. The next request opens new ones."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    async def _send(
        self, method: str, url: str, headers: Mapping[str, str], form: Mapping[str, str] | None
    ) -> tuple[int, bytes]:
        if self._client is None:
            # Made here: a process may fork between the start and the first request.
            self._client = httpx2.AsyncClient(
                timeout=httpx2.Timeout(ANSWERED_WITHIN, connect=CONNECTED_WITHIN), follow_redirects=False
            )
        try:
            async with (
                asyncio.timeout(ANSWERED_WITHIN),
                self._client.stream(method, url, headers=headers, data=form) as answer,
            ):
                body = b""
                async for piece in answer.aiter_bytes():
                    body += piece
                    if len(body) > ANSWER_AT_MOST:
                        raise IssuerUnavailable(f"issuer: {_host(url)} answered more than {ANSWER_AT_MOST} bytes")
                return answer.status_code, body
        except (httpx2.HTTPError, httpx2.InvalidURL, TimeoutError, OSError) as exc:
            # The type alone: a message may hold the address, and with it a code.
            raise IssuerUnavailable(f"issuer: {_host(url)} does not answer ({type(exc).__name__})") from None


def refused_us(name: str, title: str, status: int, error: object) -> IssuerUnavailable:
    """Return what to raise where an issuer refuses to exchange any code: what is configured here is wrong. The log
    names the settings; a person cannot change them, and reads that waiting does not help.
    """
    shown = error[:40] if isinstance(error, str) and error.isidentifier() else "no reason"
    fix = _FIXES.get(shown, "")
    return IssuerUnavailable(
        f"issuer: {name} refuses to exchange a code: {status}, {shown}{fix and f': {fix}'}",
        message=mark(
            "%(issuer)s refuses this site because of a wrong setting. Sign in another way, and tell those who run the "
            "site.",
            issuer=title,
        ),
    )


_FIXES: Final[Mapping[str, str]] = {
    "invalid_client": "check client_id and client_secret",
    "unauthorized_client": "check client_id, and whether it may use the authorization code flow",
    "incorrect_client_credentials": "check client_id and client_secret",
    "redirect_uri_mismatch": "check public_url, and the redirect URI that is registered there",
}
"""What to look at, by the error: the last two are GitHub's."""


def _host(url: str) -> str:
    return url.partition("://")[2].partition("/")[0]


def _read(body: bytes, url: str) -> dict[str, Any] | list[Any]:
    try:
        if body.lstrip()[:1] == b"[":
            # Only one answer is a list: that of GitHub's addresses.
            return list(strict_json.decode_object(b'{"list":' + body + b"}")["list"])
        return strict_json.decode_object(body)
    except strict_json.MalformedJSON:
        raise IssuerUnavailable(f"issuer: {_host(url)} did not answer in JSON") from None
