"""The variational auto-encoder with one stochastic layer."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import keras
import numpy as np
import tensorflow as tf

from tfvamp import objectives, seeds
from tfvamp.errors import UsageError, check_choice
from tfvamp.layers.likelihoods import PROBABILITY_CLIP, BernoulliLikelihood
from tfvamp.layers.priors import (
    MixtureOfGaussiansPriorLayer,
    PriorLayer,
    StandardNormalPriorLayer,
    VampPriorLayer,
)
from tfvamp.networks.mlp import MLPDecoder, MLPEncoder

PRIORS = ("standard", "mog", "vamp", "vamp-data", "vamp-weighted")
LIKELIHOODS = ("bernoulli", "bernoulli-clipped")


@keras.saving.register_keras_serializable(package="tfvamp")
class VAE(keras.Model):
    """One stochastic layer, the paper's gated MLPs, any prior.

    `encoder(x)` is q(z | x), `decoder(z)` is p(x | z), `prior()` is p(z), each a `tfd`.

    Args:
      event_shape: one image, (H, W, C).
      latent_dims: D.
      hidden_units: width of the hidden layers.
      prior: "standard", "mog", "vamp", "vamp-data" or "vamp-weighted"; or a function from the
        encoder to a prior layer.
      num_components: K, for the mixtures.
      pseudo_inputs: initial pseudo-inputs of the VampPriors, an array [K, H, W, C] or a Keras
        initializer; "vamp-data" needs the array.
      likelihood: "bernoulli", or "bernoulli-clipped" with probabilities in [1e-5, 1 - 1e-5].
      seed: of the noise in training, with the optimiser's iteration.
    """

    def __init__(
        self,
        event_shape: Sequence[int] = (28, 28, 1),
        latent_dims: int = 40,
        hidden_units: int = 300,
        prior: str | Callable[[keras.layers.Layer], PriorLayer] = "vamp",
        num_components: int = 500,
        pseudo_inputs: np.ndarray | keras.initializers.Initializer | None = None,
        likelihood: str = "bernoulli",
        seed: int = 0,
        **kwargs,
    ):
        super().__init__(**kwargs)
        check_choice("likelihood", likelihood, LIKELIHOODS)
        self.event_shape = tuple(int(size) for size in event_shape)
        self.seed = int(seed)
        self.settings = {
            "latent_dims": latent_dims,
            "hidden_units": hidden_units,
            "prior": prior,
            "num_components": num_components,
            "likelihood": likelihood,
        }
        clip = PROBABILITY_CLIP if likelihood == "bernoulli-clipped" else None
        self.encoder = MLPEncoder(self.event_shape, latent_dims, hidden_units, name="encoder")
        self.decoder = MLPDecoder(
            BernoulliLikelihood(self.event_shape, clip=clip),
            self.event_shape,
            latent_dims,
            hidden_units,
            name="decoder",
        )
        self.encoder.build((None, *self.event_shape))
        self.decoder.build((None, latent_dims))
        if callable(prior):
            self.prior = prior(self.encoder)
        else:
            self.prior = build_prior(
                prior, self.encoder, self.event_shape, latent_dims, num_components, pseudo_inputs
            )
        self.beta = self.add_weight(name="beta", shape=(), initializer="ones", trainable=False)
        self.trackers = [keras.metrics.Mean(name=name) for name in ("loss", "elbo", "reconstruction", "kl")]
        self.build((None, *self.event_shape))

    def build(self, input_shape):
        self.built = True

    @property
    def metrics(self):
        """What `fit` resets and shows: ours alone, without the empty loss that `compile` adds."""
        return self.trackers

    def call(self, images):
        """Reconstructions [B, H, W, C]: the mean of p(x | z) at the posterior's mean."""
        return self.decoder(self.encoder(images).mean()).mean()

    def elbo(self, images, seed, beta: float | tf.Tensor = 1.0, num_samples: int = 1) -> objectives.Elbo:
        """The evidence lower bound of each image and its parts, [B], in nats."""
        posterior = self.encoder(images)
        return objectives.elbo(posterior, self.decoder, self.prior(), images, seed, beta, num_samples)

    def train_step(self, data):
        """One step of the optimiser on images [B, H, W, C]; the running means of the epoch."""
        images = _images(data)
        seed = seeds.fold_in(seeds.stateless(self.seed, "train"), self.optimizer.iterations)
        with tf.GradientTape() as tape:
            bound = self.elbo(images, seeds.of_replica(seed), self.beta)
            loss = -tf.reduce_mean(bound.elbo) / tf.distribute.get_strategy().num_replicas_in_sync
            scaled_loss = self.optimizer.scale_loss(loss)
        variables = self.trainable_variables
        gradients = tape.gradient(scaled_loss, variables)
        self.optimizer.apply_gradients(zip(gradients, variables, strict=True))
        return self._track(bound, self.beta)

    def test_step(self, data):
        """The one-sample bound at beta = 1; its noise depends on the iteration and the place in the pass."""
        seed = seeds.fold_in(seeds.stateless(self.seed, "validate"), self.optimizer.iterations)
        seed = seeds.fold_in(seed, self.trackers[0].count)
        return self._track(self.elbo(_images(data), seeds.of_replica(seed)), 1.0)

    def warm_up(self, fraction: float) -> None:
        """Sets beta, whose final value is 1."""
        self.beta.assign(fraction)

    def _track(self, bound: objectives.Elbo, beta) -> dict[str, tf.Tensor]:
        """The means so far over examples: of the loss, and of the bound at beta = 1 and its parts."""
        elbo = bound.reconstruction - bound.kl
        values = (beta * bound.kl - bound.reconstruction, elbo, bound.reconstruction, bound.kl)
        for tracker, value in zip(self.trackers, values, strict=True):
            tracker.update_state(value)
        return {tracker.name: tracker.result() for tracker in self.trackers}

    def sample(
        self, n: int, seed: int | tf.Tensor, component: int | None = None, draw: bool = False
    ) -> tf.Tensor:
        """Images [n, H, W, C] generated from the prior.

        Args:
          n: how many.
          seed: the same seed gives the same images.
          component: generate from this component of the prior alone (for a VampPrior, what
            one pseudo-input stands for).
          draw: draw the pixels; otherwise the images are the means of p(x | z).

        Raises:
          UsageError: n below 1, or a component that the prior does not have.
        """
        if n < 1:
            raise UsageError(f"the number of samples must be at least 1; got {n}")
        seed = seeds.as_seed(seed)
        if component is None:
            z = self.prior.sample(n, seeds.fold_in_name(seed, "latents"))
        else:
            components = self.prior.components()
            count = components.batch_shape[0]
            if not 0 <= component < count:
                raise UsageError(f"the prior has components 0 to {count - 1}; got {component}")
            z = components[component].sample(n, seed=seeds.fold_in_name(seed, "latents"))
        likelihood = self.decoder(z)
        return likelihood.sample(seed=seeds.fold_in_name(seed, "pixels")) if draw else likelihood.mean()

    def get_config(self):
        if callable(self.settings["prior"]):
            raise TypeError(
                "a VAE with a prior of your own has no config: save its weights, and build it in code"
            )
        return {**super().get_config(), "event_shape": self.event_shape, "seed": self.seed, **self.settings}

    @classmethod
    def from_config(cls, config):
        if config["prior"] == "vamp-data":  # its images come with the weights
            config = {**config, "pseudo_inputs": keras.initializers.Zeros()}
        return cls(**config)


