"""The socket that the server listens on, and which setting is wrong if there cannot be one."""

from __future__ import annotations

import contextlib
import errno
import re
import socket
from collections.abc import Callable
from typing import TypeAlias

from dutchdoor.errors import DutchdoorError, Misconfigured, Unavailable

__all__ = ["BACKLOG", "bind", "look_up", "refuse_wrong_host"]

Source: TypeAlias = Callable[[str], str]
"""Where a setting was set."""

BACKLOG = 2048

_ADDRESSES = "Use 127.0.0.1 for this machine alone, 0.0.0.0 for all its networks, or an address that this machine has."


def refuse_wrong_host(host: str, source: str) -> None:
    """Raise `Misconfigured` for a host that is a URL, or has a port or brackets."""
    if "/" in host:
        raise Misconfigured(
            f"{source}: {host!a} is a URL or a path. Give the address to listen on alone, such as 127.0.0.1. The URL "
            "that users open is --public-url."
        )
    with_port = re.fullmatch(r"(\[.+\]|[^:]+):([0-9]*)", host)
    if with_port:
        alone, port = with_port[1].strip("[]"), with_port[2] or "8000"
        raise Misconfigured(f"{source}: {host!a} has a port. Give the address alone, {alone}, and --port {port}.")
    if host.startswith("["):
        raise Misconfigured(f"{source}: {host!a} is an address in brackets. Give it without: {host.strip('[]')}.")


def look_up(host: str, source: str) -> None:
    """Raise `Misconfigured` for a host that no name service knows, and `Unavailable` if none answers."""
    try:
        socket.getaddrinfo(host, 0, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as exc:
        reason = exc.strerror if isinstance(exc, OSError) else "not a name of a machine"
        kind = Unavailable if isinstance(exc, OSError) and exc.errno == socket.EAI_AGAIN else Misconfigured
        raise kind(f"{source}: {host!a} has no address: {reason}. {_ADDRESSES}") from None


def bind(host: str, port: int, source: Source) -> socket.socket:
    """Listen on an address. Raises `Misconfigured` for an address that is not ours, and `Unavailable`."""
    with contextlib.ExitStack() as stack:
        try:
            family, kind, protocol, _, address = socket.getaddrinfo(
                host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )[0]
            listener = stack.enter_context(socket.socket(family, kind, protocol))
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(BACKLOG)
        except OSError as exc:
            raise _no_socket(exc, host, port, source) from None
        listener.set_inheritable(True)
        stack.pop_all()
    return listener


def _no_socket(error: OSError, host: str, port: int, source: Source) -> DutchdoorError:
    place = f"Cannot listen on {host} ({source('host')}), port {port} ({source('port')})"
    if error.errno == errno.EADDRNOTAVAIL:
        return Misconfigured(f"{place}: this machine does not have this address. {_ADDRESSES}")
    if error.errno == errno.EADDRINUSE:
        return Unavailable(f"{place}: another program listens there. Stop it, or choose another port with --port.")
    if error.errno == errno.EACCES:
        return Unavailable(
            f"{place}: the system keeps the ports below 1024 for programs with more rights. Choose another port with "
            "--port, with a proxy in front of it."
        )
    return Unavailable(f"{place}: {error.strerror}. Choose another address with --host and --port.")
