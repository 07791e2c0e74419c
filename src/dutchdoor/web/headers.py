"""The headers every answer carries, made once.

Three kinds. `api`: JSON for programs and scripts, never stored. `page`: our own HTML, never stored, with a policy under
which nothing runs that we did not ship as a file: no inline script or style, so no nonces, and Trusted Types on with no
policy allowed. `public`: keys and metadata, which may be cached; the answer brings its own Cache-Control.

no-store is the default and not a decision of each endpoint: an answer with a token or with someone's name in it that a
shared machine's cache keeps is a leak, and one with `public` by mistake shows in a test.

HSTS is RFC 6797, for one year and with sub-domains (ASVS 3.4.1), and only where the public URL is https. Left out:
X-Frame-Options and X-XSS-Protection (frame-ancestors and the rest of the policy say more), Permissions-Policy (our
pages use nothing it names).
"""

from __future__ import annotations

from typing import Literal

from dutchdoor.web.http import Header, Response

__all__ = ["CLEAR_SITE_DATA", "SecurityHeaders"]

CLEAR_SITE_DATA: Header = (b"clear-site-data", b'"cache", "storage"')
"""Goes with a log-out where the operator asked for it: what other pages of this origin keep is cleared, too. Not
"cookies": that clears every cookie of the registrable domain, other applications' too. Ours are cleared by name."""

_HSTS: Header = (b"strict-transport-security", b"max-age=31536000; includeSubDomains")
_NO_SNIFF: Header = (b"x-content-type-options", b"nosniff")
_NO_STORE: Header = (b"cache-control", b"no-store")

_API_POLICY = b"default-src 'none'; base-uri 'none'; object-src 'none'; form-action 'none'; frame-ancestors 'none'"
_PAGE_POLICY = b"; ".join([
    b"default-src 'none'",
    b"script-src 'self'",
    b"style-src 'self'",
    b"img-src 'self' data:",  # data: for the QR code of an authenticator, which holds a secret and must not be a URL
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
    """The three lists, for a server whose public URL is (`hsts=True`) or is not https."""

    __slots__ = ("_lists",)

    def __init__(self, *, hsts: bool) -> None:
        common: list[Header] = [_NO_SNIFF, _HSTS] if hsts else [_NO_SNIFF]
        api: list[Header] = [
            *common,
            (b"content-security-policy", _API_POLICY),
            (b"referrer-policy", b"no-referrer"),
            # Another site's page must not load our answers as if they were images or scripts (Spectre).
            (b"cross-origin-resource-policy", b"same-origin"),
        ]
        self._lists: dict[Literal["api", "page", "public"], list[Header]] = {
            "api": [*api, _NO_STORE],
            "page": [
                *common,
                (b"content-security-policy", _PAGE_POLICY),
                # Not no-referrer: under it, a browser sends `Origin: null` with our own forms.
                (b"referrer-policy", b"same-origin"),
                (b"cross-origin-opener-policy", b"same-origin"),
                (b"cross-origin-resource-policy", b"same-origin"),
                _NO_STORE,
            ],
            "public": [*api[:-1], (b"cross-origin-resource-policy", b"cross-origin")],
        }

    def finish(self, response: Response) -> list[Header]:
        """Give all headers of an answer: these, its own, its length."""
        headers = self._lists[response.kind] + response.headers
        if response.status != 204 and response.status != 304:  # noqa: PLR1714, PLR2004
            headers.append((b"content-length", b"%d" % len(response.body)))
        return headers
