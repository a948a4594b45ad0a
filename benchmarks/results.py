"""Trains and evaluates the runs behind docs/results.md, those that are missing, and writes its tables.

Uses the command line as a user would. A run that was interrupted is resumed.
"""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys
from typing import NamedTuple

import click
import numpy as np

DOCS = pathlib.Path(__file__).parent.parent / "docs"
FIVE, TWO = ("standard", "mog", "vamp-data", "vamp-weighted", "vamp"), ("standard", "vamp")


class Table(NamedTuple):
    """The runs of one table, and the paper's numbers: Tomczak and Welling (2018), Table 1."""

    dataset: str
    model: str
    priors: tuple[str, ...]
    learning_rate: float
    paper: dict[str, float]
    unit: str = "log_likelihood"


TABLES = {
    "vae": Table("caltech101", "vae", FIVE, 1e-4, {"standard": -123.43, "vamp": -114.55}),
    "hvae": Table("caltech101", "hvae", TWO, 1e-4, {"standard": -112.08, "vamp": -108.28}),
    "frey-vae": Table("frey_faces", "vae", TWO, 5e-4, {"standard": 4.63, "vamp": 4.57}, "bits_per_dim"),
    "frey-hvae": Table("frey_faces", "hvae", TWO, 5e-4, {"standard": 4.61, "vamp": 4.51}, "bits_per_dim"),
}


def tfvamp(*arguments: str) -> None:
    """Runs a command of tfvamp."""
    subprocess.run([sys.executable, "-m", "tfvamp_cli.main", *arguments], check=True)


def finish(run: pathlib.Path, table: Table, prior: str, folders: list[str], samples: int) -> None:
    """Trains and evaluates a run as far as it is not."""
    if not (run / "config.json").is_file():
        settings = ["--dataset", table.dataset, "--model", table.model, "--prior", prior]
        settings += ["--learning-rate", str(table.learning_rate)]
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


def lines(entries: list[dict], table: Table):
    """The lines of the Markdown table, with bits per dimension where the paper gives those."""
    bits = table.unit == "bits_per_dim"
    names = ["prior", *(["bits per dimension"] if bits else []), "test log-likelihood", "standard error"]
    names += [
        "Monte Carlo error",
        "vamp minus this, paired",
        "paper (bits)" if bits else "paper",
        "test ELBO",
        "KL",
    ]
    names += ["active units", "epochs (best)", "minutes", "validation ELBO"]
    yield f"| {' | '.join(names)} |"
    yield "|" + "---|" * len(names)
    for e in entries:
        v, p = e["evaluation"], e["vamp_minus_this"]
        cells = [e["prior"], *([f"{v['bits_per_dim']:.3f}"] if bits else [])]
        cells += [f"{v['log_likelihood']:.2f}", f"{v['standard_error']:.2f}", f"{v['monte_carlo_error']:.3f}"]
        cells += ["" if e["prior"] == "vamp" else f"{p['mean']:.2f} +- {p['standard_error']:.2f}"]
        cells += [f"{table.paper[e['prior']]:.2f}" if e["prior"] in table.paper else ""]
        cells += [f"{v['elbo']:.2f}", by_layer(v, "kl"), by_layer(v, "active_units")]
        cells += [f"{e['epochs']} ({e['best_epoch']})", f"{e['minutes']:.1f}", f"{e['validation_elbo']:.2f}"]
        yield f"| {' | '.join(cells)} |"


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
@click.option("--raw-dir", help="The folder with the source files.")
@click.option("--samples", default=5000, show_default=True, help="Importance samples an image.")
@click.argument("names", nargs=-1)
def main(run_root, data_dir, raw_dir, samples, names):
    """Trains and evaluates the runs of docs/results.md, or of the tables NAMES (some three hours on 2 cores)."""
    folders = [*(["--data-dir", data_dir] if data_dir else []), *(["--raw-dir", raw_dir] if raw_dir else [])]
    page, results = DOCS / "results.md", DOCS / "results.json"
    document = json.loads(results.read_text())
    for name in names or TABLES:
        table = TABLES[name]
        runs = {prior: pathlib.Path(run_root) / f"{name}-{prior}" for prior in table.priors}
        for prior, run in runs.items():
            finish(run, table, prior, folders, samples)
        entries = [entry(run) | {"vamp_minus_this": paired(run, runs["vamp"])} for run in runs.values()]
        document[f"{table.dataset}, {table.model}"] = entries
        before, start, rest = page.read_text().partition(f"<!-- table {name} -->\n")
        _, end, after = rest.partition(f"<!-- end of table {name} -->\n")
        page.write_text(before + start + "\n".join(lines(entries, table)) + "\n" + end + after)
        results.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
