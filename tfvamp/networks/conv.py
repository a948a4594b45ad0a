"""The paper's convolutional networks of gated layers. They take any height and width: strides round up."""

from __future__ import annotations

import math
from typing import ClassVar

import keras
import tensorflow as tf

from tfvamp.layers import initializers
from tfvamp.layers.gated import GatedConv2D
from tfvamp.layers.gaussian import DiagonalGaussian
from tfvamp.networks.base import DecoderNetwork, Network, rows, with_leading

# (filters, kernel size, strides) of the gated convolutions, Tomczak and Welling (2018), appendix.
ENCODER = ((32, 7, 1), (32, 3, 2), (64, 5, 1), (64, 3, 2), (6, 3, 1))
JOINT_ENCODER = ((32, 3, 1), (32, 3, 2), (64, 3, 1), (64, 3, 2), (6, 3, 1))
DECODER = ((64, 3, 1),) * 4
FEATURES_PER_PIXEL = 2 * 64  # of the decoder's widest layer; limits how many images are decoded at a time


class _Convolutions(Network):
    """A stack of gated convolutions, which the networks share."""

    def convolutions(self, sizes) -> list[GatedConv2D]:
        return [
            GatedConv2D(*size, name=f"conv_{index}", dtype=self.dtype_policy)
            for index, size in enumerate(sizes, start=1)
        ]

    def build_stack(self, layers: list[GatedConv2D]) -> int:
        """Builds the layers on images; returns the number of features F after them."""
        shape: tuple = (None, *self.event_shape)
        for layer in layers:
            layer.build(shape)
            shape = layer.compute_output_shape(shape)
        return math.prod(shape[1:])

    def features(self, layers: list[GatedConv2D], images) -> tf.Tensor:
        """Returns images [..., H, W, C] passed through the layers and flattened, [R, F]."""
        maps = tf.reshape(images, [-1, *self.event_shape])
        for layer in layers:
            maps = layer(maps)
        return tf.reshape(maps, [-1, math.prod(maps.shape[1:])])


@keras.saving.register_keras_serializable(package="tfvamp")
class ConvEncoder(_Convolutions):
    """q(z | x): five gated convolutions, flattened, then linear to N(loc, diag).

    Args:
      event_shape: shape of one image, (H, W, C).
      latent_dims: D of the output.
      hidden_units: not used here; all networks of a model take the same arguments.

    Call: images [..., H, W, C] -> `DiagonalGaussian`, batch shape [...], event shape [D].
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.stack, self.posterior = self.convolutions(ENCODER), self.gaussian("posterior")

    def build(self, input_shape):
        self.posterior.build((None, self.build_stack(self.stack)))

    def call(self, images) -> DiagonalGaussian:
        images = self.images_in(images)
        return with_leading(self.posterior(self.features(self.stack, images)), tf.shape(images)[:-3])


@keras.saving.register_keras_serializable(package="tfvamp")
class ConvJointEncoder(_Convolutions):
    """q(z1 | x, z2): five gated convolutions to F features, z2 - F, together 2F - 300 - N(loc, diag).

    Args:
      event_shape: shape of one image, (H, W, C).
      latent_dims: D, the same for z1 and z2.
      hidden_units: width of the gated layer after both.

    Call: images [B, H, W, C] and z2 [..., B, D] -> `DiagonalGaussian`, batch shape [..., B]. An
    image is encoded once, however many z2 it comes with.
    """

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.stack = self.convolutions(JOINT_ENCODER)
        shape: tuple = (None, *self.event_shape)
        for layer in self.stack:
            shape = layer.compute_output_shape(shape)
        self.num_features = math.prod(shape[1:])
        self.gated_z2 = self.gated("gated_z2", self.num_features)
        self.gated_joint, self.posterior = self.gated("gated_joint"), self.gaussian("posterior")

    def build(self, images_shape, z2_shape):
        self.build_stack(self.stack)
        self.gated_z2.build((None, self.latent_dims))
        self.gated_joint.build((None, 2 * self.num_features))
        self.posterior.build((None, self.hidden_units))

    def call(self, images, z2) -> DiagonalGaussian:
        images = self.images_in(images)
        leading = tf.shape(z2)[:-1]
        of_x = self.features(self.stack, images)  # [B, F]
        of_x = tf.broadcast_to(of_x, tf.concat([leading, [self.num_features]], axis=0))
        joint = tf.concat([rows(of_x, 1), self.gated_z2(rows(z2, 1))], axis=-1)
        return with_leading(self.posterior(self.gated_joint(joint)), leading)


class _ConvDecoder(_Convolutions, DecoderNetwork):
    """A decoder: each of L latents - 300, together L 300 - H W C, then as an image through four gated convolutions."""

    num_latents: ClassVar[int]

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.gated_latents = [self.gated(f"gated_{index}") for index in range(1, self.num_latents + 1)]
        self.gated_image = self.gated("gated_image", math.prod(self.event_shape))
        self.stack = self.convolutions(DECODER)
        self.heads = [
            initializers.conv1x1(self.event_shape[-1], DECODER[-1][0], name=head, dtype=self.dtype_policy)
            for head in self.likelihood.heads
        ]

    def build_layers(self) -> None:
        for layer in self.gated_latents:
            layer.build((None, self.latent_dims))
        self.gated_image.build((None, self.num_latents * self.hidden_units))
        self.build_stack(self.stack)
        for head in self.heads:
            head.build((None, *self.event_shape[:2], DECODER[-1][0]))

    def decode(self, *latents):
        joint = [layer(rows(z, 1)) for layer, z in zip(self.gated_latents, latents, strict=True)]
        maps = tf.reshape(self.gated_image(tf.concat(joint, axis=-1)), [-1, *self.event_shape])
        for layer in self.stack:
            maps = layer(maps)
        return self.images([head(maps) for head in self.heads], tf.shape(latents[0])[:-1])


@keras.saving.register_keras_serializable(package="tfvamp")
class ConvDecoder(_ConvDecoder):
    """p(x | z): z - 300 - H W C, then as an image through four gated convolutions.

    Args:
      likelihood: the layer that turns raw outputs [..., heads * H * W * C] into a distribution.
      event_shape: shape of one image, (H, W, C).
      latent_dims: D.
      hidden_units: width of the gated layer after the latents.

    Call: latents [..., D] -> distribution with batch shape [...] and event shape [H, W, C].
    """

    num_latents = 1

    def build(self, input_shape):
        self.build_layers()

    def call(self, latents):
        return self.decode(latents)


@keras.saving.register_keras_serializable(package="tfvamp")
class ConvJointDecoder(_ConvDecoder):
    """p(x | z1, z2): z2 - 300 and z1 - 300, together 600 - H W C, then as in `ConvDecoder`.

    The arguments are those of `ConvDecoder`, with the same D for both latents.

    Call: z2 [..., D] and z1 [..., D] -> distribution with batch shape [...] and event shape [H, W, C].
    """

    num_latents = 2

    def build(self, z2_shape, z1_shape):
        self.build_layers()

    def call(self, z2, z1):
        return self.decode(z2, z1)
