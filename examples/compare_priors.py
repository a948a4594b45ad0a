"""Compares priors on a VAE with two latents, which can be looked at as a map.

Trains one VAE per prior with the same data, networks and seed, evaluates all of them on the same test digits, and draws
where the prior has its density and where the test digits lie. Some minutes:

    python examples/compare_priors.py --picture priors.png
"""

import argparse
import json
import pathlib

import matplotlib.figure
import numpy as np

import tfvamp

PRIORS = ("standard", "mog", "vamp", "flow")
POINTS = 150  # along each axis of a map


def train(prior: str, folder: pathlib.Path, options: argparse.Namespace) -> tfvamp.Run:
    """Trains one VAE, evaluates it, and returns its run."""
    given = {} if prior in ("standard", "exemplar", "flow") else {"components": options.components}
    config = tfvamp.TrainConfig(
        dataset="mnist5k",
        prior=prior,
        latent_dims=2,
        epochs=options.epochs,
        warmup=options.warmup,
        learning_rate=5e-4,
        limit=options.limit,
        **given,
    )
    tfvamp.train(config, folder / prior, overwrite=True)
    tfvamp.evaluate(folder / prior, num_samples=options.samples, refine_steps=options.refine_steps)
    return tfvamp.Run(folder / prior)


def draw_map(axes, run: tfvamp.Run) -> None:
    """Draws the prior's density, and the posterior means of the test digits in the colour of their label."""
    images, labels = run.dataset().test.array()
    means = run.model().encoder(images).mean().numpy()
    low, high = means.min(axis=0) - 1.0, means.max(axis=0) + 1.0
    x, y = (np.linspace(start, stop, POINTS) for start, stop in zip(low, high, strict=True))
    grid = np.stack(np.meshgrid(x, y), axis=-1).astype(np.float32)
    density = np.exp(run.model().prior.log_prob(grid).numpy())
    axes.contourf(
        x, y, np.sqrt(density), levels=14, cmap="Greys", alpha=0.8
    )  # the root shows thin parts, too
    axes.scatter(*means.T, s=5, c=labels, cmap="tab10", linewidths=0)
    axes.set_title(run.config.prior)
    axes.set(xticks=[], yticks=[])


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--priors", nargs="+", choices=PRIORS, default=PRIORS)
    parser.add_argument("--components", type=int, default=100)
    parser.add_argument("--epochs", type=int, default=60)
    parser.add_argument("--warmup", type=int, default=15)
    parser.add_argument("--samples", type=int, default=1000, help="importance samples per image")
    parser.add_argument(
        "--refine-steps", type=int, default=300, help="gradient steps of the refined proposals"
    )
    parser.add_argument("--limit", type=int, help="maximum number of images of each split")
    parser.add_argument("--runs", default="runs/priors-2d", help="folder of the runs")
    parser.add_argument("--picture", help="file for the maps, a .png")
    options = parser.parse_args()

    runs = [train(prior, pathlib.Path(options.runs), options) for prior in options.priors]
    results = {}
    for run in runs:
        result = run.evaluation()
        results[run.config.prior] = {
            "log_likelihood": round(result["log_likelihood"], 2),
            "standard_error": round(result["standard_error"], 2),
            "encoder_log_likelihood": round(result["encoder"]["log_likelihood"], 2),
            "kl": round(result["encoder"]["kl"], 2),
        }
    print(json.dumps(results, indent=1))
    if options.picture:
        columns = min(2, len(runs))
        rows = -(-len(runs) // columns)
        figure = matplotlib.figure.Figure(figsize=(4.5 * columns, 4.5 * rows), layout="constrained")
        for axes, run in zip(figure.subplots(rows, columns, squeeze=False).flat, runs, strict=False):
            draw_map(axes, run)
        figure.savefig(options.picture, dpi=80)


if __name__ == "__main__":
    main()
