"""What a report says of a run: read from its folder, and checked. Parts that cannot be read become notes."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Callable
from typing import Any

import numpy as np

from tfvamp import files, plots
from tfvamp.errors import FileError, RunError, TfvampError
from tfvamp.models import LatentVariableModel
from tfvamp.reports.published import Published, departures, published
from tfvamp.runs import Run, history, pictures
from tfvamp.runs.diagnosis import described, findings
from tfvamp.runs.document import Document
from tfvamp.runs.folder import EVALUATED

MOST_PIXELS = 2**20  # of a picture
MOST_POINTS = 20  # of a curve of estimates
MOST_LAYERS = 8  # stochastic ones of a model
MOST_LINES = 40  # of a diagnosis


@dataclasses.dataclass(frozen=True)
class Look:
    """What pictures a report has.

    Attributes:
      images: in a picture, at most; 0 for a report without pictures.
      seed: of what is drawn.
      dataset, data_dir, raw_dir: where the data are, as for `Run.dataset`.
    """

    images: int = 64
    seed: int = 0
    dataset: str | None = None
    data_dir: str | os.PathLike | None = None
    raw_dir: str | os.PathLike | None = None


@dataclasses.dataclass(frozen=True)
class Estimate:
    """What one proposal gave in an evaluation.

    Attributes:
      name: such as "encoder's q".
      of_encoder: whether it is importance sampling from the encoder's q, as printed numbers are.
      document: its part of evaluation.json.
      curve: points (number of samples, mean, error).
    """

    name: str
    of_encoder: bool
    document: dict[str, Any]
    curve: list[tuple[float, float, float]]

    @property
    def by_importance(self) -> bool:
        """Whether it comes from importance samples, and not from chains."""
        return str(self.document.get("estimator") or "importance") == "importance"

    def number(self, *names: str) -> float | None:
        """Returns a number of evaluation.json; None where it has none there."""
        return number(self.document, *names)


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """An evaluation of the weights that the run has now.

    Attributes:
      document: evaluation.json.
      estimates: the encoder's own first, where it is there.
      values: the log-likelihood of each image [N], by the name of the estimate.
    """

    document: dict[str, Any]
    estimates: list[Estimate]
    values: dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Picture:
    """A grid of images.

    Attributes:
      title, caption: what it shows.
      png: the file.
    """

    title: str
    caption: str
    png: bytes


@dataclasses.dataclass(eq=False)
class Contents:
    """What a report says of a run.

    Attributes:
      run: the run.
      document: what its config.json says, as the report shows it.
      rows: its history.
      best: the row of the best epoch; None where there is none yet.
      evaluations: by the name of the split; "simulated" for bounds.
      printed: the paper's number for this data set, model and prior.
      departures: settings in which the run differs from the paper's.
      diagnosis: diagnosis.json, as text by name; None where there is none of these weights.
      diagnosed: on what the diagnosis was made.
      findings: what a diagnosis says in words.
      variances, shares: of the latents of each layer, and of the prior's components, in a diagnosis.
      pictures: grids of images.
      parameters: number of weights; None where the model was not loaded.
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
    """Returns what a report says of a run; `say` is told, as the report is, of what is left out."""
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
            _add_pictures(contents, look, note)
        except TfvampError as error:
            note(f"pictures are left out: {error}")
    return contents


def number(document: Any, *names: str) -> float | None:
    """Returns the finite number that lies under these names in a JSON document; None where there is none."""
    for name in names:
        document = document.get(name) if isinstance(document, dict) else None
    if isinstance(document, bool) or not isinstance(document, (int, float)):
        return None
    return float(document) if abs(document) < history.LARGEST_VALUE else None


def _evaluation(run: Run, split: str, note: Callable[[str], None]) -> Evaluation | None:
    """The newest evaluation of a split; None where there is none of the weights that the run has now."""
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
    """A list of numbers that are not negative; ValueError where it is none."""
    array = np.array(values, np.float64)
    if array.ndim != 1 or not array.size or not ((array >= 0.0) & (array < history.LARGEST_VALUE)).all():
        raise ValueError("numbers")
    return array


def _add_pictures(contents: Contents, look: Look, note: Callable[[str], None]) -> None:
    """Adds samples, pseudo-inputs and reconstructions.

    Raises:
      RunError: the run has no weights, or they are damaged.
    """
    model = contents.run.model()
    contents.parameters = int(model.count_params())
    height, width, _ = contents.run.spec.shape
    most = max(2, min(look.images, MOST_PIXELS // (height * width)))
    samples = model.sample(most, look.seed).numpy()
    shown = "means of p(x | z)" if model.has_mean else "drawn from p(x | z)"
    _add(contents, "Samples", f"{most} images from the prior: {shown}, z ~ p(z). Seed {look.seed}.", samples)
    components = pictures.components(model, most, look.seed)
    if components is not None:
        pairs = _side_by_side(components.pseudo_inputs, components.generated)
        caption = f"The first {len(components.pseudo_inputs)}, with their contrast stretched, each with what it generates to the right."
        _add(contents, "Pseudo-inputs", caption, pairs)
    elif (centres := model.prior.centres()) is not None:
        images = pictures.generated(model, centres[:most], look.seed)
        _add(contents, "Components", f"What the first {len(images)} generate at their means.", images)
    try:
        _add_reconstructions(contents, model, most // 2, look)
    except TfvampError as error:
        note(f"reconstructions are left out: {error}")


def _add_reconstructions(contents: Contents, model: LatentVariableModel, most: int, look: Look) -> None:
    data = contents.run.dataset(most, look.dataset, look.data_dir, look.raw_dir)
    images = data.test.array()[0]
    pairs = _side_by_side(images, model(images).numpy())
    _add(contents, "Reconstructions", "Test images, each with its reconstruction to the right.", pairs)


def _add(contents: Contents, title: str, caption: str, images: np.ndarray) -> None:
    columns = 2 * math.ceil(math.sqrt(len(images)) / 2)  # an even number: pairs stay together
    contents.pictures.append(Picture(title, caption, plots.bare_grid(images, 1, plots.Look(columns=columns))))


def _side_by_side(ours: np.ndarray, theirs: np.ndarray) -> np.ndarray:
    """Images [n, ...] and [at least n, ...] in turn, [2 n, ...]."""
    return np.stack([ours, theirs[: len(ours)]], axis=1).reshape(-1, *ours.shape[1:])
