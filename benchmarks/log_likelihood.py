"""The importance-sampled log-likelihood of an image (S = 5000, K = 500): VAE and HVAE, pythae, bare products."""

from __future__ import annotations

import click
from harness import PEER_PYTHON, Worker, interleave, report


@click.command()
@click.option("--quick", is_flag=True, help="Two rounds of few images, for a look; keeps nothing.")
def main(quick):
    """Prints times and ratios; keeps them in docs/performance.json and docs/performance.md."""
    rounds, repeat = (2, 2) if quick else (5, 10)
    ours, numpy = Worker("tfvamp", "worker_tfvamp.py"), Worker("numpy", "worker_numpy.py")
    peer = Worker("pythae", "worker_pythae.py", PEER_PYTHON)
    task, bare = (
        {"name": "log_likelihood", "repeat": repeat},
        {"name": "bare", "shapes": "log_likelihood", "repeat": repeat},
    )
    entries = [
        ("tfvamp", ours, task),
        (
            "pythae VAMP, get_nll in batches of 100",
            peer,
            {**task, "batch_size": 100, "repeat": max(1, repeat // 3)},
        ),
        (
            "pythae VAMP, get_nll in batches of 500",
            peer,
            {**task, "batch_size": 500, "repeat": max(1, repeat // 3)},
        ),
        ("bare matrix products, TensorFlow with XLA", ours, bare),
        ("bare matrix products, NumPy", numpy, bare),
    ]
    report(
        "Log-likelihood",
        interleave(entries, rounds),
        "tfvamp",
        rounds,
        "one image, S = 5000, K = 500",
        keep=not quick,
    )
    task, bare = {**task, "model": "hvae"}, {**bare, "shapes": "hvae_log_likelihood"}
    entries = [
        ("tfvamp, HVAE", ours, task),
        ("bare matrix products, TensorFlow with XLA", ours, bare),
        ("bare matrix products, NumPy", numpy, bare),
    ]
    report(
        "Log-likelihood of the HVAE",
        interleave(entries, rounds),
        "tfvamp, HVAE",
        rounds,
        "one image, S = 5000, K = 500",
        keep=not quick,
    )


if __name__ == "__main__":
    main()
