"""The variational auto-encoder with one stochastic layer."""

from __future__ import annotations

import keras

from tfvamp.models.base import LatentVariableModel
from tfvamp.networks.mlp import MLPDecoder, MLPEncoder


@keras.saving.register_keras_serializable(package="tfvamp")
class VAE(LatentVariableModel):
    """One stochastic layer, the paper's gated MLPs, any prior.

    `encoder(x)` is q(z | x), `decoder(z)` is p(x | z), `prior()` is p(z), each a `tfd`. The arguments are those of
    `LatentVariableModel`.
    """

    def make_networks(self, likelihood):
        self.encoder = MLPEncoder(self.event_shape, self.latent_dims, self.hidden_units, name="encoder")
        self.decoder = MLPDecoder(
            likelihood, self.event_shape, self.latent_dims, self.hidden_units, name="decoder"
        )
        self.encoder.build((None, *self.event_shape))
        self.decoder.build((None, self.latent_dims))
