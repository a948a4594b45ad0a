"""Refined proposals and annealed importance sampling of an image (K = 500): tfvamp, op by op, bare products."""

from __future__ import annotations

import click
from harness import Worker, interleave, report

GRADIENTS = {"refinement": 300 * 4, "ais": 1000 * 10 * (16 + 4)}  # of an image
AT_ONCE = {"refinement": 400, "ais": 1600}  # latents


@click.command()
@click.option("--quick", is_flag=True, help="Two rounds of few steps, for a look; keeps nothing.")
def main(quick):
    """Prints times and ratios; keeps them in docs/performance.json and docs/performance.md."""
    rounds, repeat = (2, 2) if quick else (5, 5)
    ours, bare = Worker("tfvamp", "worker_tfvamp.py"), Worker("bare", "worker_tfvamp.py")
    tasks = {
        "refinement": [("tfvamp", {"name": "refinement", "steps": 10 * repeat})],
        "ais": [
            ("tfvamp", {"name": "ais", "repeat": repeat, "eager": False}),
            ("the same moves op by op", {"name": "ais", "repeat": 1, "eager": True}),
        ],
    }
    titles = {"refinement": "Refined proposal", "ais": "Annealed importance sampling"}
    units = {
        "refinement": "one image, 300 steps of 4 latents, K = 500",
        "ais": "one image, 16 chains of 1000 temperatures and 10 leapfrogs, K = 500",
    }
    for name, entries in tasks.items():
        products = {"name": "bare", "shapes": "gradients", "M": AT_ONCE[name], "repeat": 5 * repeat}
        medians = interleave(
            [*((label, ours, task) for label, task in entries), ("bare", bare, products)], rounds
        )
        medians["bare matrix products, TensorFlow with XLA"] = (
            medians.pop("bare") * GRADIENTS[name] / AT_ONCE[name]
        )
        report(titles[name], medians, "tfvamp", rounds, units[name], keep=not quick)


if __name__ == "__main__":
    main()
