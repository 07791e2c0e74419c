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

Left out: a general cookie parser. We read twelve names.
"""

from __future__ import annotations

import re
from typing import NamedTuple

from dutchdoor.errors import Misconfigured
from dutchdoor.web.http import AmbiguousCookie, Header

__all__ = ["PREFIX", "Cookies", "Presented"]

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
    basket. `refresh`, `mark` (which browsers an account signed in from), `remembered` (which of them skip the second
    factor), `step` (a sign-in that is not finished), `issuer` (one that is under way at another issuer) and `browser`
    (which one a passkey's challenge was given to) are needed only by our own pages, and are Strict. `bound` (a fresh
    proof of the browser's device) is like the one that it stands beside, `session` or `refresh`. `key` is set by
    the script of our pages: a public key for the next sign-in. Another script of this host could set it, too, and over
    plain HTTP a sibling host: so it is taken at a sign-in alone, and no use of a session needs it.
    """

    __slots__ = (
        "_bound",
        "_bound_strictly",
        "_browser",
        "_issuer",
        "_key",
        "_mark",
        "_refresh",
        "_registrant",
        "_remembered",
        "_session",
        "_step",
        "_visitor",
        "bound_name",
        "key_name",
        "secure",
        "session_name",
    )  # fmt: skip

    def __init__(self, *, secure: bool, prefix: str = PREFIX) -> None:
        """Raises `Misconfigured` for a prefix that cannot begin the name of a cookie."""
        if not _PREFIX.fullmatch(prefix):
            raise Misconfigured(
                f"The cookie prefix {prefix!r} is not 1 to 32 of a-z, 0-9, _ and -, with a letter first."
            )
        self.secure = secure
        host, flag = ("__Host-", b"; Secure") if secure else ("", b"")
        end = b"; Path=/; HttpOnly" + flag
        self.session_name = f"{host}{prefix}session"
        self._session = _Kind(self.session_name, end + b"; SameSite=Lax")
        self.bound_name = f"{host}{prefix}bound"
        self._bound = _Kind(self.bound_name, end + b"; SameSite=Lax")
        self._bound_strictly = _Kind(self.bound_name, end + b"; SameSite=Strict")
        self._visitor = _Kind(f"{host}{prefix}visitor", end + b"; SameSite=Lax")
        self._refresh = _Kind(f"{host}{prefix}refresh", end + b"; SameSite=Strict")
        self._mark = _Kind(f"{host}{prefix}mark", end + b"; SameSite=Strict")
        self._registrant = _Kind(f"{host}{prefix}registrant", end + b"; SameSite=Strict")
        self._remembered = _Kind(f"{host}{prefix}remembered", end + b"; SameSite=Strict")
        self._step = _Kind(f"{host}{prefix}step", end + b"; SameSite=Strict")
        self._browser = _Kind(f"{host}{prefix}browser", end + b"; SameSite=Strict")
        self._issuer = _Kind(f"{host}{prefix}issuer", end + b"; SameSite=Strict")
        self.key_name = f"{host}{prefix}key"
        self._key = _Kind(self.key_name, b"; Path=/" + flag + b"; SameSite=Strict")

    def present(self, line: bytes) -> Presented:
        """Find the session and the refresh cookie in the result of `Request.cookie()`."""
        if not line:
            return _NOTHING
        found: list[str | None] = []
        doubts: list[AmbiguousCookie] = []
        clearing: list[Header] = []
        for kind in (self._session, self._refresh):
            try:
                found.append(kind.find(line))
            except AmbiguousCookie as error:
                found.append(None)
                doubts.append(error)
                clearing.append(kind.cleared)
        return Presented(found[0], found[1], doubts[0] if doubts else None, tuple(clearing))

    def standing(self, line: bytes) -> tuple[list[str], list[str]]:
        """Return every session and every refresh token that stands in the line as `name=value`, each once. Duplicates
        are ambiguous and prove no caller; but a browser that signs out, or signs in anew, gives up all of them.

        Raises:
            AmbiguousCookie: there are more than any browser has, and each of them would be a look-up.
        """
        found = self._session.every(line), self._refresh.every(line)
        if sum(map(len, found)) > _STANDING_AT_MOST:
            raise AmbiguousCookie("more cookies of ours than a browser has")
        return found

    def any(self, line: bytes) -> bool:
        """Whether a browser has kept a cookie of ours, of whatever kind: it does keep cookies."""
        return any(kind.every(line) for kind in (self._session, self._mark, self._registrant, self._visitor))

    def session(self, line: bytes) -> str | None:
        """Find the session cookie alone: all that an ordinary request needs.

        Raises:
            AmbiguousCookie: it was not sent exactly once and exactly as we set it.
        """
        return self._session.find(line) if line else None

    def bound(self, line: bytes) -> str:
        """Find what shows that the session's browser has proved its device a short while ago. "" if there is nothing,
        or it is ambiguous.
        """
        try:
            return self._bound.find(line) or ""
        except AmbiguousCookie:
            return ""

    def mark(self, line: bytes) -> str:
        """Find the marks of earlier sign-ins. "" if there are none, or ambiguous ones: they prove too little for an
        error.
        """
        try:
            return self._mark.find(line) or ""
        except AmbiguousCookie:
            return ""

    def registrant(self, line: bytes) -> str:
        """Find the secret of the browser that registered an account. "" if there is none, or it is ambiguous."""
        try:
            return self._registrant.find(line) or ""
        except AmbiguousCookie:
            return ""

    def visitor(self, line: bytes) -> str:
        """Find the token of a visitor who has not signed in. "" if there is none, or it is ambiguous."""
        try:
            return self._visitor.find(line) or ""
        except AmbiguousCookie:
            return ""

    def remembered(self, line: bytes) -> str:
        """Find what lets this browser skip the second factor. "" if there is nothing, or it is ambiguous."""
        try:
            return self._remembered.find(line) or ""
        except AmbiguousCookie:
            return ""

    def step(self, line: bytes) -> str:
        """Find the token of a sign-in that is not finished. "" if there is none, or it is ambiguous."""
        try:
            return self._step.find(line) or ""
        except AmbiguousCookie:
            return ""

    def browser(self, line: bytes) -> str:
        """Find the secret of the browser that a passkey's challenge was given to. "" if there is none, or it is
        ambiguous.
        """
        try:
            return self._browser.find(line) or ""
        except AmbiguousCookie:
            return ""

    def issuer(self, line: bytes) -> str:
        """Find what binds a sign-in at another issuer to this browser. "" if there is nothing, or it is ambiguous."""
        try:
            return self._issuer.find(line) or ""
        except AmbiguousCookie:
            return ""

    def key(self, line: bytes) -> str:
        """Find the public key that the browser brings to a sign-in. "" if there is none, or it is ambiguous."""
        try:
            return self._key.find(line) or ""
        except AmbiguousCookie:
            return ""

    def clear_key(self, line: bytes) -> Header | None:
        """Clear the public key that a sign-in has taken, if the request has one."""
        return self._key.cleared if self._key.every(line) else None

    def set_session(self, value: str, *, max_age: float) -> Header:
        """Set the session cookie. `max_age`: seconds the browser keeps it; the server decides anyway."""
        return self._session.set(value, max_age)

    def set_refresh(self, value: str, *, max_age: float) -> Header:
        return self._refresh.set(value, max_age)

    def set_bound(self, value: str, *, max_age: float, strict: bool) -> Header:
        """Set the bound cookie: `strict` beside a refresh cookie, and Lax beside a session cookie, like these."""
        return (self._bound_strictly if strict else self._bound).set(value, max_age)

    def bound_as(self, *, by_refresh_cookie: bool) -> tuple[str, str]:
        """Return the name and the attributes of the bound cookie, by which the browser watches it."""
        kind = self._bound_strictly if by_refresh_cookie else self._bound
        return self.bound_name, kind.attributes

    def clear_bound(self, line: bytes) -> Header | None:
        """Clear the bound cookie, if the request has one. A browser whose session is bound fetches another."""
        return self._bound.cleared if self._bound.every(line) else None

    def set_mark(self, value: str, *, max_age: float) -> Header:
        return self._mark.set(value, max_age)

    def set_registrant(self, value: str, *, max_age: float) -> Header:
        return self._registrant.set(value, max_age)

    def set_remembered(self, value: str, *, max_age: float) -> Header:
        return self._remembered.set(value, max_age)

    def set_step(self, value: str, *, max_age: float) -> Header:
        return self._step.set(value, max_age)

    def set_issuer(self, value: str, *, max_age: float) -> Header:
        return self._issuer.set(value, max_age)

    def clear_step(self) -> Header:
        return self._step.cleared

    def set_browser(self, value: str, *, max_age: float) -> Header:
        return self._browser.set(value, max_age)

    def set_visitor(self, value: str, *, max_age: float) -> Header:
        return self._visitor.set(value, max_age)

    def clear_visitor(self) -> Header:
        return self._visitor.cleared

    def clear_session(self) -> Header:
        """Clear it with the attributes it was set with: with others, a browser keeps the old cookie."""
        return self._session.cleared

    def clear_refresh(self) -> Header:
        return self._refresh.cleared


