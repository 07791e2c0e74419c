"""The event loop of a server that speaks TLS itself: a handshake has to be complete within a time.

uvicorn does not pass such a time on, and its protocol meets a connection only after the handshake. Without one, a
connection that sends nothing is held for a minute, and no count of connections knows of it.
"""

from __future__ import annotations

from typing import Any

import uvloop

from dutchdoor.server.protocol import BoundedProtocol

__all__ = ["Loop"]


class Loop(uvloop.Loop):
    """uvloop's, with a handshake as bounded as a request."""

    async def create_server(self, *arguments: Any, **options: Any) -> Any:
        if options.get("ssl") is not None:
            options["ssl_handshake_timeout"] = BoundedProtocol.request_for
        return await super().create_server(*arguments, **options)
