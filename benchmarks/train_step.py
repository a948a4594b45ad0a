"""A train step of VAE and HVAE + VampPrior (K = 500, batch 100): tfvamp, pythae, the bare matrix products."""

from __future__ import annotations

import click
from harness import PEER_PYTHON, Worker, interleave, report


@click.command()
@click.option("--quick", is_flag=True, help="Two rounds of few steps, for a look; keeps nothing.")
def main(quick):
    """Prints times and ratios; keeps them in docs/performance.json and docs/performance.md."""
    rounds, repeat = (2, 5) if quick else (5, 40)
    ours, numpy = Worker("tfvamp", "worker_tfvamp.py"), Worker("numpy", "worker_numpy.py")
    peer = Worker("pythae", "worker_pythae.py", PEER_PYTHON)
    step, bare = (
        {"name": "train_step", "repeat": repeat},
        {"name": "bare", "shapes": "train_step", "repeat": repeat},
    )
    entries = [
        ("tfvamp", ours, step),
        ("pythae VAMP", peer, step),
        ("bare matrix products, TensorFlow with XLA", ours, bare),
        ("bare matrix products, NumPy", numpy, bare),
    ]
    report(
        "Train step",
        interleave(entries, rounds),
        "tfvamp",
        rounds,
        "a step of 100 images, K = 500",
        keep=not quick,
    )
    step, bare = {**step, "model": "hvae"}, {**bare, "shapes": "hvae_train_step"}
    entries = [
        ("tfvamp, HVAE", ours, step),
        ("bare matrix products, TensorFlow with XLA", ours, bare),
        ("bare matrix products, NumPy", numpy, bare),
    ]
    report(
        "Train step of the HVAE",
        interleave(entries, rounds),
        "tfvamp, HVAE",
        rounds,
        "a step of 100 images, K = 500",
        keep=not quick,
    )


if __name__ == "__main__":
    main()
