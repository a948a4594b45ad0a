"""Time and memory of a train step against the number of components, of which each step takes all or 500."""

from __future__ import annotations

import json
import resource
import statistics
import subprocess
import sys
import time

import click
from harness import SIZES

COMPONENTS = (500, 5000, 20_000)
SOME = 500
STEPS = 5


def measure(components: int, per_step: int | None) -> dict[str, float]:
    """Milliseconds of a step of 100 images, and the MiB by which the process's peak is above the built model's."""
    import keras
    import numpy as np
    import tensorflow as tf

    from tfvamp.models import VAE
    from tfvamp.optimizers import NormalizedAdam

    keras.utils.set_random_seed(0)
    model = VAE((28, 28, 1), SIZES["D"], SIZES["H"], components=components, components_per_step=per_step)
    model.compile(optimizer=NormalizedAdam(1e-4))
    model.optimizer.build(model.trainable_variables)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    step = tf.function(model.train_step, jit_compile=True, autograph=False)
    images = tf.constant(np.random.default_rng(0).integers(0, 2, (SIZES["B"], 28, 28, 1)).astype(np.float32))
    float(step(images)["loss"])
    times = []
    for _ in range(STEPS):
        start = time.perf_counter()
        float(step(images)["loss"])
        times.append(time.perf_counter() - start)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return {"milliseconds": 1000 * statistics.median(times), "mebibytes": (peak - before) / 1024}


@click.command()
@click.option("--worker", hidden=True, help="Measure one case, given as JSON.")
def main(worker):
    """Prints a row per number of components."""
    if worker is not None:
        print(json.dumps(measure(*json.loads(worker))))
        return
    print(f"{'K':>6}  {'per step':>8}  {'ms':>8}  {'MiB above the model':>20}")
    for components in COMPONENTS:
        for per_step in (None, SOME) if components > SOME else (None,):
            command = [sys.executable, __file__, "--worker", json.dumps([components, per_step])]
            done = subprocess.run(
                command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True
            )
            found = json.loads(done.stdout.splitlines()[-1])
            print(
                f"{components:>6}  {per_step or 'all':>8}  {found['milliseconds']:8.1f}  {found['mebibytes']:20.0f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
