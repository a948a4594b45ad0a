"""The state of training after an epoch, in one file: weights, optimiser, stopping rule, history, best weights."""

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

KEPT = 2  # the newest checkpoints
MARGIN = 2**20  # bytes of a file besides what is counted
MARGIN_PER_ARRAY = 2**10


class Checkpoint(NamedTuple):
    """What a checkpoint holds.

    Attributes:
      epoch: the last whole epoch.
      stopping: best, best_epoch and waited of the stopping rule.
      rows: of the history, one for each epoch.
      best_weights: the contents of the file with the best epoch's weights.
      state: the values of all variables, in the order of `variables`.
    """

    epoch: int
    stopping: dict[str, Any]
    rows: list[dict[str, float]]
    best_weights: bytes
    state: list[np.ndarray]


def variables(model: keras.Model) -> list[Any]:
    """All variables that training changes: those of a built and compiled model, and of its optimiser."""
    return [*model.weights, *model.optimizer.variables]


def save(
    folder: pathlib.Path,
    model: keras.Model,
    stopping: EarlyStopping,
    rows: list[dict[str, float]],
    best_weights: bytes,
) -> None:
    """Writes the checkpoint of the last epoch in `rows` whole, and removes all but the newest two.

    Raises:
      FileError: it cannot be written.
    """
    meta = {"stopping": stopping.state(), "rows": rows}
    arrays = {f"{index:04d}": one.numpy() for index, one in enumerate(variables(model))}
    arrays["best"] = np.frombuffer(best_weights, np.uint8)
    arrays["meta"] = np.frombuffer(json.dumps(meta).encode(), np.uint8)
    files.replace_file(folder / f"epoch-{len(rows):06d}.npz", npz_bytes(arrays, compressed=False))
    for old in found(folder):
        if not len(rows) - KEPT < _number(old) <= len(rows):
            with contextlib.suppress(OSError):
                old.unlink()


def found(folder: pathlib.Path) -> list[pathlib.Path]:
    """The checkpoints in a folder, the newest first."""
    try:
        names = [entry.name for entry in os.scandir(folder) if entry.is_file(follow_symlinks=False)]
    except OSError:
        return []
    paths = [folder / name for name in names if re.fullmatch(r"epoch-[0-9]{6,9}\.npz", name)]
    return sorted(paths, key=_number, reverse=True)


def _number(path: pathlib.Path) -> int:
    return int(path.stem.removeprefix("epoch-"))


def newest(
    folder: pathlib.Path, shapes: Sequence[Sequence[int]], best_size: int, say: Callable[[str], None]
) -> Checkpoint | None:
    """The newest checkpoint that is not damaged; None where there is no checkpoint.

    Args:
      folder: where they are.
      shapes: of the variables that are saved.
      best_size: the maximum number of bytes of the best weights' file.
      say: told in one line of a damaged one.

    Raises:
      RunError: all are damaged, or belong to another model.
    """
    paths, damage = found(folder), ""
    for path in paths:
        try:
            return _read(path, shapes, best_size)
        except FileError as error:
            damage = str(error)
            say(f"warning: {damage}: using the previous checkpoint")
    if paths:
        raise RunError(
            f"no checkpoint in {shown(folder)} can be read ({damage}): start again from epoch 1 with --restart"
        )
    return None


def _read(path: pathlib.Path, shapes: Sequence[Sequence[int]], best_size: int) -> Checkpoint:
    state_size = 8 * sum(int(np.prod(shape)) for shape in shapes)
    largest = state_size + best_size + history.LARGEST + MARGIN + MARGIN_PER_ARRAY * len(shapes)
    arrays = unpacked(files.read_bytes(path, largest), shown(path), largest)
    names = {f"{index:04d}" for index in range(len(shapes))} | {"best", "meta"}
    shapes_found = [arrays[name].shape for name in sorted(arrays) if name.isdigit()]
    if set(arrays) != names or shapes_found != [tuple(shape) for shape in shapes]:
        raise FileError(f"{shown(path)} is damaged or belongs to another model")
    try:
        meta = json.loads(arrays["meta"].tobytes())
        stopping, rows, best = meta["stopping"], meta["rows"], arrays["best"].tobytes()
        state = [arrays[f"{index:04d}"] for index in range(len(shapes))]
        number = _number(path)
        history.check(rows)
        if not rows or rows[-1]["epoch"] != number:
            raise ValueError("another epoch")
        EarlyStopping(0, 0).restore(stopping)
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError, OverflowError) as error:
        raise FileError(f"{shown(path)} is damaged ({type(error).__name__})") from error
    if any(one.dtype.itemsize > 8 for one in state) or len(best) > best_size:
        raise FileError(f"{shown(path)} is damaged or belongs to another model")
    if not all(np.isfinite(one).all() for one in state):
        raise FileError(f"{shown(path)} is damaged: it has weights that are not finite")
    return Checkpoint(number, stopping, rows, best, state)


def restore(checkpoint: Checkpoint, model: keras.Model, stopping: EarlyStopping) -> None:
    """Gives a compiled model, its optimiser and the stopping rule the state of a checkpoint."""
    for variable, value in zip(variables(model), checkpoint.state, strict=True):
        variable.assign(value)
    stopping.restore(checkpoint.stopping)
