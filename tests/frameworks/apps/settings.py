"""Whether an application embeds the engine or verifies for a server elsewhere: the environment says it."""

from __future__ import annotations

import json
import os
from typing import Any

from msgspec.structs import replace

from dutchdoor import Policy
from dutchdoor.credentials.password import CHEAPEST, PasswordHasher
from dutchdoor.model.rate_limits import DEFAULT_LIMITS, Limit

# All tests register from one address, at a server that serves them all.
CROWDED = Limit(name="register_by_address", count=10_000, per_seconds=3600.0, burst=10_000)
SETTINGS: dict[str, Any] = (
    {"issuer": os.environ["ISSUER"], "audience": "api"}
    if "ISSUER" in os.environ
    else {
        "database": os.environ["DATABASE"],
        "sign_in_page": "/login",
        "base_path": os.environ.get("BASE_PATH", ""),
        "hasher": PasswordHasher(CHEAPEST),
        "limits": replace(DEFAULT_LIMITS, register_by_address=CROWDED),
        "policy": Policy(**json.loads(os.environ.get("POLICY", "{}"))),
        **({"public_url": os.environ["PUBLIC_URL"]} if "PUBLIC_URL" in os.environ else {}),
        **({"proxies": [os.environ["PROXIES"]]} if "PROXIES" in os.environ else {}),
    }
)
