"""`dutchdoor lab`: the patterns side by side in the browser, with a server of its own."""

from __future__ import annotations

import logging
import socket
from contextlib import closing, suppress

import click
import uvicorn

from dutchdoor.choice.lab.labs import Labs
from dutchdoor.choice.lab.site import PATH, site
from dutchdoor.errors import Unavailable
from dutchdoor.server.ending import ends_in_order
from dutchdoor.server.terminal import write

__all__ = ["lab"]

PORT = 8600
HOST = "127.0.0.1"
"""No option changes it: a lab shows secrets on purpose."""


@click.command(epilog="Example: dutchdoor lab, then open the address that it prints. Ctrl-C ends it.")
@click.option("--port", type=click.IntRange(0, 65535), default=PORT, show_default=True, help="0 takes a free port.")
def lab(*, port: int) -> None:
    """Show sessions, JWTs and the hybrid side by side in your browser, live.

    It starts servers of its own on this machine, with an account and a database of their own: sign in six ways, steal
    a copy, log out, and see who is still accepted, and for how long. Nothing is left behind when it ends.
    """
    logging.getLogger("dutchdoor").addHandler(logging.NullHandler())  # an outage is part of the lab
    logging.getLogger("dutchdoor").propagate = False
    with ends_in_order(), closing(_bind(port)) as listener, closing(Labs()) as labs:
        port = listener.getsockname()[1]
        write(f"The lab is at http://localhost:{port}{PATH}")
        write("Only this machine can open it. Ctrl-C ends it, and removes all that it wrote.")
        config = uvicorn.Config(
            site(labs, port),
            lifespan="off",
            log_level="error",
            proxy_headers=False,
            server_header=False,
            timeout_graceful_shutdown=2,
        )
        with suppress(KeyboardInterrupt):  # how it is meant to end
            uvicorn.Server(config).run(sockets=[listener])


def _bind(port: int) -> socket.socket:
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
    except OSError as exc:
        listener.close()
        raise Unavailable(f"Cannot listen on {HOST} port {port}: {exc.strerror}. Choose another with --port.") from None
    return listener
