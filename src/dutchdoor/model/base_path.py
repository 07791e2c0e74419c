"""The base path: what stands before every path of the API, such as `/id`; "" at the root of a host.

It is the path that browsers see. The issuer of tokens is the origin and this path.
"""

from __future__ import annotations

import re
from typing import Final

from dutchdoor.errors import Misconfigured

__all__ = ["PATTERN", "read_base_path", "whole_path"]

PATTERN: Final = r"(?:/[A-Za-z0-9_~-][A-Za-z0-9._~-]{0,60}){0,8}"
"""No segment begins with a dot, and none needs an escape: clients and proxies must spell the issuer in one way only."""
_BASE_PATH: Final = re.compile(PATTERN)


def read_base_path(text: str) -> str:
    """Return a base path without its last slash. Raises `Misconfigured` for a text that is none."""
    path = text.rstrip("/")
    if not _BASE_PATH.fullmatch(path):
        raise Misconfigured(
            f"base_path {text!r} is not a path. Use one such as /id: it begins with a slash, and has letters, digits "
            "and - . _ ~ only."
        )
    return path


def whole_path(path: str, root_path: str) -> str:
    """Return the path that browsers see. `root_path` is where the application is mounted (ASGI, or SCRIPT_NAME in
    WSGI). Some servers repeat it in the path, and some do not.
    """
    if not root_path or path == root_path or path.startswith(f"{root_path}/"):
        return path
    return root_path + path
