"""The paper's fully connected networks, of gated layers."""

from __future__ import annotations

import math

import keras
import tensorflow as tf

from tfvamp.layers import initializers
from tfvamp.layers.gaussian import DiagonalGaussian
from tfvamp.networks.base import DecoderNetwork, Network, rows, with_leading


class _MLPDecoder(DecoderNetwork):
    """A decoder whose heads are dense."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        pixels = math.prod(self.event_shape)
        self.heads = [
            initializers.dense(pixels, self.hidden_units, name=head, dtype=self.dtype_policy)
            for head in self.likelihood.heads
        ]

    def build_heads(self) -> None:
        for head in self.heads:
            head.build((None, self.hidden_units))


@keras.saving.register_keras_serializable(package="tfvamp")
class MLPEncoder(Network):
    """x - 300 - 300 - N(loc, diag): q(z | x), or p(z1 | z2), Tomczak and Welling (2018), section 5.

    Args:
      event_shape: of the input: one image, (H, W, C); or (D,) for latents.
      latent_dims: D of the output.
      hidden_units: width of the two gated layers.

    Call: inputs [..., *event] -> `DiagonalGaussian`, batch shape [...], event shape [D].
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.gated_1, self.gated_2 = self.gated("gated_1"), self.gated("gated_2")
        self.posterior = self.gaussian("posterior")

    def build(self, input_shape):
        self.gated_1.build((None, math.prod(self.event_shape)))
        self.gated_2.build((None, self.hidden_units))
        self.posterior.build((None, self.hidden_units))

    def call(self, inputs) -> DiagonalGaussian:
        if len(self.event_shape) == 3:
            inputs = self.images_in(inputs)
        features = self.gated_2(self.gated_1(rows(inputs, len(self.event_shape))))
        return with_leading(self.posterior(features), tf.shape(inputs)[: -len(self.event_shape)])


@keras.saving.register_keras_serializable(package="tfvamp")
class MLPJointEncoder(Network):
    """q(z1 | x, z2): x - 300 and z2 - 300, together 600 - 300 - N(loc, diag).

    Args:
      event_shape: one image, (H, W, C).
      latent_dims: D, of z1 and of z2.
      hidden_units: width of the three gated layers.

    Call: images [B, H, W, C] and z2 [..., B, D] -> `DiagonalGaussian`, batch shape [..., B]. An image is encoded
    once, however many z2 it comes with.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.gated_x, self.gated_z2 = self.gated("gated_x"), self.gated("gated_z2")
        self.gated_joint, self.posterior = self.gated("gated_joint"), self.gaussian("posterior")

    def build(self, images_shape, z2_shape):
        self.gated_x.build((None, math.prod(self.event_shape)))
        self.gated_z2.build((None, self.latent_dims))
        self.gated_joint.build((None, 2 * self.hidden_units))
        self.posterior.build((None, self.hidden_units))

    def call(self, images, z2) -> DiagonalGaussian:
        images = self.images_in(images)
        leading = tf.shape(z2)[:-1]
        of_x = self.gated_x(rows(images, len(self.event_shape)))  # [B, hidden_units]
        of_x = tf.broadcast_to(of_x, tf.concat([leading, [self.hidden_units]], axis=0))
        joint = tf.concat([rows(of_x, 1), self.gated_z2(rows(z2, 1))], axis=-1)
        return with_leading(self.posterior(self.gated_joint(joint)), leading)


@keras.saving.register_keras_serializable(package="tfvamp")
class MLPDecoder(_MLPDecoder):
    """p(x | z): z - 300 - 300 - image, Tomczak and Welling (2018), section 5.

    Args:
      likelihood: the layer that turns raw outputs [..., heads * H * W * C] into a distribution.
      event_shape: one image, (H, W, C).
      latent_dims: D.
      hidden_units: width of the two gated layers.

    Call: latents [..., D] -> distribution with batch shape [...] and event shape [H, W, C].
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.gated_1, self.gated_2 = self.gated("gated_1"), self.gated("gated_2")

    def build(self, input_shape):
        self.gated_1.build((None, self.latent_dims))
        self.gated_2.build((None, self.hidden_units))
        self.build_heads()

    def call(self, latents):
        features = self.gated_2(self.gated_1(rows(latents, 1)))
        return self.images([head(features) for head in self.heads], tf.shape(latents)[:-1])


@keras.saving.register_keras_serializable(package="tfvamp")
class MLPJointDecoder(_MLPDecoder):
    """p(x | z1, z2): z1 - 300 and z2 - 300, together 600 - 300 - image.

    Args:
      likelihood: the layer that turns raw outputs [..., heads * H * W * C] into a distribution.
      event_shape: one image, (H, W, C).
      latent_dims: D, of z1 and of z2.
      hidden_units: width of the three gated layers.

    Call: z2 [..., D] and z1 [..., D] -> distribution with batch shape [...] and event shape [H, W, C].
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.gated_z1, self.gated_z2 = self.gated("gated_z1"), self.gated("gated_z2")
        self.gated_joint = self.gated("gated_joint")

    def build(self, z2_shape, z1_shape):
        self.gated_z1.build((None, self.latent_dims))
        self.gated_z2.build((None, self.latent_dims))
        self.gated_joint.build((None, 2 * self.hidden_units))
        self.build_heads()

    def call(self, z2, z1):
        joint = tf.concat([self.gated_z1(rows(z1, 1)), self.gated_z2(rows(z2, 1))], axis=-1)
        features = self.gated_joint(joint)
        return self.images([head(features) for head in self.heads], tf.shape(z1)[:-1])
