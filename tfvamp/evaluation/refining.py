"""Proposals fitted to each image, block by block."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
import tensorflow as tf

from tfvamp import seeds
from tfvamp.config import Estimation
from tfvamp.evaluation import proposals
from tfvamp.evaluation.images import Part, noise_of, once, padded, taken
from tfvamp.evaluation.needs import images_refined_at_once, latent_dims
from tfvamp.evaluation.proposals import Proposal
from tfvamp.evaluation.protocol import Evaluable, levels_of
from tfvamp.evaluation.sharing import Kept
from tfvamp.graph import traced


def in_parts(
    model: Evaluable,
    x: tf.Tensor,
    start: Proposal,
    prior,
    how: Estimation,
    seed: int,
    kept: Kept,
    say: Callable[[str], None],
    advance: Callable[[int, int], None],
) -> Iterator[Part]:
    """Yields images [N, H, W, C] with their proposals, all at once or in equal blocks that are refined one by one.

    A block is refined when its proposal is first asked for (`proposals.refine`); the fit is dropped
    with the `Part`.
    """
    if how.proposal != "refined":
        yield Part(0, x, lambda: start)
        return
    levels, base = levels_of(model), seeds.stateless(seed, "refine")
    settings = how.refine_steps, how.refine_step_size, how.refine_samples
    size = images_refined_at_once(model, tuple(x.shape[1:]), latent_dims(model, prior), how)

    def step(indices, proposal, x, prior):
        count = how.refine_steps * how.refine_samples
        noise = noise_of(base, indices, count, start.loc.shape[1], levels, prior.dtype)
        return proposals.refine(proposal, x, noise, prior, model.likelihood, levels, *settings)

    # No XLA: its loops on a CPU use one thread for products. 300 steps take 13 s for 100 images, not minutes.
    refine = traced(step)
    structure = proposals.unfitted(taken(start, tf.range(1)), levels).fit
    rising = refined = 0

    def part_of(first: int, name: str) -> Part:
        count = min(size, len(x) - first)

        def of_block() -> dict[str, np.ndarray]:
            chosen = padded(first, count, size)
            fit, last, before = refine(chosen, *taken((start, x), chosen), prior)
            arrays = taken((*tf.nest.flatten(fit), last - before), tf.range(count))
            return {str(index): array.numpy() for index, array in enumerate(arrays)}

        def proposal() -> Proposal:
            nonlocal rising, refined
            *fitted, risen = once(kept, name, of_block).values()
            rising, refined = rising + int((risen > proposals.RISEN).sum()), refined + count
            advance(first + count // 2, len(x))
            fit = tf.nest.pack_sequence_as(structure, [tf.constant(array) for array in fitted])
            return own._replace(fit=fit)

        own, images = taken((start, x), tf.range(first, first + count))
        return Part(first, images, proposal, begun=0.5)

    for first in range(0, len(x), size):
        name = f"refined-proposals-{first}-{size}"
        yield part_of(first, name)
        kept.pop(name, None)  # it is large, and the estimates made from it are kept
    if rising:
        say(
            f"the proposals of {rising} of {refined} images still improved when their {how.refine_steps} steps ended: "
            "more --refine-steps raise the effective sample size"
        )
