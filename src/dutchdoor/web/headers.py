"""The security headers of every response, computed once.

There are three kinds. `api`: JSON for programs and scripts, never cached. `page`: HTML of this server, never cached.
Its policy allows only script and style files of this server: no inline code, so no nonces, and no Trusted Types policy.
`public`: keys and metadata, which may be cached; the response sets its own Cache-Control.

no-store is the default, not a decision of each endpoint: if the cache of a shared machine kept a response with a token
or a name, it would leak. A response that is `public` by mistake fails a test.

HSTS (RFC 6797) is sent for one year, only if the public URL is https. By default it covers this host alone: a browser
that has seen `includeSubDomains` refuses plain HTTP at every subdomain for a year, and nothing the server sends later
reaches a subdomain that cannot speak https. Not sent: X-Frame-Options and X-XSS-Protection (the policy replaces them),
and Permissions-Policy (the pages use none of these features).
"""

from __future__ import annotations

from typing import Literal

from dutchdoor.web.http import Header, Response

__all__ = ["CLEAR_SITE_DATA", "Hsts", "SecurityHeaders"]

Hsts = Literal["host", "subdomains", "off"]
"""What Strict-Transport-Security covers: this host, its subdomains too, or nothing: the header is not sent."""

CLEAR_SITE_DATA: Header = (b"clear-site-data", b'"cache", "storage"')
"""Sent with a log-out if `clear_site_data` is set. It also clears the storage of other pages of this origin. Without
"cookies", which would clear all cookies of the registrable domain, including those of other applications."""

_HSTS: dict[Hsts, list[Header]] = {
    "host": [(b"strict-transport-security", b"max-age=31536000")],
    "subdomains": [(b"strict-transport-security", b"max-age=31536000; includeSubDomains")],
    "off": [],
}
_NO_SNIFF: Header = (b"x-content-type-options", b"nosniff")
_NO_STORE: Header = (b"cache-control", b"no-store")

_API_POLICY = b"default-src 'none'; base-uri 'none'; object-src 'none'; form-action 'none'; frame-ancestors 'none'"
_PAGE_POLICY = b"; ".join([
    b"default-src 'none'",
    b"script-src 'self'",
    b"style-src 'self'",
    b"img-src 'self' data:",  # data: for the QR code of an authenticator, which contains a secret and must not be a URL
    b"font-src 'self'",
    b"connect-src 'self'",
    b"form-action 'self'",
    b"base-uri 'none'",
    b"object-src 'none'",
    b"frame-ancestors 'none'",
    b"require-trusted-types-for 'script'",
    b"trusted-types 'none'",
])  # fmt: skip


class SecurityHeaders:
    """The headers of the three kinds. `hsts` is "off" unless the public URL is https."""

    __slots__ = ("_lists",)

    def __init__(self, *, hsts: Hsts) -> None:
        common: list[Header] = [_NO_SNIFF, *_HSTS[hsts]]
        api: list[Header] = [
            *common,
            (b"content-security-policy", _API_POLICY),
            (b"referrer-policy", b"no-referrer"),
            # Spectre: a page of another site must not load responses as images or scripts.
            (b"cross-origin-resource-policy", b"same-origin"),
        ]
        self._lists: dict[Literal["api", "page", "public"], list[Header]] = {
            "api": [*api, _NO_STORE],
            "page": [
                *common,
                (b"content-security-policy", _PAGE_POLICY),
                # Not no-referrer: with it, a browser sends `Origin: null` with the forms of these pages.
                (b"referrer-policy", b"same-origin"),
                (b"cross-origin-opener-policy", b"same-origin"),
                (b"cross-origin-resource-policy", b"same-origin"),
                _NO_STORE,
            ],
            "public": [*api[:-1], (b"cross-origin-resource-policy", b"cross-origin")],
        }

    def finish(self, response: Response) -> list[Header]:
        """Return all headers of a response: these, its own, and its length."""
        headers = self._lists[response.kind] + response.headers
        # The length of a response in pieces is not known yet: the server sends it in chunks.
        if response.status != 204 and response.status != 304 and response.pieces is None:  # noqa: PLR1714, PLR2004
            headers.append((b"content-length", b"%d" % len(response.body)))
        return headers