def _images(data) -> tf.Tensor:
    """The images of what `fit` hands to a step; targets are not needed, and weights not known.

    Raises:
      ValueError: there are sample weights.
    """
    images, _, sample_weight = keras.utils.unpack_x_y_sample_weight(data)
    if sample_weight is not None:
        raise ValueError(
            "the models of tfvamp take no sample_weight and no class_weight: repeat images instead"
        )
    return images


def build_prior(
    name: str,
    encoder: keras.layers.Layer,
    event_shape: Sequence[int],
    latent_dims: int,
    num_components: int,
    pseudo_inputs: np.ndarray | keras.initializers.Initializer | None = None,
) -> PriorLayer:
    """The prior layer of that name.

    Raises:
      UsageError: the name is unknown, or K below 1.
    """
    check_choice("prior", name, PRIORS)
    if name != "standard" and num_components < 1:
        raise UsageError(f"the number of components K must be at least 1; got {num_components}")
    if name == "vamp-data" and pseudo_inputs is None:
        raise UsageError("the prior vamp-data needs pseudo_inputs: K training images, [K, H, W, C]")
    if name == "standard":
        return StandardNormalPriorLayer(latent_dims, name="prior")
    if name == "mog":
        return MixtureOfGaussiansPriorLayer(num_components, latent_dims, name="prior")
    return VampPriorLayer(
        encoder,
        num_components,
        event_shape=tuple(event_shape),
        initial=pseudo_inputs,
        weighted=name == "vamp-weighted",
        trainable=name != "vamp-data",
        name="prior",
    )
