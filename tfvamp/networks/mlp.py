"""The paper's fully connected networks, of gated layers."""

from __future__ import annotations

import math

import keras
import tensorflow as tf

from tfvamp.layers import initializers
from tfvamp.layers.distribution_layer import DistributionLayer
from tfvamp.layers.gated import GatedDense
from tfvamp.layers.gaussian import DiagonalGaussian, GaussianPosterior


class _MLP(DistributionLayer):
    """What the networks share: their sizes. Products are of rows [R, F], never one a leading index.

    Args:
      event_shape: one image, (H, W, C).
      latent_dims: D, of each stochastic layer.
      hidden_units: width of the gated layers.
    """

    def __init__(self, event_shape, latent_dims: int = 40, hidden_units: int = 300, **kwargs):
        super().__init__(**kwargs)
        self.event_shape = tuple(int(size) for size in event_shape)
        self.latent_dims, self.hidden_units = int(latent_dims), int(hidden_units)

    def gated(self, name: str) -> GatedDense:
        return GatedDense(self.hidden_units, name=name, dtype=self.dtype_policy)

    def gaussian(self, name: str) -> GaussianPosterior:
        return GaussianPosterior(self.latent_dims, name=name, dtype=self.dtype_policy)

    def get_config(self):
        config = {
            "event_shape": self.event_shape,
            "latent_dims": self.latent_dims,
            "hidden_units": self.hidden_units,
        }
        return {**super().get_config(), **config}


class _MLPDecoder(_MLP):
    """A network that ends in a likelihood of images.

    Args:
      likelihood: the layer that turns raw outputs [..., H * W * C] into a distribution.
    """

    def __init__(
        self,
        likelihood: keras.layers.Layer,
        event_shape,
        latent_dims: int = 40,
        hidden_units: int = 300,
        **kwargs,
    ):
        super().__init__(event_shape, latent_dims, hidden_units, **kwargs)
        self.likelihood = likelihood
        self.pixels = initializers.dense(
            math.prod(self.event_shape), self.hidden_units, name="pixels", dtype=self.dtype_policy
        )

    def images(self, features, leading):
        """p(x | .) with batch shape `leading` from features [R, hidden_units]."""
        pixels = self.pixels(features)
        return self.likelihood(tf.reshape(pixels, tf.concat([leading, [pixels.shape[-1]]], axis=0)))

    def get_config(self):
        return {**super().get_config(), "likelihood": keras.saving.serialize_keras_object(self.likelihood)}

    @classmethod
    def from_config(cls, config):
        likelihood = keras.saving.deserialize_keras_object(config.pop("likelihood"))
        return cls(likelihood=likelihood, **config)


@keras.saving.register_keras_serializable(package="tfvamp")
class MLPEncoder(_MLP):
    """x - 300 - 300 - N(loc, diag): q(z | x), or p(z1 | z2), Tomczak and Welling (2018), section 5.

    Args:
      event_shape: of the input: one image, (H, W, C); or (D,) for latents.
      latent_dims: D of the output.
      hidden_units: width of the two gated layers.

    Call: inputs [..., *event] -> `DiagonalGaussian`, batch shape [...], event shape [D].
    """

    def __init__(self, event_shape, latent_dims: int = 40, hidden_units: int = 300, **kwargs):
        super().__init__(event_shape, latent_dims, hidden_units, **kwargs)
        self.gated_1, self.gated_2 = self.gated("gated_1"), self.gated("gated_2")
        self.posterior = self.gaussian("posterior")

    def build(self, input_shape):
        self.gated_1.build((None, math.prod(self.event_shape)))
        self.gated_2.build((None, self.hidden_units))
        self.posterior.build((None, self.hidden_units))

    def call(self, inputs) -> DiagonalGaussian:
        features = self.gated_2(self.gated_1(_rows(inputs, len(self.event_shape))))
        return _with_leading(self.posterior(features), tf.shape(inputs)[: -len(self.event_shape)])


