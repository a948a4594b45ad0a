"""The progress of training: for a person, a bar on a terminal or occasional lines elsewhere; for a program, JSON."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

import rich.console
import rich.progress

SECONDS_BETWEEN_LINES = 30.0


class Progress:
    """Shows epochs with the ELBO, its two parts and the time left, and single lines of text.

    Args:
      epochs: maximum number of epochs.
      console: where they are shown; None shows nothing at all.
      events: a function that gets a line of JSON for each event, instead of what a person sees.
    """

    def __init__(
        self,
        epochs: int,
        console: rich.console.Console | None = None,
        events: Callable[[str], None] | None = None,
    ):
        self._console, self._events = (None if events else console), events
        self.on_terminal = self._console is not None and self._console.is_terminal
        self._epochs = epochs
        self._last_line = self._began = time.monotonic()
        self._done = self._first = self._steps = self._images = 0
        self._bar: rich.progress.Progress | None = None
        if self.on_terminal:
            self._bar = rich.progress.Progress(
                rich.progress.TextColumn("epoch {task.fields[epoch]}/{task.fields[epochs]}"),
                rich.progress.BarColumn(bar_width=16),
                rich.progress.TextColumn("{task.fields[text]}"),
                rich.progress.TextColumn("{task.fields[speed]}"),
                rich.progress.TimeElapsedColumn(),
                rich.progress.TextColumn("< at most"),
                rich.progress.TimeRemainingColumn(),
                rich.progress.TextColumn("{task.fields[end]}"),
                console=self._console,
            )

    def __enter__(self) -> Progress:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *_) -> None:
        if self._bar is not None:
            self._bar.stop()

    def start(self, epoch: int, step: int, steps: int, images: int) -> None:
        """Shows that training begins after `epoch` epochs and `step` steps; an epoch has `steps` steps and `images` images."""
        self._done = self._first = epoch * steps + step
        self._steps, self._images, self._began = steps, images, time.monotonic()
        self._event("start", epochs=self._epochs, epoch=epoch, step=step, steps=steps, images=images)
        if self._bar is not None:
            self._task = self._bar.add_task(
                "", total=self._epochs * steps, completed=self._done, epoch=epoch, epochs=self._epochs,
                text="compiling", speed="", end="",
            )  # fmt: skip

    def step(self, epoch: int, count: int = 1) -> None:
        """Shows that `count` steps of `epoch` are done."""
        compiled, self._done = self._done == self._first, self._done + count
        if compiled:  # by the first step, which is in a call of its own
            self._began = time.monotonic()
        if self._bar is not None:
            within = self._done - (epoch - 1) * self._steps
            if compiled:
                self._bar.update(self._task, text="")
            self._bar.update(self._task, completed=self._done, epoch=epoch, speed=self._speed(within))

    def _speed(self, within: int) -> str:
        """Returns the step within the epoch, and images per second since the first step."""
        seconds, steps = time.monotonic() - self._began, self._done - self._first - 1
        rate = (
            f", {steps * self._images / self._steps / seconds:.0f} images/s"
            if steps and seconds > 0.0
            else ""
        )
        return f"step {within}/{self._steps}{rate}"

    def epoch(self, row: dict[str, float], best: bool, left: int) -> None:
        """Shows that an epoch is done.

        Args:
          row: row of history.csv.
          best: whether the epoch is the best so far.
          left: number of epochs that follow if none of them is better.
        """
        self._event("epoch", best=best, epochs_left_if_none_is_better=left, **row)
        parts = f"reconstruction {row['val_reconstruction']:.2f} - KL {row['val_kl']:.2f}"
        beta = f" (beta {row['beta']:.2g})" if row["beta"] != 1.0 else ""
        iwae = f", IWAE {row['val_iwae']:.2f}" if "val_iwae" in row else ""
        text = f"val ELBO {row['val_elbo']:.2f} = {parts}{beta}{iwae}{' *' if best else '  '}"
        if self._bar is not None:
            seconds = left * row["seconds"]
            end = f"; {_duration(seconds)} if none is better" if row["epoch"] + left < self._epochs else ""
            self._bar.update(self._task, text=text, end=end)
        elif time.monotonic() - self._last_line > SECONDS_BETWEEN_LINES or row["epoch"] == 1:
            self._last_line = time.monotonic()
            self._line(f"{time.strftime('%H:%M:%S')}  epoch {row['epoch']}/{self._epochs}  {text}")

    def say(self, text: str) -> None:
        """Shows one line."""
        self._event("message", text=text)
        self._line(text)

    def _line(self, text: str) -> None:
        if self._console is not None:
            self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def _event(self, kind: str, **values: object) -> None:
        if self._events is not None:
            self._events(json.dumps({"event": kind, **values}))


def _duration(seconds: float) -> str:
    """Returns hours, minutes and seconds in the form of the bar."""
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"
