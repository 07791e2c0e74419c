"""The hosts that always name this machine: what is sent to them passes no network."""

from __future__ import annotations

import ipaddress

__all__ = ["is_this_machine"]


def is_this_machine(host: str) -> bool:
    """Whether a host is localhost or a loopback address. A name that resolves to one is not: a resolver may lie."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
