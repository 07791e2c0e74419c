"""Where people are sent after they have signed in."""

from __future__ import annotations

import pytest

import dutchdoor.fastapi
from dutchdoor.errors import Misconfigured
from dutchdoor.web.sign_in_page import NEXT_AT_MOST, next_path


@pytest.mark.parametrize("path", ["/", "/orders?page=2&q=a%2Fb", "/a/b#c", "/a//b"])
def test_a_path_of_this_host_is_kept(path: str) -> None:
    """People come back to the page that they asked for."""
    assert next_path(path) == path


@pytest.mark.parametrize(
    "text",
    [
        None, "", "orders", "https://evil.example/", "//evil.example", "/\\evil.example", "\\\\evil.example",
        "javascript:alert(1)", "/\t/evil.example", "/\n/evil.example", " //evil.example", "/ok\r\nset-cookie: a=b",
        "/\u2215evil.example", "/" + "a" * NEXT_AT_MOST,
    ],
)  # fmt: skip
def test_another_host_is_not(text: str | None) -> None:
    """Anyone can write a link with a `next` of theirs. A browser would open another host for some texts that begin like
    a path.
    """
    assert next_path(text) == "/"
    assert next_path(text, "/home") == "/home"


@pytest.mark.parametrize("page", ["login", "//evil.example", "https://auth.example.com/login"])
def test_a_sign_in_page_is_of_this_host(page: str) -> None:
    """The setting takes a path, and says so: the cookie of another host would never come back here."""
    with pytest.raises(Misconfigured, match="is not a path of this host"):
        dutchdoor.fastapi.Auth(None, "memory:", sign_in_page=page)
