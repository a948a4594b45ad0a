"""Runs, or continues, what a table or figure needs, as a sweep does."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from tfvamp.files import expanded
from tfvamp.reproducing.cells import Cell
from tfvamp.sweeps import Done, Spec, sweep
from tfvamp.sweeps.workers import Workers, by_name

LEFT = ("missing", "unfinished", "trained")


def carry_out(
    cells: Sequence[Cell],
    root: str | os.PathLike,
    jobs: int = 1,
    minutes: float | None = None,
    say: Callable[[str], None] = lambda text: None,
    show: Callable[[int, int, list[str]], None] = lambda done, total, running: None,
    workers: Workers | None = None,
) -> Done:
    """Trains and evaluates the runs of cells that are not finished; a damaged run is left alone.

    Each run has its own processes, with the commands train, train --resume and evaluate.

    Args:
      cells: cells of the table or figure.
      root: folder of the runs.
      jobs: number of runs at a time.
      minutes: time after which runs in training save what they have, as after SIGTERM; None for no
        limit.
      say, show: as for `tfvamp.sweeps.sweep`.
      workers: the workers that carry out the commands; None for processes of this machine.
    """
    left = {
        run.name: run
        for cell in cells
        for run, look in zip(cell.runs, cell.looks, strict=True)
        if look.state in LEFT
    }
    if not left:
        return Done([], {}, [], None)
    pool = by_name("processes", jobs) if workers is None else workers
    return sweep(
        Spec(expanded(root), {}, {}),
        pool,
        jobs,
        say=say,
        show=show,
        runs=list(left.values()),
        minutes=minutes,
    )
