"""Keeps what TensorFlow writes to the standard error stream at start-up out of a person's sight."""

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

_held: pathlib.Path | None = None


@contextlib.contextmanager
def held_back(debug: bool):
    """Sends file descriptor 2 (TensorFlow's C++ log) to a file, while `sys.stderr` stays with the person."""
    global _held
    if debug:
        yield
        return
    os.environ.setdefault("KERAS_BACKEND", "tensorflow")
    for name in ("tensorflow", "absl", "urllib3"):
        logging.getLogger(name).setLevel(logging.ERROR)
    warnings.simplefilter(
        "ignore"
    )  # of Pillow and NumPy, about files that are then read or refused in one line
    sys.stderr.flush()
    terminal = os.dup(2)
    stderr = sys.stderr
    # A fatal error in TensorFlow's C++ code shows the Python stack to the person, and leaves this file.
    faulthandler.enable(terminal)
    with tempfile.NamedTemporaryFile(prefix="tfvamp-", suffix=".log", delete=False) as log:
        os.dup2(log.fileno(), 2)
    if stderr is sys.__stderr__:
        sys.stderr = os.fdopen(os.dup(terminal), "w", buffering=1)
    _held = pathlib.Path(log.name)
    try:
        yield
    finally:
        if stderr is sys.__stderr__:
            sys.stderr.close()
        sys.stderr = stderr
        faulthandler.disable()
        os.dup2(terminal, 2)
        os.close(terminal)
        _held.unlink(missing_ok=True)
        _held = None


def keep(path: pathlib.Path) -> None:
    """Appends what was held back so far to a log file, such as that of a run folder."""
    if _held is not None and path.parent.is_dir():
        with _held.open("rb") as source, path.open("ab") as target:
            shutil.copyfileobj(source, target)
