"""Drawing 64 images of 28x28 from PixelHVAE's decoder: cached features, or the whole network once a pixel."""

from __future__ import annotations

import click
from harness import Worker, interleave, report

IMAGES, NEAR = 64, 1e-5


@click.command()
@click.option("--quick", is_flag=True, help="Two rounds, for a look; keeps nothing.")
def main(quick):
    """Checks that both draw the same images; prints times and ratios and keeps them in docs/performance.*."""
    rounds = 2 if quick else 5
    ours = Worker("tfvamp", "worker_tfvamp.py")
    task = {"B": IMAGES, "model": "pixelhvae"}
    different = ours.seconds({**task, "name": "pixel_differences", "near": NEAR})
    print(f"pixels drawn otherwise, except where |u - p| <= {NEAR:g}: {different:g}")
    if different:
        raise click.ClickException("the two ways do not draw the same images")
    entries = [
        ("tfvamp, cached features", ours, {**task, "name": "pixel_sampling", "jit": False, "repeat": 3}),
        ("the same under XLA", ours, {**task, "name": "pixel_sampling", "jit": True, "repeat": 3}),
        ("784 passes of the whole network", ours, {**task, "name": "pixel_passes", "repeat": 8}),
    ]
    report(
        "Drawing from PixelHVAE",
        interleave(entries, rounds),
        "tfvamp, cached features",
        rounds,
        f"{IMAGES} images of 28x28 (the last row: eight passes, times 98)",
        keep=not quick,
    )


if __name__ == "__main__":
    main()
