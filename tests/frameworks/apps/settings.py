"""Whether an application embeds the engine or verifies for a server elsewhere: the environment says it."""

from __future__ import annotations

import json
import os
from typing import Any

from dutchdoor import Policy
from dutchdoor.credentials.password import CHEAPEST, PasswordHasher

SETTINGS: dict[str, Any] = (
    {"issuer": os.environ["ISSUER"], "audience": "api"}
    if "ISSUER" in os.environ
    else {
        "database": os.environ["DATABASE"],
        "sign_in_page": "/login",
        "base_path": os.environ.get("BASE_PATH", ""),
        "hasher": PasswordHasher(CHEAPEST),
        "policy": Policy(**json.loads(os.environ.get("POLICY", "{}"))),
        **({"public_url": os.environ["PUBLIC_URL"]} if "PUBLIC_URL" in os.environ else {}),
        **({"proxies": [os.environ["PROXIES"]]} if "PROXIES" in os.environ else {}),
    }
)
