"""The tables of the paper with our numbers beside the published ones, as columns."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from tfvamp import paper
from tfvamp.reproducing.cells import Cell, command_of
from tfvamp.reproducing.verdicts import Ours, ours, paired, verdict, without_verdict

IN_NATS, IN_BITS = 2, 3  # digits


def columns(
    name: str,
    cells: Sequence[Cell],
    details: bool = False,
    hours: Mapping[str, float] | None = None,
    config_file: str | None = None,
) -> tuple[dict[str, list[Any]], dict[str, list[int]]]:
    """Returns the columns of a table.

    Args:
      name: name of the table.
      cells: its cells.
      details: whether to add what the paper does not print: paired differences to the VampPrior,
        ELBO, KL, active units, and training.
      hours: estimated hours for the unfinished runs, by their names.
      config_file: as for `command_of`.

    Returns:
      the cells of each column by its name, and the number of digits after the point for each number
      of a column.
    """
    rows = [_row(name, cell) for cell in cells]
    if details:
        for cell, row in zip(cells, rows, strict=True):
            row |= _details(cell, _with_vamp_prior(cell, cells))
    for cell, row in zip(cells, rows, strict=True):
        row["state"] = state_of(cell, hours or {})
        row["command"] = "; ".join(commands(cell, config_file))
    made = {column: [row.get(column) for row in rows] for column in dict.fromkeys(c for r in rows for c in r)}
    made = {
        column: values
        for column, values in made.items()
        if column in ("verdict", "state") or any(v not in (None, "") for v in values)
    }
    digits = [IN_BITS if paper.in_bits(cell.point.dataset) else IN_NATS for cell in cells]
    of_printed = [2] * len(cells)
    numbers = {"encoder's q": digits, "error": digits, "refined q": digits, "refined error": digits}
    of_nats = dict.fromkeys(("ELBO", "amortisation gap", "validation ELBO"), [IN_NATS] * len(cells))
    return made, {
        **numbers,
        **of_nats,
        "paper": of_printed,
        "difference": digits,
        "minutes": [1] * len(cells),
    }


def _row(name: str, cell: Cell) -> dict[str, Any]:
    """Returns the entries that every table has for a cell."""
    point, found = cell.point, ours(cell)
    row: dict[str, Any] = {}
    if name == "table1":
        row = {
            "data set": paper.TITLES[point.dataset],
            "model": paper.TITLES[str(point.model)],
            "prior": paper.TITLES[str(point.prior)],
            "unit": "bits per dimension" if paper.in_bits(point.dataset) else "nats",
        }
    else:
        row = {"method": point.title}
    row |= {
        "encoder's q": None,
        "error": None,
        "paper": point.published,
        "difference": None,
        "verdict": "",
        "refined q": None,
        "refined error": None,
        "seeds": f"{len(cell.results)} of {len(cell.runs)}" if cell.runs else "",
    }
    if found is None:
        return row
    row |= {"encoder's q": found.value, "error": found.error}
    row |= {"refined q": found.refined, "refined error": found.refined_error}
    if point.published is not None:
        row["difference"] = found.value - point.published
        row["verdict"] = _verdict(cell, found, point.published)
    return row


def _verdict(cell: Cell, found: Ours, published: float) -> str:
    """Returns the verdict, with what is known about a number that is not reproduced."""
    if reason := without_verdict(cell):
        return reason
    point = cell.point
    said = verdict(found, published, paper.in_bits(point.dataset))
    evidence = paper.EVIDENCE.get((point.dataset, str(point.model), str(point.prior)))
    return f"{said}: {evidence}" if said == "not reproduced" and evidence else said


def state_of(cell: Cell, hours: Mapping[str, float]) -> str:
    """Returns how far the runs of a cell are, with the hours of training that are left."""
    if not cell.runs:
        return "of another paper, not run"
    texts = []
    for run, look in zip(cell.runs, cell.looks, strict=True):
        if not look.text:
            continue
        estimated = f", about {spoken(hours[run.name])}" if run.name in hours else ""
        seed = f"seed {run.config.seed}: " if len(cell.runs) > 1 else ""
        texts.append(f"{seed}{look.text}{estimated}")
    return "; ".join(texts)


def commands(cell: Cell, config_file: str | None = None) -> list[str]:
    """Returns the commands that finish the runs of a cell."""
    found = [command_of(run, look, config_file) for run, look in zip(cell.runs, cell.looks, strict=True)]
    return [command for command in found if command]


def spoken(hours: float) -> str:
    """Returns a time as text.

    >>> spoken(0.2), spoken(31.0)
    ('12 minutes', '31 hours')
    """
    return f"{max(1.0, 60 * hours):.0f} minutes" if hours < 1.5 else f"{hours:.0f} hours"


def _with_vamp_prior(cell: Cell, cells: Sequence[Cell]) -> Cell | None:
    """Returns the VampPrior's cell for the same data set and model; None if it is this one, or there is none."""
    wanted = cell.point._replace(prior="vamp", published=None, title="")
    for other in cells:
        if other is not cell and other.point._replace(published=None, title="") == wanted:
            return other
    return None


def _details(cell: Cell, vamp: Cell | None) -> dict[str, Any]:
    """Returns what the paper does not print: means over the seeds, or the first seed's values if there is no mean."""
    results = cell.results
    if not results:
        return {}
    first, row = results[0], {}
    for title, name in (("vamp minus this, refined", "refined"), ("vamp minus this, encoder", "encoder")):
        found = None if vamp is None else paired(results, vamp.results, name)
        row[title] = "" if found is None else f"{found[0]:.2f} +- {found[1]:.2f}"
    gaps = [result.amortisation_gap for result in results if result.amortisation_gap is not None]
    kls = ", ".join(f"{layer} {kl:.2f}" for layer, kl in first.kls.items())
    active = first.active_units
    units = [f"{layer} {count}" if len(active) > 1 else str(count) for layer, count in active.items()]
    return row | {
        "ELBO": float(np.mean([result.elbo for result in results])),
        "amortisation gap": float(np.mean(gaps)) if len(gaps) == len(results) else None,
        "KL": f"{first.kl:.2f}" + (f" ({kls})" if kls else ""),
        "active units": ", ".join(units),
        "epochs (best)": f"{first.epochs} ({first.best_epoch})",
        "minutes": float(np.mean([result.minutes for result in results])),
        "validation ELBO": float(np.mean([result.validation_elbo for result in results])),
    }
