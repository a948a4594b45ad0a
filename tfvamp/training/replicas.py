"""Steps of training and validation on several devices, with the same batches and noise as on one."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from tfvamp.models import LatentVariableModel
from tfvamp.models.objective import Objective
from tfvamp.objectives import Part
from tfvamp.training.strategies import Agreement

Step = Callable[[tf.Tensor], dict[str, tf.Tensor]]


def train_step(
    strategy: tf.distribute.Strategy,
    model: LatentVariableModel,
    jit: bool,
    objective: Objective,
    agreement: Agreement,
) -> Step:
    """Returns the training step of a model made under a strategy: from a whole batch to the means of the epoch.

    Each device computes the gradient of its rows, with XLA if `jit`; the optimiser, outside XLA,
    sums the gradients. Each device draws the noise of the whole batch, so that the step is the same
    as on one device, except for rounding (and for batch normalisation, which uses the moments of a
    device's rows). After each step, all workers agree whether one of them has received a signal.
    """

    def of_rows(images: tf.Tensor, seed: tf.Tensor, part: Part) -> tuple[list[tf.Tensor], list[tf.Tensor]]:
        with model.maximising(objective):
            _, gradients, values = model.gradients(images, seed, part.total, part)
        return gradients, _sums(values)

    def replica(images: tf.Tensor, seed: tf.Tensor, part: Part) -> list[tf.Tensor]:
        gradients, sums = _compiled(of_rows, jit)(images, seed, part)
        model.optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        return sums

    return _step(strategy, model, replica, model.step_seed, model.trackers, agreement)


def test_step(
    strategy: tf.distribute.Strategy, model: LatentVariableModel, jit: bool, agreement: Agreement
) -> Step:
    """Returns the validation step, in the same way as `train_step`."""

    def of_rows(images: tf.Tensor, seed: tf.Tensor, part: Part) -> list[tf.Tensor]:
        bound = model.validation_bound(images, seed, part)
        return _sums([*model.tracked(bound), *([bound.bound] if model.validates_iwae else [])])

    def replica(images: tf.Tensor, seed: tf.Tensor, part: Part) -> list[tf.Tensor]:
        return _compiled(of_rows, jit)(images, seed, part)

    return _step(strategy, model, replica, model.test_seed, model.metrics, agreement)


def rows_of(total: int, count: int) -> list[tuple[int, int]]:
    """Returns the first row and the end of each of `count` parts of a batch, as equal as possible.

    >>> rows_of(5, 2)
    [(0, 3), (3, 5)]
    """
    sizes = [total // count + (index < total % count) for index in range(count)]
    ends = [sum(sizes[: index + 1]) for index in range(count)]
    return [(end - size, end) for size, end in zip(sizes, ends, strict=True)]


def _step(
    strategy: tf.distribute.Strategy,
    model: LatentVariableModel,
    replica: Callable[[tf.Tensor, tf.Tensor, Part], list[tf.Tensor]],
    seed_of: Callable[[], tf.Tensor],
    metrics: list[Any],
    agreement: Agreement,
) -> Step:
    """Returns a step on a whole batch, from one on the rows of a device that returns sums over its images."""
    steps: dict[int, Callable] = {}  # by the size of the batch

    def made(total: int) -> Callable:
        @tf.function(autograph=False)
        def step(images, starts, flags):
            seed = seed_of()
            sums = strategy.run(
                lambda images, start: replica(images, seed, Part(start, total)), (images, starts)
            )
            for metric, value in zip(metrics, sums, strict=True):
                metric.total.assign_add(strategy.reduce(tf.distribute.ReduceOp.SUM, value, axis=None))
                metric.count.assign_add(float(total))
            return model.means(), strategy.reduce(tf.distribute.ReduceOp.SUM, flags, axis=None)

        return step

    def run(images: tf.Tensor) -> dict[str, tf.Tensor]:
        total = int(tf.nest.flatten(images)[0].shape[0])
        rows = rows_of(total, strategy.num_replicas_in_sync)

        def distributed(value_of: Callable[[int, int], tf.Tensor]):
            return strategy.experimental_distribute_values_from_function(
                lambda context: value_of(*rows[context.replica_id_in_sync_group])
            )

        if total not in steps:
            steps[total] = made(total)
        means, interrupted = steps[total](
            distributed(lambda start, end: tf.nest.map_structure(lambda one: one[start:end], images)),
            distributed(lambda start, end: tf.constant(start)),
            distributed(lambda start, end: agreement.flag()),
        )
        agreement.take(interrupted)
        return means

    return run


def _sums(values: list[tf.Tensor]) -> list[tf.Tensor]:
    return [tf.reduce_sum(value) for value in values]


def _compiled(function: Callable, jit: bool) -> Callable:
    return tf.function(function, jit_compile=jit, autograph=False)
