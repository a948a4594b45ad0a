"""The hierarchical variational auto-encoder, with two stochastic layers."""

from __future__ import annotations

import keras

from tfvamp import objectives
from tfvamp.models.base import LatentVariableModel
from tfvamp.networks.mlp import MLPEncoder, MLPJointDecoder, MLPJointEncoder


@keras.saving.register_keras_serializable(package="tfvamp")
class HVAE(LatentVariableModel):
    """Two stochastic layers, the paper's gated MLPs: Tomczak and Welling (2018), equations 10-12.

    q(z2 | x) q(z1 | x, z2) and p(x | z1, z2) p(z1 | z2) p(z2); the prior is on z2. `encoder(x)` is q(z2 | x),
    `encoder_z1(x, z2)`, `prior_z1(z2)`, `decoder(z2, z1)`, `prior()`, each a `tfd`. The arguments are those
    of `LatentVariableModel`.
    """

    latent_names = ("z2", "z1")

    def make_networks(self, likelihood):
        sizes = {"latent_dims": self.latent_dims, "hidden_units": self.hidden_units}
        self.encoder = MLPEncoder(self.event_shape, **sizes, name="encoder")
        self.encoder_z1 = MLPJointEncoder(self.event_shape, **sizes, name="encoder_z1")
        self.prior_z1 = MLPEncoder((self.latent_dims,), **sizes, name="prior_z1")
        self.decoder = MLPJointDecoder(likelihood, self.event_shape, **sizes, name="decoder")
        latents = (None, self.latent_dims)
        self.encoder.build((None, *self.event_shape))
        self.encoder_z1.build((None, *self.event_shape), latents)
        self.prior_z1.build(latents)
        self.decoder.build(latents, latents)

    @property
    def levels(self):
        return (objectives.Level("z1", self.latent_dims, self.encoder_z1, self.prior_z1),)
