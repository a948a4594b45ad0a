"""One epoch: training steps, validation, and the row of history.csv."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tfvamp.config import TrainConfig
from tfvamp.errors import TrainingError
from tfvamp.models import LatentVariableModel
from tfvamp.optimizers import averaged
from tfvamp.training import checkpoints
from tfvamp.training.progress import Progress
from tfvamp.training.stretches import Stretches, Taken


class Begun(NamedTuple):
    """How much of an epoch is done.

    Attributes:
      step: number of training steps done.
      seconds: how long they took.
      skipped: how many of them were skipped.
      state: the values of all that training changes, after these steps, in the order of
        `checkpoints.variables`.
    """

    step: int = 0
    seconds: float = 0.0
    skipped: int = 0
    state: tuple[np.ndarray, ...] = ()


class Diverged(TrainingError):
    """The loss of a step is NaN or infinite."""


def epoch_of(
    epoch: int,
    config: TrainConfig,
    model: LatentVariableModel,
    steps: Stretches,
    test_step: Callable,
    batches: Iterable[Any],
    validation: tf.data.Dataset,
    learning_rate: float,
    begun: Begun,
    progress: Progress,
    pause: Callable[[Callable[[], Begun]], None],
) -> dict[str, Any]:
    """Trains and validates for one epoch; returns the epoch's row of history.csv.

    Args:
      epoch: number of the epoch, counted from 1.
      config, model: the settings and the model.
      steps, test_step: the compiled steps of the model.
      batches: those of the training images that are left of this epoch.
      validation: batches of validation images.
      learning_rate: learning rate of this epoch.
      begun: what has been done of this epoch before; the model's weights and metrics are those
        after it.
      progress: where each training step, and skipped steps, are reported.
      pause: called after each step of training or validation, with a function that returns what is
        done by then. It may save that, and raise KeyboardInterrupt.

    Raises:
      Diverged: the loss became NaN or infinite.
    """
    start = time.perf_counter() - begun.seconds
    beta = config.beta * (min(1.0, epoch / config.warmup) if config.warmup else 1.0)
    model.beta.assign(beta)
    model.optimizer.learning_rate = learning_rate
    if not begun.step:
        model.reset_metrics()
    step, skipped, newest = begun.step, begun.skipped, None
    counted = False  # whether the newest steps are among those that `skipped` counts

    def look(taken: Taken, end: int) -> None:
        nonlocal skipped
        _check_finite(taken, epoch, end)
        skipped += int(taken.results.get("skipped", 0))

    def done() -> Begun:
        uncounted = 0
        if newest is not None:
            _check_finite(newest, epoch, step)
            uncounted = 0 if counted else int(newest.results.get("skipped", 0))
        return Begun(step, time.perf_counter() - start, skipped + uncounted, checkpoints.state(model))

    for taken in steps(batches):
        if newest is not None:
            look(newest, step)  # while the next steps are computed
        newest, step = taken, step + taken.steps
        progress.step(epoch, taken.steps)
        pause(done)
    if newest is not None:
        look(newest, step)
    counted = True
    if skipped:
        progress.say(
            f"epoch {epoch}: {skipped} of {step} steps had a NaN or infinite loss or gradient and were skipped"
        )
    if skipped and skipped == step:
        raise Diverged(f"all steps of epoch {epoch} have a NaN or infinite loss or gradient")
    trained, training = done(), _values(model)
    model.reset_metrics()
    with averaged(model):
        for images in validation:
            test_step(images)
            pause(lambda: trained)
    validated = _values(model)
    return {
        "epoch": epoch,
        "beta": beta,
        **{f"train_{name}": training[name] for name in ("loss", "elbo", "reconstruction", "kl")},
        **{f"val_{name}": value for name, value in validated.items() if name != "loss"},
        **({} if config.schedule == "constant" else {"learning_rate": learning_rate}),
        "seconds": round(time.perf_counter() - start, 3),
    }


def _values(model: LatentVariableModel) -> dict[str, float]:
    """Returns the running means of a pass over the images."""
    return {tracker.name: float(tracker.result()) for tracker in model.metrics}


def _check_finite(taken: Taken, epoch: int, end: int) -> None:
    """Raises Diverged if the loss of a step is NaN or infinite.

    Args:
      taken: steps of an epoch.
      epoch: number of the epoch, counted from 1.
      end: number of steps of the epoch that are done, including these.
    """
    results = {name: float(value) for name, value in taken.results.items()}
    if math.isfinite(results["loss"]):
        return
    step = end - taken.steps + int(results.pop("steps", taken.steps))
    parts = {name: value for name, value in results.items() if name not in ("loss", "elbo")}
    wrong = [name for name, value in parts.items() if not math.isfinite(value)]
    where = "all its terms" if len(wrong) == len(parts) else f"its {' and '.join(wrong)}"
    raise Diverged(f"the loss and {where} became NaN or infinite in epoch {epoch}, step {step}")
