"""A run, opened once: its settings, history, evaluations, model and data."""

from __future__ import annotations

import functools
import glob
import os
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

from tfvamp import datasets, memory
from tfvamp.catalog import OWN
from tfvamp.config import TrainConfig
from tfvamp.datasets import Dataset, DatasetSpec
from tfvamp.errors import DataError, FileError, RunError, TfvampError, UsageError
from tfvamp.files import expanded, printable, sha256
from tfvamp.layers.pseudo_inputs import LOADED_LATER
from tfvamp.models import LatentVariableModel
from tfvamp.runs import building, history, weights
from tfvamp.runs.folder import RunFolder

# Columns of an evaluation in the table of runs; numbers of different estimators cannot be compared.
RESULTS = ("log_likelihood", "standard_error", "estimator", "proposal", "num_examples")
LARGEST_WEIGHTS = 2**32  # maximum size in bytes of a file whose checksum is taken


class Run:
    """A trained run, or one in training. Its config.json is read once, when the run is opened.

    Args:
      path: the run folder.

    Attributes:
      folder: the files of the run.
      document: the contents of config.json, checked.
      config: the settings, a `TrainConfig`.
      spec: the description of the data set.

    Raises:
      RunError: there is no such run, or its config.json is damaged.

    >>> run = Run("runs/first")
    >>> run.config.prior, len(run.history()["val_elbo"])
    ('vamp', 3)
    >>> run.model().sample(4, seed=7).shape
    TensorShape([4, 28, 28, 1])
    """

    def __init__(self, path: str | os.PathLike):
        self.folder = RunFolder(path)
        self.document = self.folder.read_document()
        self.config: TrainConfig = self.document.settings
        self.spec: DatasetSpec = self.document.spec

    def __str__(self):
        return str(self.folder)

    def __repr__(self):
        return f"Run({str(self.path)!r})"

    @property
    def path(self) -> pathlib.Path:
        """The run folder."""
        return self.folder.path

    def rows(self, say: Callable[[str], None] = lambda text: None) -> list[dict[str, float]]:
        """Returns the rows of history.csv; `say` gets one line of text if the file is damaged."""
        rows, damage = history.read(self.folder.history_file)
        if damage:
            say(f"warning: {damage}: tfvamp train --resume {self} restores it")
        return rows

    def history(self):
        """Returns the history, one row per epoch.

        Returns:
          a `pandas.DataFrame` if pandas is installed; otherwise a dictionary of lists, by column.
        """
        return table_of(self.rows())

    def evaluation(self, split: str = "test") -> dict[str, Any] | None:
        """Returns the newest evaluation of a split; None if there is none.

        Returns:
          the contents of evaluation.json, and `current`: whether it was made with the weights that
          the run has now.

        Raises:
          RunError: it is damaged.
        """
        path = self.folder.evaluation_file(split)
        if not os.path.lexists(path):
            return None
        document = self.folder.read_evaluation(path)
        return {**document, "current": _is_of(document, self.weights_sha256)}

    def evaluations(self):
        """Returns all evaluations, the newest first, in the form of `history`."""
        found, digest = [], self.weights_sha256
        for number, _ in self.folder.evaluations():
            path = self.folder.file("evaluations", f"{number:06d}", "evaluation.json")
            document = self.folder.read_evaluation(path)
            found.append({**document, "current": _is_of(document, digest)})
        return table_of(found)

    def evaluated_arrays(self, split: str = "test") -> dict[str, Any] | None:
        """Returns the arrays [N] of the newest evaluation of a split; None if there is none.

        Raises:
          RunError: they are damaged.
        """
        document = self.evaluation(split)
        if document is None:
            return None
        number = document.get("number")
        if number is None:  # of tfvamp 0.1.0
            path = self.folder.log_likelihood_file(split)
            return self.folder.read_arrays(path) if path.is_file() else None
        return self.folder.read_arrays(self.folder.file("evaluations", f"{number:06d}", "log_likelihood.npz"))

    @functools.cached_property
    def stored_weights(self) -> weights.Stored:
        """The file with the best weights, read once.

        Raises:
          RunError: it is missing or damaged.
        """
        shapes = building.weight_shapes(self.config, self.spec.shape)
        total = building.num_values(shapes)
        memory.check(4.0 * total, f"the model of {self}", "is this run from elsewhere?")
        return weights.read(self.folder.best_weights, list(shapes.values()))

    @property
    def weights_sha256(self) -> str | None:
        """The checksum of the best weights; None if there are none that can be read."""
        if "stored_weights" in self.__dict__:  # those of `model`, whatever was written since
            return self.stored_weights.sha256
        try:
            return sha256(self.folder.best_weights, LARGEST_WEIGHTS)
        except FileError:
            return None

    @property
    def weights_epoch(self) -> int | None:
        """The epoch of the best weights; None if it is not recorded."""
        if self.stored_weights.epoch is not None:
            return self.stored_weights.epoch
        best = history.best_of(self.rows(), self.config.beta)
        return None if best is None else int(best["epoch"])

    def model(self) -> LatentVariableModel:
        """Returns the model with the weights of the best epoch.

        Its attributes `train_config` and `dataset_spec` say how it was trained and on what.

        Raises:
          RunError: the run has no weights yet, or they are damaged.
        """
        return self._model

    @functools.cached_property
    def _model(self) -> LatentVariableModel:
        stored = self.stored_weights
        # Fixed pseudo-inputs come with the weights; the zeros are overwritten.
        model = building.model_of(self.config, self.spec.shape, LOADED_LATER)
        weights.load(model, stored, self.folder.best_weights)
        model.train_config = self.config
        model.dataset_spec = self.spec
        return model

    def dataset(
        self,
        limit: int | None = None,
        dataset: str | None = None,
        data_dir: str | os.PathLike | None = None,
        raw_dir: str | os.PathLike | None = None,
        say: Callable[[str], None] = lambda text: None,
    ) -> Dataset:
        """Returns the data set of the run, from where it was during training unless other places are given.

        Places that a run names are followed only if you wrote the run on this machine. Prepared
        data are never changed.

        Args:
          limit: maximum number of images of each split; None keeps the run's own limit.
          dataset: where your own images are now: "npz:FILE", "folder:DIR" or "tfds:NAME".
          data_dir, raw_dir: where the data are, if they have been moved.
          say: a function that gets one line of text about what is prepared, and about data that
            differ.

        Raises:
          RunError: the run's places are not followed, or its images now have another shape.
          UsageError: the run's likelihood does not fit the values that its images now have.
          DataError: the data are missing or damaged.
        """
        config, own = self.config, self.document.own
        name = self._data_name(dataset)
        if data_dir is None and own:
            data_dir = config.data_dir
        # A folder of source files that no longer exists does not matter while the prepared data are there.
        if raw_dir is None and own and config.raw_dir and os.path.isdir(config.raw_dir):
            raw_dir = config.raw_dir
        try:
            loaded = datasets.load(
                name,
                data_dir,
                raw_dir,
                config.limit if limit is None else limit,
                say,
                prepare="missing" if own or dataset else "never",
                known=self.document.sources.values() if own and dataset is None else (),
                **config.loading(),
            )
        except DataError as error:
            kind, _, place = config.dataset.partition(":")
            if own and dataset is None and kind in ("npz", "folder") and not os.path.exists(place):
                raise DataError(
                    f"{error}: if the images have moved, say where they are with --dataset {kind}:..."
                ) from error
            if own or data_dir is not None or config.data_dir is None:
                raise
            raise DataError(
                f"{error} (the run's own folder, {printable(config.data_dir)}, is not followed: the run was not "
                "written by you on this machine; name the folder with --data-dir)"
            ) from error
        if loaded.spec.shape != self.spec.shape:
            raise RunError(
                f"{self} was trained on images of {list(self.spec.shape)}; those of {printable(name)} have "
                f"{list(loaded.spec.shape)} now"
            )
        config.resolve(loaded.spec)
        if not self.made_from(loaded):
            say(f"warning: {printable(name)} is made from other files than those that {self} was trained on")
        return loaded

    def made_from(self, dataset: Dataset) -> bool:
        """Returns whether the data set is made from the files that the run was trained on, whatever their names are."""
        ours, theirs = self.document.sources, dataset.checksums
        if self.config.dataset.startswith(OWN):
            return sorted(ours.values()) == sorted(theirs.values())
        return ours == theirs

    def forget(self) -> None:
        """Drops the weights and the model that were read, because training has continued."""
        for name in ("stored_weights", "_model"):
            self.__dict__.pop(name, None)

    def _data_name(self, given: str | None) -> str:
        """Returns the name of the data set to load: as given, or the run's own."""
        stored = self.config.dataset
        kind = f"{stored.partition(':')[0]}:" if stored.startswith(OWN) else stored
        if given is not None:
            given_kind = f"{given.partition(':')[0]}:" if given.startswith(OWN) else given
            if given_kind != kind:
                raise UsageError(
                    f"{self} was trained on {printable(kind)}{'...' if stored.startswith(OWN) else ''}, not on "
                    f"{printable(given)}"
                )
            return given
        if stored.startswith(OWN) and not self.document.own:
            raise RunError(
                f"{self} was trained on {printable(stored)}, but was not written by you on this machine: say where "
                f"the images are with --dataset {kind}..."
            )
        return stored


