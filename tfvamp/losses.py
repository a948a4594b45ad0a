"""Losses for `compile`, in nats an example, as the ELBO has them."""

from __future__ import annotations

import keras
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tfvamp.errors import check_choice
from tfvamp.layers.likelihoods import PhiloxBernoulli

LIKELIHOODS = ("bernoulli",)


@keras.saving.register_keras_serializable(package="tfvamp")
class NegativeLogLikelihood(keras.losses.Loss):
    """-log p(x | z), summed over the event and averaged over the batch, in nats.

    Keras's own `binary_crossentropy` averages over the pixels: beside a KL in nats it is hundreds of
    times too small, and every posterior collapses onto the prior.

    Args:
      likelihood: what a plain tensor of predictions parametrises: "bernoulli", logits of
        the shape of the data. A `tfd.Distribution` is taken as it is.

    Call: data [B, *event], and logits [B, *event] or a distribution with batch shape [B] and event shape
    [*event].

    Raises:
      ValueError: data and prediction differ in shape.
    """

    def __init__(
        self,
        likelihood: str = "bernoulli",
        reduction="sum_over_batch_size",
        name="negative_log_likelihood",
        **kwargs,
    ):
        super().__init__(reduction=reduction, name=name, **kwargs)
        check_choice("likelihood", likelihood, LIKELIHOODS)
        self.likelihood = likelihood

    def __call__(self, y_true, y_pred, sample_weight=None):
        nll = self.negative_log_prob(y_true, y_pred)
        return super().__call__(nll, nll, sample_weight)  # the reduction and the weights are Keras's

    def call(self, y_true, y_pred):
        return y_pred

    def negative_log_prob(self, data, prediction) -> tf.Tensor:
        """-log p(x | z) of each example, [B]."""
        data = tf.convert_to_tensor(data)
        if isinstance(prediction, tfd.Distribution):
            distribution, expected = prediction, prediction.batch_shape.concatenate(prediction.event_shape)
        else:
            logits = tf.cast(tf.convert_to_tensor(prediction), tf.float32)
            expected = logits.shape
            distribution = tfd.Independent(
                PhiloxBernoulli(logits, dtype=tf.float32), max(logits.shape.rank - 1, 0)
            )
        if not data.shape.is_compatible_with(expected):  # nothing is broadcast
            raise ValueError(
                f"the data must have the prediction's shape {list(expected)}; got {list(data.shape)}"
            )
        return -distribution.log_prob(tf.cast(data, distribution.dtype))

    def get_config(self):
        return {**super().get_config(), "likelihood": self.likelihood}
