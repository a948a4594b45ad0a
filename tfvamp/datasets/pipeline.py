"""From a split to batches of images: shuffle, batch, binarise, prefetch, all from stateless seeds."""

from __future__ import annotations

import tensorflow as tf

from tfvamp import seeds


def binarize(images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Pixels 0 or 1, one Bernoulli draw with each grey value in [0, 1] as its mean."""
    return tf.cast(seeds.uniform(tf.shape(images), seed, images.dtype) < images, images.dtype)


def training_batches(
    images: tf.data.Dataset, num_examples: int, batch_size: int, seed: int, epoch: int, dynamic: bool
) -> tf.data.Dataset:
    """One epoch of training batches [B, H, W, C], the last one short.

    Order and pixels depend on (seed, epoch, step) alone, so that a resumed run sees what
    an unbroken one would have seen.

    Args:
      images: cached images [H, W, C] in [0, 1].
      num_examples: how many there are.
      batch_size: B.
      seed: the run's seed.
      epoch: counted from 1.
      dynamic: binarise each batch anew.
    """
    order = seeds.fold_in(seeds.stateless(seed, "data order"), epoch)
    pixels = seeds.fold_in(seeds.stateless(seed, "data pixels"), epoch)
    order_seed = int(order[0]) ^ int(order[1])
    batches = images.shuffle(num_examples, seed=order_seed, reshuffle_each_iteration=False).batch(batch_size)
    if dynamic:
        batches = batches.enumerate().map(
            lambda step, batch: binarize(batch, seeds.fold_in(pixels, step)),
            num_parallel_calls=tf.data.AUTOTUNE,
            deterministic=True,
        )
    return batches.prefetch(tf.data.AUTOTUNE)


def binarize_once(examples: tf.data.Dataset, dataset: str, split: str) -> tf.data.Dataset:
    """Examples with binary images, the same at every pass and in every run."""
    seed = seeds.stateless(0, "binarize", dataset, split)
    return examples.enumerate().map(
        lambda index, example: {**example, "image": binarize(example["image"], seeds.fold_in(seed, index))},
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=True,
    )
