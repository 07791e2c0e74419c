"""Run the server: uvicorn on uvloop and httptools, with limits, with its own TLS or behind a configured proxy.

Unsafe settings are refused before a socket is bound, with a message that says what to do. With several processes, the
parent process binds the socket, updates the schema, creates the first key, and prints once that all are ready.

Not included: HTTP/2 and HTTP/3 (a proxy in front has them), Unix sockets, WebSockets.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import functools
import logging
import logging.config
import multiprocessing
import os
import resource
import signal
import sys
import tempfile
import threading
from collections.abc import Callable, Generator
from importlib import import_module
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import uvicorn
from msgspec.structs import replace
from starlette.types import ASGIApp

from dutchdoor.auth import Auth
from dutchdoor.errors import InvalidKey, Misconfigured
from dutchdoor.model.this_machine import is_this_machine
from dutchdoor.server.config import Settings
from dutchdoor.server.factory import another_master_key, make_auth, refuse_wrong
from dutchdoor.server.instrumentation import MULTIPROCESS, ObservedStore, Watched, log_transitions
from dutchdoor.server.listening import BACKLOG, bind, look_up
from dutchdoor.server.logs import logging_config
from dutchdoor.server.processes import Node, One, Several
from dutchdoor.server.protocol import BoundedProtocol
from dutchdoor.server.reload import Read, apply_to, limit_connections, reloaded
from dutchdoor.server.setup_link import offer_setup, remove_spent_setup
from dutchdoor.server.tls import context_for, tls_context
from dutchdoor.server.watching import Watch, log_foreign
from dutchdoor.stores.urls import is_in_memory, make_store, naming
from dutchdoor.web.asgi import AsgiApplication
from dutchdoor.web.device_binding import BINDS_NO_COOKIE
from dutchdoor.web.pages.site import SETUP_PATH

__all__ = ["application", "refuse_unsafe", "serve"]

_M_ARENA_MAX = -8
"""The number of this parameter in glibc's malloc.h."""

COUNTING = "dutchdoor.server.metrics"
REPORTING = "dutchdoor.server.settings_report"

log = logging.getLogger("dutchdoor")


def serve(read: Read) -> int:
    """Run the server with the settings that `read` returns until it is asked to stop, and return the exit code.

    Raises:
        Misconfigured: the settings are unsafe or cannot work.
        Unavailable: the store is unavailable.
    """
    _use_one_arena()
    settings = read()
    look_up(settings.host, settings.source("host"))
    refuse_unsafe(settings)
    refuse_wrong(settings)
    again = None if sys.stdin is not None and sys.stdin.isatty() else read  # the server of a terminal ends with it
    if again is not None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until it can read its settings again
    logging.config.dictConfig(logging_config(settings.log_format))
    for doubt in settings.doubts.values():
        log.warning("%s", doubt)
    if settings.policy.device_binding == "required" and not (settings.public_url or "").startswith("https://"):
        log.warning(BINDS_NO_COOKIE)
    _allow_files(settings.max_connections)
    with bind(settings.host, settings.port, settings.source) as listener:
        settings = replace(settings, port=listener.getsockname()[1])
        if settings.tls_cert is not None:
            tls_context(settings)  # reports an error in the files once, before the workers start
        with naming(settings.database.reveal()):
            asyncio.run(_prepare(settings))
        ready = functools.partial(_announce, settings)
        config = _uvicorn_config(settings, again)
        if settings.workers == 1:
            return One(config, ready).run_on(listener)
        with _shared_folder(settings):
            reload = None if again is None else _reload(settings, again)
            return Several(config, listener, ready, reload=reload, forget=_forget(settings)).run_all()


