"""What a person sees of training: a bar on a terminal, now and then a line elsewhere."""

from __future__ import annotations

import time

import rich.console
import rich.progress

SECONDS_BETWEEN_LINES = 30.0


class Progress:
    """Shows epochs with the ELBO, its two parts and the time left; says single lines.

    Args:
      epochs: the maximum number of epochs.
      console: where to; None says nothing at all.
    """

    def __init__(self, epochs: int, console: rich.console.Console | None = None):
        self._console = console
        self.on_terminal = console is not None and console.is_terminal
        self._epochs = epochs
        self._last_line = time.monotonic()
        self._bar: rich.progress.Progress | None = None
        if console is not None and console.is_terminal:
            self._bar = rich.progress.Progress(
                rich.progress.TextColumn("epoch {task.fields[epoch]}/{task.fields[epochs]}"),
                rich.progress.BarColumn(bar_width=24),
                rich.progress.TextColumn("{task.fields[text]}"),
                rich.progress.TimeElapsedColumn(),
                rich.progress.TextColumn("< at most"),
                rich.progress.TimeRemainingColumn(),
                console=console,
            )

    def __enter__(self) -> Progress:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *_) -> None:
        if self._bar is not None:
            self._bar.stop()

    def start(self, epoch: int, steps: int) -> None:
        """Training begins after `epoch` epochs, each of `steps` steps."""
        if self._bar is not None:
            self._task = self._bar.add_task(
                "",
                total=self._epochs * steps,
                completed=epoch * steps,
                epoch=epoch,
                epochs=self._epochs,
                text="",
            )

    def step(self, epoch: int) -> None:
        """One step of `epoch` is done."""
        if self._bar is not None:
            self._bar.update(self._task, advance=1, epoch=epoch)

    def epoch(self, row: dict[str, float], best: bool) -> None:
        """An epoch is done: its row of history.csv."""
        text = (
            f"val ELBO {row['val_elbo']:.2f} = {row['val_reconstruction']:.2f} - {row['val_kl']:.2f}"
            f"{' *' if best else '  '}"
        )
        if self._bar is not None:
            self._bar.update(self._task, text=text)
        elif time.monotonic() - self._last_line > SECONDS_BETWEEN_LINES or row["epoch"] == 1:
            self._last_line = time.monotonic()
            self.say(f"epoch {row['epoch']}/{self._epochs}  {text}")

    def say(self, text: str) -> None:
        """One line."""
        if self._console is not None:
            self._console.print(text, markup=False, highlight=False, soft_wrap=True)
