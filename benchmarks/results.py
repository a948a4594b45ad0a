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
PRIORS = ("standard", "mog", "vamp-data", "vamp-weighted", "vamp")
PAPER = {"standard": -123.43, "vamp": -114.55}  # Tomczak and Welling (2018), Table 1, VAE on Caltech 101


def tfvamp(*arguments: str) -> None:
    """Runs a command of tfvamp."""
    subprocess.run([sys.executable, "-m", "tfvamp_cli.main", *arguments], check=True)


def finish(run: pathlib.Path, prior: str, folders: list[str], samples: int, learning_rate: float) -> None:
    """Trains and evaluates a run as far as it is not."""
    if not (run / "config.json").is_file():
        settings = ["--dataset", "caltech101", "--prior", prior, "--learning-rate", str(learning_rate)]
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


def table(entries: list[dict]):
    """The lines of the Markdown table."""
    yield "| prior | test log-likelihood | standard error | Monte Carlo error | vamp minus this, paired | paper | test ELBO | KL | active units | epochs (best) | minutes | validation ELBO |"
    yield "|---|---|---|---|---|---|---|---|---|---|---|---|"
    for e in entries:
        v = e["evaluation"]
        p = e["vamp_minus_this"]
        difference = "" if e["prior"] == "vamp" else f"{p['mean']:.2f} +- {p['standard_error']:.2f}"
        paper = f"{PAPER[e['prior']]:.2f}" if e["prior"] in PAPER else ""
        yield (
            f"| {e['prior']} | {v['log_likelihood']:.2f} | {v['standard_error']:.2f} | {v['monte_carlo_error']:.3f} "
            f"| {difference} | {paper} | {v['elbo']:.2f} | {v['kl']:.2f} | {v['active_units']} "
            f"| {e['epochs']} ({e['best_epoch']}) | {e['minutes']:.1f} | {e['validation_elbo']:.2f} |"
        )


@click.command()
@click.option("--run-root", default="runs/results", show_default=True, help="Where the run folders are.")
@click.option("--data-dir", help="Prepared data.")
@click.option("--raw-dir", help="The folder with the Caltech file.")
@click.option("--samples", default=5000, show_default=True, help="Importance samples an image.")
@click.option("--learning-rate", default=1e-4, show_default=True)
def main(run_root, data_dir, raw_dir, samples, learning_rate):
    """Trains and evaluates all five priors on Caltech 101 (about an hour on 2 cores)."""
    folders = [*(["--data-dir", data_dir] if data_dir else []), *(["--raw-dir", raw_dir] if raw_dir else [])]
    entries = []
    for prior in PRIORS:
        run = pathlib.Path(run_root) / prior
        finish(run, prior, folders, samples, learning_rate)
        entries.append(entry(run))
    for e in entries:
        root = pathlib.Path(run_root)
        e["vamp_minus_this"] = paired(root / e["prior"], root / "vamp")
    (DOCS / "results.json").write_text(json.dumps({"caltech101, vae": entries}, indent=2) + "\n")
    page = DOCS / "results.md"
    before, start, rest = page.read_text().partition("<!-- table -->\n")
    _, end, after = rest.partition("<!-- end of table -->\n")
    page.write_text(before + start + "\n".join(table(entries)) + "\n" + end + after)


if __name__ == "__main__":
    main()
