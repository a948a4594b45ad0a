"""Variational auto-encoders with one stochastic layer."""

from __future__ import annotations

from typing import ClassVar

import keras

from tfvamp.models.base import LatentVariableModel
from tfvamp.networks import conv
from tfvamp.networks.conv import ConvDecoder, ConvEncoder
from tfvamp.networks.mlp import MLPDecoder, MLPEncoder


class _OneLayer(LatentVariableModel):
    """A model in which `encoder(x)` is q(z | x), `decoder(z)` is p(x | z), and `prior()` is p(z)."""

    encoder_network: ClassVar[type]
    decoder_network: ClassVar[type]

    def make_networks(self, likelihood):
        sizes = {"latent_dims": self.latent_dims, "hidden_units": self.hidden_units}
        self.encoder = self.encoder_network(self.event_shape, **sizes, name="encoder")
        self.decoder = self.decoder_network(
            likelihood, self.event_shape, **self.decoder_sizes, name="decoder"
        )
        self.encoder.build((None, *self.event_shape))
        self.decoder.build((None, self.latent_dims))


@keras.saving.register_keras_serializable(package="tfvamp")
class VAE(_OneLayer):
    """A VAE with one stochastic layer, the paper's gated MLPs, and any prior.

    `encoder(x)` is q(z | x), `decoder(z)` is p(x | z), and `prior()` is p(z); each is a `tfd`
    distribution. The arguments are those of `LatentVariableModel`.

    >>> model = VAE(event_shape=(8, 8, 1), latent_dims=2, prior="vamp", components=10)
    >>> model.sample(3, seed=7).shape
    TensorShape([3, 8, 8, 1])
    """

    dense = True
    encoder_network, decoder_network = MLPEncoder, MLPDecoder


@keras.saving.register_keras_serializable(package="tfvamp")
class ConvVAE(_OneLayer):
    """A VAE with one stochastic layer and the gated convolutions of the paper's convHVAE; otherwise like `VAE`.

    It is not a model of the paper.

    >>> ConvVAE(event_shape=(16, 16, 3), latent_dims=2, likelihood="logistic", components=10).sample(2, seed=7).shape
    TensorShape([2, 16, 16, 3])
    """

    # 2: convolutions are padded as in the paper's code
    networks_version = 2
    encoder_network, decoder_network = ConvEncoder, ConvDecoder
    features_per_pixel, faster_with_xla = conv.FEATURES_PER_PIXEL, False