def application(settings: Settings, read: Read | None = None) -> ASGIApp:
    """Build the application that each process serves. With `read`, it reads its settings again on SIGHUP."""
    traces = _tracing().Traces() if settings.traces else None
    kept = make_store(settings.database.reveal())
    store = ObservedStore(kept if traces is None else _tracing().TracedStore(kept, traces.tracer))  # type: ignore[abstract]  # `Around` has the rest
    auth = make_auth(settings, store=store)
    counting = import_module(COUNTING) if _is_counted(settings) else None
    counters = counting.Counters(auth.api.routes, certificate=settings.tls_cert) if counting is not None else None
    store.listeners = [log_transitions] if counters is None else [log_transitions, counters.committed]
    shared = os.environ.get(MULTIPROCESS)
    watch = Watch(
        auth,
        happened=[log_foreign] if counters is None else [log_foreign, counters.happened],
        looks=[*([] if counters is None else [counters.look]), remove_spent_setup],
        place=None if shared is None else Path(shared, "audit-cursor"),
    )

    async def opened() -> None:
        await auth.open()
        await watch.begin()

    async def closed() -> None:
        await watch.close()
        await auth.close()
        if counters is not None:
            counters.record()
        if traces is not None:
            traces.close()

    app: ASGIApp = AsgiApplication(auth.api, opened=opened, closed=closed)
    if traces is not None:
        app = _tracing().Traced(
            app, auth.api.routes, edge=lambda: auth.site.edge, tracer=traces.tracer, base_path=auth.site.base_path
        )
    _report_on(auth, settings)
    if read is not None:
        _listen(auth, settings, read)
    BoundedProtocol.stopping = [auth.authority.fencing.dismiss]
    Node.readiness = auth.api.readiness
    Node.handover_for = settings.handover_for if auth.site.edge.secure else 0.0
    if counters is not None and counting is not None:
        counters.watch(auth)
        if settings.metrics_port is not None and settings.workers == 1:
            counting.open_metrics_port(settings.metrics_port, counters)
    elif not settings.access_log:
        return app
    return Watched(
        app,
        auth.api.routes,
        counters=counters,
        metrics_token=settings.metrics_token,
        log=settings.access_log,
        base_path=auth.site.base_path,
    )


def _tracing() -> Any:
    """Import the module that needs the extra `otel`. Raises `Misconfigured`."""
    try:
        return import_module("dutchdoor.server.traces")
    except ModuleNotFoundError as exc:
        raise Misconfigured(
            f"--traces needs {exc.name}, which is not installed: pip install 'dutchdoor[otel]'"
        ) from None


def _is_counted(settings: Settings) -> bool:
    return settings.metrics_token is not None or settings.metrics_port is not None


# --- what must not be served -----------------------------------------------------------------------------------------


def refuse_unsafe(settings: Settings) -> None:
    """Raise `Misconfigured` for plain HTTP to other machines, and for settings that cannot work."""
    secure = (settings.public_url or "").startswith("https://")
    if settings.traces:
        _tracing()
    if settings.tls_cert is not None and not secure:
        raise Misconfigured("--tls-cert needs the https URL that users open: --public-url https://auth.example.com.")
    if not is_this_machine(settings.host) and settings.tls_cert is None and not (secure and settings.proxy):
        raise Misconfigured(
            f"Other machines can reach {settings.host}, and plain HTTP would send passwords unencrypted. "
            "Do one of these: listen on 127.0.0.1; set --public-url https://... and the proxy that terminates TLS "
            "(--proxy 10.0.0.7); or serve TLS here (--public-url, --tls-cert and --tls-key)."
        )
    if settings.workers > 1 and is_in_memory(settings.database.reveal()):
        raise Misconfigured(
            "A memory: database exists in one process only. Use --workers 1, or a database that processes can share."
        )


# --- starting --------------------------------------------------------------------------------------------------------


async def _prepare(settings: Settings) -> None:
    """Update the schema and create the first key, once for all workers. Offer the set-up link if there is no admin."""
    try:
        async with make_auth(settings) as auth:
            if is_in_memory(settings.database.reveal()):
                return  # this store is lost when `_prepare` returns, and the link with it
            secret = await auth.directory.admin.offer_setup()
            if secret is not None:
                offer_setup(f"{auth.authority.issuer}{SETUP_PATH}#{secret.text()}", settings.policy.setup_for)
    except InvalidKey as exc:
        raise another_master_key(exc) from None


