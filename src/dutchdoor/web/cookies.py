"""Our cookies: found without doubt, or not at all.

RFC 6265bis. Names and attributes are derived from one fact, whether browsers reach us over TLS, and are no settings.
`__Host-` makes the browser promise that the cookie was set by this very host, over TLS, for the whole of it: nothing on
a sibling domain can plant it. On plain-HTTP loopback there is no such promise and no prefix.

*Cookie tossing* is getting a server to read an attacker's cookie as its own. Parsers differ in what they forgive
(white space, quotes, commas, case, a missing name, RFC 2109's `$Version`), and the attacker needs one lenient parser
between the browser and the decision. So there is no lenient reading here: our name appears in exactly one piece of the
line, that piece is exactly `name=value`, or the request is refused. Other people's cookies may look as they like as
long as our name is not in them.

Left out: a general cookie parser. We read three names.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from dutchdoor.web.http import AmbiguousCookie, Header

__all__ = ["PLAIN", "SECURE", "Cookies", "Presented"]

_LINE_AT_MOST = 32 * 1024
_VALUE = re.compile(rb"[A-Za-z0-9_.-]{1,512}")  # of 4,096 bytes that browsers promise to keep; ours need 196 at most
_TOKEN = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_GONE = b"; Max-Age=0; Expires=Thu, 01 Jan 1970 00:00:00 GMT"


class Presented(NamedTuple):
    """What a request holds of ours. None: not sent."""

    session: str | None
    refresh: str | None


_NOTHING = Presented(None, None)


class Cookies:
    """The names and attributes of our cookies, for a server that is (`SECURE`) or is not (`PLAIN`) reached over TLS.

    `session` is Lax, so that a link from elsewhere finds its reader signed in. `refresh` and `mark` (which browsers an
    account signed in from) are needed by our own pages only, and are Strict.
    """

    __slots__ = ("_mark", "_refresh", "_registrant", "_session", "secure")

    def __init__(self, *, secure: bool) -> None:
        self.secure = secure
        prefix, flag = (b"__Host-", b"; Secure") if secure else (b"", b"")
        end = b"; Path=/; HttpOnly" + flag
        self._session = _Kind(prefix + b"dd_session", end + b"; SameSite=Lax")
        self._refresh = _Kind(prefix + b"dd_refresh", end + b"; SameSite=Strict")
        self._mark = _Kind(prefix + b"dd_mark", end + b"; SameSite=Strict")
        self._registrant = _Kind(prefix + b"dd_registrant", end + b"; SameSite=Strict")

    def present(self, line: bytes) -> Presented:
        """Find the session and the refresh cookie in what `Request.cookie()` gives.

        Raises:
            AmbiguousCookie: one of them was sent in any way but exactly once and exactly as we set it.
        """
        if not line:
            return _NOTHING
        session = self._session.find(line)
        refresh = self._refresh.find(line)
        return Presented(session, refresh)

    def session(self, line: bytes) -> str | None:
        """Find the session cookie alone: all that an ordinary request needs. Raises as `present` does."""
        return self._session.find(line) if line else None

    def mark(self, line: bytes) -> str:
        """Find the marks of earlier sign-ins. "" if there are none, or in doubt: they prove too little for an error."""
        try:
            return self._mark.find(line) or ""
        except AmbiguousCookie:
            return ""

    def registrant(self, line: bytes) -> str:
        """Find the secret of the browser that registered an account. "" if there is none, or in doubt."""
        try:
            return self._registrant.find(line) or ""
        except AmbiguousCookie:
            return ""

    def set_session(self, value: str, *, max_age: float) -> Header:
        """Set the session cookie. `max_age`: seconds the browser keeps it; the server decides anyway."""
        return self._session.set(value, max_age)

    def set_refresh(self, value: str, *, max_age: float) -> Header:
        return self._refresh.set(value, max_age)

    def set_mark(self, value: str, *, max_age: float) -> Header:
        return self._mark.set(value, max_age)

    def set_registrant(self, value: str, *, max_age: float) -> Header:
        return self._registrant.set(value, max_age)

    def clear_session(self) -> Header:
        """Clear it with the attributes it was set with: with others, a browser keeps the old cookie."""
        return self._session.cleared

    def clear_refresh(self) -> Header:
        return self._refresh.cleared


class _Kind:
    __slots__ = ("_attributes", "_equals", "_lower", "cleared")

    def __init__(self, name: bytes, attributes: bytes) -> None:
        self._equals = name + b"="
        self._lower = name.lower()
        self._attributes = attributes
        self.cleared: Header = (b"set-cookie", name + b"=" + attributes + _GONE)

    def set(self, value: str, max_age: float) -> Header:
        raw = value.encode("ascii")
        if not _VALUE.fullmatch(raw):
            raise ValueError("a cookie of ours holds letters, digits, '-', '_' and '.' only")
        return (b"set-cookie", b"%b%b%b; Max-Age=%d" % (self._equals, raw, self._attributes, max(1, int(max_age))))

    def find(self, line: bytes) -> str | None:
        lower = line.lower()
        seen = lower.count(self._lower)
        if not seen:
            return None
        # The usual case first: our name once, at the start of a piece, and nothing that could change how it is read.
        if seen == 1 and b'"' not in line and b"$" not in line:
            start = line.find(self._equals)
            if start == 0 or (start > 0 and line[start - 2 : start] == b"; "):
                start += len(self._equals)
                end = line.find(b";", start)
                return self._value(line[start:] if end < 0 else line[start:end])
        return self._search(line)

    def _search(self, line: bytes) -> str | None:
        if len(line) > _LINE_AT_MOST:
            raise AmbiguousCookie("cookies longer than 32 KiB")
        found: bytes | None = None
        for n, part in enumerate(line.split(b";")):
            piece = part[1:] if n and part[:1] == b" " else part
            if piece.startswith(self._equals):
                if found is not None:
                    raise AmbiguousCookie("two cookies of one name")
                found = piece[len(self._equals) :]
            else:
                self._check_other(piece)
        return None if found is None else self._value(found)

    def _check_other(self, piece: bytes) -> None:
        """Refuse a piece that some parser would take for ours, or that changes how ours is read."""
        name, _, value = piece.partition(b"=")
        # `$Version=1` makes some parsers read quotes across `;`, and ours may stand between two.
        if name.strip().startswith(b"$"):
            raise AmbiguousCookie("an RFC 2109 cookie header")
        opened = value.strip()
        if opened[:1] == b'"' and (len(opened) == 1 or opened[-1:] != b'"'):
            raise AmbiguousCookie("a quote that is not closed")  # ours might stand inside it
        if self._lower not in piece.lower():
            return
        # `my_dd_session=1` is somebody else's, name and all; so is the prefixed cookie at a server without TLS, left
        # from a time when localhost had it. `__HOST-dd_session=1`, `dd_session =1`, ` dd_session`, `=dd_session=1` and
        # `x="dd_session=1"` are attempts.
        if not _TOKEN.fullmatch(name) or name.lower() == self._lower or self._lower in value.lower():
            raise AmbiguousCookie("our cookie in another spelling")

    def _value(self, raw: bytes) -> str:
        if not _VALUE.fullmatch(raw):
            raise AmbiguousCookie("characters that our cookies never hold")
        return raw.decode("ascii")


SECURE = Cookies(secure=True)
PLAIN = Cookies(secure=False)
