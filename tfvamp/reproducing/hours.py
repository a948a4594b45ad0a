"""Approximate hours of training of unfinished runs, from steps measured on this machine."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import pathlib
import statistics
import time
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from tfvamp import datasets, devices, files
from tfvamp.catalog import CATALOG
from tfvamp.config import TrainConfig
from tfvamp.errors import FileError, TfvampError
from tfvamp.reproducing.cells import Cell
from tfvamp.runs import building, history
from tfvamp.runs.folder import RunFolder
from tfvamp.sweeps import Planned
from tfvamp.training.dry_run import measured

USUAL_EPOCHS = 300  # usual number under early stopping: 236 to 360 on Caltech 101 (docs/results.md)
FEWEST_EPOCHS = 50  # assumed to be left in a run that has had more: the patience
MEASURED = "epochs.json"  # in the folder of the runs: minutes per epoch, by what was measured
NOT_OF_A_STEP = (
    "dataset", "data_dir", "raw_dir", "seed", "epochs", "learning_rate", "warmup", "patience", "limit",
    "checkpoint_minutes", "on_nan",
)  # fmt: skip


def hours_of(
    cells: Sequence[Cell],
    root: str | os.PathLike,
    deadline: float = math.inf,
    say: Callable[[str], None] = lambda text: None,
) -> dict[str, float]:
    """Returns the hours of training that are left for each missing or unfinished run, by its name.

    A step of each kind of model is measured once and kept in the folder of the runs. It uses random
    images, so that no data are needed.

    Args:
      cells: the cells whose runs are examined.
      root: folder of the runs.
      deadline: the `time.monotonic()` after which nothing more is measured.
      say: a function that gets one line of text about what is measured.
    """
    path, found, left_out = files.expanded(root) / MEASURED, {}, 0
    known = _read(path)
    for cell in cells:
        for run, look in zip(cell.runs, cell.looks, strict=True):
            if look.state not in ("missing", "unfinished"):
                continue
            done = run.progress().epochs if look.state == "unfinished" else 0
            usual = min(USUAL_EPOCHS, run.config.epochs)
            left = max(usual - done, min(FEWEST_EPOCHS, run.config.epochs - done))
            if (minutes := _of_history(run) if done else None) is None:
                key = _key(run.config)
                if key not in known:
                    if time.monotonic() >= deadline:
                        left_out += 1
                        continue
                    say(f"measuring a step of {run.name}")
                    try:
                        known[key] = minutes_per_epoch(run.config)
                    except (TfvampError, tf.errors.OpError) as error:  # such as too little memory
                        say(f"{run.name}: {files.printable(str(error))[:200]}")
                        continue
                    files.write_json(path, dict(known))
                minutes = known[key]
            found[run.name] = left * minutes / 60.0
    if left_out:
        say(
            f"the hours of {files.counted(left_out, 'run')} are not measured yet: the same command goes on with that"
        )
    return found


def minutes_per_epoch(config: TrainConfig) -> float:
    """Returns the minutes per epoch, measured by a few steps on random images.

    Raises:
      UsageError: the machine has too little memory.
    """
    spec = CATALOG[config.dataset]
    resolved = building.resolve(config, spec)
    count = max(2 * resolved.batch_size, resolved.components or 0)
    rng = np.random.default_rng(0)
    random = rng.integers(0, 2 if spec.likelihood == "bernoulli" else 256, (count, *spec.shape), np.uint8)
    images = datasets.from_arrays(random, random, random[:2])
    train, validation = (min(size, config.limit or size) for size in spec.sizes[:2])
    with devices.on(resolved.device):
        return float(measured(resolved, images, (train, validation))["minutes_per_epoch"])


def _of_history(run: Planned) -> float | None:
    """Returns the minutes per epoch that a run has taken so far."""
    rows, _ = history.read(RunFolder(run.path).history_file)
    return statistics.median(row["seconds"] for row in rows) / 60.0 if rows else None


def _key(config: TrainConfig) -> str:
    """Returns what the time per epoch depends on: settings, data, machine."""
    spec = CATALOG[config.dataset]
    settings = {name: value for name, value in config.to_dict().items() if name not in NOT_OF_A_STEP}
    found = [device.name for device in tf.config.list_physical_devices()]
    depends_on = [settings, spec.shape, spec.sizes[:2], found, os.cpu_count(), tf.__version__]
    digest = hashlib.sha256(json.dumps(depends_on, sort_keys=True).encode()).hexdigest()[:16]
    return f"{config.model} {config.prior} {digest}"


def _read(path: pathlib.Path) -> dict[str, float]:
    """Returns what was measured before; nothing if the file is missing or damaged."""
    with contextlib.suppress(FileError):
        document = files.read_json(path)
        return {
            name: float(value)
            for name, value in document.items()
            if isinstance(value, (int, float)) and not isinstance(value, bool) and 0.0 < value < 1e6
        }
    return {}
