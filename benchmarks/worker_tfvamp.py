"""Times tfvamp, and the bare matrix products of the same shapes in TensorFlow."""

from __future__ import annotations

import sys
import time

import keras
import numpy as np
import products
import tensorflow as tf
from harness import serve

from tfvamp import blocks, evaluation, seeds
from tfvamp.config import Estimation
from tfvamp.evaluation import annealing, proposals, refining
from tfvamp.models import MODELS
from tfvamp.optimizers import NormalizedAdam
from tfvamp.training import replicas, stretches
from tfvamp.training.strategies import Agreement

keras.utils.set_random_seed(0)
_built: dict = {}


def model(sizes):
    kind = sizes.get("model", "vae")
    if kind not in _built:
        _built[kind] = MODELS[kind]((28, 28, 1), sizes["D"], sizes["H"], "vamp", sizes["K"])
    return _built[kind]


def images(count):
    return np.random.default_rng(0).integers(0, 2, (count, 28, 28, 1)).astype(np.float32)


def seconds_of_steps(step, x, repeat):
    """Seconds of a call, after one that compiles."""
    float(step(x)["loss"])
    start = time.perf_counter()
    for _ in range(repeat):
        logs = step(x)
    float(logs["loss"])
    return (time.perf_counter() - start) / repeat


def train_step(sizes):
    """One step: forward, backward, optimiser."""
    chosen = model(sizes)
    key = f"step of {chosen.name}, XLA: {sizes.get('jit', True)}"
    if key not in _built:
        chosen.compile(optimizer=NormalizedAdam(1e-4))
        _built[key] = tf.function(chosen.train_step, jit_compile=sizes.get("jit", True), autograph=False)
    return seconds_of_steps(_built[key], tf.constant(images(sizes["B"])), sizes["repeat"])


class Fixed(stretches.Pace):
    """So many steps in each call."""

    def __init__(self, at_once):
        super().__init__()
        self.at_once = at_once

    def took(self, *_):
        """Changes nothing."""


def several_steps(sizes):
    """One step of training, of `steps` in one call, as `tfvamp train` takes them."""
    chosen = model(sizes)
    if "several steps" not in _built:
        chosen.compile(optimizer=NormalizedAdam(1e-4))
        chosen.optimizer.build(chosen.trainable_variables)
        pace = Fixed(sizes["steps"])
        _built["several steps"] = stretches.several(chosen.train_step, chosen.means(), pace=pace)
    batches = [tf.constant(images(sizes["B"]))] * sizes["steps"]

    def call(_):
        (taken,) = _built["several steps"](batches)
        return taken.results

    return seconds_of_steps(call, None, sizes["repeat"]) / sizes["steps"]


def strategy_step(sizes):
    """One step as `tfvamp train --strategy mirrored` takes it, on `devices` logical CPUs."""
    if "strategy" not in _built:
        device = tf.config.list_logical_devices("CPU")
        strategy = tf.distribute.MirroredStrategy([one.name for one in device[: sizes["devices"]]])
        with strategy.scope():
            chosen = MODELS["vae"]((28, 28, 1), sizes["D"], sizes["H"], "vamp", sizes["K"])
            chosen.compile(optimizer=NormalizedAdam(1e-4))
            chosen.optimizer.build(chosen.trainable_variables)
        agreement = Agreement(lambda: False)
        _built["strategy"] = replicas.train_step(strategy, chosen, True, chosen.objective, agreement)
    return seconds_of_steps(_built["strategy"], tf.constant(images(sizes["B"])), sizes["repeat"])


def log_likelihood(sizes):
    """One image; the first one, which compiles, does not count."""
    ends: list[float] = []
    data = tf.data.Dataset.from_tensor_slices(images(1 + sizes["repeat"]))
    evaluation.log_likelihood(
        model(sizes), data, sizes["S"], advance=lambda *_: ends.append(time.perf_counter())
    )
    return (ends[-1] - ends[0]) / (len(ends) - 1)


def refinement(sizes):
    """An image's proposal in 300 steps, from the second block of images, in as many steps as are timed."""
    how, chosen = Estimation(proposal="refined", refine_steps=sizes["steps"]), model(sizes)
    x = tf.constant(images(200))
    start = proposals.of_encoder(evaluation.encode(chosen, x)[0])
    parts = refining.in_parts(
        chosen, x, start, chosen.prior(), how, 0, {}, lambda text: None, lambda done, total: None
    )
    next(parts).proposal()
    second = next(parts)
    begin = time.perf_counter()
    second.proposal().fit.mixing.numpy()
    return (time.perf_counter() - begin) / len(second.x) * Estimation.refine_steps / sizes["steps"]


