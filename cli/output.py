"""The output of commands: progress on the standard error stream, results on standard output."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable

import click

from tfvamp_cli import light

SECONDS_BETWEEN_LINES = 30.0
LONGEST_CELL = 1000  # letters: a file may hold texts of any length


def console(ctx):
    """Returns a console for progress, or None with --quiet."""
    if ctx.obj["quiet"]:
        return None
    import rich.console

    class Console(rich.console.Console):
        def on_broken_pipe(self):  # such as `2>&1 | head`: the work continues silently
            self.quiet = True

    return Console(file=sys.stderr)


def say(ctx):
    """Returns a function that shows a line on the standard error stream, or nothing with --quiet."""
    shown = console(ctx)
    return lambda text: shown.print(text, markup=False, highlight=False, soft_wrap=True) if shown else None


@contextlib.contextmanager
def counter(ctx, what: str):
    """Shows a progress bar; yields the functions say(text) and advance(done, total)."""
    shown = console(ctx)
    if shown is None:
        yield say(ctx), (lambda done, total: None)
        return
    if not shown.is_terminal:
        yield say(ctx), _lines(what, say(ctx))
        return
    import rich.progress

    with rich.progress.Progress(*rich.progress.Progress.get_default_columns(), console=shown) as bar:
        task = bar.add_task(what, total=None)
        yield (
            lambda text: bar.console.print(text, markup=False, highlight=False),
            lambda done, total: bar.update(task, completed=done, total=total),
        )


@contextlib.contextmanager
def sweeping(ctx):
    """Shows how far many runs are; yields the functions say(text) and show(done, total, running)."""
    shown = console(ctx)
    if shown is None or not shown.is_terminal:
        yield say(ctx), (lambda done, total, running: None)
        return
    import rich.progress

    columns = (
        rich.progress.TextColumn("{task.completed}/{task.total} runs"),
        rich.progress.BarColumn(bar_width=24),
        rich.progress.TimeElapsedColumn(),
        rich.progress.TextColumn("{task.fields[running]}", markup=False),
    )
    with rich.progress.Progress(*columns, console=shown) as bar:
        task = bar.add_task("", total=None, running="")
        yield (
            lambda text: bar.console.print(text, markup=False, highlight=False, soft_wrap=True),
            lambda done, total, running: bar.update(
                task, completed=done, total=total, running=light.files.printable("; ".join(running))
            ),
        )


def _lines(what: str, say: Callable[[str], None]) -> Callable[[int, int], None]:
    """Returns an advance(done, total) that occasionally says how far the work is, and about how long it will take."""
    began = last = time.monotonic()
    first, before = 0, sys.maxsize

    def advance(done: int, total: int) -> None:
        nonlocal began, last, first, before
        now = time.monotonic()
        if done < before:  # another part of the work begins
            began, first = now, done
        before = done
        if now - last < SECONDS_BETWEEN_LINES or done >= total:
            return
        last = now
        left = (
            f", about {_duration((now - began) * (total - done) / (done - first))} left"
            if done > first
            else ""
        )
        say(f"{what}: {done} of {total}{left}")

    return advance


def _duration(seconds: float) -> str:
    return f"{seconds / 60:.0f} minutes" if seconds > 90 else f"{max(seconds, 1):.0f} seconds"


def table(title: str, rows: dict[str, str]) -> None:
    """Prints a title and aligned lines to standard output, without control characters; long texts are cut."""
    click.echo(light.files.printable(title))
    width = max(map(len, rows))
    for name, text in rows.items():
        shown = light.files.printable(text)
        shown = shown if len(shown) <= LONGEST_CELL else f"{shown[:LONGEST_CELL]}..."
        click.echo(f"  {light.files.printable(name):<{width}}  {shown}")
