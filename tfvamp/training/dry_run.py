"""The needs of a training run, measured without a run folder."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable
from typing import Any

import rich.console

from tfvamp import devices
from tfvamp.blocks import images_at_once
from tfvamp.config import TrainConfig
from tfvamp.datasets import Dataset
from tfvamp.files import counted, size
from tfvamp.runs import building
from tfvamp.training.loop import prepared
from tfvamp.training.progress import Progress
from tfvamp.training.steps import compile_model, steps_of
from tfvamp.training.strategies import Agreement, Devices
from tfvamp.training.stretches import Stretches, one_by_one

STEPS = 5  # number of steps that are timed, after one that compiles


def dry_run(config: TrainConfig, console: rich.console.Console | None = None) -> dict[str, Any]:
    """Prepares everything and runs a few steps, but writes no run folder.

    Args:
      config: settings of the training.
      console: where the preparation of data is shown; None shows nothing.

    Returns:
      `config` (resolved), `parameters` (number of trainable ones, by network), `memory` (bytes,
      estimated), `steps` (per epoch), `seconds_per_step`, `seconds_to_compile` and
      `minutes_per_epoch` (including validation).
    """
    progress = Progress(config.epochs, console)
    with devices.on(config.device):
        config, dataset = prepared(config, progress)
        sizes = dataset.train.num_examples, dataset.validation.num_examples
        progress.say(f"measuring {STEPS} steps and two validation batches, which are compiled first")
        return measured(config, dataset, sizes, progress.say)


def measured(
    config: TrainConfig,
    dataset: Dataset,
    sizes: tuple[int, int],
    say: Callable[[str], None] = lambda text: None,
) -> dict[str, Any]:
    """Runs a few steps; returns what `dry_run` returns.

    Args:
      config: resolved settings.
      dataset: the data set whose images are used.
      sizes: number of training and of validation images in an epoch, which may be larger than the
        data set's.
      say: a function that gets one line of text about problems with XLA.
    """
    with devices.on(config.device):
        count = sizes[0]
        needed = building.check_memory(config, dataset.spec.shape, count)
        model = building.untrained(config, dataset)
        compile_model(model, config)
        steps = steps_of(model, config, Devices(), Agreement(lambda: False), say)
        epoch = dataset.training_batches(
            config.batch_size, config.seed, 1, with_index=model.prior.uses_indices
        )
        batches = epoch.repeat().take(1 + STEPS)
        first, per_step = _timed(steps.train, batches)
        at_once = images_at_once(model, dataset.spec.shape)
        checked = dataset.validation.images.repeat().batch(at_once).take(2)  # whole: the first one compiles
        first_check, per_check = _timed(one_by_one(steps.test), checked)
    in_epoch = math.ceil(count / config.batch_size)
    checks = math.ceil(sizes[1] / at_once)
    return {
        "config": config,
        "parameters": parameters(model),
        "memory": needed,
        "steps": in_epoch,
        "seconds_per_step": per_step,
        "seconds_to_compile": first + first_check,
        "minutes_per_epoch": (in_epoch * per_step + checks * per_check) / 60.0,
    }


def described(measured: dict[str, Any]) -> dict[str, str]:
    """Returns the results of `dry_run` as text for a person, by name."""
    counts, config = measured["parameters"], measured["config"]
    networks = ", ".join(f"{name} {count:,}" for name, count in counts.items())
    hours = config.epochs * measured["minutes_per_epoch"] / 60.0
    return {
        "parameters": f"{sum(counts.values()):,}: {networks}",
        "memory": f"about {size(measured['memory'])}, besides TensorFlow and the data",
        "one step": f"{1000 * measured['seconds_per_step']:.0f} ms (the first: {measured['seconds_to_compile']:.0f} s)",
        "one epoch": f"{measured['minutes_per_epoch']:.2f} minutes, {counted(measured['steps'], 'step')} and the validation",
        "all epochs": f"at most {config.epochs}: {hours:.1f} hours; early stopping may end them sooner",
    }


def parameters(model) -> dict[str, int]:
    """Returns the number of trainable parameters of each network of a model."""
    counts: dict[str, int] = {}
    seen: set[int] = set()
    for layer in sorted(model.layers, key=lambda one: one is model.prior):  # the prior shares the encoder's
        new = [weight for weight in layer.trainable_weights if id(weight) not in seen]
        seen |= {id(weight) for weight in new}
        counts[layer.name] = sum(math.prod(weight.shape) for weight in new)
    return {name: count for name, count in counts.items() if count}


def _timed(steps: Stretches, batches) -> tuple[float, float]:
    """Returns the seconds of the first step, which compiles, and the median of the others (of the first if alone)."""
    times, start = [], time.perf_counter()
    for taken in steps(batches):
        for value in taken.results.values():
            value.numpy()
        times += [(time.perf_counter() - start) / taken.steps] * taken.steps
        start = time.perf_counter()
    return times[0], statistics.median(times[1:] or times)
