"""Ctrl-C, SIGTERM and SIGHUP end training between two steps, never inside a file that is being written."""

from __future__ import annotations

import signal
import threading
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupts:
    """Remembers the first of these signals until `check`; a second one interrupts at once.

    If SIGHUP is ignored, as under nohup, it stays ignored. (SIGINT is also ignored in processes
    that a script starts in the background, but it is handled there all the same: whoever sends it
    means it.)

    Attributes:
      number: number of the signal that came, or None.
    """

    def __init__(self):
        self.number: int | None = None
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():  # elsewhere Python allows no handlers
            for number in SIGNALS:
                if number != signal.SIGHUP or signal.getsignal(number) is not signal.SIG_IGN:
                    self._previous[number] = signal.signal(number, self._press)
        return self

    def __exit__(self, *_) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _press(self, number: int, _) -> None:
        if self.number is not None:
            raise KeyboardInterrupt
        self.number = number

    def check(self) -> None:
        """Raises KeyboardInterrupt if a signal has come since."""
        if self.number is not None:
            raise KeyboardInterrupt
