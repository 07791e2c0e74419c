"""Log-in by other issuers: Google, Microsoft, Apple, GitHub, GitLab, Keycloak, or any OpenID Connect issuer by its URL.

    from dutchdoor import Auth, issuers

    auth = Auth(issuers=[issuers.google(client_id="...", client_secret="...")])

`presets.py` is the table of the ones that have a name, `issuer.py` says what is configured of one, `openid_provider.py`
and `github_provider.py` speak to one, and `outbound.py` sends their requests. `identity.py` is what comes of it.
"""

from dutchdoor.issuers.issuer import Issuer
from dutchdoor.issuers.presets import PRESETS

__all__ = ["Issuer", "apple", "github", "gitlab", "google", "keycloak", "microsoft", "openid"]

google, microsoft, apple = PRESETS["google"], PRESETS["microsoft"], PRESETS["apple"]
github, gitlab = PRESETS["github"], PRESETS["gitlab"]
keycloak, openid = PRESETS["keycloak"], PRESETS["openid"]
