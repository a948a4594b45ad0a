"""Importance sampling of log p(x), image by image: Burda, Grosse and Salakhutdinov (2016), equation 8."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from tfvamp import objectives, seeds
from tfvamp.evaluation import estimate, proposals
from tfvamp.evaluation.images import Kept, noise_of, once, padded, taken
from tfvamp.evaluation.proposals import Proposal
from tfvamp.evaluation.protocol import Evaluable, levels_of
from tfvamp.graph import compiled
from tfvamp.layers.gaussian import DiagonalGaussian

WEIGHED = 16  # images weighed at a time at most: a block is padded to its size, however few images there are


def importance_sampling(
    model: Evaluable,
    x: tf.Tensor,
    proposal: Proposal,
    prior,
    num_samples: int,
    seed: int,
    rows: int,
    kind: str,
    kept: Kept,
    jit: bool,
    say: Callable[[str], None],
    advance: Callable[[int, int], None],
) -> dict[str, Any]:
    """The arrays of a `LogLikelihood` for images x [N, H, W, C], from latents of the proposal.

    Args:
      rows: number of latents decoded at a time.
      kind: the name of the proposal.
      kept: blocks that are finished.
    """
    levels, base = levels_of(model), seeds.stateless(seed, "evaluate")
    latent_dims = proposal.loc.shape[1]
    draw = compiled(lambda indices: noise_of(base, indices, num_samples, latent_dims, levels), jit, say)
    decoded = compiled(
        lambda proposal, x, noise, prior: _stacked(
            proposals.log_weight_parts(proposal, x, noise, prior, model.likelihood, levels)
        ),
        jit,
        say,
    )
    results: list[dict[str, np.ndarray]] = []
    batch = max(1, min(WEIGHED, rows // num_samples))

    def of_block(first: int, count: int) -> dict[str, Any]:
        chosen = padded(first, count, batch)
        part, images = taken((proposal, x), chosen)
        noise = draw(chosen)  # [S, B, D] for each layer
        chunk = max(1, rows // batch)
        chunks = [
            decoded(part, images, [of_layer[at : at + chunk] for of_layer in noise], prior)
            for at in range(0, num_samples, chunk)
        ]
        parts = np.concatenate(chunks, axis=1).astype(np.float64)  # [1 + layers, S, B]
        estimates = estimate.of_parts(parts[0], parts[1:])  # of the padding, too: sums depend on shapes
        return {name: values[..., :count] for name, values in estimates.items()}

    for first in range(0, len(x), batch):
        count = min(batch, len(x) - first)
        name = f"{kind}-{first}-{batch}"
        results.append(once(kept, name, functools.partial(of_block, first, count)))
        advance(first + count, len(x))
    return {name: np.concatenate([one[name] for one in results], axis=-1) for name in results[0]}


def weight_parts(posterior: DiagonalGaussian, generator: objectives.Generator, x, noise) -> tf.Tensor:
    """log p(x | z), and the KL of each layer, [1 + layers, S, B], with the model's own posteriors."""
    latents, posteriors = objectives.infer(posterior, generator.levels, x, noise)
    return _stacked(objectives.parts(latents, posteriors, generator, x))


def _stacked(at: objectives.Parts) -> tf.Tensor:
    return tf.stack([at.reconstruction, *at.kls])
