"""Stateless seeds: integers at the interface, `[2]` int32 tensors inside, split by name.

Every random number of tfvamp comes from Philox bits, so that the same seed gives the
same draw eagerly, in `tf.function` and under XLA, on every device.
"""

from __future__ import annotations

import math
import zlib
from typing import TypeAlias

import keras
import numpy as np
import tensorflow as tf

from tfvamp.config import LARGEST_SEED as LARGEST
from tfvamp.errors import UsageError

ALGORITHM = "philox"
Seed: TypeAlias = "int | tuple[int, int] | tf.Tensor | keras.random.SeedGenerator | None"


def stateless(seed: int, *names: str) -> tf.Tensor:
    """Returns the stateless seed [2] of an integer `seed`, with a separate stream for each path of names.

    Raises:
      UsageError: the integer lies outside 0 to 2^31 - 1.

    >>> stateless(7, "train", "noise").shape
    TensorShape([2])
    """
    if not 0 <= seed <= LARGEST:
        raise UsageError(f"seed must lie between 0 and {LARGEST}; got {seed}")
    pair = np.array(
        [seed, zlib.crc32("/".join(names).encode(errors="surrogateescape")) & 0x7FFFFFFF], np.int32
    )
    return tf.constant(pair)


def as_seed(seed: Seed) -> tf.Tensor:
    """Returns a `[2]` seed from any seed that a caller may give.

    Args:
      seed: an integer, a pair, a tensor [] or [2], a `keras.random.SeedGenerator` (its next seed),
        or None. For None, TensorFlow draws a seed, which follows `keras.utils.set_random_seed`; a
        compiled function draws a new one in each call, too.

    Raises:
      ValueError: the seed has neither shape () nor [2].
    """
    if seed is None:
        return tf.random.uniform([2], maxval=LARGEST, dtype=tf.int32)
    if isinstance(seed, (int, np.integer)):
        return stateless(int(seed))
    values = seed.next() if isinstance(seed, keras.random.SeedGenerator) else seed
    pair = tf.cast(tf.convert_to_tensor(values), tf.int32)
    if pair.shape.rank == 0:
        return tf.stack([pair, tf.zeros_like(pair)])
    if pair.shape != (2,):
        raise ValueError(f"seed must be an integer or have shape [2]; got shape {pair.shape}")
    return pair


def fold_in(seed: tf.Tensor, index: int | tf.Tensor) -> tf.Tensor:
    """Returns the seed of item `index` (an example, a step, an epoch) of the stream `seed`."""
    return tf.random.fold_in(seed, tf.cast(index, tf.int32), alg=ALGORITHM)


def fold_in_name(seed: tf.Tensor, name: str) -> tf.Tensor:
    """Returns the seed of the named sub-stream of `seed`."""
    return fold_in(seed, zlib.crc32(name.encode()) & 0x7FFFFFFF)


def of_replica(seed: tf.Tensor) -> tf.Tensor:
    """Returns the seed itself on one device, or a different seed for each replica on several (`tf.distribute`)."""
    context = tf.distribute.get_replica_context()
    if context is None or context.num_replicas_in_sync == 1:
        return seed
    return fold_in(seed, context.replica_id_in_sync_group)


def uniform(shape, seed: tf.Tensor, dtype: tf.DType = tf.float32) -> tf.Tensor:
    """Returns uniform draws of the given shape from the lattice {(k + 1/2) / 2^23} in (0, 1) (2^52 for float64).

    TensorFlow 2.21's own `stateless_uniform` turns the same Philox bits into other
    numbers under XLA than outside it (it keeps the high bits there, the low ones
    here), even with `alg="philox"`; so we take the bits and convert them ourselves.
    """
    bits_dtype, shift = {tf.float32: (tf.uint32, 9), tf.float64: (tf.uint64, 12)}[tf.as_dtype(dtype)]
    bits = tf.random.stateless_uniform(shape, seed, minval=None, maxval=None, dtype=bits_dtype, alg=ALGORITHM)
    lattice = tf.cast(tf.bitwise.right_shift(bits, tf.constant(shift, bits_dtype)), dtype)
    return (lattice + 0.5) * 2.0 ** -(bits_dtype.size * 8 - shift)


def normal(shape, seed: tf.Tensor, dtype: tf.DType = tf.float32) -> tf.Tensor:
    """Returns standard normal draws of the given shape by inverse-CDF sampling; float32 reaches +-5.3."""
    return normal_of(uniform(shape, seed, dtype))


def normal_of(uniform: tf.Tensor) -> tf.Tensor:
    """Returns standard normal draws from uniform ones by the inverse CDF."""
    return math.sqrt(2.0) * tf.math.erfinv(2.0 * uniform - 1.0)
