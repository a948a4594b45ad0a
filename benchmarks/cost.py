"""How time and memory of a log-likelihood grow with samples, images and components: a figure and a table."""

from __future__ import annotations

import json
import pathlib
import resource
import subprocess
import sys
import time

import click
from harness import RESULTS, SIZES

FIGURE = RESULTS.parent / "figures" / "cost.png"
REPEATS = 3
BASE = {"samples": SIZES["S"], "images": 16, "components": SIZES["K"]}
VARIED = {
    "samples": (625, 1250, 2500, 5000, 10_000, 20_000),
    "images": (4, 8, 16, 32, 64),
    "components": (125, 250, 500, 1000, 2000, 4000),
}


def measure(samples: int, images: int, components: int) -> dict[str, float]:
    """Seconds of an evaluation, and the MiB by which the process's peak is above what it had before."""
    import numpy as np

    import tfvamp

    model = tfvamp.models.VAE(
        event_shape=(28, 28, 1), latent_dims=SIZES["D"], hidden_units=SIZES["H"], components=components
    )
    x = np.random.default_rng(0).integers(0, 2, (images, 28, 28, 1)).astype(np.float32)

    def evaluate() -> float:
        start = time.perf_counter()
        tfvamp.log_likelihood(model, x, samples, proposal="encoder")
        return time.perf_counter() - start

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    evaluate()  # is traced
    seconds = sorted(evaluate() for _ in range(REPEATS))[REPEATS // 2]
    return {
        "seconds": seconds,
        "mebibytes": (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024,
    }


def in_a_process(sizes: dict[str, int]) -> dict[str, float]:
    """`measure` in a process of its own, whose peak of memory is its own."""
    command = [sys.executable, __file__, "--worker", json.dumps(sizes)]
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def draw(found: dict[str, list[dict[str, float]]], path: pathlib.Path) -> None:
    """Time and memory against each size, both axes logarithmic, beside a line of slope one."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import NullLocator, ScalarFormatter

    figure = Figure(figsize=(9.6, 5.2), layout="constrained")
    for column, (name, rows) in enumerate(found.items()):
        sizes = [row[name] for row in rows]
        for place, key, label in ((0, "seconds", "seconds"), (1, "mebibytes", "MiB above the start")):
            axes = figure.add_subplot(2, 3, 1 + column + 3 * place)
            axes.loglog(sizes, [row[key] for row in rows], "o-", color="#0b6e6e")
            if key == "seconds":
                middle = rows[len(rows) // 2]
                line = [middle[key] * size / middle[name] for size in sizes]
                axes.loglog(sizes, line, ":", color="0.5", label="linear")
                axes.set_ylim(0.2, 20)
                axes.legend(frameon=False)
            else:
                axes.set_ylim(10, 10_000)
                axes.set_xlabel(name)
            if column == 0:
                axes.set_ylabel(label)
            axes.spines[["top", "right"]].set_visible(False)
            axes.set_xticks(sizes, [f"{size:,}" for size in sizes])
            axes.xaxis.set_minor_locator(NullLocator())
            axes.yaxis.set_major_formatter(ScalarFormatter())
            axes.yaxis.set_minor_locator(NullLocator())
            axes.tick_params(axis="x", rotation=30)
    figure.savefig(path, dpi=110)


@click.command()
@click.option("--quick", is_flag=True, help="Two sizes of each, for a look; keeps nothing.")
@click.option("--worker", hidden=True)
def main(quick, worker):
    """Prints time and memory for each size, and keeps docs/figures/cost.png and docs/cost.json."""
    if worker:
        print(json.dumps(measure(**json.loads(worker))))
        return
    found: dict[str, list[dict[str, float]]] = {}
    for name, values in VARIED.items():
        found[name] = []
        for value in values[:: len(values) - 1] if quick else values:
            sizes = {**BASE, name: value}
            row = {**sizes, **in_a_process(sizes)}
            found[name].append(row)
            print(f"{name} {value:>6}: {row['seconds']:8.2f} s  {row['mebibytes']:7.0f} MiB", flush=True)
    if quick:
        return
    draw(found, FIGURE)
    (RESULTS.parent / "cost.json").write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
