"""The way from pixels to batches of images: shuffle, scale and binarise, all with stateless seeds."""

from __future__ import annotations

import mmap
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from tfvamp import seeds
from tfvamp.catalog import DatasetSpec

IN_MEMORY = 2**29  # bytes: larger arrays are read from their file batch by batch


def to_images(pixels: tf.Tensor, spec: DatasetSpec) -> tf.Tensor:
    """Returns float32 images in [0, 1] from stored bytes, or from pixels that are floats already."""
    images = tf.cast(pixels, tf.float32)
    if pixels.dtype == tf.uint8:
        images = (images + 0.5) / 256.0 if spec.scaling == "centre" else images / 255.0
    if spec.binarization == "threshold":
        images = tf.cast(images >= 0.5, tf.float32)
    return tf.clip_by_value(images, spec.margin, 1.0 - spec.margin) if spec.margin else images


def binarize(images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Returns pixels that are 0 or 1, one Bernoulli draw each, with the grey value in [0, 1] as its mean."""
    return tf.cast(seeds.uniform(tf.shape(images), seed, images.dtype) < images, images.dtype)


def rows_of(pixels: np.ndarray) -> Callable[[tf.Tensor], tf.Tensor]:
    """Returns a function from indices [B] to pixels [B, H, W, C]; a large array in a file stays there."""
    if pixels.nbytes <= IN_MEMORY:
        with tf.init_scope():  # held once, in any graph that first asks for it
            held = tf.constant(np.ascontiguousarray(pixels))
        return lambda indices: tf.gather(held, indices)

    mapped = _map_of(pixels)

    def chosen(indices: np.ndarray) -> np.ndarray:
        copies = pixels[indices]
        # The pages just read would count as memory of this process, until it held the whole file.
        if mapped is not None and hasattr(mmap, "MADV_DONTNEED"):
            mapped.madvise(mmap.MADV_DONTNEED)
        return copies

    def read(indices: tf.Tensor) -> tf.Tensor:
        rows = tf.numpy_function(chosen, [indices], tf.as_dtype(pixels.dtype))
        return tf.ensure_shape(rows, [None, *pixels.shape[1:]])

    return read


def _map_of(array: np.ndarray) -> mmap.mmap | None:
    """Returns the mapped file that an array reads from; None if it is in memory."""
    base: object = array
    while isinstance(base, np.ndarray):
        base = base.base
    return base if isinstance(base, mmap.mmap) else None


def training_batches(
    rows: Callable[[tf.Tensor], tf.Tensor],
    count: int,
    spec: DatasetSpec,
    batch_size: int,
    seed: int,
    epoch: int,
    first_step: int = 0,
    with_index: bool = False,
    epochs: int = 1,
) -> tf.data.Dataset:
    """Returns the training batches [B, H, W, C] of epochs; the last batch of each may be smaller.

    Order and pixels depend only on (seed, epoch, step), so that a resumed run sees the same images
    as an uninterrupted one. (`tf.data`'s own shuffle would also depend on TensorFlow's global
    seed.) Making a new iterator for each epoch would take 0.04 to 0.15 s on two cores.

    Args:
      rows: a function from indices to pixels (`rows_of`).
      count: N, number of all training images.
      spec: the description of the data set.
      batch_size: B.
      seed: the run's seed.
      epoch: number of the first epoch, counted from 1.
      first_step: number of batches of the first epoch to leave out, those of steps that have been
        done before.
      with_index: whether to return {"image": images, "index": indices of the images among all
        training images, [B]}.
      epochs: number of epochs.
    """
    order_seed, pixel_seed = seeds.stateless(seed, "data order"), seeds.stateless(seed, "data pixels")

    @tf.autograph.experimental.do_not_convert  # there is nothing to convert, and looking for it takes half a second
    def batches_of(number):
        in_epoch = seeds.fold_in(pixel_seed, number)

        @tf.autograph.experimental.do_not_convert
        def batch(step, indices):
            chosen = to_images(rows(indices), spec)
            if spec.binarization == "dynamic":
                chosen = binarize(chosen, seeds.fold_in(in_epoch, step))
            return {"image": chosen, "index": indices} if with_index else chosen

        order = tf.random.experimental.stateless_shuffle(
            tf.range(count), seeds.fold_in(order_seed, number), alg=seeds.ALGORITHM
        )
        done = tf.where(number == epoch, tf.constant(first_step, tf.int64), 0)
        left = tf.data.Dataset.from_tensor_slices(order[done * batch_size :])
        return (
            left.batch(batch_size)
            .enumerate(done)
            .map(batch, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True)
        )

    batches = tf.data.Dataset.range(epoch, epoch + epochs).flat_map(batches_of)
    return without_tuning(batches.prefetch(tf.data.AUTOTUNE))


def without_tuning(dataset: tf.data.Dataset) -> tf.data.Dataset:
    """Returns the data set with one worker per core from the start.

    Otherwise a thread that tunes the number of workers is waited for at the end of each pass, for
    up to a tenth of a second.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return dataset.with_options(options)


def binarize_each(images: tf.Tensor, indices: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Returns images [B, H, W, C], each binarised from a seed and its index: the same at every pass."""
    return tf.map_fn(
        lambda one: binarize(one[0], seeds.fold_in(seed, one[1])),
        (images, indices),
        fn_output_signature=tf.TensorSpec(images.shape[1:], tf.float32),
    )
