"""Ctrl-C and SIGTERM end training between two steps, never inside a file that is being written."""

from __future__ import annotations

import signal
import threading
from typing import Any


class Interrupts:
    """Remembers the first Ctrl-C or SIGTERM until `check`; a second one interrupts at once."""

    def __init__(self):
        self._pressed = False
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():  # elsewhere Python allows no handlers
            for number in (signal.SIGINT, signal.SIGTERM):
                self._previous[number] = signal.signal(number, self._press)
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _press(self, *_) -> None:
        if self._pressed:
            raise KeyboardInterrupt
        self._pressed = True

    def check(self) -> None:
        """Raises KeyboardInterrupt if one came since."""
        if self._pressed:
            raise KeyboardInterrupt
