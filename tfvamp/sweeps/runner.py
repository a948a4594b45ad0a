"""Carries out a sweep: trains what is missing, continues what was stopped, and leaves alone what is finished."""

from __future__ import annotations

import contextlib
import dataclasses
import math
import pathlib
import time
from collections.abc import Callable, Sequence
from typing import Any

from tfvamp import files
from tfvamp.errors import RunError, UsageError
from tfvamp.sweeps.plan import Planned, planned, run_of
from tfvamp.sweeps.search import Search
from tfvamp.sweeps.spec import Spec
from tfvamp.sweeps.workers import Workers, last_line
from tfvamp.training.interrupts import Interrupts

SECONDS_BETWEEN_LOOKS = 0.5
LOGS = "logs"  # in the folder of the runs: the settings of each run, and what its commands wrote


@dataclasses.dataclass(frozen=True)
class Done:
    """How a sweep ended.

    Attributes:
      runs: the runs whose folders exist, in order.
      failed: names of the runs that failed, each with the reason.
      given_up: names of the runs that a search gave up.
      signal: number of the signal that ended the sweep; None if it ended by itself.
      best: the best values that a search found.
    """

    runs: list[Planned]
    failed: dict[str, str]
    given_up: list[str]
    signal: int | None
    best: dict[str, Any] | None = None


@dataclasses.dataclass
class _Running:
    run: Planned
    handle: Any
    trial: Any
    log: pathlib.Path
    started: float
    reported: int = 0  # number of epochs that a search knows about
    given_up: bool = False


def sweep(
    spec: Spec,
    workers: Workers,
    jobs: int = 1,
    search: Search | None = None,
    say: Callable[[str], None] = lambda text: None,
    show: Callable[[int, int, list[str]], None] = lambda done, total, running: None,
    runs: Sequence[Planned] | None = None,
    minutes: float | None = None,
) -> Done:
    """Carries out a sweep, or what is left of it.

    Args:
      spec: specification of the sweep.
      workers: the workers that carry out the commands of a run.
      jobs: number of runs at a time.
      search: what chooses the values of the runs; None for those of the file.
      say: a function that gets one line of text about each run that has ended.
      show: a function that gets the number of runs that have ended, the number of all, and what the
        others are doing.
      runs: the runs to carry out, instead of those of the file.
      minutes: time after which no run is started, and those in training save what they have; None
        for no limit.

    Raises:
      RunError: the folder of a run holds one with other settings, or the folder of the runs cannot
        be written.
    """
    listed = list(runs) if runs is not None else [] if search is not None else planned(spec)
    deadline = math.inf if minutes is None else time.monotonic() + 60.0 * minutes
    for run in listed:
        run.state()  # raises what is wrong before anything is started
    total = len(listed) if search is None else search.left
    begun: list[Planned] = []
    failed: dict[str, str] = {}
    given_up: list[str] = []
    running: list[_Running] = []
    held: list[tuple[Planned, Any]] = []  # trials whose run is in training for another trial
    ended = 0
    if (spec.run_dir / LOGS).is_symlink():
        raise RunError(f"{files.shown(spec.run_dir / LOGS)} is a link: it is not followed")
    try:
        (spec.run_dir / LOGS).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunError(f"cannot make {files.shown(spec.run_dir / LOGS)}: {files.reason(error)}") from error

    def following() -> tuple[Planned, Any] | None:
        if search is None:
            return (listed[len(begun)], None) if len(begun) < len(listed) else None
        if search.left <= 0:
            return None
        trial, values = search.ask()
        try:
            return run_of(spec, values), trial
        except UsageError:
            search.finish(trial, None, given_up=False)
            raise

    def finish(one: _Running, status: int, stopped: bool) -> None:
        nonlocal ended
        ended += 1
        far = one.run.progress()
        text = (
            "no epoch"
            if far.bound is None
            else f"best epoch {far.best_epoch}, validation bound {far.bound:.2f}"
        )
        minutes = (time.monotonic() - one.started) / 60.0
        if one.given_up:
            given_up.append(one.run.name)
            text = f"given up: {text}"
        elif status and not stopped:
            failed[one.run.name] = last_line(one.log)
            text = f"failed: {failed[one.run.name]}"
        elif status:
            text = f"stopped: {text}"
        say(f"{ended}/{total} {one.run.name}: {text}, {minutes:.1f} minutes")
        if search is not None and not (stopped and status):
            search.finish(one.trial, None if status else far.bound, one.given_up)

    with Interrupts() as interrupts, contextlib.closing(workers):
        stopping = False
        while True:
            while not stopping and len(running) < jobs and time.monotonic() < deadline:
                free = [one for one in held if not any(one[0].path == other.run.path for other in running)]
                chosen = free[0] if free else following()
                if chosen is None:
                    break
                if free:
                    held.remove(chosen)
                run, trial = chosen
                if any(run.path == other.run.path for other in running):  # a search may ask for it twice
                    held.append(chosen)
                    break
                begun.append(run)
                started = _begin(run, trial, workers, spec)
                if started is not None:
                    running.append(started)
                    continue
                ended += 1
                say(f"{ended}/{total} {run.name}: finished before")
                if search is not None:
                    search.finish(trial, run.progress().bound, given_up=False)
            if not running:
                break
            show(ended, total, [f"{one.run.name} (epoch {one.run.progress().epochs})" for one in running])
            for one in list(running):
                status = workers.ended(one.handle)
                if status is not None:
                    running.remove(one)
                    finish(one, status, stopping)
                elif search is not None and not one.given_up and _is_hopeless(search, one):
                    one.given_up = True
                    workers.stop(one.handle)
            out_of_time = time.monotonic() >= deadline
            if (interrupts.number is not None or out_of_time) and not stopping:
                stopping = True
                why = "the time is used up" if out_of_time else "stopping"
                say(f"{why}: the runs in training save what they have")
                for one in running:
                    workers.stop(one.handle)
            time.sleep(SECONDS_BETWEEN_LOOKS if running else 0.0)
    best = None if search is None else search.best()
    return Done(begun, failed, given_up, interrupts.number, best)


def _begin(run: Planned, trial: Any, workers: Workers, spec: Spec) -> _Running | None:
    """Starts the commands of a run; returns None if it is finished."""
    settings = spec.run_dir / LOGS / f"{run.name}.toml"
    commands = run.commands(settings)
    if not commands:
        return None
    files.replace_file(settings, run.config.to_toml().encode())
    log = spec.run_dir / LOGS / f"{run.name}.log"
    files.replace_file(log, b"")  # only of this attempt
    return _Running(run, workers.start(commands, log), trial, log, time.monotonic())


def _is_hopeless(search: Search, one: _Running) -> bool:
    """Tells a search about new epochs; returns whether it gives up the run, which is in training."""
    bounds = one.run.bounds()
    new = {epoch: max(bounds[:epoch]) for epoch in range(one.reported + 1, len(bounds) + 1)}
    one.reported = len(bounds)
    return not one.run.is_trained() and search.is_hopeless(one.trial, new)
