"""Trains and evaluates the runs behind docs/results.md, those that are missing, and writes its tables.

Uses the command line as a user would. A run that was interrupted is resumed; what is kept of a finished one is
docs/results/RUN.json, with the estimates of each image, from which the tables are made where all their runs are there.
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
OF_IMAGES = ("log_likelihood", "encoder_log_likelihood")
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


def of_images(run: pathlib.Path) -> dict[str, list[float]]:
    """The estimates of each image, in nats, to a thousandth."""
    with np.load(run / "log_likelihood.npz") as arrays:
        return {name: np.round(arrays[name].astype(float), 3).tolist() for name in OF_IMAGES}


def paired(entry: dict, reference: dict, name: str) -> dict[str, float]:
    """Mean and standard error of log p(x) of the reference minus that of a run, image by image."""
    difference = np.subtract(reference["images"][name], entry["images"][name])
    return {
        "mean": float(difference.mean()),
        "standard_error": float(difference.std(ddof=1) / len(difference) ** 0.5),
    }


def lines(entries: list[dict], table: Table):
    """The lines of the Markdown table, with bits per dimension where the paper gives those."""
    bits = table.unit == "bits_per_dim"
    yield "| " + " | ".join(_cells(entries[0], table, bits)) + " |"
    yield "|" + "---|" * len(_cells(entries[0], table, bits))
    for e in entries:
        yield "| " + " | ".join(_cells(e, table, bits).values()) + " |"


def _cells(e: dict, table: Table, bits: bool) -> dict[str, str]:
    """A line's cells by the names of their columns."""
    refined, own = e["evaluation"], e["evaluation"]["encoder"]
    paper = table.paper.get(e["prior"])

    def minus(name: str) -> str:
        difference = e[name]
        return (
            "" if e["prior"] == "vamp" else f"{difference['mean']:.2f} +- {difference['standard_error']:.2f}"
        )

    return {
        "prior": e["prior"],
        "log p(x), refined q": f"{refined['log_likelihood']:.2f} +- {refined['monte_carlo_error']:.2f}",
        "encoder's q": f"{own['log_likelihood']:.2f} +- {own['monte_carlo_error']:.2f}",
        **({"encoder's q, bits": f"{own['bits_per_dim']:.3f}"} if bits else {}),
        "paper (bits)" if bits else "paper": "" if paper is None else f"{paper:.2f}",
        "standard error": f"{refined['standard_error']:.2f}",
        "vamp minus this, refined": minus("vamp_minus_this"),
        "the same, encoder": minus("vamp_minus_this_encoder"),
        "test ELBO": f"{own['elbo']:.2f}",
        "amortisation gap": f"{refined['amortisation_gap']:.2f}",
        "KL": by_layer(own, refined["active_units"], "kl"),
        "active units": by_layer(own, refined["active_units"], "active_units"),
        "epochs (best)": f"{e['epochs']} ({e['best_epoch']})",
        "minutes": f"{e['minutes']:.1f}",
        "validation ELBO": f"{e['validation_elbo']:.2f}",
    }


def by_layer(own: dict, active: dict | int, name: str) -> str:
    """The KL or the active units, of each stochastic layer where there are several."""
    layers = active if isinstance(active, dict) else {}
    if name == "active_units":
        return ", ".join(f"{layer} {count}" for layer, count in layers.items()) or str(active)
    parts = ", ".join(f"{layer} {own[f'kl_{layer}']:.2f}" for layer in layers)
    return f"{own[name]:.2f}" + (f" ({parts})" if parts else "")


@click.command()
@click.option("--run-root", default="runs/results", show_default=True, help="Where the run folders are.")
@click.option("--data-dir", help="Prepared data.")
@click.option("--raw-dir", help="The folder with the source files.")
@click.option("--samples", default=5000, show_default=True, help="Importance samples an image.")
@click.option("--tables-only", is_flag=True, help="Train nothing: make the tables whose runs are kept.")
@click.argument("names", nargs=-1)
def main(run_root, data_dir, raw_dir, samples, tables_only, names):
    """Trains and evaluates the runs of docs/results.md, or of the tables NAMES (some three hours on 2 cores)."""
    folders = [*(["--data-dir", data_dir] if data_dir else []), *(["--raw-dir", raw_dir] if raw_dir else [])]
    page, results = DOCS / "results.md", DOCS / "results.json"
    document = json.loads(results.read_text())
    for name in names or TABLES:
        table, entries = TABLES[name], {}
        for prior in table.priors:
            kept = DOCS / "results" / f"{name}-{prior}.json"
            if not kept.is_file() and not tables_only:
                run = pathlib.Path(run_root) / f"{name}-{prior}"
                finish(run, table, prior, folders, samples)
                kept.write_text(json.dumps(entry(run) | {"images": of_images(run)}) + "\n")
            if kept.is_file():
                entries[prior] = json.loads(kept.read_text())
        if missing := [prior for prior in table.priors if prior not in entries]:
            print(f"table {name} stays as it is: {', '.join(missing)} missing")
            continue
        made = [
            {key: value for key, value in of_run.items() if key != "images"}
            | {
                "vamp_minus_this": paired(of_run, entries["vamp"], "log_likelihood"),
                "vamp_minus_this_encoder": paired(of_run, entries["vamp"], "encoder_log_likelihood"),
            }
            for of_run in entries.values()
        ]
        document[f"{table.dataset}, {table.model}"] = made
        before, start, rest = page.read_text().partition(f"<!-- table {name} -->\n")
        _, end, after = rest.partition(f"<!-- end of table {name} -->\n")
        page.write_text(before + start + "\n".join(lines(made, table)) + "\n" + end + after)
        results.write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
