"""A run on disk: its settings, history, weights, results. Every file is written whole or not at all."""

from __future__ import annotations

import csv
import dataclasses
import datetime
import importlib.metadata
import json
import os
import pathlib
import platform
import shlex
import shutil
import sys
from typing import Any

from tfvamp.config import TrainConfig
from tfvamp.datasets import CATALOG, Dataset, DatasetSpec
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
)  # models of several stochastic layers add val_kl_z2 and val_kl_z1 before the last
PACKAGES = ("tfvamp", "tensorflow", "keras", "tensorflow-probability", "tensorflow-datasets", "numpy")


class RunFolder:
    """The files of one run.

    Attributes:
      path: the folder.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = pathlib.Path(path)

    @classmethod
    def create(
        cls, path: str | os.PathLike, config: TrainConfig, dataset: Dataset, overwrite: bool = False
    ) -> RunFolder:
        """A new run folder with its config.json; it appears whole, in place of an old one.

        Raises:
          RunError: the folder is there and `overwrite` is not set, or it is there and is no run.
        """
        folder = cls(path)
        folder._check_free(overwrite)
        scratch = cls(folder.path.with_name(f".{folder.path.name}.tmp"))
        try:
            shutil.rmtree(scratch.path, ignore_errors=True)
            scratch.path.mkdir(parents=True)
            scratch.write_config(config, dataset)
            if folder.path.exists():
                shutil.rmtree(folder.path)
            os.replace(scratch.path, folder.path)
        except OSError as error:
            raise RunError(
                f"cannot make the run folder {path} ({error.strerror}): choose another --run-dir"
            ) from error
        return folder

    def _check_free(self, overwrite: bool) -> None:
        """Raises RunError unless a new run may be put here."""
        if not self.path.exists() or (self.path.is_dir() and not any(self.path.iterdir())):
            return
        try:
            self.read_document()
        except RunError as error:
            raise RunError(f"{self.path} exists and is not a run folder: choose another --run-dir") from error
        if not overwrite:
            raise RunError(
                f"the run folder {self.path} exists: resume it with --resume {self.path}, "
                "choose another --run-dir, or replace it with --overwrite"
            )

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

    def write_config(self, config: TrainConfig, dataset: Dataset, resumed: list | None = None) -> None:
        """config.json: resolved settings, data, versions, command line; for a resumed run, the earlier ones."""
        document = {
            "settings": config.to_dict(),
            "data": {
                "shape": dataset.spec.shape,
                "spec": dataclasses.asdict(dataset.spec),
                "sources": dataset.checksums,
                "verified": dataset.verified,
                "sizes": {name: dataset.split(name).num_examples for name in ("train", "validation", "test")},
            },
            "versions": {"python": platform.python_version()}
            | {name: importlib.metadata.version(name) for name in PACKAGES},
            "command": shlex.join(sys.argv),
            "started": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
            "resumed_from": resumed or [],
        }
        write_json(self.config_file, document)

    def read_document(self) -> dict[str, Any]:
        """config.json as it is."""
        document = read_json(self.config_file)
        if not all(isinstance(document.get(key), dict) for key in ("settings", "data")):
            raise RunError(f"{self.config_file} is damaged: it must have the objects 'settings' and 'data'")
        return document

    def read_shape(self) -> tuple[int, ...]:
        """The shape (H, W, C) of the run's images."""
        shape = self.read_document()["data"].get("shape")
        if not isinstance(shape, list) or [type(size) for size in shape] != [int] * 3 or min(shape) < 1:
            raise RunError(f"{self.config_file} is damaged: data.shape must be [H, W, C]; got {shape}")
        return tuple(shape)

    def read_spec(self) -> DatasetSpec:
        """What the run's data set is."""
        config, stored = self.read_config(), self.read_document()["data"].get("spec")
        if config.dataset in CATALOG:
            return CATALOG[config.dataset]
        try:
            settings: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in stored.items()}
            return DatasetSpec(**settings)
        except (TypeError, AttributeError) as error:
            raise RunError(f"{self.config_file} is damaged: data.spec is not that of a data set") from error

    def read_evaluation(self, split: str = "test") -> dict[str, Any] | None:
        """evaluation.json of a split; None where there is none."""
        if not self.evaluation_file(split).is_file():
            return None
        document = read_json(self.evaluation_file(split))
        for key in ("log_likelihood", "num_samples", "num_examples"):
            if not isinstance(document.get(key), (int, float)):
                raise RunError(f"{self.evaluation_file(split)} is damaged: {key} must be a number")
        return document

    def read_config(self) -> TrainConfig:
        """The settings of the run."""
        try:
            config = TrainConfig.from_dict(self.read_document()["settings"])
        except UsageError as error:
            raise RunError(f"{self.config_file}: {error}") from error
        for name in ("components", "learning_rate", "likelihood"):
            if getattr(config, name) is None:
                raise RunError(f"{self.config_file} is damaged: the setting {name!r} is missing")
        return config

    def set_evaluation_aside(self, split: str) -> str:
        """Renames the files of an evaluation; the new name of its JSON file."""
        for path in (self.evaluation_file(split), self.log_likelihood_file(split)):
            if path.is_file():
                os.replace(path, path.with_stem(f"{path.stem}-previous"))
        return f"{self.evaluation_file(split).stem}-previous.json"

    def append_history(self, row: dict[str, float]) -> None:
        """Adds one epoch to history.csv."""
        new = not self.history_file.exists() or not self.history_file.stat().st_size
        with self.history_file.open("a", newline="") as file:
            writer = csv.DictWriter(file, list(row))
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
                    numbers = {name: float(value) for name, value in row.items()}
                except (TypeError, ValueError):
                    break
                if not set(HISTORY_COLUMNS) <= set(numbers):
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
    """Writes a file so that a crash leaves either the old contents or the new; RunError if it cannot."""
    scratch = path.with_name(f".{path.name}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        scratch.write_bytes(contents)
        os.replace(scratch, path)
    except OSError as error:
        scratch.unlink(missing_ok=True)
        raise RunError(f"cannot write {path} ({error.strerror})") from error


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
