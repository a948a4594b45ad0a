"""Importance sampling of log p(x), image by image: Burda, Grosse and Salakhutdinov (2016), equation 8."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import tensorflow as tf

from tfvamp import objectives, seeds
from tfvamp.config import Estimation
from tfvamp.evaluation import estimate, proposals
from tfvamp.evaluation.images import Part, by_blocks, noise_of, padded, taken
from tfvamp.evaluation.proposals import Proposal
from tfvamp.evaluation.protocol import Evaluable, levels_of
from tfvamp.evaluation.sharing import Kept
from tfvamp.graph import compiled
from tfvamp.layers.gaussian import DiagonalGaussian

WEIGHED = 16  # most images weighed at a time: a block is padded to its size, however few images there are


def importance_sampling(
    model: Evaluable,
    parts_of_images: Iterable[Part],
    total: int,
    latent_dims: int,
    prior,
    how: Estimation,
    seed: int,
    rows: int,
    kept: Kept,
    jit: bool,
    say: Callable[[str], None],
    advance: Callable[[int, int], None],
) -> dict[str, Any]:
    """Returns the arrays of a `LogLikelihood` of images, from latents drawn from their proposals.

    Args:
      parts_of_images, total: the images, and their number.
      latent_dims: D of the top layer.
      rows: number of latents decoded at a time.
      kept: finished blocks.
    """
    num_samples, levels, base = how.samples, levels_of(model), seeds.stateless(seed, "evaluate")
    draw = compiled(
        lambda indices: noise_of(base, indices, num_samples, latent_dims, levels, prior.dtype), jit, say
    )
    decoded = compiled(
        lambda proposal, x, noise: _stacked(  # with the prior as an argument, a call takes a few ms more
            proposals.log_weight_parts(proposal, x, noise, prior, model.likelihood, levels)
        ),
        jit,
        say,
    )
    batch = max(1, min(WEIGHED, rows // num_samples))

    def of_block(part: Part, proposal: Callable[[], Proposal], first: int, count: int) -> dict[str, Any]:
        chosen = padded(first, count, batch)
        drawn_from, images = taken((proposal(), part.x), chosen)
        noise = draw(chosen + part.first)  # [S, B, D] for each layer
        chunk = max(1, rows // batch)
        chunks = [
            decoded(drawn_from, images, [of_layer[at : at + chunk] for of_layer in noise])
            for at in range(0, num_samples, chunk)
        ]
        parts = np.concatenate(chunks, axis=1).astype(np.float64)  # [1 + layers, S, B]
        estimates = estimate.of_parts(parts[0], parts[1:])  # with the padding: sums depend on shapes
        return {name: values[..., :count] for name, values in estimates.items()}

    results = by_blocks(parts_of_images, batch, str(how.proposal), total, kept, advance, of_block)
    return {name: np.concatenate([one[name] for one in results], axis=-1) for name in results[0]}


def weight_parts(posterior: DiagonalGaussian, generator: objectives.Generator, x, noise) -> tf.Tensor:
    """Returns log p(x | z) and the KL of each layer, [1 + layers, S, B], for the model's own posteriors."""
    latents, posteriors = objectives.infer(posterior, generator.levels, x, noise)
    return _stacked(objectives.parts(latents, posteriors, generator, x))


def _stacked(at: objectives.Parts) -> tf.Tensor:
    return tf.stack([at.reconstruction, *at.kls])
