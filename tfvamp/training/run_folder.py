"""A run on disk: its settings, history, weights, results. Every file is written whole or not at all."""

from __future__ import annotations

import csv
import datetime
import importlib.metadata
import json
import os
import pathlib
import platform
import shutil
import sys
from typing import Any

from tfvamp.config import TrainConfig
from tfvamp.datasets import Dataset
from tfvamp.errors import RunError, UsageError

HISTORY_COLUMNS = (
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
)
PACKAGES = ("tfvamp", "tensorflow", "keras", "tensorflow-probability", "tensorflow-datasets", "numpy")


class RunFolder:
    """The files of one run.

    Attributes:
      path: the folder.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = pathlib.Path(path)

    @classmethod
    def create(cls, path: str | os.PathLike, overwrite: bool = False) -> RunFolder:
        """An empty run folder.

        Raises:
          RunError: the folder is there and `overwrite` is not set, or it is there and is no run.
        """
        folder = cls(path)
        if folder.path.exists() and (not folder.path.is_dir() or any(folder.path.iterdir())):
            if not folder.config_file.is_file():
                raise RunError(f"{path} exists and is not a run folder: choose another --run-dir")
            if not overwrite:
                raise RunError(
                    f"the run folder {path} exists: resume it with --resume {path}, "
                    "choose another --run-dir, or replace it with --overwrite"
                )
            shutil.rmtree(folder.path)
        try:
            folder.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise RunError(
                f"cannot make the run folder {path} ({error.strerror}): choose another --run-dir"
            ) from error
        return folder

    @classmethod
    def open(cls, path: str | os.PathLike) -> RunFolder:
        """An existing run folder.

        Raises:
          RunError: there is none.
        """
        folder = cls(path)
        if not folder.path.is_dir():
            raise RunError(f"there is no run folder {path}: train one with tfvamp train --run-dir {path}")
        if not folder.config_file.is_file():
            raise RunError(f"{path} is not a run folder (it has no config.json)")
        return folder

    @property
    def config_file(self) -> pathlib.Path:
        return self.path / "config.json"

    @property
    def history_file(self) -> pathlib.Path:
        return self.path / "history.csv"

    @property
    def checkpoints(self) -> pathlib.Path:
        return self.path / "checkpoints"

    @property
    def best_weights(self) -> pathlib.Path:
        return self.path / "best" / "model.weights.h5"

    @property
    def tensorboard(self) -> pathlib.Path:
        return self.path / "tensorboard"

    @property
    def figures(self) -> pathlib.Path:
        return self.path / "figures"

    @property
    def log_file(self) -> pathlib.Path:
        """Where TensorFlow's own messages go."""
        return self.path / "tensorflow.log"

    def evaluation_file(self, split: str = "test") -> pathlib.Path:
        return self.path / ("evaluation.json" if split == "test" else f"evaluation-{split}.json")

    def log_likelihood_file(self, split: str = "test") -> pathlib.Path:
        return self.path / ("log_likelihood.npz" if split == "test" else f"log_likelihood-{split}.npz")

    def write_config(self, config: TrainConfig, dataset: Dataset) -> None:
        """config.json: resolved settings, data, versions, command line."""
        document = {
            "settings": config.to_dict(),
            "data": {
                "shape": dataset.spec.shape,
                "sources": dataset.checksums,
                "verified": dataset.verified,
                "sizes": {name: dataset.split(name).num_examples for name in ("train", "validation", "test")},
            },
            "versions": {"python": platform.python_version()}
            | {name: importlib.metadata.version(name) for name in PACKAGES},
            "command": " ".join(sys.argv),
            "started": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
        }
        write_json(self.config_file, document)

    def read_document(self) -> dict[str, Any]:
        """config.json as it is."""
        document = read_json(self.config_file)
        if not {"settings", "data"} <= document.keys():
            raise RunError(f"{self.config_file} is damaged: it must have the keys 'settings' and 'data'")
        return document

    def read_config(self) -> TrainConfig:
        """The settings of the run."""
        try:
            return TrainConfig.from_dict(self.read_document()["settings"])
        except UsageError as error:
            raise RunError(f"{self.config_file}: {error}") from error

    def append_history(self, row: dict[str, float]) -> None:
        """Adds one epoch to history.csv."""
        new = not self.history_file.exists()
        with self.history_file.open("a", newline="") as file:
            writer = csv.DictWriter(file, HISTORY_COLUMNS)
            if new:
                writer.writeheader()
            writer.writerow(row)
            file.flush()
            os.fsync(file.fileno())

    def read_history(self) -> list[dict[str, float]]:
        """The rows of history.csv; a last line cut off by a crash does not count."""
        if not self.history_file.exists():
            return []
        rows = []
        with self.history_file.open(newline="") as file:
            for row in csv.DictReader(file):
                try:
                    numbers = {name: float(row[name]) for name in HISTORY_COLUMNS}
                except (KeyError, TypeError, ValueError):
                    break
                rows.append({**numbers, "epoch": int(numbers["epoch"])})
        return rows

    def truncate_history(self, epoch: int) -> None:
        """Drops what history.csv says of epochs after `epoch`, letter for letter."""
        if not self.history_file.exists():
            return
        kept = len([row for row in self.read_history() if row["epoch"] <= epoch])
        lines = self.history_file.read_bytes().splitlines(keepends=True)
        replace_file(self.history_file, b"".join(lines[: 1 + kept]))


def replace_file(path: pathlib.Path, contents: bytes) -> None:
    """Writes a file so that a crash leaves either the old contents or the new."""
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_name(f".{path.name}.tmp")
    scratch.write_bytes(contents)
    os.replace(scratch, path)


def write_json(path: pathlib.Path, document: dict[str, Any]) -> None:
    """Writes a JSON file whole."""
    replace_file(path, (json.dumps(document, indent=2, allow_nan=False) + "\n").encode())


def read_json(path: pathlib.Path) -> dict[str, Any]:
    """Reads a JSON object; RunError where there is none."""
    try:
        document = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise RunError(f"cannot read {path} ({error})") from error
    if not isinstance(document, dict):
        raise RunError(f"{path} must hold a JSON object")
    return document
