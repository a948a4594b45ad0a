"""Losses for `compile`, in nats per example, as in the ELBO."""

from __future__ import annotations

import keras
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tfvamp.errors import check_choice
from tfvamp.layers.discretized_logistic import LOG_SCALE_RANGE, DiscretizedLogistic, loc_in_bounds
from tfvamp.layers.gaussian import at_least_float32
from tfvamp.layers.kl_divergence import warn_of_those_left_out
from tfvamp.layers.likelihoods import PhiloxBernoulli
from tfvamp.layers.normal_likelihood import (
    LEARNED,
    LEARNED_EACH,
    PREDICTED,
    PhiloxNormal,
    checked_scale,
    scale_of,
)

LIKELIHOODS = ("bernoulli", "gaussian", "logistic")
# Operations between a sigmoid and the loss that do not change what a number means.
PASSED_THROUGH = {
    "Reshape",
    "Identity",
    "Cast",
    "Squeeze",
    "ExpandDims",
    "Transpose",
    "ConcatV2",
    "StopGradient",
}
PROBABILITIES = {"Sigmoid": "a sigmoid", "Softmax": "a softmax"}


@keras.saving.register_keras_serializable(package="tfvamp")
class NegativeLogLikelihood(keras.losses.Loss):
    """Computes -log p(x | z), summed over the event and averaged over the batch, in nats.

    Keras's own `binary_crossentropy` averages over the pixels: next to a KL in nats, it is hundreds
    of times too small, and every posterior collapses onto the prior.

    Args:
      likelihood: the distribution that a plain tensor of predictions parameterises. A
        `tfd.Distribution` is used as it is.

        * "bernoulli": for data in [0, 1]; one number per entry of the data.
        * "gaussian": for any data; one number per entry, the mean of a normal.
        * "logistic": for data in [0, 1], pixels of 256 levels (`DiscretizedLogistic`); one number
          per entry, the mean of the logistic.

      from_logits: how "bernoulli" and "logistic" read the predictions. True: as logits, which a
        decoder gives if its last layer has no activation. False: as numbers between 0 and 1, such
        as those after a sigmoid. None: as logits, too, but predictions that are known to come from
        a sigmoid are refused.
      scale: the standard deviation of "gaussian", or the scale of "logistic" in units of the data
        (a grey level is 1/256). It is a number, or "predicted": predictions then have twice as many
        numbers along their last axis, all means before all logarithms of scales. None means 1 for
        "gaussian" and "predicted" for "logistic". For a single learned number, see
        `tfvamp.layers.GaussianLikelihood` and `tfvamp.layers.ReconstructionLoss`.

    Call: data [B, *event], and predictions [B, *event] (with a predicted scale [B, ..., 2 C] for an event [..., C]) or a
    distribution with batch shape [B] and event shape [*event].

    Raises:
      ValueError: data and predictions differ in shape, or predictions are probabilities where
        logits are expected.

    >>> loss = NegativeLogLikelihood("gaussian", scale=0.5)
    >>> float(loss(tf.zeros([2, 3]), tf.zeros([2, 3])))  # doctest: +ELLIPSIS
    0.677...
    """

    def __init__(
        self,
        likelihood: str = "bernoulli",
        from_logits: bool | None = None,
        scale: float | str | None = None,
        reduction="sum_over_batch_size",
        name="negative_log_likelihood",
        **kwargs,
    ):
        super().__init__(reduction=reduction, name=name, **kwargs)
        check_choice("likelihood", likelihood, LIKELIHOODS)
        if likelihood == "bernoulli" and scale is not None:
            raise ValueError("the likelihood bernoulli has no scale")
        if likelihood == "gaussian" and from_logits:
            raise ValueError("the predictions of the likelihood gaussian are means, not logits")
        if isinstance(scale, str) and scale in (LEARNED, LEARNED_EACH):
            raise ValueError(
                "a loss has no weights: for a scale that is learned, end the decoder in "
                "tfvamp.layers.GaussianLikelihood(event_shape), and add tfvamp.layers.ReconstructionLoss"
            )
        self.likelihood, self.from_logits = likelihood, from_logits
        self.scale = None if scale is None else checked_scale(scale)

    def __call__(self, y_true, y_pred, sample_weight=None):
        warn_of_those_left_out()
        nll = self.negative_log_prob(y_true, y_pred)
        return super().__call__(nll, nll, sample_weight)  # the reduction and the weights are Keras's

    def call(self, y_true, y_pred):
        return y_pred

    def negative_log_prob(self, data, prediction) -> tf.Tensor:
        """Returns -log p(x | z) of each example, [B]."""
        data = tf.convert_to_tensor(data)
        if isinstance(prediction, tfd.Distribution):
            distribution, expected = prediction, prediction.batch_shape.concatenate(prediction.event_shape)
        else:
            entries = self.distribution(prediction)
            expected = entries.batch_shape
            distribution = tfd.Independent(entries, max(expected.rank - 1, 0))
        if not data.shape.is_compatible_with(expected):  # nothing is broadcast
            raise ValueError(
                f"the data must have the prediction's shape {list(expected)}; got {list(data.shape)}"
            )
        return -distribution.log_prob(tf.cast(data, distribution.dtype))

    def distribution(self, prediction) -> tfd.Distribution:
        """Returns the distribution of each entry of the data, [B, *event], from a tensor of predictions."""
        prediction = tf.convert_to_tensor(prediction)
        if self.likelihood != "gaussian" and self.from_logits is None:
            _refuse_probabilities(prediction)
        prediction = tf.cast(prediction, at_least_float32(prediction.dtype.name))
        if self.likelihood == "bernoulli":
            return PhiloxBernoulli(self._logits(prediction), dtype=prediction.dtype)
        scale = self.scale or (PREDICTED if self.likelihood == "logistic" else 1.0)
        if scale == PREDICTED:
            if not prediction.shape.rank or (prediction.shape[-1] or 0) % 2:
                raise ValueError(
                    "predictions with a predicted scale must have an even number of entries along the last axis, means "
                    f"before logarithms of scales; got {list(prediction.shape)}"
                )
            prediction, log_scale = tf.split(prediction, 2, axis=-1)
        else:
            log_scale = tf.fill(tf.shape(prediction), tf.math.log(tf.constant(scale, prediction.dtype)))
        if self.likelihood == "gaussian":
            return PhiloxNormal(prediction, scale_of(log_scale) if scale == PREDICTED else tf.exp(log_scale))
        loc = loc_in_bounds(prediction if self.from_logits is False else tf.sigmoid(prediction))
        return DiscretizedLogistic(
            loc, tf.clip_by_value(log_scale, *LOG_SCALE_RANGE) if scale == PREDICTED else log_scale
        )

    def _logits(self, prediction: tf.Tensor) -> tf.Tensor:
        if self.from_logits is not False:
            return prediction
        epsilon = keras.config.epsilon()
        probability = tf.clip_by_value(prediction, epsilon, 1.0 - epsilon)
        return tf.math.log(probability) - tf.math.log1p(-probability)

    def get_config(self):
        config = {"likelihood": self.likelihood, "from_logits": self.from_logits, "scale": self.scale}
        return {**super().get_config(), **config}