def ais(sizes):
    """An image's chains of 1000 temperatures and ten leapfrogs, with the chains that learn step sizes, from some moves."""
    count = blocks.GRADIENT_ROWS // Estimation.chains
    chosen, x = model(sizes), tf.constant(images(count))
    start = proposals.of_encoder(evaluation.encode(chosen, x)[0])
    tf.config.run_functions_eagerly(sizes["eager"])
    run = annealing.programs(chosen, "encoder", Estimation.leapfrogs)
    block = annealing.Block(tf.range(count), x, start, chosen.prior())
    state = run.start(block, seeds.stateless(0), Estimation.chains)
    at = (tf.constant(0.5), tf.fill([count], 0.1), seeds.stateless(1))
    state, _ = run.move(block, state, *at, tf.constant(0))
    begin = time.perf_counter()
    for index in range(sizes["repeat"]):
        state, accepted = run.move(block, state, *at, tf.constant(index + 1))
    accepted.numpy()
    of_move = (time.perf_counter() - begin) / sizes["repeat"] / count
    tf.config.run_functions_eagerly(False)
    return of_move * Estimation.steps * (1 + annealing.PILOTS / Estimation.chains)


def pixel_parts(sizes):
    """A PixelHVAE's decoder, latents [B, D] of both layers, and uniform numbers.

    With moments, scales and shifts as training leaves them, so that the images are neither noise nor blank.
    """
    rng = np.random.default_rng(0)
    for layer in model(sizes).decoder.normalizations:
        layer.gamma.assign(rng.uniform(0.5, 2.0, layer.gamma.shape))
        layer.beta.assign(rng.normal(0.5, 0.3, layer.beta.shape))
        layer.moving_mean.assign(rng.normal(0.0, 0.1, layer.gamma.shape))
        layer.moving_variance.assign(rng.uniform(0.02, 0.2, layer.gamma.shape))
    z = [tf.constant(rng.normal(size=(sizes["B"], sizes["D"])), tf.float32) for _ in range(2)]
    return model(sizes).decoder, z, tf.constant(rng.uniform(size=(sizes["B"], 28, 28, 1)), tf.float32)


def pixel_sampling(sizes):
    """Images drawn with cached features."""
    decoder, z, uniform = pixel_parts(sizes)
    key = f"drawing, XLA: {sizes['jit']}"
    if key not in _built:
        _built[key] = tf.function(
            lambda z2, z1, uniform: decoder(z2, z1).at_uniform(uniform),
            jit_compile=sizes["jit"],
            autograph=False,
        )
    return seconds_of(lambda: _built[key](*z, uniform), sizes["repeat"])


def pixel_passes(sizes):
    """784 passes of the whole network, from `repeat` of them; only the pixel that is drawn is made into a value."""
    decoder, z, uniform = pixel_parts(sizes)
    if "pass" not in _built:
        _built["pass"] = tf.function(
            lambda x, z2, z1, i, j: decoder(z2, z1).pixels(x).distribution.logits[:, i, j], autograph=False
        )
    pixel = tf.constant(14)
    return 784 * seconds_of(lambda: _built["pass"](uniform, *z, pixel, pixel), sizes["repeat"])


def pixel_differences(sizes):
    """How many pixels of drawn images one pass over the images would draw otherwise, except for near ties."""
    decoder, z, uniform = pixel_parts(sizes)
    likelihood = decoder(*z)
    x = likelihood.at_uniform(uniform)
    p = likelihood.pixels(x).distribution.probs_parameter()
    otherwise = (tf.cast(uniform < p, tf.float32) != x) & (tf.abs(uniform - p) > sizes["near"])
    return float(tf.reduce_sum(tf.cast(otherwise, tf.float32)))


def seconds_of(function, repeat):
    function().numpy()
    start = time.perf_counter()
    for _ in range(repeat):
        result = function()
    result.numpy()
    return (time.perf_counter() - start) / repeat


def bare(sizes):
    """The matrix products alone, in one XLA program."""
    shapes = products.TASKS[sizes["shapes"]](sizes)
    key = f"bare {sizes['shapes']}"
    if key not in _built:
        pairs = [(tf.random.normal([m, k]), tf.random.normal([k, n])) for m, k, n in shapes]

        def run(pairs):
            return [tf.matmul(a, b) for a, b in pairs]

        _built[key] = pairs, tf.function(run, jit_compile=True, autograph=False)
    pairs, run = _built[key]
    run(pairs)[-1].numpy()
    start = time.perf_counter()
    for _ in range(sizes["repeat"]):
        results = run(pairs)
    results[-1].numpy()
    return (time.perf_counter() - start) / sizes["repeat"]


if __name__ == "__main__":
    if len(sys.argv) > 1:  # the number of logical CPUs
        parts = [tf.config.LogicalDeviceConfiguration()] * int(sys.argv[1])
        tf.config.set_logical_device_configuration(tf.config.list_physical_devices("CPU")[0], parts)
    serve(
        {
            "train_step": train_step,
            "several_steps": several_steps,
            "strategy_step": strategy_step,
            "log_likelihood": log_likelihood,
            "refinement": refinement,
            "ais": ais,
            "bare": bare,
            "pixel_sampling": pixel_sampling,
            "pixel_passes": pixel_passes,
            "pixel_differences": pixel_differences,
        }
    )
