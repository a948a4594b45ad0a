"""Several steps in one program: the results of single steps, whatever the pace; the step of a NaN is known."""

import numpy as np
import tensorflow as tf

from tests.small import small_vae
from tfvamp.optimizers import NormalizedAdam
from tfvamp.training import checkpoints, stretches


class Clock:
    """A clock for `stretches`, on which every call takes as long as it is told."""

    def __init__(self, seconds: float):
        self.now, self.seconds = 0.0, seconds

    def perf_counter(self) -> float:
        self.now += self.seconds
        return self.now


def batches(sizes: list[int]) -> list[dict[str, tf.Tensor]]:
    rng = np.random.default_rng(0)
    return [
        {
            "image": tf.constant(rng.integers(0, 2, (size, 6, 5, 1)), tf.float32),
            "index": tf.constant(rng.integers(0, 5, size), tf.int32),
        }
        for size in sizes
    ]


def state_of(model) -> list[np.ndarray]:
    return [one.copy() for one in checkpoints.state(model)]


def test_the_pace_changes_nothing(monkeypatch):
    """Weights, moments and means are those of single calls of the same program, bit for bit, in parts of an epoch, too."""
    model = small_vae("exemplar")
    model.compile(optimizer=NormalizedAdam(1e-2))
    model.optimizer.build(model.trainable_variables)
    first = state_of(model)
    epoch = batches([4] * 9 + [3])
    found, pace = {}, stretches.Pace()
    monkeypatch.setattr(pace, "took", lambda *_: None)
    run = stretches.several(model.train_step, model.means(), pace=pace)
    for name, at_once, parts in (
        ("one by one", 1, [epoch]),
        ("three in a call", 3, [epoch]),
        ("all in a call", 16, [epoch]),
        ("resumed", 16, [epoch[:6], epoch[6:]]),
    ):
        for variable, value in zip(checkpoints.variables(model), first, strict=True):
            variable.assign(value)
        pace.at_once = at_once
        counts = []
        for part in parts:
            for taken in run(part):
                counts.append(taken.steps)
                assert int(taken.results["steps"]) == taken.steps
        found[name] = counts, state_of(model)
    assert {name: counts for name, (counts, _) in found.items()} == {
        "one by one": [1] * 10,
        "three in a call": [3, 3, 3, 1],
        "all in a call": [9, 1],
        "resumed": [6, 3, 1],
    }
    for _, state in found.values():
        for one, other in zip(state, found["one by one"][1], strict=True):
            np.testing.assert_array_equal(one, other)
    # And single steps outside of a loop, which XLA may round otherwise.
    for variable, value in zip(checkpoints.variables(model), first, strict=True):
        variable.assign(value)
    for images in epoch:
        model.train_step(images)
    for one, other in zip(state_of(model), found["one by one"][1], strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-3, atol=2e-5)


def test_a_loss_that_is_nan_ends_a_call(monkeypatch):
    """At its step; nothing is computed after it."""
    calls = tf.Variable(0)

    def step(images):
        calls.assign_add(1)
        return {"loss": tf.where(calls == 5, np.nan, tf.reduce_sum(images))}

    run = stretches.several(step, ["loss"])
    monkeypatch.setattr(stretches, "time", Clock(1e-9))
    assert [one.steps for one in run([tf.ones([2])] * 2 + [tf.ones([3])])] == [1, 1, 1]
    (taken,) = run([tf.ones([2])] * 8)
    assert taken.steps == 8 and int(taken.results["steps"]) == 2
    assert np.isnan(float(taken.results["loss"])) and int(calls) == 5


def test_large_batches_and_slow_steps_come_alone(monkeypatch):
    monkeypatch.setattr(stretches, "LARGEST", 5 * 4 * 100)
    assert stretches._most(tf.zeros([10, 10])) == 5
    assert stretches._most({"image": tf.zeros([1000]), "index": tf.zeros([4])}) == 1
    pace = stretches.Pace()
    for seconds, at_once in ((1e-9, 1), (1e-9, 1), (1e-9, 16), (10.0, 1), (stretches.SECONDS / 4, 4)):
        pace.took(1, seconds, 16)
        assert pace.at_once == at_once
