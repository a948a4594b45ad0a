"""The Kullback-Leibler divergence as a layer, for models trained by `fit`."""

from __future__ import annotations

import keras
import tensorflow as tf

from tfvamp.layers.gaussian import as_diagonal_gaussian
from tfvamp.layers.priors import PriorLayer


@keras.saving.register_keras_serializable(package="tfvamp")
class KLDivergence(keras.layers.Layer):
    """Adds beta KL(q(z | x) || p(z)) to the model's loss, and passes z on to the decoder.

    KL is estimated by log q(z | x) - log p(z) at the z it is given (no closed form exists for a
    mixture), summed over the latents, averaged over the batch, in nats. Beside a loss that is
    summed over the pixels, such as `tfvamp.losses.NegativeLogLikelihood`, and with beta = 1, the model's
    loss is the negative ELBO. The mean KL, without beta, is a metric under the layer's name.

    Args:
      prior: p(z), a prior layer; its weights are trained with the model.
      beta: weight of the divergence, once warm-up (`tfvamp.callbacks.WarmUp`) is over.

    Call: [mean, log_variance, z], or [encoder output, z], z [B, D] -> z.

    >>> z = KLDivergence(prior)([mean, log_variance, z])  # doctest: +SKIP
    """

    def __init__(self, prior: PriorLayer, beta: float = 1.0, name: str = "kl", **kwargs):
        super().__init__(name=name, **{"dtype": "float32", "autocast": False, **kwargs})
        if not isinstance(prior, PriorLayer):
            raise TypeError(
                f"prior must be a prior layer, such as VampPriorLayer(...); got {type(prior).__name__}"
            )
        if not beta >= 0.0:
            raise ValueError(f"beta must be at least 0; got {beta}")
        self.prior = prior
        self.final_beta = float(beta)
        self.beta = self.add_weight(
            name="beta", shape=(), initializer=keras.initializers.Constant(beta), trainable=False
        )
        self.mean = keras.metrics.Mean(name=name)

    def warm_up(self, fraction: float) -> None:
        """Sets beta to this fraction of its final value."""
        self.beta.assign(fraction * self.final_beta)

    def call(self, inputs):
        if not isinstance(inputs, (list, tuple)) or len(inputs) not in (2, 3):
            raise ValueError(
                "KLDivergence must be called on [mean, log_variance, z] or on [encoder output, z]; "
                f"got {type(inputs).__name__}"
            )
        *output, z = inputs
        posterior = as_diagonal_gaussian(output[0] if len(output) == 1 else output)
        z = tf.convert_to_tensor(z)
        if not z.shape.is_compatible_with(posterior.loc.shape):
            raise ValueError(
                f"z must have the posterior's shape {list(posterior.loc.shape)}; got {list(z.shape)}"
            )
        log_q = posterior.log_prob(tf.cast(z, posterior.dtype))
        kl = tf.cast(log_q, self.compute_dtype) - tf.cast(self.prior(z), self.compute_dtype)
        self.mean.update_state(kl)
        self.add_loss(self.beta * tf.reduce_mean(kl))
        return z

    def get_config(self):
        prior = keras.saving.serialize_keras_object(self.prior)
        return {**super().get_config(), "prior": prior, "beta": self.final_beta}

    @classmethod
    def from_config(cls, config):
        return cls(**{**config, "prior": keras.saving.deserialize_keras_object(config["prior"])})
