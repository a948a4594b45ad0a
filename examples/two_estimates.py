"""Compares the customary and the refined log-likelihood of runs that were evaluated on the same test images.

Reads the results that `tfvamp reproduce --archive` keeps, prints the means and the paired differences to the first run as
JSON, and draws both estimates of each run, and their difference for each image:

    python examples/two_estimates.py docs/results/caltech101-vae-*.json --picture estimates.png
"""

import argparse
import json
import pathlib

import matplotlib.figure
import numpy as np

NAMES = {"encoder": "encoder_log_likelihood", "refined": "log_likelihood"}


def read(path: str) -> dict[str, np.ndarray]:
    """Returns both estimates of log p(x) for each test image, [N] in nats."""
    images = json.loads(pathlib.Path(path).read_text())["images"]
    return {name: np.array(images[key]) for name, key in NAMES.items()}


def title_of(path: str) -> str:
    """Returns "VAE, vamp" for the file of such a run."""
    result = json.loads(pathlib.Path(path).read_text())
    model = "HVAE" if "-hvae-" in pathlib.Path(path).name else "VAE"
    return f"{model}, {result['prior']}"


def summary(runs: dict[str, dict[str, np.ndarray]]) -> dict[str, dict[str, float]]:
    """Returns the means of each run, and its mean difference to the first one with the error over images."""
    first, rows = next(iter(runs.values())), {}
    for title, estimates in runs.items():
        row = {name: float(values.mean()) for name, values in estimates.items()}
        for name, values in estimates.items():
            difference = values - first[name]
            row[f"{name}_difference"] = float(difference.mean())
            row[f"{name}_difference_error"] = float(difference.std(ddof=1) / np.sqrt(len(difference)))
        rows[title] = row
    return rows


def draw(path: str, runs: dict[str, dict[str, np.ndarray]]) -> None:
    """Draws the means of both estimates, and a histogram of their difference for the worst and the best run."""
    runs = dict(sorted(runs.items(), key=lambda item: item[1]["refined"].mean()))
    figure = matplotlib.figure.Figure(figsize=(9.5, 0.42 * len(runs) + 1.6), layout="constrained")
    left, right = figure.subplots(1, 2, width_ratios=(3, 2))
    for row, estimates in enumerate(runs.values()):
        encoder, refined = estimates["encoder"].mean(), estimates["refined"].mean()
        left.plot([encoder, refined], [row, row], color="0.75", zorder=1)
        left.scatter(encoder, row, color="C1", label="encoder's q (customary)" if row == 0 else None)
        left.scatter(refined, row, color="C0", label="refined q" if row == 0 else None)
        left.annotate(
            f"{refined - encoder:.1f}", ((encoder + refined) / 2, row + 0.08), ha="center", fontsize=8
        )
    left.set_yticks(range(len(runs)), list(runs))
    left.set(xlabel="mean log-likelihood of the test images, nats", ylim=(-0.6, len(runs) - 0.2))
    left.locator_params(axis="x", nbins=6)
    left.legend(loc="upper left", fontsize=8)
    titles = list(runs)
    ends = {title: runs[title]["refined"] - runs[title]["encoder"] for title in (titles[0], titles[-1])}
    bins = np.linspace(0.0, np.quantile(np.concatenate(list(ends.values())), 0.995), 50)
    for title, gains in ends.items():
        right.hist(np.clip(gains, bins[0], bins[-1]), bins, histtype="step", label=title)
    right.set(xlabel="refined minus customary, nats per image", ylabel="test images")
    right.legend(fontsize=8)
    figure.savefig(path, dpi=110)


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "results", nargs="+", help="files of `tfvamp reproduce --archive`, all of the same images"
    )
    parser.add_argument("--picture", help="file for the figure, a .png")
    options = parser.parse_args()

    runs = {title_of(path): read(path) for path in options.results}
    if options.picture:
        draw(options.picture, runs)
    print(json.dumps(summary(runs), indent=1))


if __name__ == "__main__":
    main()
