"""Settings that a running server takes over on SIGHUP, and the names of those that need a restart.

Taken over is what only the next request or connection depends on: proxies, hosts, origins, limits of connections. All
else decides what is stored, or how processes work together, and needs a restart. The files of the certificate are read
again by themselves when they change.
"""

from __future__ import annotations

import ipaddress
import logging
from collections.abc import Callable
from typing import TypeAlias

from msgspec.structs import replace

from dutchdoor.auth import Auth
from dutchdoor.errors import Misconfigured
from dutchdoor.server.config import Settings
from dutchdoor.server.protocol import BoundedProtocol
from dutchdoor.server.settings import SETTINGS, Setting
from dutchdoor.web.cors import Cors
from dutchdoor.web.forwarded import Edge

__all__ = ["TAKEN_OVER", "Read", "apply_to", "limit_connections", "reloaded"]

TAKEN_OVER = ("proxy", "other_host", "origin", "origin_header", "pass_preflights", "max_connections", "request_for")
"""Settings that are taken over."""

Read: TypeAlias = Callable[[], Settings]
"""Reads the configuration again: the same arguments and environment, and the files as they are now."""

log = logging.getLogger("dutchdoor")


def reloaded(present: Settings, read: Read, check: Callable[[Settings], None], *, aloud: bool = True) -> Settings:
    """Read the configuration again, and return the settings to go on with. A configuration that cannot be used changes
    nothing. `check` raises `Misconfigured` for one that is not safe. With `aloud`, log which settings changed.
    """
    try:
        found = read()
        check(found)
        taken = replace(present, **{name: getattr(found, name) for name in TAKEN_OVER})
        check(taken)
        _edge(taken)
        _cors(taken)
    except Misconfigured as exc:
        if aloud:
            log.error("settings not reloaded: %s", exc)  # noqa: TRY400 - the sentence is for people
        return present
    if aloud:
        changed = [each.name for each in SETTINGS if _value(present, each) != _value(found, each)]
        changed += ["issuers"] if present.issuers != found.issuers else []
        now = [name for name in changed if name in TAKEN_OVER]
        later = [name for name in changed if name not in TAKEN_OVER and (name != "port" or found.port)]
        log.info("settings reloaded: %s", ", ".join(now) or "none of them changed")
        if later:
            log.warning("settings changed that need a restart: %s", ", ".join(later))
    return taken


def apply_to(auth: Auth, settings: Settings) -> None:
    """Let the next requests and connections of this process have these settings."""
    auth.site = auth.api.site = replace(auth.site, edge=_edge(settings), cors=_cors(settings))
    limit_connections(settings)


def limit_connections(settings: Settings) -> None:
    """Set the limits of the connections of this process."""
    BoundedProtocol.request_for = settings.request_for
    BoundedProtocol.max_connections = settings.max_connections
    BoundedProtocol.proxies = tuple(ipaddress.ip_network(proxy) for proxy in settings.proxy)
    everything = BoundedProtocol.places.get("")
    if everything is not None:
        everything.share = settings.max_connections


def _edge(settings: Settings) -> Edge:
    return Edge(public_url=settings.public_url, hosts=settings.other_host, proxies=settings.proxy)


def _cors(settings: Settings) -> Cors:
    return Cors(settings.origin, headers=settings.origin_header, pass_preflights=settings.pass_preflights)


def _value(settings: Settings, setting: Setting) -> object:
    if setting.name == "preset":  # it is in the values of the policy
        return None
    return getattr(settings.policy if setting.in_policy else settings, setting.name)
