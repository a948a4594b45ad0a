"""From a split to batches of images: shuffle, batch, binarise, prefetch, all from stateless seeds."""

from __future__ import annotations

import tensorflow as tf

from tfvamp import seeds


def binarize(images: tf.Tensor, seed: tf.Tensor) -> tf.Tensor:
    """Pixels 0 or 1, one Bernoulli draw with each grey value in [0, 1] as its mean."""
    return tf.cast(seeds.uniform(tf.shape(images), seed, images.dtype) < images, images.dtype)


def training_batches(
    images: tf.Tensor, batch_size: int, seed: int, epoch: int, dynamic: bool
) -> tf.data.Dataset:
    """One epoch of training batches [B, H, W, C], the last one short.

    Order and pixels depend on (seed, epoch, step) alone, so that a resumed run sees what
    an unbroken one would have seen. (`tf.data`'s own shuffle would depend on TensorFlow's
    global seed, too.)

    Args:
      images: [N, H, W, C] in [0, 1].
      batch_size: B.
      seed: the run's seed.
      epoch: counted from 1.
      dynamic: binarise each batch anew.
    """
    order_seed = seeds.fold_in(seeds.stateless(seed, "data order"), epoch)
    pixel_seed = seeds.fold_in(seeds.stateless(seed, "data pixels"), epoch)
    order = tf.random.experimental.stateless_shuffle(tf.range(len(images)), order_seed, alg=seeds.ALGORITHM)

    def batch(step, indices):
        chosen = tf.gather(images, indices)
        return binarize(chosen, seeds.fold_in(pixel_seed, step)) if dynamic else chosen

    batches = tf.data.Dataset.from_tensor_slices(order).batch(batch_size).enumerate()
    return batches.map(batch, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True).prefetch(
        tf.data.AUTOTUNE
    )


def binarize_once(examples: tf.data.Dataset, dataset: str, split: str) -> tf.data.Dataset:
    """Examples with binary images, the same at every pass and in every run."""
    seed = seeds.stateless(0, "binarize", dataset, split)
    return examples.enumerate().map(
        lambda index, example: {**example, "image": binarize(example["image"], seeds.fold_in(seed, index))},
        num_parallel_calls=tf.data.AUTOTUNE,
        deterministic=True,
    )