class _Kind:
    __slots__ = ("_attributes", "_equals", "_lower", "cleared")

    def __init__(self, name: str, attributes: bytes) -> None:
        raw = name.encode("ascii")
        self._equals = raw + b"="
        self._lower = raw.lower()
        self._attributes = attributes
        self.cleared: Header = (b"set-cookie", raw + b"=" + attributes + _GONE)

    @property
    def attributes(self) -> str:
        """The attributes that it is set with, but for its life."""
        return self._attributes.decode("ascii").removeprefix("; ")

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
        # The usual case first: our name once, at the start of a piece.
        if seen == 1:
            start = line.find(self._equals)
            if start == 0 or (start > 0 and line[start - 2 : start] == b"; "):
                start += len(self._equals)
                end = line.find(b";", start)
                return self._value(line[start:] if end < 0 else line[start:end])
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
        return None if found is None else self._value(found)

    def every(self, line: bytes) -> list[str]:
        size = len(self._equals)
        values = [piece[size:] for piece in _pieces(line) if piece.startswith(self._equals)]
        return [value.decode("ascii") for value in dict.fromkeys(values) if _VALUE.fullmatch(value)]

    def _value(self, raw: bytes) -> str:
        if not _VALUE.fullmatch(raw):
            raise AmbiguousCookie("characters that our cookies never hold")
        return raw.decode("ascii")


def _pieces(line: bytes) -> list[bytes]:
    first, *others = line.split(b";")
    return [first, *(part[1:] if part[:1] == b" " else part for part in others)]
