"""Starting a contender on a core of its own, and stopping it whatever happens."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from benchmarks.contenders import Contender
from benchmarks.load import HOST

SERVER_CORE, LOAD_CORE = 0, 1
PAGE_KIB, TICKS = os.sysconf("SC_PAGE_SIZE") // 1024, os.sysconf("SC_CLK_TCK")


def pin(core: int) -> None:
    """Keep this process on one core, where there are at least two and the system can."""
    if hasattr(os, "sched_setaffinity") and (os.cpu_count() or 1) > 1:
        os.sched_setaffinity(0, {core})


class Server:
    """A contender that is up on `port`."""

    def __init__(self, contender: Contender, port: int, process: subprocess.Popen[bytes]) -> None:
        self.contender, self.port, self._process = contender, port, process

    @property
    def memory_mib(self) -> float:
        """Resident memory of all its processes together."""
        return (
            sum(int((process / "statm").read_text().split()[1]) for process, _ in self._processes()) * PAGE_KIB / 1024
        )

    @property
    def cpu_seconds(self) -> float:
        """Processor time that its processes have used: what other programs on the core do not change."""
        return sum(int(stat[11]) + int(stat[12]) for _, stat in self._processes()) / TICKS

    def _processes(self) -> Iterator[tuple[Path, list[str]]]:
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                stat = (process / "stat").read_text().rpartition(")")[2].split()
                if int(stat[2]) == self._process.pid:
                    yield process, stat


@contextlib.contextmanager
def running(contender: Contender, *, hashing: str, database: Path | None = None) -> Iterator[Server]:
    """Start a contender on an empty database (or on `database`) and give it once it takes connections."""
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        fill = {"{port}": str(port), "{database}": str(database or Path(folder, "bench.db"))}
        environ = {
            **os.environ,
            **{name: _filled(value, fill) for name, value in contender.environ.items()},
            "HASH": hashing,
            "SQLITE_PATH": fill["{database}"],
            "PYTHONPATH": str(contender.folder or folder),
        }
        log_path = Path(folder, "log")
        with log_path.open("wb") as log:
            if contender.before:
                subprocess.run(
                    contender.before, cwd=contender.folder or folder, env=environ, stdout=log, stderr=log, check=True
                )
            process = subprocess.Popen(
                [_filled(word, fill) for word in contender.command],
                cwd=contender.folder,
                env=environ,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=lambda: pin(SERVER_CORE),  # noqa: PLW1509 - no other thread runs here
            )
        try:
            _wait_until_up(port, process, contender, log_path)
            contender.once_up(port)
            yield Server(contender, port, process)
        except BaseException:
            print(log_path.read_text(errors="replace")[-3000:])
            raise
        finally:
            _stop(process)


def _filled(word: str, fill: dict[str, str]) -> str:
    for mark, text in fill.items():
        word = word.replace(mark, text)
    return word


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return probe.getsockname()[1]


def _wait_until_up(port: int, process: subprocess.Popen[bytes], contender: Contender, log: Path) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(OSError), socket.create_connection((HOST, port), 0.2):
            return
        time.sleep(0.05)
    raise RuntimeError(f"did not come up: {contender.name}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    for how, patience in ((signal.SIGTERM, 10), (signal.SIGKILL, 10)):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, how)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(patience)
            return
