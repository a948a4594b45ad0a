"""Likelihoods p(x | z): layers from a decoder's raw output to a distribution over images."""

from __future__ import annotations

import math

import keras
import tensorflow as tf
import tensorflow_probability as tfp
from tensorflow_probability import distributions as tfd

from tfvamp import seeds

PROBABILITY_CLIP = 1e-5  # the paper's code clamps probabilities to [1e-5, 1 - 1e-5]


class LogitsBernoulli(tfd.Bernoulli):
    """`tfd.Bernoulli` with log p(x) = x logits - softplus(logits): one softplus a pixel, not two."""

    def _log_prob(self, event):
        return tf.cast(event, self.logits.dtype) * self.logits - tf.nn.softplus(self.logits)

    def _sample_n(self, n, seed):
        uniform = seeds.uniform(
            tf.concat([[n], tf.shape(self.logits)], axis=0), tfp.random.sanitize_seed(seed)
        )
        return tf.cast(uniform < tf.sigmoid(self.logits), self.dtype)


@keras.saving.register_keras_serializable(package="tfvamp")
class BernoulliLikelihood(keras.layers.Layer):
    """Independent Bernoulli pixels from logits.

    Args:
      event_shape: shape of an image, (H, W, C).
      clip: None, or the bound c that keeps probabilities in [c, 1 - c], as the paper's
        code does with 1e-5; clipped pixels have no gradient.

    Call: logits [..., H * W * C] -> `tfd.Independent` with event shape [H, W, C].
    """

    def __init__(self, event_shape, clip: float | None = None, **kwargs):
        super().__init__(**{"dtype": "float32", **kwargs})
        if clip is not None and not 0.0 < clip < 0.5:
            raise ValueError(f"clip must lie between 0 and 0.5; got {clip}")
        self.event_shape = tuple(int(size) for size in event_shape)
        self.clip = clip

    def call(self, logits):
        logits = tf.reshape(logits, tf.concat([tf.shape(logits)[:-1], self.event_shape], axis=0))
        if self.clip is not None:
            bound = math.log1p(-self.clip) - math.log(self.clip)
            logits = tf.clip_by_value(logits, -bound, bound)
        return tfd.Independent(
            LogitsBernoulli(logits, dtype=tf.float32), reinterpreted_batch_ndims=len(self.event_shape)
        )

    def get_config(self):
        return {**super().get_config(), "event_shape": self.event_shape, "clip": self.clip}
