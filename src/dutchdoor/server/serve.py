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
import ipaddress
import logging
import logging.config
import math
import multiprocessing
import os
import resource
import signal
import socket
import ssl
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Generator
from importlib import import_module
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, ClassVar

import uvicorn
from msgspec.structs import replace
from starlette.types import ASGIApp
from uvicorn.config import STARTUP_FAILURE
from uvicorn.supervisors.multiprocess import Multiprocess, Process

from dutchdoor.auth import Auth
from dutchdoor.errors import InvalidKey, Misconfigured, Unavailable
from dutchdoor.model.accounts import ADMIN
from dutchdoor.server.config import Settings
from dutchdoor.server.factory import another_master_key, make_auth
from dutchdoor.server.instrumentation import ObservedStore, Watched, log_transitions
from dutchdoor.server.logs import logging_config
from dutchdoor.server.protocol import BoundedProtocol
from dutchdoor.server.reload import Read, apply_to, limit_connections, reloaded
from dutchdoor.server.watching import Watch, log_foreign
from dutchdoor.stores.urls import is_in_memory, make_store, naming
from dutchdoor.web.asgi import AsgiApplication
from dutchdoor.web.health import Readiness
from dutchdoor.web.pages.site import SETUP_PATH

__all__ = ["application", "refuse_unsafe", "serve"]

BACKLOG = 2048
CERTIFICATE_EVERY = 1.0
"""Seconds between two checks of the certificate files. A check costs microseconds."""
WORKERS_READY_FOR = 60.0
WORKER_AGAIN_AFTER = 5.0
"""Seconds until a worker that could not start is replaced. The other workers serve in the meantime."""

WORKER_SAYS_WITHIN = 15.0
"""Seconds in which a running worker answers that it is ready, even on a busy machine."""

_M_ARENA_MAX = -8
"""The number of this parameter in glibc's malloc.h."""

_TICK = 0.1
"""Seconds between two calls of `on_tick` during a handover, as in uvicorn, which updates the Date header by them."""

SETUP_FILE = "dutchdoor.setup"
"""The file with the set-up link, in the working directory. It is removed when the link has no use any more."""

MULTIPROCESS = "PROMETHEUS_MULTIPROC_DIR"
"""The environment variable with the directory that the processes of one server share."""
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
    refuse_unsafe(settings)
    again = None if sys.stdin is not None and sys.stdin.isatty() else read  # the server of a terminal ends with it
    if again is not None:
        signal.signal(signal.SIGHUP, signal.SIG_IGN)  # until it can read its settings again
    logging.config.dictConfig(logging_config(settings.log_format))
    for doubt in settings.doubts.values():
        log.warning("%s", doubt)
    _allow_files(settings.max_connections)
    with _bind(settings) as listener:
        settings = replace(settings, port=listener.getsockname()[1])
        if settings.tls_cert is not None:
            tls_context(settings)  # reports an error in the files once, before the workers start
        with naming(settings.database.reveal()):
            asyncio.run(_prepare(settings))
        ready = functools.partial(_announce, settings)
        config = _uvicorn_config(settings, again)
        if settings.workers == 1:
            return _One(config, ready).run_on(listener)
        with _shared_folder(settings):
            return _Several(config, listener, ready, settings, again).run_all()


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
    _Node.readiness = auth.api.readiness
    _Node.handover_for = settings.handover_for if auth.site.edge.secure else 0.0
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
    if not is_loopback_bind(settings.host) and settings.tls_cert is None and not (secure and settings.proxy):
        raise Misconfigured(
            f"Other machines can reach {settings.host}, and plain HTTP would send passwords unencrypted. "
            f"Do one of these: listen on "
            "127.0.0.1; set --public-url https://... and the proxy that terminates TLS (--proxy 10.0.0.7); or serve "
            "TLS here (--public-url, --tls-cert and --tls-key)."
        )
    if settings.workers > 1 and is_in_memory(settings.database.reveal()):
        raise Misconfigured(
            "A memory: database exists in one process only. Use --workers 1, or a database that processes can share."
        )