def _is_of(document: dict[str, Any], digest: str | None) -> bool:
    """Returns whether an evaluation is of the weights with this checksum."""
    return digest is not None and document.get("weights_sha256") == digest


def as_run(run: Run | str | os.PathLike) -> Run:
    """Returns a `Run`, given one or the folder of one."""
    return run if isinstance(run, Run) else Run(run)


def load(run: Run | str | os.PathLike) -> LatentVariableModel:
    """Returns the trained model of a run, with the weights of the best epoch.

    Its attributes `train_config` and `dataset_spec` say how it was trained and on what.

    Raises:
      RunError: there is no such run, it has no weights yet, or they are damaged.
    """
    return as_run(run).model()


def find_runs(pattern: str | os.PathLike | Sequence[str | os.PathLike]):
    """Returns the runs whose folders match a pattern, one row each.

    Args:
      pattern: a pattern such as "runs/*", or several; `~` is the home folder, `**` matches any
        depth.

    Returns:
      as `Run.history`, with these columns: `run`, the settings, `epochs`, `best_epoch`, `val_elbo`;
      `log_likelihood`, `standard_error`, `estimator`, `proposal` and `num_examples` of the newest
      evaluation (None if there is none since the weights changed); and `problem`, which says what
      is wrong with a run folder, and is empty if nothing is.
    """
    return table_of([_row(path) for path in paths_of(pattern)])


