"""Latents decoded in blocks, so that memory does not grow with their number."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import tensorflow as tf

# Latents decoded at a time: limits memory to [ROWS, H W C] and [ROWS, K]. On two cores 2500 take 70 ms for
# S = 5000, K = 500; 5000 take 100, 1250 take 80 (measured, not explained).
ROWS = 2500
IMAGES = 500  # many, because each batch encodes all pseudo-inputs
GRADIENT_ROWS = 1600
CONV_LAYERS = 10  # approximate number of feature maps of an image that are kept for the gradient
DENSE_LAYERS = 10  # the same of the layers of hidden units
MEMORY = 2 * 2**30  # default number of bytes for all that is computed at a time
BYTES_OF_LARGEST = 16  # of that for each value of the largest array: float32, and three arrays beside it


def largest(max_memory: float = MEMORY) -> int:
    """Returns how many values the largest array may have if all of them together take `max_memory` bytes."""
    return int(max_memory) // BYTES_OF_LARGEST


def rows_of(model, event_shape: Sequence[int], max_memory: float = MEMORY) -> int:
    """Returns how many latents a model decodes at a time: `ROWS`, or fewer if its layers or its images are wide."""
    heads = getattr(getattr(getattr(model, "decoder", None), "likelihood", None), "heads", ("pixels",))
    inside = math.prod(event_shape[:2]) * getattr(model, "features_per_pixel", 1)
    widest = max(inside, math.prod(event_shape) * len(heads), _of_prior(model))
    return max(1, min(ROWS, largest(max_memory) // widest))


def rows_of_gradients(model, event_shape: Sequence[int], max_memory: float = MEMORY) -> int:
    """Returns how many latents a model decodes at a time if gradients follow, for which every layer is kept."""
    features = getattr(model, "features_per_pixel", 1)
    layers = CONV_LAYERS if features > 1 else DENSE_LAYERS
    kept = max(layers * features * math.prod(event_shape[:2]), 2 * _of_prior(model))
    return max(1, min(GRADIENT_ROWS, rows_of(model, event_shape, max_memory), largest(max_memory) // kept))


def _of_prior(model) -> int:
    """Returns how many values of four bytes a latent takes for log p(z), which has a float64 for each component."""
    return 2 * (getattr(getattr(model, "prior", None), "num_components", None) or 1)


def images_at_once(model, event_shape: Sequence[int]) -> int:
    """Returns how many images a model encodes and decodes at a time outside training."""
    return min(IMAGES, rows_of(model, event_shape))


def in_blocks(
    function: Callable, count: int | tf.Tensor, size: int | tf.Tensor, shape: Sequence[int | None]
) -> tf.Tensor:
    """Returns function(start, stop) for successive blocks of 0, ..., count - 1, joined along the first axis.

    Args:
      function: a function that returns float32 of `shape`, whose first size is stop - start.
      count: total number.
      size: number at a time.
      shape: shape of a result, with None as its first size.
    """
    known = tf.get_static_value(count), tf.get_static_value(size)
    if None not in known and known[0] <= known[1]:
        return function(0, count)
    num_blocks = -(-count // size)
    results = tf.TensorArray(tf.float32, num_blocks, infer_shape=False, element_shape=shape)

    def body(block, results):
        start = block * size
        return block + 1, results.write(block, function(start, tf.minimum(start + size, count)))

    _, results = tf.while_loop(
        lambda block, _: block < num_blocks, body, (tf.constant(0), results), parallel_iterations=1
    )
    return results.concat()