def is_loopback_bind(host: str) -> bool:
    """Whether only this machine can reach a socket bound to this host."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


# --- starting --------------------------------------------------------------------------------------------------------


async def _prepare(settings: Settings) -> None:
    """Update the schema and create the first key, once for all workers. Offer the set-up link if there is no admin."""
    try:
        async with make_auth(settings) as auth:
            if is_in_memory(settings.database.reveal()):
                return  # this store is lost when `_prepare` returns, and the link with it
            secret = await auth.directory.admin.offer_setup()
            if secret is not None:
                _offer(f"{auth.authority.issuer}{SETUP_PATH}#{secret.text()}", settings)
    except InvalidKey as exc:
        raise another_master_key(exc) from None


def _offer(link: str, settings: Settings) -> None:
    """Show the set-up link on the terminal. Without a terminal, standard error is a log, and the link goes to a file.

    Many people and programs read logs, and each of them could make themselves the administrator.
    """
    lives = f"works once, for {int(settings.policy.setup_for // 60)} minutes"
    # Standard error, like every message for the administrator. Standard output has only the line "is ready".
    if sys.stderr.isatty():
        sys.stderr.write(f"There is no administrator yet. Create one with this link. It {lives}:\n  {link}\n")
        sys.stderr.flush()
        return
    file = Path(SETUP_FILE).absolute()
    try:
        file.unlink(missing_ok=True)
        # O_EXCL: in a directory of several users, another user's link or file must not receive the token.
        with os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as made:
            made.write(f"{link}\n")
    except OSError as exc:
        log.warning(
            "there is no administrator yet, and %s cannot be written: %s. Create one: "
            "dutchdoor user create --role admin ADDRESS",
            file,
            exc.strerror,
        )
    else:
        log.warning("there is no administrator yet. The link that creates one is in %s. It %s", file, lives)


async def remove_spent_setup(auth: Auth) -> None:
    """Remove the file with the set-up link once there is an administrator, or the link has expired."""
    age = _setup_age()
    if age is None:
        return
    if age > auth.authority.policy.setup_for or await auth.store.accounts_with_role(ADMIN, limit=1):
        _remove_setup()


def _setup_age() -> float | None:
    try:
        return time.time() - Path(SETUP_FILE).stat().st_mtime
    except OSError:
        return None


def _remove_setup() -> None:
    with contextlib.suppress(OSError):  # another process removed it, or it is not ours
        Path(SETUP_FILE).unlink()


def _announce(settings: Settings) -> None:
    scheme = "http" if settings.tls_cert is None else "https"
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    public = f" for {settings.public_url}" if settings.public_url else ""
    sys.stdout.write(f"dutchdoor is ready at {scheme}://{host}:{settings.port}{public}\n")
    sys.stdout.flush()


def _bind(settings: Settings) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(BACKLOG)
    except OSError as exc:
        text = f"Cannot listen on {settings.host} port {settings.port}: {exc.strerror}."
        raise Unavailable(f"{text} Choose another address with --host and --port.") from None
    listener.set_inheritable(True)
    return listener


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
        ssl_context_factory=functools.partial(_context_for, settings) if settings.tls_cert is not None else None,
    )


def _start_application(settings: Settings, read: Read | None) -> ASGIApp:
    _use_one_arena()
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=[parent], name="dutchdoor-parent", daemon=True).start()
    limit_connections(settings)
    BoundedProtocol.plain_from_proxies = settings.tls_cert is None and not is_loopback_bind(settings.host)
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


def _report_on(auth: Auth, settings: Settings) -> None:
    """Let the console report on the settings that are in force now."""
    auth.api.settings_report = lambda: import_module(REPORTING).report(settings)


def _end_with(parent: BaseProcess) -> None:
    """Stop when the parent process is gone. An orphan would serve for ever, and block the port of a new server."""
    parent.join()
    _Node.handover_for = 0.0  # the port must be free for the new server
    os.kill(os.getpid(), signal.SIGTERM)


class _Node(uvicorn.Server):
    """A server that stops only after the proxy in front had the time to notice."""

    readiness: ClassVar[Readiness]
    handover_for: ClassVar[float] = 0.0

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self.readiness.hold(self.handover_for)

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self.readiness.hold(math.inf)
        # A proxy must not send its next request on a connection that is about to be closed.
        self.config.encoded_headers.append((b"connection", b"close"))
        for tick in range(int(self.handover_for / _TICK)):
            await self.on_tick(tick)
            if self.force_exit:
                break
            await asyncio.sleep(_TICK)
        await super().shutdown(sockets)


class _One(_Node):
    """A server in this process."""

    def __init__(self, config: uvicorn.Config, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._ready = ready

    def run_on(self, listener: socket.socket) -> int:
        try:
            self.run([listener])
        except SystemExit as exc:
            return 1 if exc.code else 0
        return 0

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._ready()

    @contextlib.contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        # As in uvicorn, but the signal is not raised again at the end: a requested stop exits with 0.
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, action in before.items():
                signal.signal(number, action)


class _Worker(Process):
    """One of several server processes."""

    @property
    def server(self) -> uvicorn.Server:
        if self._server is None:
            self._server = _Node(self.config)
        return self._server


class _Several(Multiprocess):
    """The parent of several server processes."""

    def __init__(
        self,
        config: uvicorn.Config,
        listener: socket.socket,
        ready: Callable[[], None],
        settings: Settings,
        read: Read | None,
    ) -> None:
        super().__init__(config, [listener])
        self._ready, self._counted = ready, _is_counted(settings)
        self._settings, self._read = settings, read
        self._failed = False
        self._again_at = 0.0

    def handle_hup(self) -> None:
        """Read the settings again, here for workers to come, and in each worker."""
        if self._read is None:
            self.should_exit.set()
            return
        self._settings = reloaded(self._settings, self._read, refuse_unsafe)
        self.config.app = functools.partial(_start_application, self._settings, self._read)
        for process in self.processes:
            if process.pid is not None:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(process.pid, signal.SIGHUP)

    def run_all(self) -> int:
        self.run()
        return 1 if self._failed else 0

    def init_processes(self) -> None:
        self.processes = [self._another() for _ in range(self.processes_num)]
        waiting = list(self.processes)
        for _ in range(int(WORKERS_READY_FOR / 0.05)):
            self.handle_signals()
            waiting = [process for process in waiting if not (process.process.is_alive() and process.is_ready(0.5))]
            if self.should_exit.is_set():
                return
            if not waiting:
                self._ready()
                return
            if any(process.exitcode is not None for process in waiting):
                break
            self.should_exit.wait(0.05)
        log.error("stopping: not every worker process became ready")
        self._failed = True
        self.should_exit.set()

    def keep_subprocess_alive(self) -> None:
        """Replace each worker that ended or does not answer, and log it."""
        for index, process in enumerate(self.processes):
            if self.should_exit.is_set() or time.monotonic() < self._again_at:
                return
            if process.is_alive(self.config.timeout_worker_healthcheck):
                continue
            hangs = process.exitcode is None
            process.kill()
            process.join()
            if self._counted:
                # The gauges of a dead worker, such as its followers, are no longer true.
                import_module(COUNTING).forget(process.pid)
            if process.exitcode == STARTUP_FAILURE:
                # All workers started once, so the missing part, most likely the database, will come back; the running
                # workers can wait for it. Without a running worker, the parent exits, so that clients do not connect
                # to a dead port.
                if not any(each.exitcode is None and each.is_ready(WORKER_SAYS_WITHIN) for each in self.processes):
                    self._failed = True
                    self.should_exit.set()
                    return
                self._again_at = time.monotonic() + WORKER_AGAIN_AFTER
                log.warning("a worker process could not start; starting it again, the others keep serving")
            else:
                how = "did not answer" if hangs else _ending(process.exitcode)
                log.warning("worker process %d %s; starting another", process.pid, how)
            self.processes[index] = self._another()

    def _another(self) -> Process:
        process = _Worker(self.config, self.sockets)
        process.start()
        return process


def _ending(exitcode: int | None) -> str:
    """Say how a process ended: `was ended by SIGKILL`, `exited with 3`."""
    if exitcode is not None and exitcode < 0:
        return f"was ended by {signal.Signals(-exitcode).name}"
    return f"exited with {exitcode}"


# --- TLS -------------------------------------------------------------------------------------------------------------


def tls_context(settings: Settings) -> ssl.SSLContext:
    """Create the TLS context for the configured certificate. Raises `Misconfigured` with the error."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    _load(context, settings)
    return context


