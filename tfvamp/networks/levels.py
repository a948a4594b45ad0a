"""Priors of stochastic layers below the top one, other than a network that gives a diagonal normal."""

from __future__ import annotations

import math

import keras
import tensorflow as tf

from tfvamp.layers import initializers
from tfvamp.layers.gaussian import DiagonalGaussian
from tfvamp.networks.base import Network, rows, with_leading


@keras.saving.register_keras_serializable(package="tfvamp")
class AmortizedVampPrior(Network):
    """p(z_l | z_l+1) = q(z_l | u(z_l+1), z_l+1): a layer's posterior at a pseudo-input computed from z_l+1.

    A VampPrior learns pseudo-inputs as variables (Tomczak and Welling 2018, equation 9). Here a
    network u, z - 300 - 300 - image with sigmoids, computes one for each z_l+1, so that the prior
    of a layer has the form of its posterior. q is trained through both.

    Args:
      encoder: the network of q(z_l | x, z_l+1), called with images [R, H, W, C] and latents [R, D].
      event_shape: shape of one image, (H, W, C).
      latent_dims: D.
      hidden_units: width of the gated layers of u.

    Call: z_l+1 [..., D] -> `DiagonalGaussian`, batch shape [...].

    >>> from tfvamp.networks.mlp import MLPJointEncoder
    >>> prior = AmortizedVampPrior(MLPJointEncoder((6, 5, 1), latent_dims=2), (6, 5, 1), latent_dims=2)
    >>> prior(tf.zeros([4, 3, 2])).batch_shape, prior.pseudo_inputs(tf.zeros([4, 3, 2])).shape
    (TensorShape([4, 3]), TensorShape([4, 3, 6, 5, 1]))
    """

    def __init__(self, encoder: Network, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.encoder = encoder
        self.gated_1, self.gated_2 = self.gated("gated_1"), self.gated("gated_2")
        self.pixels = initializers.dense(
            math.prod(self.event_shape), self.hidden_units, name="pixels", dtype=self.dtype_policy
        )

    def build(self, latents_shape):
        if not self.encoder.built:
            self.encoder.build((None, *self.event_shape), (None, self.latent_dims))
        self.gated_1.build((None, self.latent_dims))
        self.gated_2.build((None, self.hidden_units))
        self.pixels.build((None, self.hidden_units))

    def pseudo_inputs(self, above) -> tf.Tensor:
        """Returns the images u(z_l+1) [..., H, W, C], in [0, 1], for latents [..., D]."""
        if not self.built:
            self.build((None, self.latent_dims))
        above = tf.convert_to_tensor(above)
        images = tf.sigmoid(self.pixels(self.gated_2(self.gated_1(rows(above, 1)))))
        return tf.reshape(images, tf.concat([tf.shape(above)[:-1], self.event_shape], axis=0))

    def call(self, above) -> DiagonalGaussian:
        flat = rows(above, 1)
        return with_leading(self.encoder(self.pseudo_inputs(flat), flat), tf.shape(above)[:-1])

    def get_config(self):
        return {**super().get_config(), "encoder": keras.saving.serialize_keras_object(self.encoder)}

    @classmethod
    def from_config(cls, config):
        return cls(encoder=keras.saving.deserialize_keras_object(config.pop("encoder")), **config)
