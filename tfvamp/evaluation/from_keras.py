"""A VAE that consists of Keras models, as the evaluation sees it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tfvamp.evaluation.protocol import Evaluable
from tfvamp.layers.gaussian import DiagonalGaussian, as_diagonal_gaussian
from tfvamp.losses import NegativeLogLikelihood


class _Reshaped(NamedTuple):
    """p(x | z) of latents [S, B, D], from the distribution of latents [S B, D]."""

    distribution: tfd.Distribution
    batch: tf.Tensor

    def log_prob(self, x) -> tf.Tensor:
        event = tf.shape(x)[-self.distribution.event_shape.rank :]
        rows = tf.broadcast_to(tf.cast(x, self.distribution.dtype), tf.concat([self.batch, event], axis=0))
        density = self.distribution.log_prob(tf.reshape(rows, tf.concat([[-1], event], axis=0)))
        return tf.reshape(density, self.batch)

    def sample(self, seed=None) -> tf.Tensor:
        x = self.distribution.sample(seed=seed)
        return tf.reshape(x, tf.concat([self.batch, tf.shape(x)[1:]], axis=0))


@dataclasses.dataclass
class _OfKeras:
    """An `Evaluable` of Keras models."""

    encoder: Callable[..., Any]
    decoder: Callable[..., Any]
    prior: Any
    loss: NegativeLogLikelihood

    def posterior(self, x) -> DiagonalGaussian:
        return as_diagonal_gaussian(self.encoder(x, training=False))

    def likelihood(self, z) -> Any:
        batch = tf.shape(z)[:-1]  # Keras models take one axis of examples
        predictions = self.decoder(tf.reshape(z, [-1, z.shape[-1]]), training=False)
        if isinstance(predictions, tfd.Distribution):
            return _Reshaped(predictions, batch)
        rank = predictions.shape.rank - 1
        shape = tf.concat([batch, tf.shape(predictions)[1:]], axis=0)
        predictions = tf.ensure_shape(tf.reshape(predictions, shape), [*z.shape[:-1], *predictions.shape[1:]])
        return tfd.Independent(self.loss.distribution(predictions), rank)


def from_keras(encoder, decoder, prior, loss: NegativeLogLikelihood | None = None) -> Evaluable:
    """Returns a VAE of Keras models as an `Evaluable`, for `tfvamp.log_likelihood` and `bracket`.

    Args:
      encoder: the Keras model from data [B, *event] to q(z | x), in any form that
        `as_diagonal_gaussian` reads, such as [mean, log_variance, z].
      decoder: the Keras model from latents [B, D] to the predictions of the loss, or to a
        `tfd.Distribution` with event shape [*event].
      prior: p(z), a prior layer or a `tfd.Distribution`; for a VAE trained with the closed-form KL
        to N(0, I), it is `StandardNormalPriorLayer(D)`.
      loss: the loss of the predictions, which names the likelihood; None for
        `NegativeLogLikelihood()`, Bernoulli pixels from logits.

    >>> import keras, tfvamp
    >>> encoder = keras.Sequential([keras.Input((6,)), tfvamp.layers.GaussianPosterior(2)])
    >>> decoder = keras.Sequential([keras.Input((2,)), keras.layers.Dense(6)])
    >>> model = from_keras(encoder, decoder, tfvamp.layers.StandardNormalPriorLayer(2))
    >>> tfvamp.log_likelihood(model, tf.zeros([3, 6]), num_samples=50).per_example.shape
    (3,)
    """
    return _OfKeras(encoder, decoder, prior, NegativeLogLikelihood() if loss is None else loss)
