"""Hierarchical variational auto-encoders, with two or more stochastic layers."""

from __future__ import annotations

from collections.abc import Callable
from typing import ClassVar

import keras

from tfvamp import objectives
from tfvamp.models.base import LatentVariableModel
from tfvamp.networks import conv, pixelcnn
from tfvamp.networks.base import Network
from tfvamp.networks.conv import ConvEncoder, ConvJointDecoder, ConvJointEncoder
from tfvamp.networks.levels import AmortizedVampPrior
from tfvamp.networks.mlp import MLPEncoder, MLPJointDecoder, MLPJointEncoder
from tfvamp.networks.pixelcnn import PixelDecoder


class _Hierarchical(LatentVariableModel):
    """A model with the prior on its top layer, z2: Tomczak and Welling (2018), equations 10-12.

    It has q(z2 | x) q(z1 | x, z2) and p(x | z1, z2) p(z1 | z2) p(z2). `encoder(x)` is q(z2 | x),
    `encoder_z1(x, z2)` is q(z1 | x, z2), `prior_z1(z2)` is p(z1 | z2), `decoder(z2, z1)` is p(x |
    z1, z2), and `prior()` is p(z2); each is a `tfd` distribution.
    """

    layer_counts = (2, 2)
    encoder_network: ClassVar[type]
    joint_encoder_network: ClassVar[type]
    decoder_network: ClassVar[type]

    def make_networks(self, likelihood):
        sizes = {"latent_dims": self.latent_dims, "hidden_units": self.hidden_units}
        below, latents = self.latent_names[1:], (None, self.latent_dims)
        own = below[-1:] if self.shared_levels else below  # the layers with networks of their own
        self.encoder = self.encoder_network(self.event_shape, **sizes, name="encoder")
        for name in own:
            encoder = self.joint_encoder_network(self.event_shape, **sizes, name=f"encoder_{name}")
            setattr(self, f"encoder_{name}", encoder)
            setattr(self, f"prior_{name}", self._prior_of_level(encoder, sizes, f"prior_{name}"))
        self.decoder = self.decoder_network(
            likelihood, self.event_shape, **self.decoder_sizes, **self._of_decoder(), name="decoder"
        )
        self.encoder.build((None, *self.event_shape))
        for name in own:
            getattr(self, f"encoder_{name}").build((None, *self.event_shape), latents)
            getattr(self, f"prior_{name}").build(latents)
        self.decoder.build(*[latents] * len(self.latent_names))

    def _of_decoder(self) -> dict[str, int]:
        """Returns the arguments of the decoder other than its sizes."""
        return {}

    def _prior_of_level(self, encoder: Network, sizes: dict[str, int], name: str) -> Network:
        """Returns the network of p(z_l | z_l+1) for the layer whose posteriors `encoder` gives."""
        builders: dict[str, Callable[[], Network]] = {
            "normal": lambda: MLPEncoder((self.latent_dims,), **sizes, name=name),
            "vamp": lambda: AmortizedVampPrior(encoder, self.event_shape, **sizes, name=name),
        }
        return builders[self.level_prior]()

    @property
    def levels(self):
        return tuple(
            objectives.Level(
                name, self.latent_dims, self._network("encoder", name), self._network("prior", name)
            )
            for name in self.latent_names[1:]
        )

    def _network(self, kind: str, name: str):
        return getattr(self, f"{kind}_{self.latent_names[-1] if self.shared_levels else name}")


@keras.saving.register_keras_serializable(package="tfvamp")
class HVAE(_Hierarchical):
    """A VAE with two or more stochastic layers, the paper's gated MLPs, and any prior on the top layer.

    `encoder(x)` is q(z2 | x), `encoder_z1(x, z2)` is q(z1 | x, z2), `prior_z1(z2)` is p(z1 | z2),
    `decoder(z2, z1)` is p(x | z1, z2), and `prior()` is p(z2); each is a `tfd` distribution:
    Tomczak and Welling (2018), equations 10-12. With `layers` = L, further layers follow in the
    same way: q(z_l | x, z_l+1) and p(z_l | z_l+1) for each l below L, and p(x | z_1 .. z_L). The
    arguments are those of `LatentVariableModel`.

    >>> model = HVAE(event_shape=(8, 8, 1), latent_dims=2, components=10, layers=3)
    >>> model.latent_names, model.sample(3, seed=7).shape
    (('z3', 'z2', 'z1'), TensorShape([3, 8, 8, 1]))
    """

    layer_counts, dense = (2, 8), True
    encoder_network, joint_encoder_network, decoder_network = MLPEncoder, MLPJointEncoder, MLPJointDecoder

    def _of_decoder(self):
        return {"num_latents": len(self.latent_names)}


@keras.saving.register_keras_serializable(package="tfvamp")
class ConvHVAE(_Hierarchical):
    """A VAE with two stochastic layers and the paper's gated convolutions; otherwise like `HVAE`.

    >>> ConvHVAE(event_shape=(16, 16, 1), latent_dims=2, components=10).sample(2, seed=7).shape
    TensorShape([2, 16, 16, 1])
    """

    # 2: convolutions are padded as in the paper's code
    networks_version = 2
    encoder_network, joint_encoder_network, decoder_network = ConvEncoder, ConvJointEncoder, ConvJointDecoder
    features_per_pixel, faster_with_xla = conv.FEATURES_PER_PIXEL, False


@keras.saving.register_keras_serializable(package="tfvamp")
class PixelHVAE(_Hierarchical):
    """A VAE with two stochastic layers and the paper's autoregressive decoder; otherwise like `HVAE`.

    p(x | z1, z2) has no mean in closed form: this model returns draws where other models return
    means.

    >>> model = PixelHVAE(event_shape=(6, 5, 1), latent_dims=2, components=10)
    >>> sorted(set(model.sample(4, seed=7).numpy().ravel().tolist()))
    [0.0, 1.0]
    """

    # 2: convolutions are padded as in the paper's code; heads of grey images have no bias
    networks_version = 2
    encoder_network, joint_encoder_network, decoder_network = ConvEncoder, ConvJointEncoder, PixelDecoder
    features_per_pixel, faster_with_xla = pixelcnn.FEATURES_PER_PIXEL, False
    couples_images, has_mean = True, False
