"""Training steps, several of them in one call of a compiled program."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import tensorflow as tf

from tfvamp.graph import compiled

MOST = 16  # steps in one call
LARGEST = 2**26  # bytes of their batches
SECONDS = 0.25  # duration of a call, so that a signal or a checkpoint does not wait for long

Results = dict[str, tf.Tensor]


class Taken(NamedTuple):
    """The result of steps.

    Attributes:
      steps: number of steps.
      results: the running means of the epoch after the last step. With several steps in a call,
        also "steps", the number of steps taken, which is smaller if the loss of the last of these
        is NaN or infinite.
    """

    steps: int
    results: Results


Stretches = Callable[[Iterable[Any]], Iterator[Taken]]


def one_by_one(step: Callable[[Any], Results]) -> Stretches:
    """Returns the steps of an epoch, made from a single step: one in each call."""

    def taken(batches: Iterable[Any]) -> Iterator[Taken]:
        for images in batches:
            yield Taken(1, step(images))

    return taken


class Pace:
    """The number of steps that the next call takes.

    Attributes:
      at_once: this number.
    """

    def __init__(self):
        self.at_once = 1
        self._calls = 0

    def took(self, count: int, seconds: float, most: int) -> None:
        """Records how long the last call took; the first call compiles, and the second one may wait for that."""
        self._calls += 1
        if self._calls > 2:
            self.at_once = min(most, max(1, int(SECONDS * count / max(seconds, 1e-9))))


def several(
    step: Callable[[Any], Results],
    names: Iterable[str],
    say: Callable[[str], None] = lambda text: None,
    pace: Pace | None = None,
) -> Stretches:
    """Returns the steps of an epoch: in one call, as many as take a quarter of a second, at most 16.

    A call of an XLA program starts it and copies weights. On a CPU, this takes a tenth of the time
    of a step of the paper's networks. A step computes the same whether it is the first or the last
    one of a call, so that neither the pace nor a resumption changes a result.

    Args:
      step: a function from a batch to the running means of the epoch, "loss" among them.
      names: names of these means.
      say: a function that gets one line of text when XLA is given up.
      pace: the number of steps in a call; None for one that measures them.
    """
    names, pace = list(names), pace or Pace()

    def steps(batches: Any, count: tf.Tensor) -> Results:
        def goes_on(index: tf.Tensor, results: Results) -> tf.Tensor:
            return (index < count) & tf.math.is_finite(results["loss"])

        def body(index: tf.Tensor, _: Results) -> tuple[tf.Tensor, Results]:
            return index + 1, step(tf.nest.map_structure(lambda one: one[index], batches))

        index, results = tf.while_loop(goes_on, body, (tf.constant(0), dict.fromkeys(names, tf.zeros([]))))
        return {**results, "steps": index}

    run = compiled(steps, True, say)

    def taken(batches: Iterable[Any]) -> Iterator[Taken]:
        start = time.perf_counter()
        for chosen in _alike(batches, pace):
            most, count = _most(chosen[0]), len(chosen)
            padded = [*chosen, *[tf.nest.map_structure(tf.zeros_like, chosen[0])] * (most - count)]
            stacked = tf.nest.map_structure(lambda *ones: tf.stack(ones), *padded)
            yield Taken(count, run(stacked, tf.constant(count)))
            end = time.perf_counter()
            pace.took(count, end - start, most)
            start = end

    return taken


def _most(images: Any) -> int:
    """Returns the maximum number of batches of this size that a program takes."""
    size = sum(one.dtype.size * math.prod(one.shape) for one in tf.nest.flatten(images))
    return max(1, min(MOST, LARGEST // size))


def _alike(batches: Iterable[Any], pace: Pace) -> Iterator[list[Any]]:
    """Yields lists of successive batches of one shape, as many as the pace says at that time."""
    chosen: list[Any] = []
    for images in batches:
        if chosen and (len(chosen) >= pace.at_once or _shapes(images) != _shapes(chosen[0])):
            yield chosen
            chosen = []
        chosen.append(images)
    if chosen:
        yield chosen


def _shapes(images: Any) -> list[tuple[int, ...]]:
    return [tuple(one.shape) for one in tf.nest.flatten(images)]
