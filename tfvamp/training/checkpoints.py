"""The state of training after a step, in one file: weights, optimiser, metrics, stopping rule, history, best weights."""

from __future__ import annotations

import contextlib
import json
import os
import pathlib
import re
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import keras
import numpy as np

from tfvamp import files
from tfvamp.arrays import npz_bytes, unpacked
from tfvamp.errors import FileError, RunError
from tfvamp.files import shown
from tfvamp.runs import history
from tfvamp.training.early_stopping import EarlyStopping

KEPT = 2  # number of newest checkpoints that stay
MARGIN = 2**20  # bytes of a file besides what is counted
MARGIN_PER_ARRAY = 2**10
NAME = re.compile(r"epoch-([0-9]{6,9})(?:-step-([0-9]{9,12}))?\.npz")


class Checkpoint(NamedTuple):
    """The contents of a checkpoint.

    Attributes:
      epoch: the last complete epoch; 0 within the first one.
      step: number of steps of the next epoch that are also done.
      seconds: how long these steps took.
      skipped: how many of these steps were skipped.
      stopping: best, best_epoch and waited of the stopping rule.
      rows: rows of the history, one per epoch.
      best_weights: the contents of the file with the best epoch's weights.
      state: the values of all variables, in the order of `variables`.
    """

    epoch: int
    step: int
    seconds: float
    skipped: int
    stopping: dict[str, Any]
    rows: list[dict[str, float]]
    best_weights: bytes
    state: list[np.ndarray]


def variables(model: keras.Model) -> list[Any]:
    """Returns all variables that training changes, of a built and compiled model, its optimiser and its metrics."""
    return [*model.weights, *model.optimizer.variables, *model.metrics_variables]


def state(model: keras.Model) -> tuple[np.ndarray, ...]:
    """Returns the values of `variables`."""
    return tuple(one.numpy() for one in variables(model))


def save(
    folder: pathlib.Path,
    state: Sequence[np.ndarray],
    stopping: EarlyStopping,
    rows: list[dict[str, float]],
    best_weights: bytes,
    step: int = 0,
    seconds: float = 0.0,
    skipped: int = 0,
) -> None:
    """Writes a checkpoint completely or not at all, and removes all but the newest two.

    Args:
      folder: folder of the checkpoints.
      state, stopping, rows, best_weights: as in `Checkpoint`.
      step, seconds, skipped: number of steps done in the epoch after the last one in `rows`, how
        long they took, and how many were skipped.

    Raises:
      FileError: it cannot be written.
    """
    meta = {"stopping": stopping.state(), "rows": rows, "step": step, "seconds": seconds, "skipped": skipped}
    arrays = {f"{index:04d}": value for index, value in enumerate(state)}
    arrays["best"] = np.frombuffer(best_weights, np.uint8)
    arrays["meta"] = np.frombuffer(json.dumps(meta).encode(), np.uint8)
    name = f"epoch-{len(rows):06d}-step-{step:09d}.npz" if step else f"epoch-{len(rows):06d}.npz"
    files.replace_file(folder / name, npz_bytes(arrays, compressed=False))
    known = found(folder)
    kept = [path for path in known if _place(path) <= (len(rows), step)][:KEPT]
    for old in known:
        if old not in kept:
            with contextlib.suppress(OSError):
                old.unlink()


def found(folder: pathlib.Path) -> list[pathlib.Path]:
    """Returns the checkpoints in a folder, the newest first."""
    try:
        names = [entry.name for entry in os.scandir(folder) if entry.is_file(follow_symlinks=False)]
    except OSError:
        return []
    return sorted((folder / name for name in names if NAME.fullmatch(name)), key=_place, reverse=True)


def _place(path: pathlib.Path) -> tuple[int, int]:
    """Returns the last complete epoch of a checkpoint, and the number of steps after it."""
    match = NAME.fullmatch(path.name)
    assert match is not None
    return int(match[1]), int(match[2] or 0)


def newest(
    folder: pathlib.Path,
    shapes: Sequence[Sequence[int]],
    best_size: int,
    say: Callable[[str], None],
    num_metrics: int = 0,
) -> Checkpoint | None:
    """Returns the newest checkpoint that is not damaged; None if there is no checkpoint.

    Args:
      folder: folder of the checkpoints.
      shapes: shapes of the variables that are saved.
      best_size: maximum number of bytes of the best weights' file.
      say: a function that gets one line of text about a damaged checkpoint.
      num_metrics: number of the shapes, at the end, that are those of metrics, which tfvamp 0.1.0
        did not save.

    Raises:
      RunError: all checkpoints are damaged, or they belong to another model.
    """
    paths, damage = found(folder), ""
    for path in paths:
        try:
            return _read(path, shapes, best_size, num_metrics)
        except FileError as error:
            damage = str(error)
            say(f"warning: {damage}: using the previous checkpoint")
    if paths:
        raise RunError(
            f"no checkpoint in {shown(folder)} can be read ({damage}): start again from epoch 1 with --restart"
        )
    return None


def _read(
    path: pathlib.Path, shapes: Sequence[Sequence[int]], best_size: int, num_metrics: int
) -> Checkpoint:
    state_size = 8 * sum(int(np.prod(shape)) for shape in shapes)
    largest = state_size + best_size + history.LARGEST + MARGIN + MARGIN_PER_ARRAY * len(shapes)
    arrays = unpacked(files.read_bytes(path, largest), shown(path), largest)
    if len(arrays) - 2 == len(shapes) - num_metrics:  # of an older version, after a whole epoch
        shapes = shapes[: len(shapes) - num_metrics]
    names = {f"{index:04d}" for index in range(len(shapes))} | {"best", "meta"}
    shapes_found = [arrays[name].shape for name in sorted(arrays) if name.isdigit()]
    if set(arrays) != names or shapes_found != [tuple(shape) for shape in shapes]:
        raise FileError(f"{shown(path)} is damaged or belongs to another model")
    try:
        meta = json.loads(arrays["meta"].tobytes())
        stopping, rows, best = meta["stopping"], meta["rows"], arrays["best"].tobytes()
        state = [arrays[f"{index:04d}"] for index in range(len(shapes))]
        epoch, step = _place(path)
        seconds, skipped = float(meta.get("seconds", 0.0)), int(meta.get("skipped", 0))
        history.check(rows)
        if (
            len(rows) != epoch
            or meta.get("step", 0) != step
            or not 0 <= seconds < history.LARGEST_VALUE
            or not 0 <= skipped <= step
        ):
            raise ValueError("another place")
        if epoch == step == 0:
            raise ValueError("nothing was trained")
        EarlyStopping(0, 0).restore(stopping)
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError, OverflowError) as error:
        raise FileError(f"{shown(path)} is damaged ({type(error).__name__})") from error
    if any(one.dtype.itemsize > 8 for one in state) or len(best) > best_size:
        raise FileError(f"{shown(path)} is damaged or belongs to another model")
    if not all(np.isfinite(one).all() for one in state):
        raise FileError(f"{shown(path)} is damaged: it has weights that are not finite")
    return Checkpoint(epoch, step, seconds, skipped, stopping, rows, best, state)


def restore(checkpoint: Checkpoint, model: keras.Model, stopping: EarlyStopping) -> None:
    """Restores a compiled model, its optimiser and the stopping rule from a checkpoint; metrics that it lacks stay."""
    for variable, value in zip(variables(model), checkpoint.state, strict=False):
        variable.assign(value)
    stopping.restore(checkpoint.stopping)