@keras.saving.register_keras_serializable(package="tfvamp")
class MLPJointEncoder(_MLP):
    """q(z1 | x, z2): x - 300 and z2 - 300, together 600 - 300 - N(loc, diag).

    Args:
      event_shape: one image, (H, W, C).
      latent_dims: D, of z1 and of z2.
      hidden_units: width of the three gated layers.

    Call: images [B, H, W, C] and z2 [..., B, D] -> `DiagonalGaussian`, batch shape [..., B]. An image is encoded
    once, however many z2 it comes with.
    """

    def __init__(self, event_shape, latent_dims: int = 40, hidden_units: int = 300, **kwargs):
        super().__init__(event_shape, latent_dims, hidden_units, **kwargs)
        self.gated_x, self.gated_z2 = self.gated("gated_x"), self.gated("gated_z2")
        self.gated_joint, self.posterior = self.gated("gated_joint"), self.gaussian("posterior")

    def build(self, images_shape, z2_shape):
        self.gated_x.build((None, math.prod(self.event_shape)))
        self.gated_z2.build((None, self.latent_dims))
        self.gated_joint.build((None, 2 * self.hidden_units))
        self.posterior.build((None, self.hidden_units))

    def call(self, images, z2) -> DiagonalGaussian:
        leading = tf.shape(z2)[:-1]
        of_x = self.gated_x(_rows(images, len(self.event_shape)))  # [B, hidden_units]
        of_x = tf.broadcast_to(of_x, tf.concat([leading, [self.hidden_units]], axis=0))
        joint = tf.concat([_rows(of_x, 1), self.gated_z2(_rows(z2, 1))], axis=-1)
        return _with_leading(self.posterior(self.gated_joint(joint)), leading)


@keras.saving.register_keras_serializable(package="tfvamp")
class MLPDecoder(_MLPDecoder):
    """p(x | z): z - 300 - 300 - image, Tomczak and Welling (2018), section 5.

    Args:
      likelihood: the layer that turns raw outputs [..., H * W * C] into a distribution.
      event_shape: one image, (H, W, C).
      latent_dims: D.
      hidden_units: width of the two gated layers.

    Call: latents [..., D] -> distribution with batch shape [...] and event shape [H, W, C].
    """

    def __init__(self, likelihood, event_shape, latent_dims: int = 40, hidden_units: int = 300, **kwargs):
        super().__init__(likelihood, event_shape, latent_dims, hidden_units, **kwargs)
        self.gated_1, self.gated_2 = self.gated("gated_1"), self.gated("gated_2")

    def build(self, input_shape):
        self.gated_1.build((None, self.latent_dims))
        self.gated_2.build((None, self.hidden_units))
        self.pixels.build((None, self.hidden_units))

    def call(self, latents):
        features = self.gated_2(self.gated_1(_rows(latents, 1)))
        return self.images(features, tf.shape(latents)[:-1])


@keras.saving.register_keras_serializable(package="tfvamp")
class MLPJointDecoder(_MLPDecoder):
    """p(x | z1, z2): z1 - 300 and z2 - 300, together 600 - 300 - image.

    Args:
      likelihood: the layer that turns raw outputs [..., H * W * C] into a distribution.
      event_shape: one image, (H, W, C).
      latent_dims: D, of z1 and of z2.
      hidden_units: width of the three gated layers.

    Call: z2 [..., D] and z1 [..., D] -> distribution with batch shape [...] and event shape [H, W, C].
    """

    def __init__(self, likelihood, event_shape, latent_dims: int = 40, hidden_units: int = 300, **kwargs):
        super().__init__(likelihood, event_shape, latent_dims, hidden_units, **kwargs)
        self.gated_z1, self.gated_z2 = self.gated("gated_z1"), self.gated("gated_z2")
        self.gated_joint = self.gated("gated_joint")

    def build(self, z2_shape, z1_shape):
        self.gated_z1.build((None, self.latent_dims))
        self.gated_z2.build((None, self.latent_dims))
        self.gated_joint.build((None, 2 * self.hidden_units))
        self.pixels.build((None, self.hidden_units))

    def call(self, z2, z1):
        joint = tf.concat([self.gated_z1(_rows(z1, 1)), self.gated_z2(_rows(z2, 1))], axis=-1)
        return self.images(self.gated_joint(joint), tf.shape(z1)[:-1])


def _rows(values, event_rank: int) -> tf.Tensor:
    """[..., *event] as [R, F]."""
    values = tf.convert_to_tensor(values)
    return tf.reshape(values, [-1, math.prod(values.shape[values.shape.rank - event_rank :])])


def _with_leading(rows: DiagonalGaussian, leading) -> DiagonalGaussian:
    """A batch of [R] normals as one of `leading`."""
    shape = tf.concat([leading, [rows.event_shape[0]]], axis=0)
    return DiagonalGaussian(tf.reshape(rows.loc, shape), tf.reshape(rows.log_variance, shape))
