"""Trains and evaluates the runs behind docs/results.md, those that are missing, and writes its table.

Uses the command line as a user would. A run that was interrupted is resumed.
"""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys

import click
import numpy as np

DOCS = pathlib.Path(__file__).parent.parent / "docs"
RUNS = {"vae": ("standard", "mog", "vamp-data", "vamp-weighted", "vamp"), "hvae": ("standard", "vamp")}
# Tomczak and Welling (2018), Table 1, Caltech 101.
PAPER = {
    "vae": {"standard": -123.43, "vamp": -114.55},
    "hvae": {"standard": -112.08, "vamp": -108.28},
}


def tfvamp(*arguments: str) -> None:
    """Runs a command of tfvamp."""
    subprocess.run([sys.executable, "-m", "tfvamp_cli.main", *arguments], check=True)


def finish(
    run: pathlib.Path, model: str, prior: str, folders: list[str], samples: int, learning_rate: float
) -> None:
    """Trains and evaluates a run as far as it is not."""
    if not (run / "config.json").is_file():
        settings = ["--dataset", "caltech101", "--model", model, "--prior", prior]
        settings += ["--learning-rate", str(learning_rate)]
        tfvamp("train", *settings, "--run-dir", str(run), *folders)
    elif not (run / "evaluation.json").is_file():
        tfvamp("train", "--resume", str(run))
    if not (run / "evaluation.json").is_file():
        tfvamp("evaluate", str(run), "--samples", str(samples), *folders)


def entry(run: pathlib.Path) -> dict:
    """What results.json keeps of a run."""
    config = json.loads((run / "config.json").read_text())
    rows = [line.split(",") for line in (run / "history.csv").read_text().splitlines()]
    history = [dict(zip(rows[0], map(float, row), strict=True)) for row in rows[1:]]
    best = max(history, key=lambda row: row["val_elbo"])
    evaluation = json.loads((run / "evaluation.json").read_text())
    return {
        "prior": config["settings"]["prior"],
        "learning_rate": config["settings"]["learning_rate"],
        "seed": config["settings"]["seed"],
        "epochs": len(history),
        "best_epoch": int(best["epoch"]),
        "validation_elbo": best["val_elbo"],
        "minutes": sum(row["seconds"] for row in history) / 60.0,
        "evaluation": evaluation,
        "versions": config["versions"],
    }


def paired(run: pathlib.Path, reference: pathlib.Path) -> dict[str, float]:
    """Mean and standard error of log p(x) of the reference minus that of the run, image by image."""
    with np.load(run / "log_likelihood.npz") as a, np.load(reference / "log_likelihood.npz") as b:
        difference = b["log_likelihood"] - a["log_likelihood"]
    return {
        "mean": float(difference.mean()),
        "standard_error": float(difference.std(ddof=1) / len(difference) ** 0.5),
    }


def table(entries: list[dict], paper: dict[str, float]):
    """The lines of the Markdown table."""
    yield "| prior | test log-likelihood | standard error | Monte Carlo error | vamp minus this, paired | paper | test ELBO | KL | active units | epochs (best) | minutes | validation ELBO |"
    yield "|---|---|---|---|---|---|---|---|---|---|---|---|"
    for e in entries:
        v = e["evaluation"]
        p = e["vamp_minus_this"]
        difference = "" if e["prior"] == "vamp" else f"{p['mean']:.2f} +- {p['standard_error']:.2f}"
        published = f"{paper[e['prior']]:.2f}" if e["prior"] in paper else ""
        yield (
            f"| {e['prior']} | {v['log_likelihood']:.2f} | {v['standard_error']:.2f} | {v['monte_carlo_error']:.3f} "
            f"| {difference} | {published} | {v['elbo']:.2f} | {by_layer(v, 'kl')} | {by_layer(v, 'active_units')} "
            f"| {e['epochs']} ({e['best_epoch']}) | {e['minutes']:.1f} | {e['validation_elbo']:.2f} |"
        )


def by_layer(evaluation: dict, name: str) -> str:
    """The KL or the active units, of each stochastic layer where there are several."""
    layers = evaluation["active_units"] if isinstance(evaluation["active_units"], dict) else {}
    if name == "active_units":
        return ", ".join(f"{layer} {count}" for layer, count in layers.items()) or str(evaluation[name])
    parts = ", ".join(f"{layer} {evaluation[f'kl_{layer}']:.2f}" for layer in layers)
    return f"{evaluation[name]:.2f}" + (f" ({parts})" if parts else "")


@click.command()
@click.option("--run-root", default="runs/results", show_default=True, help="Where the run folders are.")
@click.option("--data-dir", help="Prepared data.")
@click.option("--raw-dir", help="The folder with the Caltech file.")
@click.option("--samples", default=5000, show_default=True, help="Importance samples an image.")
@click.option("--learning-rate", default=1e-4, show_default=True)
def main(run_root, data_dir, raw_dir, samples, learning_rate):
    """Trains and evaluates the runs of docs/results.md on Caltech 101 (about two hours on 2 cores)."""
    folders = [*(["--data-dir", data_dir] if data_dir else []), *(["--raw-dir", raw_dir] if raw_dir else [])]
    document, page = {}, DOCS / "results.md"
    for model, priors in RUNS.items():
        runs = {prior: pathlib.Path(run_root) / f"{model}-{prior}" for prior in priors}
        for prior, run in runs.items():
            finish(run, model, prior, folders, samples, learning_rate)
        entries = [entry(run) | {"vamp_minus_this": paired(run, runs["vamp"])} for run in runs.values()]
        document[f"caltech101, {model}"] = entries
        before, start, rest = page.read_text().partition(f"<!-- table {model} -->\n")
        _, end, after = rest.partition(f"<!-- end of table {model} -->\n")
        page.write_text(before + start + "\n".join(table(entries, PAPER[model])) + "\n" + end + after)
    (DOCS / "results.json").write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