def _announce(settings: Settings) -> None:
    scheme = "http" if settings.tls_cert is None else "https"
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    if not settings.public_url and host == "127.0.0.1":
        host = "localhost"  # the issuer's name: at an address, browsers offer no passkeys
    public = f" for {settings.public_url}" if settings.public_url else ""
    sys.stdout.write(f"dutchdoor is ready at {scheme}://{host}:{settings.port}{public}\n")
    sys.stdout.flush()


def _use_one_arena() -> None:
    """Let all threads share the main heap of glibc. With a heap of its own, each hashing thread would keep the memory
    of its largest hash for ever, which nothing gives back to the system.
    """
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none, and no such heaps
        if mallopt is not None:
            mallopt(_M_ARENA_MAX, 1)


def _allow_files(connections: int) -> None:
    """Raise the soft limit of open files to the number that the connections need, within the hard limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = 2 * connections + 256
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    if soft != resource.RLIM_INFINITY and soft < most:
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))


@contextlib.contextmanager
def _shared_folder(settings: Settings) -> Generator[None, None, None]:
    """Create a directory where the processes share their counters and their place in the audit log. Serve the totals on
    the metrics port.
    """
    with tempfile.TemporaryDirectory(prefix="dutchdoor-") as directory:
        os.environ[MULTIPROCESS] = directory  # prometheus_client reads it at import, in each process
        if settings.metrics_port is not None:
            import_module(COUNTING).open_metrics_port(settings.metrics_port, None)
        yield


def _uvicorn_config(settings: Settings, read: Read | None) -> uvicorn.Config:
    return uvicorn.Config(
        functools.partial(_start_application, settings, read),
        factory=True,
        loop="dutchdoor.server.event_loop:Loop" if sys.platform != "win32" else "asyncio",
        http=BoundedProtocol,
        ws="none",
        lifespan="on",
        interface="asgi3",
        workers=settings.workers,
        # Only web/forwarded.py reads forwarding headers: uvicorn must not trust them first.
        proxy_headers=False,
        forwarded_allow_ips="",
        server_header=False,
        log_config=logging_config(settings.log_format),
        access_log=False,
        backlog=BACKLOG,
        timeout_keep_alive=int(settings.keep_alive_for),
        timeout_graceful_shutdown=int(settings.stop_for),
        ssl_context_factory=functools.partial(context_for, settings) if settings.tls_cert is not None else None,
    )


def _start_application(settings: Settings, read: Read | None) -> ASGIApp:
    _use_one_arena()
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=[parent], name="dutchdoor-parent", daemon=True).start()
    limit_connections(settings)
    BoundedProtocol.plain_from_proxies = settings.tls_cert is None and not is_this_machine(settings.host)
    return application(settings, read)


def _listen(auth: Auth, settings: Settings, read: Read) -> None:
    """Read the settings again on SIGHUP. Of several processes, the parent logs which changed."""
    aloud = multiprocessing.parent_process() is None

    def reload() -> None:
        nonlocal settings
        settings = reloaded(settings, read, refuse_unsafe, aloud=aloud)
        apply_to(auth, settings)
        _report_on(auth, settings)

    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, reload)


def _reload(settings: Settings, read: Read) -> Callable[[], Callable[[], ASGIApp]]:
    """Return what the parent of several processes does on SIGHUP: it gives the settings to workers to come."""

    def reload() -> Callable[[], ASGIApp]:
        nonlocal settings
        settings = reloaded(settings, read, refuse_unsafe)
        return functools.partial(_start_application, settings, read)

    return reload


def _forget(settings: Settings) -> Callable[[int | None], None]:
    """Return what removes the gauges of a dead worker, such as its followers: they are no longer true."""

    def forget(pid: int | None) -> None:
        if _is_counted(settings):
            import_module(COUNTING).forget(pid)

    return forget


def _report_on(auth: Auth, settings: Settings) -> None:
    """Let the console report on the settings that are in force now."""
    auth.api.settings_report = lambda: import_module(REPORTING).report(settings)


def _end_with(parent: BaseProcess) -> None:
    """Stop when the parent process is gone. An orphan would serve for ever, and block the port of a new server."""
    parent.join()
    Node.handover_for = 0.0  # the port must be free for the new server
    os.kill(os.getpid(), signal.SIGTERM)
