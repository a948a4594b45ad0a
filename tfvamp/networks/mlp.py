"""The paper's fully connected networks: two gated layers on each side."""

from __future__ import annotations

import math

import keras
import tensorflow as tf

from tfvamp.layers import initializers
from tfvamp.layers.distribution_layer import DistributionLayer
from tfvamp.layers.gated import GatedDense
from tfvamp.layers.gaussian import DiagonalGaussian, GaussianPosterior


@keras.saving.register_keras_serializable(package="tfvamp")
class MLPEncoder(DistributionLayer):
    """q(z | x): image - 300 - 300 - N(loc, diag), Tomczak and Welling (2018), section 5.

    Args:
      event_shape: one image, (H, W, C).
      latent_dims: D.
      hidden_units: width of the two gated layers.

    Call: images [B, H, W, C] -> `DiagonalGaussian`, batch shape [B], event shape [D].
    """

    def __init__(self, event_shape, latent_dims: int = 40, hidden_units: int = 300, **kwargs):
        super().__init__(**kwargs)
        self.event_shape = tuple(int(size) for size in event_shape)
        self.latent_dims, self.hidden_units = int(latent_dims), int(hidden_units)
        self.gated_1 = GatedDense(hidden_units, name="gated_1", dtype=self.dtype_policy)
        self.gated_2 = GatedDense(hidden_units, name="gated_2", dtype=self.dtype_policy)
        self.posterior = GaussianPosterior(latent_dims, name="posterior", dtype=self.dtype_policy)

    def build(self, input_shape):
        self.gated_1.build((None, math.prod(self.event_shape)))
        self.gated_2.build((None, self.hidden_units))
        self.posterior.build((None, self.hidden_units))

    def call(self, images) -> DiagonalGaussian:
        pixels = tf.reshape(images, [-1, math.prod(self.event_shape)])
        return self.posterior(self.gated_2(self.gated_1(pixels)))

    def get_config(self):
        config = {
            "event_shape": self.event_shape,
            "latent_dims": self.latent_dims,
            "hidden_units": self.hidden_units,
        }
        return {**super().get_config(), **config}


@keras.saving.register_keras_serializable(package="tfvamp")
class MLPDecoder(DistributionLayer):
    """p(x | z): z - 300 - 300 - image, Tomczak and Welling (2018), section 5.

    Args:
      likelihood: the layer that turns raw outputs [..., H * W * C] into a distribution.
      event_shape: one image, (H, W, C).
      latent_dims: D.
      hidden_units: width of the two gated layers.

    Call: latents [..., D] -> distribution with batch shape [...] and event shape [H, W, C].
    """

    def __init__(
        self,
        likelihood: keras.layers.Layer,
        event_shape,
        latent_dims: int = 40,
        hidden_units: int = 300,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.event_shape = tuple(int(size) for size in event_shape)
        self.latent_dims, self.hidden_units = int(latent_dims), int(hidden_units)
        self.likelihood = likelihood
        self.gated_1 = GatedDense(hidden_units, name="gated_1", dtype=self.dtype_policy)
        self.gated_2 = GatedDense(hidden_units, name="gated_2", dtype=self.dtype_policy)
        self.pixels = initializers.dense(
            math.prod(self.event_shape), hidden_units, name="pixels", dtype=self.dtype_policy
        )

    def build(self, input_shape):
        self.gated_1.build((None, self.latent_dims))
        self.gated_2.build((None, self.hidden_units))
        self.pixels.build((None, self.hidden_units))

    def call(self, latents):
        rows = tf.reshape(latents, [-1, self.latent_dims])  # one product, not one a leading index
        pixels = self.pixels(self.gated_2(self.gated_1(rows)))
        return self.likelihood(tf.reshape(pixels, tf.concat([tf.shape(latents)[:-1], [pixels.shape[-1]]], 0)))

    def get_config(self):
        config = {
            "likelihood": keras.saving.serialize_keras_object(self.likelihood),
            "event_shape": self.event_shape,
            "latent_dims": self.latent_dims,
            "hidden_units": self.hidden_units,
        }
        return {**super().get_config(), **config}

    @classmethod
    def from_config(cls, config):
        likelihood = keras.saving.deserialize_keras_object(config.pop("likelihood"))
        return cls(likelihood=likelihood, **config)
