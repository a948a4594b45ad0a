"""The workers that carry out the commands of a run: processes of this machine, or Ray."""

from __future__ import annotations

import contextlib
import os
import pathlib
import signal
import subprocess
import sys
from collections.abc import Sequence
from typing import IO, Any, Protocol

from tfvamp.errors import UsageError
from tfvamp.files import printable

THREADS = ("TF_NUM_INTRAOP_THREADS", "TF_NUM_INTEROP_THREADS", "OMP_NUM_THREADS")
LONGEST_LINE = 2000  # maximum number of letters
LONGEST_ERROR = 2**16  # bytes at the end of a log in which its last line is looked for


class Workers(Protocol):
    """Carries out commands of tfvamp one after the other, for several runs at once."""

    def start(self, commands: Sequence[Sequence[str]], log: pathlib.Path) -> Any:
        """Starts the commands and returns a handle."""

    def ended(self, handle: Any) -> int | None:
        """Returns the exit status of the last command, or of the first one that failed; None while they are running."""

    def stop(self, handle: Any) -> None:
        """Makes the command save what it has and end; the commands after it are left out."""

    def close(self) -> None:
        """Frees what the workers hold."""


def command_line(words: Sequence[str]) -> list[str]:
    """Returns the command line that runs a command of tfvamp in its own process."""
    return [sys.executable, "-m", "tfvamp_cli.main", "--quiet", *words]


def environment(jobs: int) -> dict[str, str]:
    """Returns the environment of one of several processes that share the cores."""
    if jobs == 1:
        return dict(os.environ)
    threads = str(max(1, cores() // jobs))
    return {**os.environ, **{name: os.environ.get(name, threads) for name in THREADS}}


def open_log(log: pathlib.Path, flags: int = os.O_WRONLY | os.O_CREAT | os.O_APPEND) -> IO[bytes]:
    """Opens a log, which must not be a link or a pipe.

    Raises:
      OSError: it cannot be opened.
    """
    descriptor = os.open(log, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    return os.fdopen(descriptor, "rb" if flags == os.O_RDONLY else "ab")


def cores() -> int:
    """Returns how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def last_line(log: pathlib.Path) -> str:
    """Returns what the log of a failed command says: its line that begins with "tfvamp: ", or its last line."""
    with contextlib.suppress(OSError), open_log(log, os.O_RDONLY) as file:
        file.seek(max(0, os.fstat(file.fileno()).st_size - LONGEST_ERROR))
        lines = [line for line in file.read().decode(errors="replace").splitlines() if line.strip()]
        errors = [line.removeprefix("tfvamp: ") for line in lines if line.startswith("tfvamp: ")]
        if lines:
            return printable((errors or lines)[-1])[:LONGEST_LINE]
    return "it wrote nothing"


class Processes:
    """Workers that are processes of this machine, and that end when this process does.

    Args:
      jobs: number of runs at a time; they share the cores.
    """

    def __init__(self, jobs: int):
        self._environment = environment(jobs)

    def start(self, commands: Sequence[Sequence[str]], log: pathlib.Path) -> list:
        handle = [None, list(commands), log]
        self._next(handle)
        return handle

    def _next(self, handle: list) -> None:
        _, commands, log = handle
        with open_log(log) as file:
            handle[0] = subprocess.Popen(
                command_line(commands.pop(0)),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
                env=self._environment,
                start_new_session=True,  # Ctrl-C reaches it once, through `stop`
                preexec_fn=_end_with_the_parent if sys.platform == "linux" else None,
            )

    def ended(self, handle: list) -> int | None:
        status = handle[0].poll()
        if status == 0 and handle[1]:
            self._next(handle)
            return None
        return status

    def stop(self, handle: list) -> None:
        handle[1].clear()
        with contextlib.suppress(ProcessLookupError):
            handle[0].send_signal(signal.SIGTERM)

    def close(self) -> None:
        pass


def _end_with_the_parent() -> None:
    """Asks Linux to send SIGTERM when the parent is gone, however it ended."""
    import ctypes

    ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


def by_name(name: str, jobs: int, address: str | None = None) -> Workers:
    """Returns the workers with this name.

    Args:
      name: "processes" or "ray".
      jobs: number of runs at a time.
      address: address of a Ray cluster; None starts one on this machine.

    Raises:
      UsageError: Ray is not installed.
    """
    if name == "processes":
        return Processes(jobs)
    try:
        from tfvamp.sweeps.on_ray import RayWorkers
    except ImportError as error:
        raise UsageError("--ray needs Ray: pip install 'tfvamp[ray]'") from error
    return RayWorkers(jobs, address)
