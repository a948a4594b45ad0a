"""The contents of a report on a run, read from its folder and checked. Parts that cannot be read become notes."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Callable
from typing import Any

import numpy as np

from tfvamp import files
from tfvamp.errors import FileError, RunError, TfvampError
from tfvamp.reports import images
from tfvamp.reports.images import Look, Picture
from tfvamp.reports.published import Published, departures, published
from tfvamp.runs import Run, history
from tfvamp.runs.diagnosis import described, findings
from tfvamp.runs.document import Document
from tfvamp.runs.folder import EVALUATED

MOST_POINTS = 20  # maximum number of points of a curve of estimates
MOST_LAYERS = 8  # maximum number of stochastic layers of a model
MOST_LINES = 40  # maximum number of lines of a diagnosis


@dataclasses.dataclass(frozen=True)
class Estimate:
    """The result of one proposal in an evaluation.

    Attributes:
      name: a name such as "encoder's q".
      of_encoder: whether it is importance sampling from the encoder's q, as for published numbers.
      document: its part of evaluation.json.
      curve: points (number of samples, mean, error).
    """

    name: str
    of_encoder: bool
    document: dict[str, Any]
    curve: list[tuple[float, float, float]]

    @property
    def by_importance(self) -> bool:
        """Whether it comes from importance samples and not from chains."""
        return str(self.document.get("estimator") or "importance") == "importance"

    def number(self, *names: str) -> float | None:
        """Returns a number of evaluation.json; None if it is not there."""
        return number(self.document, *names)


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """An evaluation of the weights that the run has now.

    Attributes:
      document: evaluation.json.
      estimates: estimates, with the encoder's own first if it is there.
      values: log-likelihood of each image [N], by the name of the estimate.
    """

    document: dict[str, Any]
    estimates: list[Estimate]
    values: dict[str, np.ndarray]


@dataclasses.dataclass(eq=False)
class Contents:
    """The contents of a report on a run.

    Attributes:
      run: the run.
      document: its config.json in the form that the report shows.
      rows: its history.
      best: the row of the best epoch; None if there is none yet.
      evaluations: evaluations by the name of the split; "simulated" for bounds.
      printed: the paper's number for this data set, model and prior.
      departures: settings in which the run differs from the paper's.
      diagnosis: diagnosis.json, as text by name; None if there is none of these weights.
      diagnosed: the data that the diagnosis was made on.
      findings: what a diagnosis says, as text.
      variances, shares: those of the latents of each layer, and of the prior's components, in a
        diagnosis.
      pictures: grids of images.
      parameters: number of weights; None if the model was not loaded.
      notes: what was left out, and why.
    """

    run: Run
    document: Document
    rows: list[dict[str, float]]
    best: dict[str, float] | None
    evaluations: dict[str, Evaluation]
    printed: Published | None
    departures: list[str]
    diagnosis: dict[str, str] | None = None
    diagnosed: str = ""
    findings: list[str] = dataclasses.field(default_factory=list)
    variances: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    shares: np.ndarray | None = None
    pictures: list[Picture] = dataclasses.field(default_factory=list)
    parameters: int | None = None
    notes: list[str] = dataclasses.field(default_factory=list)


def collected(run: Run, look: Look, say: Callable[[str], None] = lambda text: None) -> Contents:
    """Returns the contents of a report on a run; `say` gets what is left out, as the report does."""
    notes: list[str] = []

    def note(text: str) -> None:
        notes.append(text)
        say(text)

    rows, damage = history.read(run.folder.history_file)
    if damage:
        note(f"{damage}: the curves end there")
    elif not rows:
        note(f"no epoch is finished: tfvamp train --resume {run}")
    found = {split: _evaluation(run, split, note) for split in EVALUATED}
    evaluations = {split: one for split, one in found.items() if one is not None}
    printed = published(run.config)
    contents = Contents(
        run=run,
        document=run.document,
        rows=rows,
        best=history.best_of(rows, run.config.beta),
        evaluations=evaluations,
        printed=printed,
        departures=[] if printed is None else departures(run.config, run.spec),
        notes=notes,
    )
    if "test" not in evaluations and not os.path.lexists(run.folder.evaluation_file()) and rows:
        note(f"the test log-likelihood was not estimated: tfvamp evaluate {run}")
    _add_diagnosis(contents, note)
    if look.images and rows:
        try:
            contents.parameters, contents.pictures = images.pictures_of(run, look, note)
        except TfvampError as error:
            note(f"pictures are left out: {error}")
    return contents


def number(document: Any, *names: str) -> float | None:
    """Returns the finite number under these names in a JSON document; None if there is none."""
    for name in names:
        document = document.get(name) if isinstance(document, dict) else None
    if isinstance(document, bool) or not isinstance(document, (int, float)):
        return None
    return float(document) if abs(document) < history.LARGEST_VALUE else None


def _evaluation(run: Run, split: str, note: Callable[[str], None]) -> Evaluation | None:
    """Returns the newest evaluation of a split; None if there is none of the weights that the run has now."""
    try:
        document = run.evaluation(split)
        if document is None:
            return None
        if not document["current"]:
            note(
                f"the evaluation of {split} is not of the weights that the run has now: tfvamp evaluate {run}"
            )
            return None
    except RunError as error:
        note(f"the evaluation of {split} is left out: {error}")
        return None
    estimates = [_estimate(document)]
    if isinstance(document.get("encoder"), dict) and not estimates[0].of_encoder:
        estimates.insert(0, _estimate(document["encoder"]))
    if any(estimate.number("log_likelihood") is None for estimate in estimates):
        note(f"the evaluation of {split} is left out: it is damaged: tfvamp evaluate {run}")
        return None
    try:
        arrays = run.evaluated_arrays(split) or {}
    except RunError as error:
        note(f"the estimates of each image are left out: {error}")
        arrays = {}
    keys = ["encoder_log_likelihood", "log_likelihood"][-len(estimates) :]
    values = {
        estimate.name: arrays[key] for estimate, key in zip(estimates, keys, strict=True) if key in arrays
    }
    return Evaluation(document, estimates, {name: of for name, of in values.items() if _is_of_images(of)})


def _is_of_images(values: np.ndarray) -> bool:
    numbers = values.dtype.kind == "f" and values.ndim == 1 and values.size > 0
    return numbers and bool((np.abs(values) < history.LARGEST_VALUE).all())


def _estimate(document: dict[str, Any]) -> Estimate:
    estimator = str(document.get("estimator") or "importance")
    proposal = str(document.get("proposal") or "encoder")
    q = "encoder's q" if proposal == "encoder" else f"{proposal} q"
    name = q if estimator == "importance" else f"{estimator.upper()} from the {q}"
    points = document.get("curve")
    curve = []
    for point in points[:MOST_POINTS] if isinstance(points, list) else []:
        size, mean, error = (number(point, name) for name in ("num_samples", "mean", "error"))
        if size is not None and size >= 1 and mean is not None:
            curve.append((size, mean, error or 0.0))
    return Estimate(name, (estimator, proposal) == ("importance", "encoder"), document, curve)


def _add_diagnosis(contents: Contents, note: Callable[[str], None]) -> None:
    run = contents.run
    try:
        path = run.folder.file("diagnosis.json")
        if not os.path.lexists(path):
            return
        document = files.read_json(path)
        if document.get("weights_sha256") != run.weights_sha256:
            note(f"the diagnosis is not of the weights that the run has now: tfvamp diagnose {run}")
            return
        contents.diagnosis = dict(list(described(document).items())[:MOST_LINES])
        count = document["num_images"]
        contents.diagnosed = (
            f"Log-likelihoods of {count['train']} training and {count['test']} test images, {document['num_samples']} samples each, seed "
            f"{document['seed']}; the other numbers are of all images."
        )
        contents.findings = findings(document)[:MOST_LINES]
        layers = list(document["layers"].items())[:MOST_LAYERS]
        contents.variances = {name: _positive(layer["variances"]) for name, layer in layers}
        if document["components"] is not None:
            contents.shares = np.sort(_positive(document["components"]["shares"]))[::-1]
    except (FileError, RunError) as error:
        note(f"the diagnosis is left out: {error}")
    except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError):
        contents.diagnosis = None
        note(f"the diagnosis is left out: it is damaged: tfvamp diagnose {run}")


def _positive(values: Any) -> np.ndarray:
    """Returns a list of numbers that are not negative; raises ValueError if it is not one."""
    array = np.array(values, np.float64)
    if array.ndim != 1 or not array.size or not ((array >= 0.0) & (array < history.LARGEST_VALUE)).all():
        raise ValueError("numbers")
    return array
