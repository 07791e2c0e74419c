"""Our cookies: found without ambiguity, or not at all.

RFC 6265bis. Attributes are derived from one fact, whether browsers reach us over TLS, and are not settings. With
`__Host-`, the browser guarantees that this very host set the cookie, over TLS, for the whole host: a sibling domain
cannot plant it. On plain-HTTP loopback there is no such guarantee and no prefix.

*Cookie tossing* makes a server read an attacker's cookie as its own. This module parses in one way, that of RFC 6265:
only `;` ends a cookie, and the first `=` in it ends its name. A cookie of ours is exactly `name=value` in exactly one
piece of the line. A second piece makes our cookie ambiguous if it has our name as well, or our name in another case,
with spaces around it, or as the value of a cookie without a name. Parsers of RFC 6265 differ in those cases, so an
ambiguous cookie proves no caller. Browsers let only this very host set a cookie of such a name, because they compare
`__Host-` without regard to case and spaces (RFC 6265bis, 5.7). So no sibling domain can make our cookie ambiguous.

Cookies of other applications may have any form, because any sibling domain can set them. Their names and values may
hold our name, unclosed quotes, and commas; their name may be `$Version`. RFC 2109 gave such characters a meaning, and
an RFC 2109 parser may find a cookie of our name inside another one. Browsers never implemented RFC 2109, and nothing
here parses it: no value is taken from inside another cookie, and none is refused for what another cookie holds.

Left out: a general cookie parser. We read eleven names.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from dutchdoor.errors import Misconfigured
from dutchdoor.web.http import AmbiguousCookie, Header

__all__ = ["PREFIX", "Cookie", "Cookies", "Presented"]

PREFIX = "dd_"

_PREFIX = re.compile(r"[a-z][a-z0-9_-]{0,31}")
_VALUE = re.compile(rb"[A-Za-z0-9_.-]{1,512}")  # of 4,096 bytes that browsers promise to keep; ours need 196 at most
_STANDING_AT_MOST = 8
_GONE = b"; Max-Age=0; Expires=Thu, 01 Jan 1970 00:00:00 GMT"


class Presented(NamedTuple):
    """What a request holds of ours. None: not sent, or ambiguous."""

    session: str | None
    refresh: str | None
    doubt: AmbiguousCookie | None = None
    """Why a cookie that was sent proves no caller."""
    clearing: tuple[Header, ...] = ()
    """What makes the browser delete the ambiguous ones."""


_NOTHING = Presented(None, None)


class Cookies:
    """The names and attributes of our cookies, for a server that is or is not reached over TLS (`secure`).

    `session` and `visitor` are Lax, so that a reader who follows a link from elsewhere is signed in, or finds the
    basket. `refresh`, `mark` (which browsers an account signed in from), `registrant` (which one registered it),
    `remembered` (which of them skip the second factor), `step` (a sign-in that is not finished), `issuer` (one that is
    under way at another issuer) and `browser` (which one a passkey's challenge was given to) are needed only by our own
    pages, and are Strict. `bound` (a fresh proof of the browser's device) is like the one that it stands beside,
    `session` or `refresh`. `key` is set by the script of our pages: a public key for the next sign-in. Another script
    of this host could set it, too, and over plain HTTP a sibling host: so it is taken at a sign-in alone, and no use of
    a session needs it.
    """

    __slots__ = (
        "bound", "bound_strictly", "browser", "issuer", "key", "mark", "refresh", "registrant", "remembered", "secure",
        "session", "step", "visitor",
    )  # fmt: skip

    def __init__(self, *, secure: bool, prefix: str = PREFIX) -> None:
        """Raises `Misconfigured` for a prefix that cannot begin the name of a cookie."""
        if not _PREFIX.fullmatch(prefix):
            raise Misconfigured(
                f"The cookie prefix {prefix!r} is not 1 to 32 of a-z, 0-9, _ and -, with a letter first."
            )
        self.secure = secure
        begin, flag = ("__Host-" + prefix, b"; Secure") if secure else (prefix, b"")
        end = b"; Path=/; HttpOnly" + flag + b"; SameSite="
        lax, strict = end + b"Lax", end + b"Strict"
        self.session = Cookie(begin + "session", lax)
        self.visitor = Cookie(begin + "visitor", lax)
        self.bound = Cookie(begin + "bound", lax)
        self.bound_strictly = Cookie(begin + "bound", strict)
        self.refresh = Cookie(begin + "refresh", strict)
        self.mark = Cookie(begin + "mark", strict)
        self.registrant = Cookie(begin + "registrant", strict)
        self.remembered = Cookie(begin + "remembered", strict)
        self.step = Cookie(begin + "step", strict)
        self.browser = Cookie(begin + "browser", strict)
        self.issuer = Cookie(begin + "issuer", strict)
        self.key = Cookie(begin + "key", b"; Path=/" + flag + b"; SameSite=Strict")

    def present(self, line: bytes) -> Presented:
        """Find the session and the refresh cookie in the result of `Request.cookie()`."""
        if not line:
            return _NOTHING
        found: list[str | None] = []
        doubts: list[AmbiguousCookie] = []
        clearing: list[Header] = []
        for cookie in (self.session, self.refresh):
            try:
                found.append(cookie.find(line))
            except AmbiguousCookie as error:
                found.append(None)
                doubts.append(error)
                clearing.append(cookie.cleared)
        return Presented(found[0], found[1], doubts[0] if doubts else None, tuple(clearing))

    def standing(self, line: bytes) -> tuple[list[str], list[str]]:
        """Return every session and every refresh token that stands in the line as `name=value`, each once. Duplicates
        are ambiguous and prove no caller; but a browser that signs out, or signs in anew, gives up all of them.

        Raises:
            AmbiguousCookie: there are more than any browser has, and each of them would be a look-up.
        """
        found = self.session.every(line), self.refresh.every(line)
        if sum(map(len, found)) > _STANDING_AT_MOST:
            raise AmbiguousCookie("more cookies of ours than a browser has")
        return found

    def any(self, line: bytes) -> bool:
        """Whether a browser has kept a cookie of ours, of whatever kind: it does keep cookies."""
        return any(each.every(line) for each in (self.session, self.mark, self.registrant, self.visitor))

    def bound_beside(self, *, refresh: bool) -> Cookie:
        """Return the bound cookie that stands beside the refresh cookie, or beside the session cookie."""
        return self.bound_strictly if refresh else self.bound


class Cookie:
    """One cookie of ours: its name, and the attributes that it is set with."""

    __slots__ = ("_attributes", "_equals", "_lower", "cleared", "name")

    def __init__(self, name: str, attributes: bytes) -> None:
        self.name = name
        raw = name.encode("ascii")
        self._equals = raw + b"="
        self._lower = raw.lower()
        self._attributes = attributes
        self.cleared: Header = (b"set-cookie", raw + b"=" + attributes + _GONE)
        """Clears it, with the attributes it was set with: with others, a browser keeps the old cookie."""

    @property
    def attributes(self) -> str:
        """The attributes that it is set with, but for its life."""
        return self._attributes.decode("ascii").removeprefix("; ")

    def set(self, value: str, *, max_age: float) -> Header:
        """Set it. `max_age`: seconds the browser keeps it; the server decides anyway."""
        raw = value.encode("ascii")
        if not _VALUE.fullmatch(raw):
            raise ValueError("a cookie of ours holds letters, digits, '-', '_' and '.' only")
        return (b"set-cookie", b"%b%b%b; Max-Age=%d" % (self._equals, raw, self._attributes, max(1, int(max_age))))

    def value(self, line: bytes) -> str:
        """Find its value in the result of `Request.cookie()`; "" if it is not there, or ambiguous. For what proves too
        little for an error.
        """
        try:
            return self.find(line) or ""
        except AmbiguousCookie:
            return ""

    def clearing(self, line: bytes) -> Header | None:
        """Clear it, if the request has one."""
        return self.cleared if self.every(line) else None

    def find(self, line: bytes) -> str | None:
        """Find its value; None if it is not there.

        Raises:
            AmbiguousCookie: it was not sent exactly once and exactly as we set it.
        """
        lower = line.lower()
        seen = lower.count(self._lower)
        if not seen:
            return None
        # The usual case first: our name once, at the start of a piece.
        if seen == 1:
            start = line.find(self._equals)
            if start == 0 or (start > 0 and line[start - 2 : start] == b"; "):
                start += len(self._equals)
                end = line.find(b";", start)
                return self._checked(line[start:] if end < 0 else line[start:end])
        return self._search(line)

    def _search(self, line: bytes) -> str | None:
        found: bytes | None = None
        for piece in _pieces(line):
            if piece.startswith(self._equals):
                if found is not None:
                    raise AmbiguousCookie("two cookies of one name")
                found = piece[len(self._equals) :]
            elif piece.lstrip(b" \t=").partition(b"=")[0].rstrip(b" \t").lower() == self._lower:
                # `__HOST-dd_session=1`, `dd_session =1`, ` dd_session`, `=dd_session=1`. No others: `my_dd_session=1`
                # belongs to another application. So does the prefixed cookie at a server without TLS, left from a time
                # when localhost had it.
                raise AmbiguousCookie("our cookie in another spelling")
        return None if found is None else self._checked(found)

    def every(self, line: bytes) -> list[str]:
        """Return each value that stands in the line under its name, once."""
        size = len(self._equals)
        values = [piece[size:] for piece in _pieces(line) if piece.startswith(self._equals)]
        return [value.decode("ascii") for value in dict.fromkeys(values) if _VALUE.fullmatch(value)]

    def _checked(self, raw: bytes) -> str:
        if not _VALUE.fullmatch(raw):
            raise AmbiguousCookie("characters that our cookies never hold")
        return raw.decode("ascii")


def _pieces(line: bytes) -> list[bytes]:
    first, *others = line.split(b";")
    return [first, *(part[1:] if part[:1] == b" " else part for part in others)]
