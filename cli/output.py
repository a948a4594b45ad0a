"""Where commands show things: progress on the standard error stream, results on standard output."""

from __future__ import annotations

import contextlib
import sys

import click


def console(ctx):
    """A console for progress, or None with --quiet."""
    if ctx.obj["quiet"]:
        return None
    import rich.console

    return rich.console.Console(file=sys.stderr)


@contextlib.contextmanager
def counter(ctx, what: str):
    """A progress bar: gives the functions say(text) and advance(done, total)."""
    shown = console(ctx)
    if shown is None or not shown.is_terminal:
        yield (lambda text: shown.print(text) if shown else None), (lambda done, total: None)
        return
    import rich.progress

    with rich.progress.Progress(*rich.progress.Progress.get_default_columns(), console=shown) as bar:
        task = bar.add_task(what, total=None)
        yield bar.console.print, (lambda done, total: bar.update(task, completed=done, total=total))


def table(title: str, rows: dict[str, str]) -> None:
    """A title and aligned lines on standard output."""
    click.echo(title)
    width = max(map(len, rows))
    for name, text in rows.items():
        click.echo(f"  {name:<{width}}  {text}")