def _refuse_probabilities(prediction: tf.Tensor) -> None:
    """Raises ValueError for predictions known to lie between 0 and 1, from their operation or from many values."""
    found = None
    if tf.is_symbolic_tensor(prediction):
        found = _source(prediction)
    elif hasattr(prediction, "_keras_logits"):  # Keras's own mark, on the output of a layer
        found = "a sigmoid"
    elif tf.size(prediction) >= 100 and tf.reduce_min(prediction) > 0.0 and tf.reduce_max(prediction) < 1.0:
        found = "a sigmoid, because all lie between 0 and 1"
    if found:
        raise ValueError(
            f"the predictions come from {found}, and are read as logits: they would be squashed twice, and training "
            "would go wrong. Give the decoder's last layer no activation; or read its predictions as probabilities, "
            "from_logits=False (or as logits all the same, from_logits=True)"
        )


def _source(prediction: tf.Tensor) -> str | None:
    """Returns the name of what made a tensor of a graph if it gives probabilities, and None otherwise."""
    operations = [prediction.op]
    while operations:
        operation = operations.pop()
        if operation.type in PROBABILITIES:
            return PROBABILITIES[operation.type]
        if operation.type in PASSED_THROUGH:
            operations += [tensor.op for tensor in operation.inputs]
    return None
