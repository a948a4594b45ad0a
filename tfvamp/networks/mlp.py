"""The paper's fully connected networks of gated layers."""

from __future__ import annotations

import math

import keras
import tensorflow as tf

from tfvamp.config import TrainConfig
from tfvamp.layers import initializers
from tfvamp.layers.gaussian import DiagonalGaussian
from tfvamp.networks.base import DecoderNetwork, Network, rows, with_leading


class _MLPDecoder(DecoderNetwork):
    """A decoder of gated layers whose heads are dense.

    The first layers are one for each stochastic layer's latents, if there are any such (`of_each`);
    then come the layers for all latents together (`of_all`). Each layer is an attribute under its
    name, by which weight files know it.
    """

    def __init__(
        self, *args, hidden_layers: int = TrainConfig.decoder_layers, num_latents: int = 1, **kwargs
    ):
        super().__init__(*args, **kwargs)
        self.hidden_layers, self.num_latents = int(hidden_layers), int(num_latents)
        self.of_each, self.of_all = self.layer_names()
        width = self.hidden_units if self.hidden_layers else self.num_latents * self.latent_dims
        self.heads = [
            initializers.dense(math.prod(self.event_shape), width, name=head, dtype=self.dtype_policy)
            for head in self.likelihood.heads
        ]
        for name in (*self.of_each, *self.of_all):
            setattr(self, name, self.gated(name))

    def layer_names(self) -> tuple[list[str], list[str]]:
        """Returns the names of the layers for each latent, z1 first, and of the layers for all latents together."""
        return [], [f"gated_{layer}" for layer in range(1, self.hidden_layers + 1)]

    def build(self, *latents_shapes):
        for name in self.of_each:
            getattr(self, name).build((None, self.latent_dims))
        width = self.num_latents * (self.hidden_units if self.of_each else self.latent_dims)
        for name in self.of_all:
            getattr(self, name).build((None, width))
            width = self.hidden_units
        for head in self.heads:
            head.build((None, width))

    def call(self, *latents):
        features = [rows(z, 1) for z in reversed(latents)]  # z1 first
        if self.of_each:
            features = [getattr(self, name)(z) for name, z in zip(self.of_each, features, strict=True)]
        joint = tf.concat(features, axis=-1) if len(features) > 1 else features[0]
        for name in self.of_all:
            joint = getattr(self, name)(joint)
        return self.images([head(joint) for head in self.heads], tf.shape(latents[-1])[:-1])

    def get_config(self):
        return {**super().get_config(), "hidden_layers": self.hidden_layers}


@keras.saving.register_keras_serializable(package="tfvamp")
class MLPEncoder(Network):
    """x - 300 - 300 - N(loc, diag): q(z | x), or p(z1 | z2), Tomczak and Welling (2018), section 5.

    Args:
      event_shape: shape of the input: one image, (H, W, C); or (D,) for latents.
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
      event_shape: shape of one image, (H, W, C).
      latent_dims: D, the same for z1 and z2.
      hidden_units: width of the three gated layers.

    Call: images [B, H, W, C] and z2 [..., B, D] -> `DiagonalGaussian`, batch shape [..., B]. An
    image is encoded once, however many z2 it comes with.
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
      event_shape: shape of one image, (H, W, C).
      latent_dims: D.
      hidden_units: width of the gated layers.
      hidden_layers: number of gated layers; 0 for a decoder whose outputs are linear in z.

    Call: latents [..., D] -> distribution with batch shape [...] and event shape [H, W, C].
    """


@keras.saving.register_keras_serializable(package="tfvamp")
class MLPJointDecoder(_MLPDecoder):
    """p(x | z1, z2): z1 - 300 and z2 - 300, together 600 - 300 - image; more latents are used in the same way.

    Args:
      likelihood: the layer that turns raw outputs [..., heads * H * W * C] into a distribution.
      event_shape: shape of one image, (H, W, C).
      latent_dims: D, of each stochastic layer.
      hidden_units: width of the gated layers.
      hidden_layers: number of layers between a latent and the image. With 1, there is one layer for
        all latents together; with 0, there is none, and the outputs are linear in the latents.
      num_latents: number of stochastic layers.

    Call: latents [..., D] of each stochastic layer, the top ones first -> distribution with batch shape [...] and event
    shape [H, W, C].
    """

    def __init__(self, *args, num_latents: int = 2, **kwargs):
        super().__init__(*args, num_latents=num_latents, **kwargs)

    def layer_names(self):
        if self.hidden_layers < 2:
            return [], ["gated_joint"] * self.hidden_layers
        more = [f"gated_joint_{layer}" for layer in range(2, self.hidden_layers)]
        return [f"gated_z{layer}" for layer in range(1, self.num_latents + 1)], ["gated_joint", *more]

    def get_config(self):
        return {**super().get_config(), "num_latents": self.num_latents}
