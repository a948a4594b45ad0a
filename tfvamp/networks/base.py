"""The base classes of encoders and decoders."""

from __future__ import annotations

import math
from collections.abc import Sequence

import keras
import tensorflow as tf

from tfvamp.config import TrainConfig
from tfvamp.layers.distribution_layer import DistributionLayer
from tfvamp.layers.gated import GatedDense
from tfvamp.layers.gaussian import DiagonalGaussian, GaussianPosterior
from tfvamp.layers.likelihoods import LikelihoodLayer
from tfvamp.networks.images import as_images


class Network(DistributionLayer):
    """A network of gated layers from images or latents to a distribution. It multiplies rows [R, F].

    Args:
      event_shape: shape of one image, (H, W, C).
      latent_dims: D, number of latents of each stochastic layer.
      hidden_units: width of the dense gated layers.
    """

    def __init__(
        self,
        event_shape,
        latent_dims: int = TrainConfig.latent_dims,
        hidden_units: int = TrainConfig.hidden_units,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.check_inputs = False  # whether pixels must lie in [0, 1]; whole models set it
        self.event_shape = tuple(int(size) for size in event_shape)
        self.latent_dims, self.hidden_units = int(latent_dims), int(hidden_units)

    def images_in(self, images) -> tf.Tensor:
        """Returns images [..., H, W, C] in the network's dtype; values are checked outside graphs.

        Raises:
          UsageError: see `tfvamp.networks.images.as_images`.
        """
        return as_images(
            images, self.event_shape, self.check_inputs and tf.executing_eagerly(), self.compute_dtype
        )

    def gated(self, name: str, units: int | None = None) -> GatedDense:
        return GatedDense(units or self.hidden_units, name=name, dtype=self.dtype_policy)

    def gaussian(self, name: str) -> GaussianPosterior:
        return GaussianPosterior(self.latent_dims, name=name, dtype=self.dtype_policy)

    def get_config(self):
        config = {
            "event_shape": self.event_shape,
            "latent_dims": self.latent_dims,
            "hidden_units": self.hidden_units,
        }
        return {**super().get_config(), **config}


class DecoderNetwork(Network):
    """A network that ends in p(x | z).

    Args:
      likelihood: the layer that turns raw outputs [..., heads * H * W * C] into a distribution.
    """

    def __init__(self, likelihood: LikelihoodLayer, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.likelihood = likelihood

    def images(self, heads: Sequence[tf.Tensor], leading):
        """Returns p(x | .) with batch shape `leading`, given the outputs [R, ...] of the heads."""
        shape = tf.concat([leading, [math.prod(self.event_shape)]], axis=0)
        return self.likelihood(tf.concat([tf.reshape(head, shape) for head in heads], axis=-1))

    def get_config(self):
        return {**super().get_config(), "likelihood": keras.saving.serialize_keras_object(self.likelihood)}

    @classmethod
    def from_config(cls, config):
        likelihood = keras.saving.deserialize_keras_object(config.pop("likelihood"))
        return cls(likelihood=likelihood, **config)


def rows(values, event_rank: int) -> tf.Tensor:
    """Returns [..., *event] reshaped to [R, F]."""
    values = tf.convert_to_tensor(values)
    return tf.reshape(values, [-1, math.prod(values.shape[values.shape.rank - event_rank :])])


def with_leading(flat: DiagonalGaussian, leading) -> DiagonalGaussian:
    """Returns a batch of [R] normals with the batch shape `leading`."""
    shape = tf.concat([leading, [flat.event_shape[0]]], axis=0)
    return DiagonalGaussian(tf.reshape(flat.loc, shape), tf.reshape(flat.log_variance, shape))
