"""Hierarchical variational auto-encoders, with two stochastic layers."""

from __future__ import annotations

from typing import ClassVar

import keras

from tfvamp import objectives
from tfvamp.models.base import LatentVariableModel
from tfvamp.networks import conv, pixelcnn
from tfvamp.networks.conv import ConvEncoder, ConvJointDecoder, ConvJointEncoder
from tfvamp.networks.mlp import MLPEncoder, MLPJointDecoder, MLPJointEncoder
from tfvamp.networks.pixelcnn import PixelDecoder


class _TwoLayers(LatentVariableModel):
    """Tomczak and Welling (2018), equations 10-12: the prior is on z2.

    q(z2 | x) q(z1 | x, z2) and p(x | z1, z2) p(z1 | z2) p(z2). `encoder(x)` is q(z2 | x), `encoder_z1(x, z2)`,
    `prior_z1(z2)`, `decoder(z2, z1)`, `prior()`, each a `tfd`.
    """

    latent_names = ("z2", "z1")
    encoder_network: ClassVar[type]
    joint_encoder_network: ClassVar[type]
    decoder_network: ClassVar[type]

    def make_networks(self, likelihood):
        sizes = {"latent_dims": self.latent_dims, "hidden_units": self.hidden_units}
        self.encoder = self.encoder_network(self.event_shape, **sizes, name="encoder")
        self.encoder_z1 = self.joint_encoder_network(self.event_shape, **sizes, name="encoder_z1")
        self.prior_z1 = MLPEncoder((self.latent_dims,), **sizes, name="prior_z1")
        self.decoder = self.decoder_network(likelihood, self.event_shape, **sizes, name="decoder")
        latents = (None, self.latent_dims)
        self.encoder.build((None, *self.event_shape))
        self.encoder_z1.build((None, *self.event_shape), latents)
        self.prior_z1.build(latents)
        self.decoder.build(latents, latents)

    @property
    def levels(self):
        return (objectives.Level("z1", self.latent_dims, self.encoder_z1, self.prior_z1),)


@keras.saving.register_keras_serializable(package="tfvamp")
class HVAE(_TwoLayers):
    """Two stochastic layers, the paper's gated MLPs, any prior on z2.

    `encoder(x)` is q(z2 | x), `encoder_z1(x, z2)` q(z1 | x, z2), `prior_z1(z2)` p(z1 | z2), `decoder(z2, z1)`
    p(x | z1, z2), `prior()` p(z2), each a `tfd`: Tomczak and Welling (2018), equations 10-12. The arguments are
    those of `LatentVariableModel`.
    """

    encoder_network, joint_encoder_network, decoder_network = MLPEncoder, MLPJointEncoder, MLPJointDecoder


@keras.saving.register_keras_serializable(package="tfvamp")
class ConvHVAE(_TwoLayers):
    """Two stochastic layers, the paper's gated convolutions; else as `HVAE`."""

    # 2: convolutions are padded as in the paper's code
    networks_version = 2
    encoder_network, joint_encoder_network, decoder_network = ConvEncoder, ConvJointEncoder, ConvJointDecoder
    features_per_pixel, faster_with_xla = conv.FEATURES_PER_PIXEL, False


@keras.saving.register_keras_serializable(package="tfvamp")
class PixelHVAE(_TwoLayers):
    """Two stochastic layers and the paper's autoregressive decoder; else as `HVAE`.

    p(x | z1, z2) has no mean in closed form: wherever other models give means, it gives draws.
    """

    # 2: convolutions are padded as in the paper's code; heads of grey images have no bias
    networks_version = 2
    encoder_network, joint_encoder_network, decoder_network = ConvEncoder, ConvJointEncoder, PixelDecoder
    features_per_pixel, faster_with_xla = pixelcnn.FEATURES_PER_PIXEL, False
    couples_images, has_mean = True, False
