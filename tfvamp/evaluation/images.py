"""Images in blocks of one size, their posteriors, and the noise that belongs to each."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np
import tensorflow as tf

from tfvamp import seeds
from tfvamp.blocks import images_at_once
from tfvamp.errors import UsageError
from tfvamp.evaluation.protocol import Evaluable, levels_of, posterior_of
from tfvamp.evaluation.sharing import Kept, Shared, ShareDone
from tfvamp.graph import traced
from tfvamp.layers.gaussian import DiagonalGaussian

AT_ONCE = 100  # images encoded or refined at a time


class Part(NamedTuple):
    """Consecutive images, with the proposal from which their latents are drawn.

    Attributes:
      first: index of the first image.
      x: the images [n, H, W, C].
      proposal: a function that returns their `Proposal`. It may take long, so it is called once at
        most.
      begun: share of the work on these images that the proposal takes.
    """

    first: int
    x: tf.Tensor
    proposal: Callable[[], Any]
    begun: float = 0.0

    def done(self, share: float) -> int:
        """Returns how many of all images are done when `share` of the work after the proposal is done."""
        return self.first + int(len(self.x) * (self.begun + (1.0 - self.begun) * share))


def as_images(x, model: Evaluable) -> tf.Tensor:
    """Returns images [N, H, W, C] from an array or a `tf.data` of images, float32 (float64 for a model in float64).

    Raises:
      UsageError: there are no images, or the model checks its images and refuses them.
    """
    look_at = getattr(model, "as_images", tf.convert_to_tensor)
    if isinstance(x, tf.data.Dataset):
        batches = [look_at(batch) for batch in x.batch(1000)]
        x = tf.concat(batches, axis=0) if batches else tf.zeros([0])
    elif np.size(x):
        x = look_at(x)
    x = tf.convert_to_tensor(x)
    x = x if x.dtype == tf.float64 and hasattr(model, "as_images") else tf.cast(x, tf.float32)
    if not x.shape.rank or not x.shape[0]:
        raise UsageError("there are no images to evaluate")
    return x


def encode(model: Evaluable, x: tf.Tensor) -> list[DiagonalGaussian]:
    """Returns the posteriors of images [N, H, W, C], batch shape [N], one for each stochastic layer.

    The top layer comes first; the layers below it are taken at the means of the latents above.
    Images are encoded in blocks of one size, so that each result is the same to the last bit for
    any N.
    """
    levels = levels_of(model)

    def posteriors_of(x):
        posteriors = [posterior_of(model, x)]
        for level in levels:
            posteriors.append(level.posterior(x, posteriors[-1].loc))
        return [(one.loc, one.log_variance) for one in posteriors]

    encoder = traced(posteriors_of)
    size = min(AT_ONCE, images_at_once(model, tuple(x.shape[1:])))
    blocks = []
    for first in range(0, len(x), size):
        count = min(size, len(x) - first)
        encoded = encoder(tf.gather(x, padded(first, count, size)))
        blocks.append(taken(encoded, tf.range(count)))
    return [DiagonalGaussian(loc, log_variance) for loc, log_variance in joined(blocks)]


def joined(blocks):
    """Returns several structures of tensors, all of one form, joined along the first axis."""
    return tf.nest.map_structure(lambda *parts: tf.concat(parts, axis=0), *blocks)


def once(kept: Kept, name: str, compute: Callable[[], dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Returns the arrays of a block: kept ones, or else computed ones, which are then kept."""
    arrays = kept.get(name)
    if arrays is None:
        arrays = kept[name] = compute()
    return arrays


def by_blocks(
    parts: Iterable[Part],
    size: int,
    kind: str,
    total: int,
    kept: Kept,
    advance: Callable[[int, int], None],
    of_block: Callable[[Part, Callable[[], Any], int, int], dict[str, np.ndarray]],
) -> list[dict[str, np.ndarray]]:
    """Returns the arrays of all blocks of images, of which kept ones are not computed; a `Shared` waits for others.

    Args:
      parts, total: the images, and their number.
      size: maximum size of a block.
      kind: prefix of the names of kept blocks.
      kept, advance: as for `log_likelihood`.
      of_block: a function from a part, its proposal (computed once, when it is asked for), the
        index in the part of the block's first image, and the number of images, to the block's
        arrays.

    Raises:
      ShareDone: the blocks of this process's share are kept, and another process collects all
        blocks.
    """
    results, shared = [], kept if isinstance(kept, Shared) else None
    for part in parts:
        proposal = functools.cache(part.proposal)
        for first in range(0, len(part.x), size):
            count = min(size, len(part.x) - first)
            name = f"{kind}-{part.first + first}-{size}"
            # A part whose proposals take long stays with one process.
            unit = part.first if part.begun else part.first + first
            if shared is None or shared.to_compute(name, unit, total):
                results.append(once(kept, name, functools.partial(of_block, part, proposal, first, count)))
                advance(part.done((first + count) / len(part.x)), total)
    if shared is not None and not shared.share.collects:
        raise ShareDone
    return results


def taken(tensors, indices: tf.Tensor):
    """Returns the rows of all tensors in a structure at some indices."""
    return tf.nest.map_structure(lambda one: tf.gather(one, indices), tensors)


def padded(first: int, count: int, size: int) -> tf.Tensor:
    """Returns indices of `count` images from `first` on, the last repeated up to `size`: blocks have one shape."""
    return tf.constant(np.minimum(np.arange(first, first + size), first + count - 1), tf.int32)


def noise_of(
    base: tf.Tensor,
    indices: tf.Tensor,
    num_samples: int | tf.Tensor,
    latent_dims: int,
    levels,
    dtype: tf.DType = tf.float32,
) -> list[tf.Tensor]:
    """Returns standard normal draws [S, B, D] for each layer, drawn per image from the seed of its index."""

    def draws(dims: int, seed: tf.Tensor) -> tf.Tensor:
        noise = tf.map_fn(
            lambda index: seeds.normal([num_samples, dims], seeds.fold_in(seed, index), dtype),
            indices,
            fn_output_signature=tf.TensorSpec(
                [num_samples if isinstance(num_samples, int) else None, dims], dtype
            ),
        )
        return tf.transpose(noise, [1, 0, 2])

    return [
        draws(latent_dims, base),
        *(draws(level.dims, seeds.fold_in_name(base, level.name)) for level in levels),
    ]
