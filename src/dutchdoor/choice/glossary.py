"""One line for each word that a reader who is new to the subject may not know."""

from __future__ import annotations

import re
from collections.abc import Mapping
from itertools import pairwise
from typing import Final

from dutchdoor.texts import mark

__all__ = ["WORDS", "words_in"]

WORDS: Final[Mapping[str, str]] = {
    "AAL1": mark("a level of NIST: one proof, such as a password, and sign-ins of 30 days at most"),
    "AAL2": mark("a level of NIST: two different proofs, and sign-ins of a day at most"),
    "access token": mark("a signed text that proves who sends a request, for some minutes"),
    "ASVS": mark("a list of what a safe application does, by OWASP"),
    "body": mark("a transport: the client gets a token in the answer, and keeps it itself"),
    "cookie": mark("a short text that a browser keeps for one site, and sends with each request to it"),
    "CORS": mark("a server says which other origins may read its answers in a browser"),
    "CSRF": mark("a page of another site lets the browser send a request in the user's name"),
    "DBSC": mark("a browser proves that it still holds the key of its sign-in (Device Bound Session Credentials)"),
    "DPoP": mark("a client proves with each request that it holds a key (RFC 9449)"),
    "expires": mark("becomes invalid by time alone, without an act of anyone"),
    "fence": mark("an answer to a log-out waits until each service refuses what was revoked"),
    "fenced": mark("each service has confirmed that it refuses what was revoked, or trusts nothing any more"),
    "HS256": mark("a signature by one secret: who can check a token can also make one"),
    "hybrid": mark("a pattern: an access token for minutes, and a refresh token that renews it"),
    "introspection": mark("a service asks the sign-in server about a token (RFC 7662)"),
    "jwt": mark("a pattern: a signed access token alone (JSON Web Token); no session is stored"),
    "lease": mark("the time for which a service trusts its copy of the list of what was revoked"),
    "log-out": mark("the user, or an administrator, ends a sign-in before it expires"),
    "look-up": mark("a question to the database: whose is this session, and is it still valid"),
    "median": mark("the middle one of several figures: half are lower, half are higher"),
    "NIST": mark("the standards office of the United States; its SP 800-63B says how people should sign in"),
    "node": mark("one machine, or one container, that runs the sign-in server"),
    "origin": mark("scheme, host and port of a page: https://app.example.com"),
    "outage": mark("a time in which a server or a line is down"),
    "passkey": mark("a key of a phone or laptop that signs its owner in, at your site alone"),
    "pattern": mark("how a sign-in is kept and proved: session, hybrid or jwt"),
    "preset": mark("a set of durations with a name: relaxed, standard, high"),
    "refresh token": mark("a secret that gets the client its next access token; it changes each time"),
    "revoked": mark("ended before it expires, by a log-out for example"),
    "second factor": mark("a further proof beside the password, such as a code of an app"),
    "session": mark("a pattern: the server stores a row, and the browser holds a cookie that names it"),
    "sign-in server": mark("the server that checks passwords and issues tokens: `dutchdoor serve`"),
    "signature": mark("numbers at the end of a token that only the holder of the key can make"),
    "site": mark("the part of a host that can be registered: app.example.com and example.com are one site"),
    "transport": mark("how the client gets and sends its secret: a cookie, or the body of an answer"),
    "Verifier": mark("a class of dutchdoor for a service: it checks tokens, and follows what was revoked"),
    "XSS": mark("a stranger's script runs in your page (cross-site scripting)"),
}


def words_in(text: str) -> dict[str, str]:
    """Return those words that stand in a text, with their explanations, in alphabetical order."""
    single = re.findall(r"[\w-]+", text.lower())
    there = {*single, *map(" ".join, pairwise(single))}
    return {
        word: meaning
        for word, meaning in WORDS.items()
        if any(word.lower() + plural in there for plural in ("", "s", "es"))
    }
