"""Hides what TensorFlow writes to the standard error stream at start-up."""

from __future__ import annotations

import contextlib
import faulthandler
import logging
import os
import pathlib
import shutil
import sys
import tempfile
import warnings
from typing import BinaryIO

_held: BinaryIO | None = None


@contextlib.contextmanager
def held_back(debug: bool):
    """Sends file descriptor 2 (TensorFlow's C++ log) to a file without a name, while `sys.stderr` stays visible."""
    global _held
    if debug:
        yield
        return
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    for name in ("tensorflow", "absl", "urllib3"):
        logging.getLogger(name).setLevel(logging.ERROR)
    # Warnings of Pillow and NumPy about files, which are then read or refused in one line.
    warnings.simplefilter("ignore")
    sys.stderr.flush()
    terminal = os.dup(2)
    stderr = sys.stderr
    # A fatal error in TensorFlow's C++ code shows the Python stack on the terminal.
    faulthandler.enable(terminal)
    with _unnamed() as log:
        os.dup2(log.fileno(), 2)
        if stderr is sys.__stderr__:
            sys.stderr = os.fdopen(os.dup(terminal), "w", buffering=1)
        _held = log
        try:
            yield
        finally:
            _held = None
            if stderr is sys.__stderr__:
                with contextlib.suppress(OSError):  # a pipe that was closed
                    sys.stderr.close()
            sys.stderr = stderr
            faulthandler.disable()
            os.dup2(terminal, 2)
            os.close(terminal)


def _unnamed() -> BinaryIO:
    """Returns a file that is gone when this process ends, however it ends; /dev/null if the disk is full."""
    try:
        return tempfile.TemporaryFile(prefix="tfvamp-")
    except OSError:
        return open(os.devnull, "r+b")


def keep(path: pathlib.Path) -> None:
    """Appends what was held back so far to a log file, such as that of a run folder."""
    if _held is None or not path.parent.is_dir():
        return
    with contextlib.suppress(OSError):  # a full disk: the log is of no use to the result
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
        with open(os.dup(_held.fileno()), "rb") as source, open(os.open(path, flags, 0o666), "ab") as target:
            source.seek(0)
            shutil.copyfileobj(source, target)
            source.seek(0, os.SEEK_END)
