"""The runs of a sweep: their names, their settings, and how far each is."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import pathlib
import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from tfvamp import datasets
from tfvamp.config import Estimation, TrainConfig
from tfvamp.errors import RunError
from tfvamp.runs import Run, building, history
from tfvamp.runs.comparing import PLACES
from tfvamp.runs.folder import RunFolder
from tfvamp.sweeps.spec import Spec
from tfvamp.training.early_stopping import EarlyStopping

LEFT_TO_THE_DATA = ("learning_rate", "components", "likelihood", "importance_samples")  # if they are None
LONGEST_NAME = 120  # maximum number of letters


class Progress(NamedTuple):
    """How far a training is.

    Attributes:
      epochs: number of complete epochs.
      best_epoch: the epoch with the best validation bound.
      bound: this bound; None before the first epoch is done.
    """

    epochs: int
    best_epoch: int
    bound: float | None


@dataclasses.dataclass(frozen=True)
class Planned:
    """One run of a sweep.

    Attributes:
      name: name of its folder.
      path: its folder.
      values: values of the settings that vary, and the name of the case, if there are cases.
      config: all its settings.
      evaluate: as in `Spec`.
    """

    name: str
    path: pathlib.Path
    values: Mapping[str, Any]
    config: TrainConfig
    evaluate: Mapping[str, Any] | None

    def state(self) -> str:
        """Returns how far it is: "missing", "unfinished", "trained" or "finished" (and evaluated, if that is wanted).

        Raises:
          RunError: the folder holds a run of other settings, or is damaged.
        """
        if not os.path.lexists(RunFolder(self.path).config_file):
            return "missing"
        run = Run(self.path)
        if other := _differing(run.config, self.config):
            raise RunError(
                f"{run} has other settings ({', '.join(other)}): give the command the settings that it was made with, or "
                "another folder for its runs"
            )
        if not has_ended(run.rows(), self.config):
            return "unfinished"
        return "finished" if self._is_evaluated(run) else "trained"

    def _is_evaluated(self, run: Run) -> bool:
        if self.evaluate is None:
            return True
        wanted = dict(self.evaluate)
        split, limit = wanted.pop("split", "test"), wanted.pop("limit", None)
        found = run.evaluation("simulated" if wanted.get("estimator") == "bdmc" else split)
        if found is None or not found["current"]:
            return False
        settings = dataclasses.asdict(Estimation(**wanted))
        del settings["max_memory"]
        if settings["proposal"] is None:  # the model's own
            settings["proposal"] = found.get("proposal")
        return found.get("settings") == settings and found.get("limit") == limit

    def progress(self) -> Progress:
        """Returns how far its training is, which is nothing if it has no folder yet."""
        rows, _ = history.read(RunFolder(self.path).history_file)
        best = history.best_of(rows, self.config.beta)
        if best is None:
            return Progress(0, 0, None)
        return Progress(len(rows), int(best["epoch"]), history.bound(best, self.config.beta))

    def bounds(self) -> list[float]:
        """Returns the validation bound of each epoch so far."""
        rows, _ = history.read(RunFolder(self.path).history_file)
        return [history.bound(row, self.config.beta) for row in rows]

    def is_trained(self) -> bool:
        """Returns whether its training has ended by itself."""
        rows, _ = history.read(RunFolder(self.path).history_file)
        return has_ended(rows, self.config)

    def commands(self, settings: pathlib.Path) -> list[list[str]]:
        """Returns the commands that finish it, as words after `tfvamp`; `settings` is the file to hold its settings."""
        state, found = self.state(), []
        if state == "missing":
            found.append(["train", "--config", str(settings), "--run-dir", str(self.path)])
        elif state == "unfinished":
            words = ["train", "--resume", str(self.path), "--epochs", str(self.config.epochs)]
            for name in ("on_nan", "strategy", "device", "data_dir", "raw_dir"):
                if (value := getattr(self.config, name)) is not None:
                    words += [f"--{name.replace('_', '-')}", str(value)]
            found.append(words)
        if state != "finished" and self.evaluate is not None:
            options = [
                word
                for name, value in self.evaluate.items()
                for word in (f"--{name.replace('_', '-')}", str(value))
            ]
            found.append(["evaluate", str(self.path), *options])
        return found


def planned(spec: Spec) -> list[Planned]:
    """Returns the runs of a sweep, in order."""
    return [run_of(spec, values) for values in spec.combinations()]


def run_of(spec: Spec, values: Mapping[str, Any]) -> Planned:
    """Returns the run with these values of the settings that vary.

    Raises:
      UsageError: the setting cannot have a value, or the model does not support it.
    """
    name, config = name_of(values), spec.config(values)
    building.check_fit(config)
    return Planned(name, spec.run_dir / name, values, config, spec.evaluate)


def name_of(values: Mapping[str, Any]) -> str:
    """Returns the name of a run's folder, from the settings that vary; a checksum makes it unique if letters are lost.

    >>> name_of({"learning_rate": 0.001, "seed": 2})
    'learning_rate=0.001,seed=2'
    """
    texts = {name: value if isinstance(value, str) else json.dumps(value) for name, value in values.items()}
    whole = ",".join(f"{name}={text}" for name, text in texts.items())
    safe = re.sub(r"[^\w.+=,-]+", "-", whole, flags=re.ASCII)
    if safe == whole and len(safe) <= LONGEST_NAME:
        return safe
    return f"{safe[:LONGEST_NAME]}-{hashlib.sha256(whole.encode()).hexdigest()[:8]}"


def has_ended(rows: list[dict[str, float]], config: TrainConfig) -> bool:
    """Returns whether a history is that of a run whose training ended by itself."""
    stopping = EarlyStopping(config.patience, config.warmup)
    for row in rows:
        stopping.update(int(row["epoch"]), history.bound(row, config.beta))
    return len(rows) >= config.epochs or (bool(rows) and stopping.stop)


def _differing(found: TrainConfig, wanted: TrainConfig) -> list[str]:
    """Returns the settings of a run that are not as wanted; those that are left to the data set are ignored."""
    names = []
    for name, value in wanted.to_dict().items():
        if name in (*PLACES, "epochs", "jit", "on_nan", "strategy") or (name, value) == (
            "likelihood",
            "paper",
        ):
            continue
        if value is None and name in LEFT_TO_THE_DATA:
            continue
        if name == "schedule_epochs" and value is None and wanted.schedule == "cosine":
            continue  # it is the number of epochs that the run was made with
        if name == "dataset":
            value = datasets.absolute(value)
        if getattr(found, name) != value:
            names.append(name)
    return names
