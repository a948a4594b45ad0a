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
    task = {"name": "log_likelihood", "repeat": repeat}
    of_peer = [
        (
            f"pythae VAMP, get_nll in batches of {size}",
            peer,
            {**task, "batch_size": size, "repeat": max(1, repeat // 3)},
        )
        for size in (100, 500)
    ]
    for title, name, model, shapes, others in (
        ("Log-likelihood", "tfvamp", "vae", "log_likelihood", of_peer),
        ("Log-likelihood of the HVAE", "tfvamp, HVAE", "hvae", "hvae_log_likelihood", []),
    ):
        bare = {"name": "bare", "shapes": shapes, "repeat": repeat}
        entries = [
            (name, ours, {**task, "model": model}),
            *others,
            ("bare matrix products, TensorFlow with XLA", ours, bare),
            ("bare matrix products, NumPy", numpy, bare),
        ]
        medians = interleave(entries, rounds)
        report(title, medians, name, rounds, "one image, S = 5000, K = 500", keep=not quick)


if __name__ == "__main__":
    main()