def _load(context: ssl.SSLContext, settings: Settings) -> None:
    cert, key = str(settings.tls_cert), str(settings.tls_key)
    try:
        context.load_cert_chain(cert, key, _no_passphrase)
    except OSError as exc:  # ssl.SSLError is one
        if isinstance(exc, ssl.SSLError):
            raise Misconfigured(
                f"--tls-cert {cert} and --tls-key {key} are not a certificate and its key "
                f"({exc.reason or 'not PEM'}). "
                "Both must be PEM, and the key must not be encrypted."
            ) from None
        raise Misconfigured(f"--tls-cert {cert} and --tls-key {key}: {exc.strerror}.") from None


def _no_passphrase() -> str:
    # Without this, OpenSSL asks on the terminal, and the server hangs until a person types a passphrase.
    return ""


def _context_for(settings: Settings, _config: uvicorn.Config, _default: object) -> ssl.SSLContext:
    """Create the TLS context and watch its files. uvicorn calls this in the serving loop."""
    context = tls_context(settings)
    watching = asyncio.get_running_loop().create_task(_watch(settings, context))
    _WATCHING.add(watching)  # a loop alone does not keep its tasks alive
    watching.add_done_callback(_WATCHING.discard)
    return context


_WATCHING: set[asyncio.Task[None]] = set()


async def _watch(settings: Settings, context: ssl.SSLContext) -> None:
    """Load the certificate again when its files change. Open connections keep the old certificate.

    This runs in the serving loop and not in a thread: while a certificate is being loaded, the context has no key, and
    a handshake at that moment would fail.
    """
    loaded = _stamp(settings)
    while True:
        await asyncio.sleep(CERTIFICATE_EVERY)
        found = _stamp(settings)
        if found == loaded or found is None:
            continue
        try:
            # First into a separate context: if only one file is written yet, the pair does not match, and must not
            # replace a working pair.
            tls_context(settings)
            _load(context, settings)
        except Misconfigured as exc:
            log.warning("certificate files changed but cannot be used yet: %s", exc)
        else:
            log.info("certificate reloaded")
        loaded = found


def _stamp(settings: Settings) -> object:
    try:
        return [
            (stat.st_ino, stat.st_mtime_ns, stat.st_size)
            for stat in (Path(str(path)).stat() for path in (settings.tls_cert, settings.tls_key))
        ]
    except OSError:
        return None  # being replaced
