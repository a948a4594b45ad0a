"""-log p(x | z) as a layer, for decoders that end in a distribution."""

from __future__ import annotations

import keras
import tensorflow as tf
from tensorflow_probability import distributions as tfd

from tfvamp.layers.gaussian import at_least_float32
from tfvamp.layers.kl_divergence import warn_of_those_left_out
from tfvamp.layers.numbering import NumberedLayer


@keras.saving.register_keras_serializable(package="tfvamp")
class ReconstructionLoss(NumberedLayer):
    """Adds -log p(x | z) to the model's loss, and passes on the mean of p(x | z).

    It is the counterpart of `KLDivergence` for a decoder that ends in a distribution, such as
    `GaussianLikelihood` with a learned scale: a functional model cannot pass a distribution to the
    loss of `compile`. -log p(x | z) is summed over the event and averaged over the batch, in nats;
    its mean is a metric under the layer's name. Compile the model without a loss; `fit(x)` needs no
    targets.

    Args:
      name: name of the layer and its metric; None for "reconstruction", and "reconstruction_1"...
        for further layers.

    Call: [p(x | z), x], a distribution with batch shape [B] and event shape [*event], and data
    x [B, *event] -> the mean [B, *event].

    Raises:
      ValueError: the data and the distribution differ in shape.

    >>> x = keras.Input((3,))
    >>> likelihood = GaussianLikelihood((3,), scale="learned")(keras.layers.Dense(3)(x))
    >>> keras.Model(x, ReconstructionLoss()([likelihood, x])).output_shape
    (None, 3)
    """

    def __init__(self, name: str | None = None, **kwargs):
        dtype = at_least_float32(keras.config.floatx())
        super().__init__("reconstruction", name, **{"dtype": dtype, "autocast": False, **kwargs})
        self.built = True

    def call(self, inputs):
        pair = isinstance(inputs, (list, tuple)) and len(inputs) == 2
        likelihood, x = inputs if pair else (inputs, None)
        if not pair or not isinstance(likelihood, tfd.Distribution):
            raise ValueError(
                "ReconstructionLoss must be called on [distribution, data], such as "
                f"[GaussianLikelihood(...)(decoded), x]; got {type(likelihood).__name__}"
            )
        x = tf.convert_to_tensor(x)
        expected = likelihood.batch_shape.concatenate(likelihood.event_shape)
        if not x.shape.is_compatible_with(expected):  # nothing is broadcast
            raise ValueError(
                f"the data must have the distribution's shape {list(expected)}; got {list(x.shape)}"
            )
        warn_of_those_left_out()
        nll = -tf.cast(likelihood.log_prob(tf.cast(x, likelihood.dtype)), self.compute_dtype)
        self.mean.update_state(nll)
        self.add_loss(tf.reduce_mean(nll))
        return likelihood.mean()
