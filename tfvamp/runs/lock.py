"""One writer per run folder: a lock that the system releases when its process ends, however it ends."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import errno
import fcntl
import json
import os
import pathlib
import socket
from collections.abc import Iterator

from tfvamp.errors import RunError
from tfvamp.files import printable, shown

NAME = "lock"  # name of the file in the run folder
LARGEST = 4096  # maximum size of the file in bytes
NO_LOCKS = {errno.ENOLCK, errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOSYS}  # errors on a disk without locks


@dataclasses.dataclass
class Held:
    """A lock that is held.

    Attributes:
      folder: the run folder; code that moves the folder sets its new path here.
    """

    folder: pathlib.Path


@contextlib.contextmanager
def writing(folder: pathlib.Path) -> Iterator[Held]:
    """Holds the lock of a run folder; readers never need it.

    The file says which process holds the lock. A file that a killed process left does not count:
    its lock is gone.

    Raises:
      RunError: another process holds it, or something else has its name.
      OSError: the folder cannot be written.
    """
    descriptor, held = _acquire(folder), Held(folder)
    try:
        holder = {
            "pid": os.getpid(),
            "host": socket.gethostname(),
            "started": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        }
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, json.dumps(holder).encode(), 0)
        yield held
    finally:
        with contextlib.suppress(OSError):
            if os.path.samestat(os.stat(held.folder / NAME), os.fstat(descriptor)):
                os.unlink(held.folder / NAME)
        os.close(descriptor)


def _acquire(folder: pathlib.Path) -> int:
    while True:
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        try:
            descriptor = os.open(folder / NAME, flags, 0o666)
        except OSError as error:
            if os.path.islink(folder / NAME) or os.path.isdir(folder / NAME):
                raise RunError(f"{shown(folder / NAME)} is not a file: remove it") from error
            raise
        try:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise _in_use(folder, _holder(descriptor)) from None
            except OSError as error:
                if error.errno not in NO_LOCKS:
                    raise
                holder = _holder(descriptor)
                if holder and not _is_gone(holder):
                    raise _in_use(folder, holder) from None
            # The folder may have been replaced since its lock was opened.
            with contextlib.suppress(FileNotFoundError):
                if os.path.samestat(os.stat(folder / NAME), os.fstat(descriptor)):
                    return descriptor
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)


def _holder(descriptor: int) -> dict:
    """Returns what the lock file says about its holder; empty if it says nothing."""
    with contextlib.suppress(OSError, ValueError, RecursionError):
        holder = json.loads(os.pread(descriptor, LARGEST, 0))
        if isinstance(holder, dict):
            return holder
    return {}


def _is_gone(holder: dict) -> bool:
    """Returns whether the holder was a process of this machine that has ended."""
    pid = holder.get("pid")
    if holder.get("host") != socket.gethostname() or type(pid) is not int or pid < 1:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    except OSError:
        pass
    return False


def _in_use(folder: pathlib.Path, holder: dict) -> RunError:
    who = ""
    if holder:
        pid, host, started = (printable(holder.get(key, "?"))[:60] for key in ("pid", "host", "started"))
        who = f" by process {pid} on {host}, since {started}"
    return RunError(f"{shown(folder)} is being written{who}: wait until it ends, or stop it")
