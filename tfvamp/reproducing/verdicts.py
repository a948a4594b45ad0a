"""Our numbers beside the published ones: means over seeds, errors, differences, verdicts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np

from tfvamp import paper
from tfvamp.catalog import CATALOG
from tfvamp.reproducing.cells import Cell
from tfvamp.reproducing.results import Result

Verdict = Literal["reproduced", "better", "not reproduced"]


class Ours(NamedTuple):
    """The finished runs of a cell as one number, in the unit that the paper prints.

    Attributes:
      value: mean over seeds of the log-likelihood from the encoder's q.
      error: standard error of `value`: the errors over test images, over seeds and of the Monte
        Carlo estimate, added in squares.
      image_error: the part of `error` over test images.
      refined: mean over seeds with refined proposals; None if they were not estimated.
      refined_error: the same as `error`, for `refined`.
    """

    value: float
    error: float
    image_error: float
    refined: float | None
    refined_error: float | None


def ours(cell: Cell) -> Ours | None:
    """Returns the finished runs of a cell as one number; None if there are none."""
    results, unit = cell.results, paper.nats_per_unit(cell.point.dataset)
    if not results:
        return None
    value, error, image_error = _mean(
        [(one.encoder, one.standard_error, one.monte_carlo_error) for one in results], unit
    )
    refined = [
        (one.refined, one.refined_standard_error or 0.0, one.refined_monte_carlo_error or 0.0)
        for one in results
        if one.refined is not None
    ]
    if len(refined) < len(results):
        return Ours(value, error, image_error, None, None)
    return Ours(value, error, image_error, *_mean(refined, unit)[:2])


def _mean(runs: Sequence[tuple[float, float, float]], unit: float) -> tuple[float, float, float]:
    """Returns the mean over runs of a value, its standard error, and the part of that over images.

    Args:
      runs: value, standard error over images and Monte Carlo error of each, in nats.
      unit: divisor of all of them.
    """
    values, of_images, of_samples = np.array(runs).T / unit
    count, image_error = len(values), float(np.abs(of_images).mean())
    of_seeds = float(values.var(ddof=1)) / count if count > 1 else 0.0
    error = math.sqrt(image_error**2 + of_seeds + float((of_samples**2).sum()) / count**2)
    return float(values.mean()), error, image_error


def verdict(found: Ours, published: float, fewer_is_better: bool) -> Verdict:
    """Returns how our number compares with the published one.

    The paper prints no errors, so its number is given the error over test images that ours has, and
    the two errors are added in squares. A number whose difference is within the sum is reproduced.
    """
    difference = found.value - published
    if abs(difference) <= math.hypot(found.error, found.image_error):
        return "reproduced"
    return "better" if (difference < 0.0) == fewer_is_better else "not reproduced"


def without_verdict(cell: Cell) -> str:
    """Returns why the results of a cell give no verdict; empty if they give one."""
    point, results = cell.point, cell.results
    if any(result.samples != paper.SAMPLES for result in results):
        return f"no verdict: S = {results[0].samples}, the paper has {paper.SAMPLES}"
    whole = CATALOG[point.dataset].sizes[2]
    if any(result.images != whole for result in results):
        return f"no verdict: {results[0].images} of {whole} test images"
    return ""


def paired(results: Sequence[Result], others: Sequence[Result], name: str) -> tuple[float, float] | None:
    """Returns the mean and standard error of the log-likelihood of others minus results, image by image, in nats.

    Args:
      results, others: results of the same seeds.
      name: "encoder" or "refined".

    Returns:
      None if they are not of the same images.
    """
    of_results = [result.of_images.get(name) for result in results]
    of_others = [result.of_images.get(name) for result in others]
    arrays = [values for values in (*of_results, *of_others) if values is not None]
    if not results or len(results) != len(others) or len(arrays) < 2 * len(results):
        return None
    if len({values.shape for values in arrays}) > 1 or len(arrays[0]) < 2:
        return None
    difference = np.mean(arrays[len(results) :], axis=0) - np.mean(arrays[: len(results)], axis=0)
    return float(difference.mean()), float(difference.std(ddof=1) / math.sqrt(len(difference)))
