"""Time and memory of a train step and of log p(z), prior by prior; and with many components, of which a step takes all or 500."""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import click
from harness import SIZES

STEPS = 7
LATENTS = 5000
CASES: dict[str, dict[str, Any]] = {
    "standard": {"prior": "standard"},
    "mog": {"prior": "mog"},
    "vamp": {"prior": "vamp"},
    "vamp-mixture": {"prior": "vamp-mixture"},
    "exemplar, N = 4100": {"prior": "exemplar", "components": 4100, "pseudo_inputs": "zeros"},
    "the same, 500 per step  ": {
        "prior": "exemplar",
        "components": 4100,
        "components_per_step": 500,
        "pseudo_inputs": "zeros",
    },
    "flow, affine": {"prior": "flow"},
    "flow, spline": {"prior": "flow", "flow_transform": "spline"},
    "flow over vamp": {"prior": "flow", "flow_base": "vamp"},
    "vamp, K = 5000": {"prior": "vamp", "components": 5000},
    "the same, 500 per step": {"prior": "vamp", "components": 5000, "components_per_step": 500},
    "vamp, K = 20000": {"prior": "vamp", "components": 20_000},
    "the same, 500 per step ": {"prior": "vamp", "components": 20_000, "components_per_step": 500},
}


def timed(call: Callable[[], Any]) -> float:
    """The median of several calls in milliseconds, after one that compiles."""
    call()
    times = []
    for _ in range(STEPS):
        start = time.perf_counter()
        call()
        times.append(time.perf_counter() - start)
    return 1000 * statistics.median(times)


def measure(settings: dict[str, Any]) -> dict[str, float]:
    """Milliseconds of a step of 100 images and of log p(z) of 5000 latents, and the MiB by which the peak is above the built model's."""
    import keras
    import numpy as np
    import tensorflow as tf

    from tfvamp.models import VAE
    from tfvamp.optimizers import NormalizedAdam

    keras.utils.set_random_seed(0)
    model = VAE((28, 28, 1), SIZES["D"], SIZES["H"], **{"components": SIZES["K"], **settings})
    model.compile(optimizer=NormalizedAdam(1e-4))
    model.optimizer.build(model.trainable_variables)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    step = tf.function(model.train_step, jit_compile=True, autograph=False)
    images = tf.constant(np.random.default_rng(0).integers(0, 2, (SIZES["B"], 28, 28, 1)).astype(np.float32))
    batch = {"image": images, "index": tf.range(SIZES["B"])} if model.prior.uses_indices else images
    of_step = timed(lambda: float(step(batch)["loss"]))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    prior = model.prior()  # as an evaluation has it: computed once
    log_prob = tf.function(prior.log_prob, autograph=False)
    z = tf.constant(np.random.default_rng(0).normal(size=(LATENTS, SIZES["D"])).astype(np.float32))
    of_density = timed(lambda: log_prob(z).numpy())
    return {"step": of_step, "density": of_density, "mebibytes": (peak - before) / 1024}


@click.command()
@click.option("--worker", hidden=True, help="Measure one case, given by its name.")
def main(worker):
    """Prints a row per prior, with ratios to the VampPrior of 500 components."""
    if worker is not None:
        print(json.dumps(measure(CASES[worker])))
        return
    found = {}
    for name in ("vamp", *(name for name in CASES if name != "vamp")):
        command = [sys.executable, __file__, "--worker", name]
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True
        )
        found[name] = json.loads(done.stdout.splitlines()[-1])
        print(f"measured: {name.strip()}", file=sys.stderr, flush=True)
    first = found["vamp"]
    print(
        f"{'prior':<24}  {'step, ms':>8}  {'ratio':>5}  {'log p(z), ms':>12}  {'ratio':>5}  {'MiB above the model':>20}"
    )
    for name in CASES:
        row = found[name]
        print(
            f"{name:<24}  {row['step']:8.1f}  {row['step'] / first['step']:5.2f}  {row['density']:12.2f}  "
            f"{row['density'] / first['density']:5.2f}  {row['mebibytes']:20.0f}"
        )


if __name__ == "__main__":
    main()
