"""Where commands show things: progress and tables on the standard error stream, results on standard output."""

from __future__ import annotations

import sys


def console(ctx):
    """A console for progress, or None with --quiet."""
    if ctx.obj["quiet"]:
        return None
    import rich.console

    return rich.console.Console(file=sys.stderr)
