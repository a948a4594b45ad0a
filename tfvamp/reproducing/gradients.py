"""The appendix's argument about gradients, measured: how strongly each prior pulls, and when a VampPrior lets go.

The KL of an image reaches the encoder through z = mean + scale * noise, by the gradient of log p(z)
- log q(z | x). A component q(z | u_k) that equals q(z | x) cancels it. A standard normal prior, or
a mixture with means of its own, cannot follow the encoder.
"""

from __future__ import annotations

import os
import textwrap
from collections.abc import Callable, Sequence
from typing import NamedTuple

import matplotlib.figure
import numpy as np
import tensorflow as tf

from tfvamp import paper, plots, seeds
from tfvamp.config import PRIORS
from tfvamp.errors import RunError
from tfvamp.layers.gaussian import DiagonalGaussian
from tfvamp.models import LatentVariableModel
from tfvamp.reproducing.cells import Cell
from tfvamp.reproducing.curves import COLOURS, SMALL, nothing
from tfvamp.reproducing.pictures import trained
from tfvamp.runs import Run

IMAGES, DRAWS, AT_ONCE = 1000, 8, 50
BINS = 12  # of images by similarity, of equal size


class Pulls(NamedTuple):
    """Norms of gradients for each image, [N], averaged over draws of z, in units of the posterior's scale.

    Attributes:
      prior: norm of the gradient of log p(z).
      net: norm of the gradient of log p(z) - log q(z | x).
    """

    prior: np.ndarray
    net: np.ndarray


def pulls(model: LatentVariableModel, images: np.ndarray) -> Pulls:
    """Returns the pull of a model's prior on the top latents of images [N, H, W, C]."""
    found = []
    for first in range(0, len(images), AT_ONCE):
        posterior = model.posterior(images[first : first + AT_ONCE])
        shape = [DRAWS, *posterior.loc.shape]
        noise = seeds.normal(shape, seeds.stateless(first, "gradients"), posterior.dtype)
        z = posterior.at(noise)
        with tf.GradientTape() as tape:
            tape.watch(z)
            log_prob = model.prior.log_prob(z)
        of_prior = tape.gradient(log_prob, z) * tf.exp(0.5 * posterior.log_variance)
        # The gradient of -log q(z | x) is noise / scale.
        norms = [tf.reduce_mean(tf.norm(value, axis=-1), axis=0) for value in (of_prior, of_prior + noise)]
        found.append(np.stack([norm.numpy() for norm in norms]))
    return Pulls(*np.concatenate(found, axis=1))


def distances(model: LatentVariableModel, images: np.ndarray) -> np.ndarray:
    """Returns the Bhattacharyya distance of each image's q(z | x) to the nearest component q(z | u_k), [N], in nats."""
    components = model.prior.components()
    found = []
    for first in range(0, len(images), AT_ONCE):
        posterior = model.posterior(images[first : first + AT_ONCE])
        found.append(bhattacharyya(posterior, components).numpy().min(axis=1))
    return np.concatenate(found)


def bhattacharyya(one: DiagonalGaussian, other: DiagonalGaussian) -> tf.Tensor:
    """Returns the distances [N, K] of diagonal normals, batch shapes [N] and [K]: -log of the integral of sqrt(p q)."""
    first, second = one.log_variance[:, tf.newaxis], other.log_variance
    average = 0.5 * (tf.exp(first) + tf.exp(second))  # [N, K, D]
    square = tf.math.squared_difference(one.loc[:, tf.newaxis], other.loc)
    parts = 0.25 * square / average + tf.math.log(average) - 0.5 * (first + second)
    return 0.5 * tf.reduce_sum(parts, axis=-1)


def figure(
    cells: Sequence[Cell],
    look: plots.Look,
    data_dir: str | os.PathLike | None = None,
    raw_dir: str | os.PathLike | None = None,
    say: Callable[[str], None] = lambda text: None,
) -> bytes:
    """Draws the priors' pulls against the similarity of test images and pseudo-inputs of the first trained VampPrior."""
    drawn = matplotlib.figure.Figure(figsize=(6.6, 3.2), layout="constrained")
    panels = drawn.subplots(1, 2)
    chosen = next(
        ((cell.point, run) for cell in cells if _has_pseudo_inputs(cell) and (run := trained(cell))), None
    )
    if chosen is None:
        for axes in panels:
            nothing(axes, "no run with a VampPrior is trained")
        return plots.rendered(drawn, look)
    point, of_vamp = chosen
    images = of_vamp.dataset(IMAGES, None, data_dir, raw_dir, say).test.array()[0]
    near = distances(_mixture(of_vamp), images)
    edges = np.quantile(near, np.linspace(0.0, 1.0, BINS + 1))
    for cell in cells:
        if (cell.point.dataset, cell.point.model) != (point.dataset, point.model):
            continue
        run = trained(cell)
        prior = str(cell.point.prior)
        if run is None:
            text = textwrap.shorten(cell.text, 30).replace("$", r"\$")  # otherwise it would be a formula
            for axes in panels:
                axes.plot([], [], " ", label=f"{paper.TITLES[prior]}: {text}")
            continue
        measured = pulls(run.model(), images)
        for axes, values in zip(panels, measured, strict=True):
            _bands(axes, near, values, edges, COLOURS.get(prior), paper.TITLES[prior])
    titles = (
        r"pull of the prior: $\nabla_z\,\log p(z)$",
        r"what is left: $\nabla_z\,(\log p(z) - \log q(z\,|\,x))$",
    )
    for axes, title in zip(panels, titles, strict=True):
        axes.set_title(title, fontsize=SMALL + 1)
        axes.set_xlabel(r"distance of $q(z\,|\,x)$ to the nearest $q(z\,|\,u_k)$ (nats)", fontsize=SMALL)
        axes.set_ylabel("norm, in units of the posterior's scale", fontsize=SMALL)
        axes.set_ylim(bottom=0.0)
        axes.tick_params(labelsize=SMALL)
        axes.grid(alpha=0.3)
    panels[0].legend(fontsize=SMALL - 0.5, frameon=False)
    drawn.supxlabel(
        f"{paper.TITLES[point.dataset]}, {paper.TITLES[str(point.model)]}, {len(images)} test images: medians and quartiles",
        fontsize=SMALL - 0.5,
        color="0.4",
    )
    return plots.rendered(drawn, look)


def _has_pseudo_inputs(cell: Cell) -> bool:
    return PRIORS[str(cell.point.prior)].pseudo_inputs is not None


def _mixture(run: Run) -> LatentVariableModel:
    model = run.model()
    if model.prior.clipped_pseudo_inputs() is None:
        raise RunError(f"{run} has no pseudo-inputs")
    return model


def _bands(axes, near: np.ndarray, values: np.ndarray, edges: np.ndarray, colour, label: str) -> None:
    """Draws the median of the values in each bin, and the band between their quartiles."""
    bins = np.clip(np.searchsorted(edges, near, side="right") - 1, 0, BINS - 1)
    filled = [index for index in range(BINS) if (bins == index).any()]
    at = [float(np.median(near[bins == index])) for index in filled]
    quartiles = np.array([np.quantile(values[bins == index], (0.25, 0.5, 0.75)) for index in filled]).T
    axes.fill_between(at, quartiles[0], quartiles[2], color=colour, alpha=0.2, linewidth=0)
    axes.plot(at, quartiles[1], color=colour, marker=".", linewidth=1.2, label=label)
