"""Proposals fitted to each image, block by block."""

from __future__ import annotations

import functools
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from tfvamp import memory, seeds
from tfvamp.blocks import rows_of_gradients
from tfvamp.config import Estimation
from tfvamp.evaluation import proposals
from tfvamp.evaluation.images import AT_ONCE, Kept, joined, noise_of, once, padded, taken
from tfvamp.evaluation.proposals import Proposal
from tfvamp.evaluation.protocol import Evaluable, levels_of

LATENTS = 80  # of one image, for an estimate of memory


def check_memory(how: Estimation) -> None:
    """Raises UsageError where memory cannot hold the noise of a refinement."""
    if how.proposal == "refined":
        noise = 4.0 * how.refine_steps * how.refine_samples * AT_ONCE * LATENTS
        memory.check(
            noise, f"the noise of {how.refine_steps} refinement steps", "choose fewer steps or samples"
        )


def refined(
    model: Evaluable,
    x: tf.Tensor,
    start: Proposal,
    prior,
    how: Estimation,
    seed: int,
    kept: Kept,
    say: Callable[[str], None],
    advance: Callable[[int, int], None],
) -> Proposal:
    """The proposals of images [N, H, W, C], refined in blocks of one size (`proposals.refine`)."""
    settings = how.refine_steps, how.refine_step_size, how.refine_samples
    levels, base = levels_of(model), seeds.stateless(seed, "refine")
    size = max(1, min(AT_ONCE, rows_of_gradients(model, tuple(x.shape[1:])) // how.refine_samples))
    latent_dims = start.loc.shape[1]

    def step(indices, proposal, x, prior):
        noise = noise_of(base, indices, how.refine_steps * how.refine_samples, latent_dims, levels)
        return proposals.refine(proposal, x, noise, prior, model.likelihood, levels, *settings)

    # Without XLA, whose loops on a CPU compute products on one thread: 300 steps take 13 s for 100 images, not minutes.
    refine = tf.function(step, autograph=False)

    def of_block(first: int, count: int) -> dict[str, np.ndarray]:
        chosen = padded(first, count, size)
        part, images = taken((start, x), chosen)
        fitted, last, before = refine(chosen, part, images, prior)
        arrays = tf.nest.flatten(taken((fitted, last - before), tf.range(count)))
        return {str(index): array.numpy() for index, array in enumerate(arrays)}

    blocks, rising = [], 0
    for first in range(0, len(x), size):
        count = min(size, len(x) - first)
        arrays = once(kept, f"refined-proposals-{first}-{size}", functools.partial(of_block, first, count))
        *fitted, risen = (tf.constant(arrays[str(index)]) for index in range(len(arrays)))
        blocks.append(tf.nest.pack_sequence_as(start, fitted))
        rising += int(tf.reduce_sum(tf.cast(risen > proposals.RISEN, tf.int32)))
        advance(first + count, len(x))
    if rising:
        say(
            f"the proposals of {rising} of {len(x)} images still improved when their {how.refine_steps} steps ended: "
            "more --refine-steps raise the effective sample size"
        )
    return joined(blocks)
