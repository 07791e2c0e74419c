"""A program that signs in, and stays signed in: the next run asks for no password.

pip install 'dutchdoor[client]'
dutchdoor serve                                     # elsewhere: the server, at http://localhost:8000
python examples/program.py ada@example.com
"""

from __future__ import annotations

import getpass
import os
import sys

import httpx2

from dutchdoor.client import FileStorage, SessionAuth
from dutchdoor.errors import DutchdoorError, NotAuthenticated

SERVER = os.environ.get("AUTHORITY", "http://localhost:8000")
STORAGE = FileStorage("program.tokens")


def main(login: str) -> None:
    auth = SessionAuth(SERVER, storage=STORAGE)
    try:
        auth.token()
    except NotAuthenticated:
        password = getpass.getpass() if sys.stdin.isatty() else sys.stdin.readline().rstrip("\n")
        auth = SessionAuth(SERVER, login=login, password=password, storage=STORAGE)
    with httpx2.Client(base_url=SERVER, auth=auth) as api:
        print("hello", api.get("/auth/me").json()["user"]["email"])


if __name__ == "__main__":
    try:
        main(sys.argv[1])
    except DutchdoorError as error:
        sys.exit(str(error))
