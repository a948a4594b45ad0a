"""The files of a run folder: where they are, and how they are written and read. Nothing in them is trusted."""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import fcntl
import importlib.metadata
import math
import os
import pathlib
import platform
import re
import shlex
import sys
from collections.abc import Iterator
from typing import Any

from tfvamp import files
from tfvamp.arrays import npz_bytes, read_npz
from tfvamp.config import SPLITS, TrainConfig
from tfvamp.datasets import Dataset
from tfvamp.errors import FileError, RunError, UsageError, check_choice
from tfvamp.files import expanded, shown
from tfvamp.models import MODELS
from tfvamp.runs import owner
from tfvamp.runs.document import Document, checked

PACKAGES = ("tfvamp", "tensorflow", "keras", "tensorflow-probability", "tensorflow-datasets", "numpy")
LARGEST_ARRAYS = 2**25  # bytes of an evaluation's arrays: half a million images
EVALUATED = (*SPLITS, "simulated")  # the last one has images that the model generates
EVALUATIONS = "evaluations"  # folder with all evaluations, in one folder each


class RunFolder:
    """The files of one run.

    Attributes:
      path: the folder.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = expanded(path)

    def __str__(self):
        return shown(self.path)

    def file(self, *names: str) -> pathlib.Path:
        """Returns the path of a file in the folder.

        Raises:
          RunError: a link leads out of the folder.
        """
        path = self.path.joinpath(*names)
        real, root = os.path.realpath(path), os.path.realpath(self.path)
        if os.path.commonpath([real, root]) != root:
            raise RunError(f"{shown(path)} is a link that leads out of the run folder: it is not followed")
        return path

    @property
    def config_file(self) -> pathlib.Path:
        return self.file("config.json")

    @property
    def history_file(self) -> pathlib.Path:
        return self.file("history.csv")

    @property
    def checkpoints(self) -> pathlib.Path:
        return self.file("checkpoints")

    @property
    def best_weights(self) -> pathlib.Path:
        return self.file("best", "model.weights.h5")

    @property
    def tensorboard(self) -> pathlib.Path:
        return self.file("tensorboard")

    @property
    def figures(self) -> pathlib.Path:
        return self.file("figures")

    @property
    def log_file(self) -> pathlib.Path:
        """The file that TensorFlow's own messages go to."""
        return self.file("tensorflow.log")

    def evaluation_file(self, split: str = "test") -> pathlib.Path:
        return self.file(_of_split("evaluation.json", split))

    def log_likelihood_file(self, split: str = "test") -> pathlib.Path:
        return self.file(_of_split("log_likelihood.npz", split))

    def is_there(self) -> bool:
        """Returns whether there is a run folder, even a damaged one."""
        return os.path.isfile(self.path / "config.json")

    def check_exists(self) -> None:
        """Raises RunError unless this is a run folder."""
        files.check_run(self.path)
        if not self.config_file.is_file():
            raise RunError(f"{self} is not a run folder (it has no config.json)")

    def sweep(self) -> None:
        """Removes what killed processes left unfinished in the folder and beside it."""
        files.sweep(self.path.parent)
        for name in ("", "best", "checkpoints", "figures", EVALUATIONS):
            files.sweep(self.file(name))

    def write_config(self, config: TrainConfig, dataset: Dataset, resumed: list | None = None) -> None:
        """Writes config.json: resolved settings, data, versions, command line (of a resumed run, also the earlier ones)."""
        settings = config.to_dict()
        document = {
            "settings": settings,
            "networks_version": MODELS[config.model].networks_version,
            "data": {
                "shape": dataset.spec.shape,
                "spec": dataclasses.asdict(dataset.spec),
                "sources": dataset.checksums,
                "verified": dataset.verified,
                "sizes": {name: dataset.split(name).num_examples for name in SPLITS},
            },
            "versions": {"python": platform.python_version()}
            | {name: importlib.metadata.version(name) for name in PACKAGES},
            "command": shlex.join(sys.argv),
            "started": datetime.datetime.now().astimezone().isoformat(timespec="seconds"),
            "resumed_from": resumed or [],
            "signature": owner.signature(settings),
        }
        files.write_json(self.config_file, document)

    def read_document(self) -> Document:
        """Returns the contents of config.json, checked.

        Raises:
          RunError: it is missing or damaged, or its contents are not those of a run.
        """
        self.check_exists()
        try:
            raw = files.read_json(self.config_file)
        except FileError as error:
            raise RunError(str(error)) from error
        try:
            return checked(raw, self.config_file, str(self))
        except UsageError as error:
            raise RunError(f"{shown(self.config_file)}: {error}") from error

    def evaluations(self) -> Iterator[tuple[int, pathlib.Path]]:
        """Yields the number and the folder of each evaluation, the newest first."""
        place = self.file(EVALUATIONS)
        try:
            names = [entry.name for entry in os.scandir(place)]
        except OSError:
            return
        for name in sorted((name for name in names if re.fullmatch("[0-9]{6}", name)), reverse=True):
            yield int(name), self.file(EVALUATIONS, name)

    def read_evaluation(self, path: pathlib.Path) -> dict[str, Any]:
        """Returns the JSON of an evaluation.

        Raises:
          RunError: it is damaged.
        """
        try:
            document = files.read_json(path)
        except FileError as error:
            raise RunError(str(error)) from error
        for key in ("log_likelihood", "num_samples", "num_examples"):
            value = document.get(key)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not _is_finite(value):
                raise RunError(f"{shown(path)} is damaged: {key} must be a number")
        for key in ("num_samples", "num_examples"):
            if not isinstance(document[key], int) or document[key] < 1:
                raise RunError(f"{shown(path)} is damaged: {key} must be a positive integer")
        for key, kind in (("epoch", int), ("weights_sha256", str), ("number", int)):
            if not isinstance(document.get(key), kind | None) or isinstance(document.get(key), bool):
                raise RunError(f"{shown(path)} is damaged: {key} must be of type {kind.__name__}")
        return document

    def read_arrays(self, path: pathlib.Path) -> dict[str, Any]:
        """Returns the arrays of an evaluation; raises RunError if they are damaged."""
        try:
            return read_npz(path, LARGEST_ARRAYS)
        except FileError as error:
            raise RunError(str(error)) from error

    def check_evaluations(self) -> None:
        """Raises FileError unless an evaluation can be written: known before the minutes that it takes, not after."""
        place = self.file(EVALUATIONS)
        try:
            with files.scratch_folder(place):
                pass
        except OSError as error:
            raise files.cannot_write(place / "evaluation.json", error) from error

    def write_evaluation(
        self, split: str, document: dict[str, Any], arrays: dict[str, Any]
    ) -> dict[str, Any]:
        """Keeps an evaluation in a folder of its own, and makes it the current one of its split.

        The folder appears whole. The two files at the top are replaced in an order in which they
        never disagree: the old arrays are removed, then the new JSON is written, then the new
        arrays. If a process is killed before it has done all this, the missing files are in the
        folder.

        Returns:
          the JSON, with the number of the evaluation.
        """
        self._keep_unnumbered(split)
        contents = npz_bytes(arrays)
        document = self._keep(document, contents)
        with self._publishing():
            if self._current_number(split) < document["number"]:  # otherwise another process was faster
                self.log_likelihood_file(split).unlink(missing_ok=True)
                files.write_json(self.evaluation_file(split), document)
                files.replace_file(self.log_likelihood_file(split), contents)
        return document

    @contextlib.contextmanager
    def _publishing(self) -> Iterator[None]:
        """Makes two evaluations of a run that end at the same time replace the files at the top one after the other."""
        descriptor = os.open(self.file(EVALUATIONS), os.O_RDONLY | os.O_CLOEXEC)
        try:
            with contextlib.suppress(OSError):  # a disk without locks
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _current_number(self, split: str) -> int:
        with contextlib.suppress(FileError):
            number = files.read_json(self.evaluation_file(split)).get("number")
            if isinstance(number, int):
                return number
        return 0

    def _keep(self, document: dict[str, Any], arrays: bytes | None) -> dict[str, Any]:
        """Writes the folder of an evaluation under the next free number, which is added to the JSON."""
        place = self.file(EVALUATIONS)
        number = next((number for number, _ in self.evaluations()), 0)
        with files.scratch_folder(place) as scratch:
            new = scratch / "new"
            while True:
                number += 1
                document = {**document, "number": number}
                files.write_json(new / "evaluation.json", document)
                if arrays is not None:
                    files.replace_file(new / "log_likelihood.npz", arrays)
                try:
                    os.rename(new, place / f"{number:06d}")
                    break
                except OSError:
                    if not (place / f"{number:06d}").is_dir():  # otherwise another process took the number
                        raise
        files.sync_folder(place)
        return document

    def _keep_unnumbered(self, split: str) -> None:
        """Keeps an evaluation of tfvamp 0.1.0, which had no folder of its own."""
        with contextlib.suppress(FileError):
            old = files.read_json(self.evaluation_file(split))
            if "number" not in old:
                path = self.log_likelihood_file(split)
                arrays = files.read_bytes(path, LARGEST_ARRAYS) if path.is_file() else None
                files.write_json(self.evaluation_file(split), self._keep(old, arrays))


def _of_split(name: str, split: str) -> str:
    check_choice("split", split, EVALUATED)
    stem, suffix = name.rsplit(".", 1)
    return name if split == "test" else f"{stem}-{split}.{suffix}"


def _is_finite(value: float) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer beyond all floats
        return False
