"""What a strategy costs on the devices of one machine, and what several steps in one call gain."""

from __future__ import annotations

import sys

import click
from harness import Worker, interleave, report

STEPS = 8  # in one call


@click.command()
@click.option("--quick", is_flag=True, help="Two rounds of few steps, for a look; keeps nothing.")
def main(quick):
    """Prints times and ratios; keeps them in docs/performance.json and docs/performance.md."""
    rounds, repeat = (2, 5) if quick else (5, 40)
    one = Worker("one", "worker_tfvamp.py")
    step = {"name": "train_step", "repeat": repeat}
    several = {"name": "several_steps", "steps": STEPS, "repeat": max(1, repeat // STEPS)}
    entries = [
        ("one device, one step in a call", one, step),
        (f"one device, {STEPS} steps in one call", one, several),
    ]
    for count in (1, 2):
        worker = Worker(f"mirrored, {count}", "worker_tfvamp.py", sys.executable, str(count))
        title = "one device" if count == 1 else f"{count} logical CPUs, which share the cores"
        entries.append(
            (f"--strategy mirrored, {title}", worker, {**step, "name": "strategy_step", "devices": count})
        )
    report(
        "Strategies",
        interleave(entries, rounds),
        "one device, one step in a call",
        rounds,
        "a step of the VAE, 100 images, K = 500",
        keep=not quick,
    )


if __name__ == "__main__":
    main()
