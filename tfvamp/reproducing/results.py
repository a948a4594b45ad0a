"""The contribution of a finished run to a table: an entry that a JSON file can hold, and its numbers, checked."""

from __future__ import annotations

import math
import pathlib
from typing import Any, NamedTuple

import numpy as np

from tfvamp import files
from tfvamp.errors import FileError, RunError
from tfvamp.runs import Run, history

OF_IMAGES = ("log_likelihood", "encoder_log_likelihood")
LARGEST_ENTRY = 2**24  # bytes: estimates of some hundred thousand images
LARGEST_NUMBER = 1e9


class Result(NamedTuple):
    """The numbers of one run, in nats per test image.

    Attributes:
      encoder: the log-likelihood with importance samples from the encoder's q, as the paper prints
        it.
      standard_error: error of `encoder` over test images; 0 for one image.
      monte_carlo_error: error of `encoder` over other samples.
      refined, refined_standard_error, refined_monte_carlo_error: the same three, with proposals
        that are fitted to each image; None if they were not estimated.
      samples: S.
      images: number of test images.
      elbo, kl: the ELBO and the KL with the encoder's q.
      amortisation_gap: None without refined proposals.
      active_units, kls: numbers of each stochastic layer.
      epochs, best_epoch, validation_elbo, minutes: numbers of the training.
      of_images: "encoder" and, if it was estimated, "refined" for each image, [N].
    """

    encoder: float
    standard_error: float
    monte_carlo_error: float
    refined: float | None
    refined_standard_error: float | None
    refined_monte_carlo_error: float | None
    samples: int
    images: int
    elbo: float
    kl: float
    amortisation_gap: float | None
    active_units: dict[str, int]
    kls: dict[str, float]
    epochs: int
    best_epoch: int
    validation_elbo: float
    minutes: float
    of_images: dict[str, np.ndarray]


def entry(run: Run, evaluation: dict[str, Any]) -> dict[str, Any]:
    """Returns what is kept of a finished run: settings, training, evaluation, versions, and estimates per image."""
    rows, config = run.rows(), run.config
    best = history.best_of(rows, config.beta)
    if best is None:
        raise RunError(f"the history of {run} is damaged: tfvamp train --resume {run} restores it")
    arrays = run.evaluated_arrays() or {}
    images = {}
    for name in OF_IMAGES:
        if name in arrays:
            values = arrays[name]
            if values.dtype.kind != "f" or values.ndim != 1 or not np.isfinite(values).all():
                raise RunError(f"the evaluation of {run} is damaged: tfvamp evaluate {run} repeats it")
            images[name] = np.round(values.astype(float), 3).tolist()
    settings = {
        name: getattr(config, name) for name in ("dataset", "model", "prior", "learning_rate", "seed")
    }
    return {
        **settings,
        "epochs": len(rows),
        "best_epoch": int(best["epoch"]),
        "validation_elbo": best["val_elbo"],
        "minutes": sum(row["seconds"] for row in rows) / 60.0,
        "evaluation": {name: value for name, value in evaluation.items() if name != "current"},
        "versions": run.document.versions,
        "images": images,
    }


def read_entry(path: pathlib.Path) -> dict[str, Any]:
    """Returns the entry in a JSON file.

    Raises:
      RunError: it is damaged.
    """
    try:
        return files.read_json(path, LARGEST_ENTRY)
    except FileError as error:
        raise RunError(str(error)) from error


def result_of(kept: dict[str, Any], where: str) -> Result:
    """Returns the numbers of an entry.

    Args:
      kept: the entry.
      where: the place that an error names.

    Raises:
      RunError: something is missing, or is not a number.
    """
    try:
        evaluation = kept["evaluation"]
        own = evaluation.get("encoder", evaluation)
        refined = evaluation.get("proposal") == "refined" and own is not evaluation
        active = evaluation["active_units"]
        active = active if isinstance(active, dict) else {"z": active}
        images = {name: np.array(values, float) for name, values in kept["images"].items()}
        encoder_name = "log_likelihood" if own is evaluation else "encoder_log_likelihood"
        of_images = {"encoder": images[encoder_name]} if encoder_name in images else {}
        if refined and "log_likelihood" in images:
            of_images["refined"] = images["log_likelihood"]
        if any(values.shape != (evaluation["num_examples"],) for values in of_images.values()):
            raise ValueError("images")
        return Result(
            encoder=_number(own["log_likelihood"]),
            standard_error=_number(own["standard_error"] or 0.0),
            monte_carlo_error=_number(own["monte_carlo_error"] or 0.0),
            refined=_number(evaluation["log_likelihood"]) if refined else None,
            refined_standard_error=_number(evaluation["standard_error"] or 0.0) if refined else None,
            refined_monte_carlo_error=_number(evaluation["monte_carlo_error"] or 0.0) if refined else None,
            samples=int(_number(own["num_samples"])),
            images=int(_number(own["num_examples"])),
            elbo=_number(own["elbo"]),
            kl=_number(own["kl"]),
            amortisation_gap=_number(evaluation["amortisation_gap"]) if refined else None,
            active_units={str(name)[:20]: int(_number(count)) for name, count in active.items()},
            kls={
                str(name)[:20]: _number(own[f"kl_{name}"])
                for name in active
                if len(active) > 1 and f"kl_{name}" in own
            },
            epochs=int(_number(kept["epochs"])),
            best_epoch=int(_number(kept["best_epoch"])),
            validation_elbo=_number(kept["validation_elbo"]),
            minutes=_number(kept["minutes"]),
            of_images=of_images,
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RunError(f"the evaluation of {where} is damaged: evaluate it again") from error


def _number(value: Any) -> float:
    """Returns a number of an entry; raises ValueError if it is none, or not one that an evaluation gives."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError("type")
    if not math.isfinite(value) or abs(value) > LARGEST_NUMBER:
        raise ValueError("size")
    return float(value)
