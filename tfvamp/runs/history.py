"""history.csv: one row of numbers per epoch, exact when read back."""

from __future__ import annotations

import csv
import io
import os
import pathlib

from tfvamp import files
from tfvamp.errors import FileError
from tfvamp.files import shown

COLUMNS = (
    "epoch",
    "beta",
    "train_loss",
    "train_elbo",
    "train_reconstruction",
    "train_kl",
    "val_elbo",
    "val_reconstruction",
    "val_kl",
    "seconds",
)  # before the last, several stochastic layers add val_kl_z2 and val_kl_z1, and `stop_by` iwae val_iwae
LARGEST_VALUE = 1e30  # larger than any value that training gives
LARGEST = 2**24  # bytes: a hundred thousand epochs


def bound(row: dict[str, float], beta: float) -> float:
    """Returns the bound that chooses the best epoch: the validation ELBO, with `beta` as the weight of its KL.

    For a run that is stopped by the importance-weighted bound, it returns that bound.
    """
    if "val_iwae" in row:
        return row["val_iwae"]
    return row["val_elbo"] if beta == 1.0 else row["val_reconstruction"] - beta * row["val_kl"]


def best_of(rows: list[dict[str, float]], beta: float) -> dict[str, float] | None:
    """Returns the row of the best epoch; None if there is none yet."""
    return max(rows, key=lambda row: bound(row, beta), default=None)


def to_text(rows: list[dict[str, float]], header: bool = True) -> str:
    """Returns rows of history.csv as text; floats are written exactly."""
    buffer = io.StringIO(newline="")
    if rows:
        writer = csv.DictWriter(buffer, list(rows[0]), lineterminator="\n")
        if header:
            writer.writeheader()
        writer.writerows(rows)
    return buffer.getvalue()


def read(path: pathlib.Path) -> tuple[list[dict[str, float]], str | None]:
    """Returns the rows of a history, and what is wrong with it (None if nothing is wrong).

    A last line that was cut off by a crash is ignored.
    """
    if not os.path.lexists(path):
        return [], None
    try:
        text = files.read_bytes(path, LARGEST).decode()
    except FileError as error:
        return [], str(error)
    except ValueError:
        return [], f"{shown(path)} is damaged: it is not text"
    rows: list[dict[str, float]] = []
    lines = text.splitlines()
    if not text.endswith("\n"):
        lines = lines[:-1]
    try:
        for row in csv.DictReader(lines):
            rows.append(_numbers(row, len(rows) + 1))
    except (ValueError, csv.Error):
        return rows, f"{shown(path)} is damaged after epoch {len(rows)}"
    return rows, None


def check(rows: list[dict[str, float]]) -> None:
    """Raises ValueError, TypeError or AttributeError if these are not the rows of a history, from epoch 1 on."""
    for number, row in enumerate(rows, start=1):
        if list(row) != list(rows[0]) or not all(type(value) in (int, float) for value in row.values()):
            raise ValueError("columns")
        _numbers(row, number)


def _numbers(row: dict, expected_epoch: int) -> dict[str, float]:
    """Returns a row as numbers; raises ValueError if it is damaged, or is not that of the expected epoch."""
    if None in row or not set(COLUMNS) <= set(row):
        raise ValueError("columns")
    numbers = {name: float(value) for name, value in row.items() if value is not None}
    if len(numbers) < len(row) or not all(abs(value) < LARGEST_VALUE for value in numbers.values()):
        raise ValueError("numbers")
    if numbers["epoch"] != expected_epoch:
        raise ValueError("epoch")
    return {**numbers, "epoch": int(numbers["epoch"])}