def rate_distortion(pattern: str | os.PathLike | Sequence[str | os.PathLike]):
    """Returns the rate and distortion of evaluated runs, for example of several `beta`: Alemi and others (2018).

    Args:
      pattern: as for `find_runs`.

    Returns:
      as `find_runs`, sorted by rate, with one row for each run that has been evaluated: `run`,
      `model`, `prior`, `beta`; `rate`, the mean KL, and `distortion`, the mean of -log p(x | z), in
      nats per image of the evaluated split, under the encoder's q; `elbo`, which is minus their
      sum; and `num_examples`.

    Raises:
      RunError: none of them has been evaluated, or one cannot be read.
    """
    found = []
    for path in paths_of(pattern):
        run = Run(path)
        result = run.evaluation()
        if result is None or not result["current"]:
            continue
        own = result.get("encoder", result)
        try:
            rate, reconstruction = float(own["kl"]), float(own["reconstruction"])
        except (KeyError, TypeError, ValueError) as error:
            raise RunError(f"the evaluation of {run} is damaged: tfvamp evaluate {run}") from error
        settings = {name: getattr(run.config, name) for name in ("model", "prior", "beta")}
        parts = {"rate": rate, "distortion": -reconstruction, "elbo": reconstruction - rate}
        found.append({"run": path, **settings, **parts, "num_examples": result["num_examples"]})
    if not found:
        raise RunError("none of these is an evaluated run: tfvamp evaluate RUN comes first")
    return table_of(sorted(found, key=lambda row: row["rate"]))


def paths_of(pattern: str | os.PathLike | Sequence[str | os.PathLike]) -> list[str]:
    """Returns the run folders that match, in order; a name that exists is not read as a pattern."""
    patterns = [pattern] if isinstance(pattern, (str, os.PathLike)) else list(pattern)
    names = [str(expanded(one)) for one in patterns]
    paths = [
        path
        for name in names
        for path in ([name] if os.path.lexists(name) else sorted(glob.glob(name, recursive=True)))
    ]
    return [path for path in dict.fromkeys(paths) if os.path.isfile(os.path.join(path, "config.json"))]


def _row(path: str) -> dict[str, Any]:
    settings = dict.fromkeys(TrainConfig().to_dict())
    results = dict.fromkeys(("epochs", "best_epoch", "val_elbo", *RESULTS))
    row: dict[str, Any] = {"run": path, **settings, **results, "problem": ""}
    try:
        run = Run(path)
        row |= run.config.to_dict()
        rows = run.rows()
        best = history.best_of(rows, run.config.beta)
        row["epochs"] = len(rows)
        if best is not None:
            row |= {"best_epoch": best["epoch"], "val_elbo": best["val_elbo"]}
        result = run.evaluation()
        if result is not None and result["current"]:
            row |= {name: result.get(name) for name in RESULTS}
    except TfvampError as error:
        row["problem"] = str(error)
    return row


def table_of(rows: list[dict[str, Any]]):
    """Returns rows as a `pandas.DataFrame` if pandas is installed, otherwise as lists by column."""
    try:
        import pandas
    except ImportError:
        columns = list(dict.fromkeys(name for row in rows for name in row))
        return {name: [row.get(name) for row in rows] for name in columns}
    return pandas.DataFrame(rows)
