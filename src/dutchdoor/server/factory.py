"""Build from settings the same `Auth` that an embedding application builds."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from msgspec.structs import replace

from dutchdoor.auth import Auth
from dutchdoor.credentials.hashing import available_cores
from dutchdoor.credentials.password import PROFILES, PasswordHasher
from dutchdoor.credentials.strength import BreachedList
from dutchdoor.errors import InvalidKey, Misconfigured
from dutchdoor.mail.urls import make_transport, noreply
from dutchdoor.model.base_path import read_base_path
from dutchdoor.model.deployment import Served
from dutchdoor.model.master_key import MasterKey, MasterKeys
from dutchdoor.model.policy import Policy
from dutchdoor.server.config import Secret, Settings, with_default
from dutchdoor.stores.base import Store
from dutchdoor.stores.urls import is_in_memory, make_store
from dutchdoor.web.pages.branding import Branding
from dutchdoor.web.pages.site import ACCOUNT_PATH

__all__ = ["another_master_key", "as_served", "local_url", "make_auth", "refuse_wrong", "sqlite_file", "store_of"]


def make_auth(settings: Settings, *, store: Store | None = None) -> Auth:
    """Build an `Auth` over the store of the settings, or over `store`, without opening it. Raises `Misconfigured`."""
    pepper = settings.pepper
    return Auth(
        store or settings.database.reveal(),
        redis="" if settings.redis is None else settings.redis.reveal(),
        master_key=_master_key(settings),
        public_url=settings.public_url,
        local_url=local_url(settings),
        base_path=settings.base_path,
        hosts=settings.other_host,
        proxies=settings.proxy,
        origins=settings.origin,
        origin_headers=settings.origin_header,
        passkey_domain=settings.passkey_domain,
        passkey_origins=settings.passkey_origin,
        pass_preflights=settings.pass_preflights,
        sign_in_page=settings.sign_in_page,
        home=_home(settings),
        hsts=settings.hsts,
        clear_site_data=settings.clear_site_data,
        cookie_prefix=settings.cookie_prefix,
        docs=settings.docs,
        console=settings.console and "session" in settings.policy.modes,
        audience=settings.audience,
        policy=settings.policy,
        alg=settings.alg,
        lease=settings.lease,
        product=settings.product,
        languages=settings.languages,
        catalogues=settings.catalogues,
        branding=Branding(
            accent=settings.accent,
            accent_dark=settings.accent_dark,
            logo=settings.logo or "",
            radius=settings.radius,
            font=settings.font,
            templates=settings.templates or "",
        ),
        mail=make_transport(
            settings.mail.reveal(),
            sender=settings.mail_from or noreply(settings.public_url),
            source=settings.source("mail"),
            sender_source=settings.source("mail_from"),
        ),
        hasher=PasswordHasher(
            PROFILES[settings.password_hash],
            pepper=None if pepper is None else pepper.reveal().encode(),
            # The processes share the cores of the machine for hashing.
            workers=max(1, available_cores() // settings.workers),
        ),
        breached=None if settings.breached is None else BreachedList(Path(settings.breached)),
        security_contact=settings.security_contact,
        issuers=settings.issuers,
        webhook_networks=settings.webhook_network,
    )


def store_of(settings: Settings) -> Store:
    """Create the store of the settings, without opening it. Raises `Misconfigured`, which names the setting."""
    try:
        return make_store(settings.database.reveal())
    except Misconfigured as exc:
        source = settings.sources.get("database", settings.source("database_file"))
        raise Misconfigured(f"{source}: {exc}") from None


def refuse_wrong(settings: Settings) -> None:
    """Build an `Auth` and drop it: what it refuses is refused before a file is created for it.

    Neither the master key nor the list of breached passwords is read.

    Raises:
        Misconfigured: a setting is wrong. The message names it as the administrator wrote it.
    """
    store_of(settings)
    unkeyed = replace(settings, master_key=Secret(MasterKey.generate().text()), breached=None)
    try:
        make_auth(unkeyed, store=make_store("memory:"))
    except Misconfigured as exc:
        name = next((name for name in settings.sources if _is_at_fault(name, unkeyed, exc)), None)
        if name is None or settings.sources[name] in str(exc):
            raise
        of_library = str(exc).removeprefix(name)  # `base_path 'x y' is not a path`: the name of an argument of `Auth`
        between = "" if of_library != str(exc) else ": "
        raise Misconfigured(f"{settings.sources[name]}{between}{of_library}") from None


def _is_at_fault(name: str, settings: Settings, error: Misconfigured) -> bool:
    """Whether the error is gone, or is another one, once the setting has its default."""
    try:
        make_auth(with_default(settings, name), store=make_store("memory:"))
    except Misconfigured as other:
        return str(other) != str(error)
    return True


def _home(settings: Settings) -> str | None:
    # Without sessions no page knows who is signed in.
    return f"{read_base_path(settings.base_path)}{ACCOUNT_PATH}" if "session" in settings.policy.modes else None


def another_master_key(exc: InvalidKey) -> Misconfigured:
    """Explain the error of a second node, or of a restored database, without the master key of the first node."""
    return Misconfigured(
        f"The master key does not belong to this database: {exc.reason}. All nodes need the same master key: set its "
        "file with --master-key-file or DUTCHDOOR_MASTER_KEY_FILE."
    )


def as_served(settings: Settings, served: Served) -> Settings:
    """Take each setting that this process was not given from those of the servers."""
    given = settings.sources
    policy = settings.policy
    if "preset" not in given:
        policy = replace(
            served.policy, **{name: getattr(policy, name) for name in given if name in Policy.__struct_fields__}
        )
    changed = {
        name: getattr(served, name)
        for name in ("alg", "audience", "base_path", "lease", "product", "webhook_network")
        if name not in given
    }
    if "public_url" not in given and "port" not in given:
        port = urlsplit(served.local_url).port
        changed |= {"public_url": served.public_url, "port": settings.port if port is None else port}
    return replace(settings, policy=policy, **changed)


def local_url(settings: Settings) -> str:
    """The issuer if no public URL is set."""
    return f"http://localhost:{settings.port}"


def sqlite_file(settings: Settings) -> Path | None:
    """The file of the database, if it is SQLite."""
    url = settings.database.reveal()
    return Path(url.removeprefix("sqlite:///")) if url.startswith("sqlite:///") else None


def _master_key(settings: Settings) -> MasterKeys | str:
    if settings.master_key is not None:
        return MasterKeys.parse(settings.master_key.reveal())
    if is_in_memory(settings.database.reveal()) and "master_key_file" not in settings.sources:
        return MasterKeys(MasterKey.generate())
    return settings.master_key_file
