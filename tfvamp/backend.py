"""The backend that Keras runs on: tfvamp needs TensorFlow. Importing this file imports neither."""

from __future__ import annotations

import json
import os
import pathlib
import sys

WANTED = "tensorflow"


def check_backend() -> None:
    """Raises ImportError, in one sentence, if Keras runs on another backend or will do so."""
    if "keras" in sys.modules and hasattr(sys.modules["keras"], "config"):
        backend, place = sys.modules["keras"].config.backend(), "it was imported with another setting"
    else:
        backend, place = _configured()
    if backend != WANTED:
        raise ImportError(
            f"tfvamp needs Keras on TensorFlow, with KERAS_BACKEND={WANTED}; it is {backend[:40]!r} ({place})"
        )


def _configured() -> tuple[str, str]:
    """Returns the backend that Keras takes when it is imported, and what sets it."""
    if backend := os.environ.get("KERAS_BACKEND"):
        return backend, "from the environment variable KERAS_BACKEND"
    home = os.environ.get("KERAS_HOME") or os.path.join(os.path.expanduser("~"), ".keras")
    path = pathlib.Path(home, "keras.json")
    try:
        backend = json.loads(path.read_text())["backend"]
    except (OSError, ValueError, KeyError, TypeError):  # Keras takes its default then
        return WANTED, "the default"
    return str(backend), f"from {path}"
